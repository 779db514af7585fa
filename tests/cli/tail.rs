//! `tail`.

use std::{
    io::{BufRead as _, BufReader, Lines},
    path::Path,
    process::{Child, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use crate::{
    samples::{append, fill, open, sample},
    tapstack,
};

const SOON: Duration = Duration::from_secs(20);

/// A running `tail`; killed when the test ends early.
struct Tail {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    fn start(dir: &Path, arguments: &[&str]) -> Tail {
        let mut command = tapstack(dir, &[&["tail"][..], arguments].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        Tail { child, lines }
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("a line").expect("text")
    }

    /// Waits for its end; its exit code.
    fn end(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                return status.code();
            }
            assert!(begun.elapsed() < SOON, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn interrupt(&self) {
        // SAFETY: the process is this test's own child and not yet waited for, so the id is its.
        assert_eq!(unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGINT) }, 0);
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // It has ended already when the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn shows_the_last_lines_then_what_comes_and_ends_with_ctrl_c() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 30);
    let mut tail = Tail::start(dir.path(), &["-n", "2", "--json"]);
    assert!(tail.line().contains("/items/28"));
    assert!(tail.line().contains("/items/29"));
    let archive = open(dir.path());
    for n in 30..33 {
        append(&archive, sample(n));
        assert!(tail.line().contains(&format!("/items/{n}\"")));
    }
    tail.interrupt();
    assert_eq!(tail.end(), Some(0));
}

#[test]
fn shows_only_what_fits() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 8);
    let mut tail = Tail::start(dir.path(), &["--status", "5xx"]);
    assert!(tail.line().contains("/items/3"));
    assert!(tail.line().contains("/items/7"));
    let archive = open(dir.path());
    for n in 8..12 {
        append(&archive, sample(n));
    }
    assert!(tail.line().contains("/items/11"));
}

#[test]
fn waits_for_the_archive() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tail = Tail::start(&dir.path().join("later"), &["-n", "0"]);
    let mut said = String::new();
    BufReader::new(tail.child.stderr.as_mut().expect("its errors")).read_line(&mut said).expect("a line");
    assert!(said.contains("there is no archive in") && said.contains("tapstack up"), "{said}");
    let archive = open(&dir.path().join("later"));
    append(&archive, sample(0));
    assert!(tail.line().ends_with("/items/0"));
    tail.interrupt();
    assert_eq!(tail.end(), Some(0));
}

#[test]
fn goes_on_when_the_archive_is_begun_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 20);
    let mut tail = Tail::start(dir.path(), &["-n", "1"]);
    assert!(tail.line().ends_with("/items/19"));
    std::fs::remove_file(dir.path().join("archive.db")).expect("the file goes");
    let archive = open(dir.path());
    append(&archive, sample(77));
    assert!(tail.line().ends_with("/items/77"));
}

#[test]
fn ends_when_nobody_reads_any_more() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 3);
    let mut command = tapstack(dir.path(), &["tail"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    out.read_line(&mut first).expect("a line");
    drop(out);
    // Nothing more is captured: it notices all the same.
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
