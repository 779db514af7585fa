//! What only several processes can show: a writer that is killed while it writes and another process reads,
//! and a writer whose disk fails. This program starts itself as the writer.

#[path = "it/common.rs"]
mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use archive::{Archive, Entry, Filter, Options, Reader};
use common::{SOON, event, now, sealed, until};

/// What kill -9 may cost.
const PROMISE: Duration = Duration::from_millis(500);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["write", dir, first] => write(Path::new(dir), first.parse().expect("a number")),
        ["fail", dir] => fail(Path::new(dir)),
        _ => {
            killed_writers_lose_at_most_the_last_500_ms();
            a_failing_disk_is_waited_for();
        }
    }
}

fn start(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(arguments);
    command
}

/// Child: appends about 2,000 transactions a second for ever, and says each on its standard output after it was
/// taken: number and time.
fn write(dir: &Path, first: u64) {
    let archive = Archive::open(dir, Options::default()).expect("the archive opens");
    let mut out = std::io::stdout().lock();
    for n in first.. {
        let size = if n % 500 == 0 { 400_000 } else { 600 };
        archive.append(Entry::Transaction(sealed(n, size))).expect("the queue has room");
        if n % 10 == 0 {
            archive.append(Entry::Connection(event(n))).expect("the queue has room");
        }
        writeln!(out, "{n} {}", now()).expect("somebody reads");
        std::thread::sleep(Duration::from_micros(400));
    }
}

fn killed_writers_lose_at_most_the_last_500_ms() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir_text = dir.path().to_str().expect("a plain path");
    let mut first = 0;
    let mut following: Option<(Reader, u64)> = None;
    for run in 0..5u64 {
        let mut child =
            start(&["write", dir_text, &first.to_string()]).stdout(Stdio::piped()).spawn().expect("a writer");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let said = std::thread::spawn(move || {
            let parse = |line: String| {
                let (n, time) = line.split_once(' ')?;
                Some((n.parse().ok()?, time.parse().ok()?))
            };
            lines.map_while(Result::ok).filter_map(parse).collect::<Vec<(u64, u64)>>()
        });
        // Meanwhile this process reads what comes, and every object.
        let mut seen = 0;
        until("what the writer writes", || {
            if following.is_none() {
                following = Reader::open(dir.path()).ok().map(|r| (r, 0));
            }
            let Some((reader, position)) = &mut following else { return false };
            for row in reader.after(*position, 500).expect("rows") {
                assert!(row.position > *position);
                *position = row.position;
                seen += 1;
                if seen % 10 == 0 {
                    assert!(reader.object(&row.record.digest).expect("an object").is_some());
                }
            }
            seen > 1500 + run * 333
        });
        // What was just seen is a fresh commit; each run dies at another moment between two commits.
        std::thread::sleep(Duration::from_millis(run * 45));
        let killed = now();
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
        let said = said.join().expect("its lines");
        let reader = Reader::open(dir.path()).expect("the archive can be read");
        let filter = Filter { limit: usize::MAX, ..Filter::default() };
        let mut kept: Vec<u64> = reader
            .find(&filter)
            .expect("rows")
            .iter()
            .map(|r| r.record.request_path.trim_start_matches("/items/").parse().expect("a number"))
            .collect();
        kept.reverse();
        let of_run: Vec<u64> = kept.iter().copied().filter(|n| *n >= first).collect();
        assert!(of_run.iter().copied().eq(first..first + of_run.len() as u64), "there is a hole");
        let last = first + of_run.len() as u64 - 1;
        let lost: Vec<_> = said.iter().filter(|(n, _)| *n > last).collect();
        let oldest = lost.first().map_or(Duration::ZERO, |(_, t)| Duration::from_nanos(killed.saturating_sub(*t)));
        println!("killed after {}: lost the last {} of {oldest:?}", of_run.len(), lost.len());
        assert!(oldest <= PROMISE, "what was taken {oldest:?} before the kill is lost");
        for n in of_run.iter().step_by(37) {
            let digest = sealed(*n, if n % 500 == 0 { 400_000 } else { 600 }).record.digest;
            assert!(reader.object(&digest).expect("an object").is_some(), "object {n} is missing");
        }
        let check: String = rusqlite::Connection::open(dir.path().join("archive.db"))
            .and_then(|c| c.query_row("PRAGMA integrity_check", [], |r| r.get(0)))
            .expect("a check");
        assert_eq!(check, "ok");
        first = last + 1;
    }
    println!("killed_writers_lose_at_most_the_last_500_ms: ok");
}

fn a_failing_disk_is_waited_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let status = start(&["fail", dir.path().to_str().expect("a plain path")]).status().expect("a writer");
    assert!(status.success(), "{status}");
    println!("a_failing_disk_is_waited_for: ok");
}

/// Child: no file of this process may grow beyond 1 MiB, which the archive sees as a disk that fails. Then it
/// may.
fn fail(dir: &Path) {
    limit_files(1 << 20);
    let archive =
        Archive::open(dir, Options { queue_bytes: 1 << 20, ..Options::default() }).expect("the archive opens");
    let mut taken = Vec::new();
    let mut n = 0;
    until("a failure and a refusal", || {
        n += 1;
        let s = sealed(n, 20_000);
        if archive.append(Entry::Transaction(s.clone())).is_ok() {
            taken.push(s);
        }
        let stats = archive.stats();
        stats.errors > 0 && stats.refused > 0
    });
    let stats = archive.stats();
    assert!(stats.last_error.is_some(), "{stats:?}");
    limit_files(libc::RLIM_INFINITY);
    assert!(archive.flush(SOON), "{:?}", archive.stats());
    let reader = Reader::open(dir).expect("the archive can be read");
    for s in &taken {
        assert_eq!(reader.object(&s.record.digest).expect("an object").as_ref(), Some(&s.bytes));
    }
    let stats = archive.close().expect("all is written");
    assert_eq!((stats.committed, stats.last_error), (taken.len() as u64, None));
}

/// Sets how large a file this process may write.
fn limit_files(bytes: u64) {
    // SAFETY: both calls read their arguments only; the handler is SIG_IGN, so a write beyond the limit fails
    // with EFBIG instead of ending the process.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
}
