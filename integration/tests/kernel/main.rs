//! What the capture promises, tried on the running kernel with the real `tapstack`: as root, one test after
//! the other (each starts its own `tapstack up`, and all see all traffic of the host).
//!
//! `cargo build && cargo test -p integration --test kernel [NAME]`. See README.md.

mod content_checks;
mod explain;
mod features;
mod hostile;
mod life;
mod overrun;
mod owners;
mod places;
mod programs;
mod secrets;
mod segments;
mod tls;
mod tls_binding;
mod tls_content;
mod tls_discovery;
mod tls_harm;
mod tls_programs;
mod tls_trees;
mod tls_unread;
mod tls_versions;
mod ways;

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// The path of the `peer` program.
const PEER: &str = env!("CARGO_BIN_EXE_peer");

/// Longest time that a test may take. Every wait inside is shorter; this is for what nobody thought of.
const LIMIT: Duration = Duration::from_secs(100);

type Test = (&'static str, fn() -> Result<()>);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Side by side they would slow each other down and see each other's traffic.
    arguments.test_threads = Some(1);
    let lists = [
        programs::TESTS,
        segments::TESTS,
        overrun::TESTS,
        owners::TESTS,
        places::TESTS,
        ways::TESTS,
        life::TESTS,
        features::TESTS,
        hostile::TESTS,
        secrets::TESTS,
        tls_programs::TESTS,
        tls_content::TESTS,
        tls_versions::TESTS,
        tls_binding::TESTS,
        tls_discovery::TESTS,
        tls_harm::TESTS,
        tls_unread::TESTS,
        tls_trees::TESTS,
        explain::TESTS,
    ];
    let cannot = cannot_run();
    if let (Some(why), false) = (&cannot, arguments.list) {
        eprintln!("skipped: {why}");
    }
    let trial = |&(name, test): &Test| {
        let (skip, why) = (cannot.is_some(), cannot.clone().unwrap_or_default());
        Trial::test(name, move || bounded(name, test)).with_ignored_flag(skip).with_kind(why)
    };
    let trials = lists.iter().copied().flatten().map(trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Why no test can run here. A missing package is a failure, not a reason to skip.
fn cannot_run() -> Option<String> {
    (!integration::sys::is_root()).then(|| "needs root".to_owned())
}

/// Runs a test; a whole process that hangs is ended, and with it all that it started.
fn bounded(name: &str, test: fn() -> Result<()>) -> Result<(), Failed> {
    let missing = integration::program::missing();
    if !missing.is_empty() {
        return Err(format!("packages are missing: apt-get install {}", missing.join(" ")).into());
    }
    let (done, over) = std::sync::mpsc::channel::<()>();
    let name = name.to_owned();
    let watch = std::thread::spawn(move || {
        if over.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name}: not at its end within {LIMIT:?}; giving up");
            std::process::exit(101);
        }
    });
    let result = test();
    drop(done);
    let _ = watch.join();
    result.map_err(|error| {
        // At once, not in a list at the end.
        eprintln!("\n{error:#}");
        Failed::without_message()
    })
}
