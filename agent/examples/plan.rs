//! Prints what would be probed in files: `cargo run -p agent --example plan -- [--no-return-probes] FILE…`.

use std::fs::File;
use std::time::Instant;

use agent::library::{Options, plan};

fn main() {
    let mut options = Options { return_probes: true };
    for path in std::env::args().skip(1) {
        if path == "--no-return-probes" {
            options.return_probes = false;
            continue;
        }
        let begin = Instant::now();
        let answer = File::open(&path).map(|file| plan(&file, options));
        let took = begin.elapsed();
        match answer {
            Ok(Ok(Some(plan))) => print!("{path}: {} {:?} in {took:?}\n{plan}", plan.library, plan.version),
            Ok(Ok(None)) => println!("{path}: none in {took:?}"),
            Ok(Err(error)) => println!("{path}: {error}"),
            Err(error) => println!("{path}: {error}"),
        }
    }
}
