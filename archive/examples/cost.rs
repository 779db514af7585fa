//! What a transaction costs in the archive: CPU time of the whole process and bytes on disk, for objects of
//! about 1 KB (level summary) and 2 KB (level full) at about 50, 200 and 1,000 in a commit.
//!
//! `cargo run --release -p archive --example cost [FOLDER]`; the folder should be on a real disk.
//! Transactions are made before the clock starts; what is measured is append, compression, SQLite, checkpoints
//! and the system time of all of them.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use archive::{Archive, Entry, Options, Reader};
use transaction::{
    Sealed, Transaction,
    object::{Body, Completeness, Headers, Metadata, Process, Request, Response, Timing},
    seal,
};

const COUNT: u64 = 100_000;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{COUNT} transactions each; CPU = user + system of the process");
    println!("object B  a commit  commits  CPU µs  (user  system)  disk B  file MB  wall s  get µs");
    for body in [0, 600] {
        for group in [50, 200, 1000] {
            measure(&base.join(format!("tapstack-cost-{}", std::process::id())), body, group)?;
        }
    }
    Ok(())
}

fn measure(dir: &Path, body: usize, group: u64) -> Result<(), Box<dyn Error>> {
    let all: Vec<Sealed> = (0..COUNT).map(|n| transaction(n, body)).collect();
    let size = all.iter().map(|s| s.bytes.len()).sum::<usize>() as u64 / COUNT;
    let digests: Vec<_> = all.iter().step_by(997).map(|s| s.record.digest).collect();
    let archive = Archive::open(dir, Options { max_bytes: 8 << 30, ..Options::default() })?;
    let (cpu, wall) = (cpu(), Instant::now());
    for (n, sealed) in (1..).zip(all) {
        archive.append(Entry::Transaction(sealed))?;
        if n % group == 0 && !archive.flush(Duration::from_mins(1)) {
            return Err("the archive is stuck".into());
        }
    }
    let stats = archive.close()?;
    let wall = wall.elapsed();
    let after = self::cpu();
    let micros = |t: Duration| t.as_secs_f64() * 1e6 / COUNT as f64;
    let (user, system) = (micros(after.0.saturating_sub(cpu.0)), micros(after.1.saturating_sub(cpu.1)));
    let file = fs::metadata(dir.join("archive.db"))?.len();
    let reader = Reader::open(dir)?;
    let begun = Instant::now();
    for digest in &digests {
        reader.object(digest)?.ok_or("an object is missing")?;
    }
    println!(
        "{size:>8}  {group:>8}  {:>7}  {:>6.2}  ({user:.2}  {system:.2})  {:>6}  {:>7.1}  {:>6.2}  {:>6.0}",
        stats.commits,
        user + system,
        file / COUNT,
        file as f64 / 1e6,
        wall.as_secs_f64(),
        begun.elapsed().as_secs_f64() * 1e6 / digests.len() as f64
    );
    fs::remove_dir_all(dir)?;
    Ok(())
}

/// Names in the bodies.
const WORDS: [&str; 12] = [
    "price", "weight", "stock", "rating", "height", "width", "delivery", "discount", "margin", "views", "orders",
    "returns",
];

/// A transaction as a small API's are; `body` bytes of JSON in the response.
fn transaction(n: u64, body: usize) -> Sealed {
    let text = |s: &str| s.to_owned();
    let level = if body == 0 { transaction::Level::Summary } else { transaction::Level::Full };
    let headers = [("Host", "api.example:8080"), ("User-Agent", "curl/7.88.1"), ("Accept", "*/*")];
    let headers = headers.map(|(n, v)| (text(n), text(v)));
    let mut json = format!(r#"{{"id":{n},"#);
    let mut seed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while json.len() < body {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let word = WORDS[(seed >> 8) as usize % WORDS.len()];
        let _ = write!(json, r#""{word}_{}":{{"value":{},"unit":"{word}"}},"#, json.len() / 100, seed >> 44);
    }
    let full = body > 0;
    let transaction = Transaction {
        metadata: Metadata {
            process_exe: text("/usr/bin/curl"),
            bytes_sent: 90,
            bytes_received: 170 + body as u64,
            request_id: transaction::id::id(&[b"r", &n.to_le_bytes()]),
            connection_id: transaction::id::id(&[b"c", &(n / 20).to_le_bytes()]),
            ..Metadata::default()
        },
        request: Some(Request {
            method: text("GET"),
            url: format!("http://api.example:8080/v1/items/{}?page=2", n % 5000),
            scheme: text("http"),
            path: format!("/v1/items/{}", n % 5000),
            authority: text("api.example:8080"),
            protocol: text("http1"),
            version: text("HTTP/1.1"),
            headers: if full { Headers(headers.to_vec()) } else { Headers::default() },
            ..Request::default()
        }),
        response: Some(Response {
            status: if n.is_multiple_of(50) { 404 } else { 200 },
            content_type: text("application/json"),
            body: Body(if full { json.into_bytes() } else { Vec::new() }),
            ..Response::default()
        }),
        exchange_id: transaction::id::id(&[b"x", &n.to_le_bytes()]),
        level,
        timing: Timing {
            total_ns: 900_000 + n * 7919 % 400_000,
            ttfb_ns: Some(700_000 + n * 104_729 % 200_000),
            ..Timing::default()
        },
        completeness: Completeness { complete: true, ..Completeness::default() },
        process: Process { pid: 1000 + (n % 20) as u32, exe: text("/usr/bin/curl"), ..Process::default() },
        ..Transaction::default()
    };
    seal(&transaction, 1_790_000_000_000_000_000 + n * 312_345)
}

/// User and system time of this process so far.
fn cpu() -> (Duration, Duration) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage writes a whole `rusage` to the place that it is given, which is large enough; a zeroed
    // one is valid should the call fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    (time(usage.ru_utime), time(usage.ru_stime))
}
