//! The table on real processes: found, gone, forked, and its bounds.

use super::*;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

const BOOT: Boot = Boot { unix_ns: 1_700_000_000_000_000_000, ticks_per_second: 100 };

/// A child that is ended and waited for with the test, whatever its outcome.
struct Running(Child);

impl Running {
    fn new(command: &mut Command) -> Self {
        let child = Running(command.spawn().unwrap());
        // `spawn` returns inside the exec: the new program's file is set by then, its arguments not yet.
        await_true("arguments of the child", || proc::read(child.0.id(), "cmdline", 16).is_ok_and(|args| args != b""));
        child
    }

    fn start_ns(&self) -> u64 {
        proc::stat(self.0.id()).unwrap().start_ticks * 10_000_000
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn await_true(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::yield_now();
    }
}

fn exec(pid: u32, start_ns: u64) -> Exec {
    Exec {
        pid,
        start_ns,
        ppid: std::process::id(),
        uid: 0,
        filename: b"/usr/bin/short-lived".to_vec(),
        args: b"short-lived\0--once\0".to_vec(),
        cgroup_id: 0,
    }
}

fn sleep() -> Running {
    Running::new(Command::new("/bin/sleep").arg("60"))
}

#[test]
fn a_live_process_is_read_from_proc() {
    let child = sleep();
    let table = Table::new(Boot::read());
    let process = table.lookup(child.0.id(), Some(child.start_ns()));
    let facts = &process.facts;
    assert_eq!(facts.pid, child.0.id());
    assert_eq!(facts.exe, std::fs::canonicalize("/bin/sleep").unwrap().to_str().unwrap());
    assert_eq!(facts.args, ["/bin/sleep", "60"]);
    assert_eq!(facts.parent_pid, Some(std::process::id()));
    assert_eq!(facts.parent_exe, std::env::current_exe().unwrap().to_str().unwrap());
    // SAFETY: takes no argument and cannot fail.
    assert_eq!(facts.uid, Some(unsafe { libc::geteuid() }));
    assert!(!facts.user.is_empty());
    let started: jiff::Timestamp = facts.started.parse().unwrap();
    assert!((jiff::Timestamp::now() - started).get_seconds().abs() < 60, "{started}");
    assert_eq!(process, table.lookup(child.0.id(), None));
}

#[test]
fn a_process_that_is_gone_keeps_its_exec_record() {
    let mut child = sleep();
    let (pid, start_ns) = (child.0.id(), child.start_ns());
    child.end();
    let table = Table::new(BOOT);
    table.exec(&exec(pid, start_ns));
    let facts = &table.lookup(pid, Some(start_ns)).facts;
    assert_eq!((facts.exe.as_str(), facts.uid), ("/usr/bin/short-lived", Some(0)));
    assert_eq!(facts.args, ["short-lived", "--once"]);
    assert_eq!(facts.parent_exe, std::env::current_exe().unwrap().to_str().unwrap());
    assert_eq!(facts.started, BOOT.rfc3339(start_ns / 10_000_000));
}

#[test]
fn a_process_that_was_read_keeps_its_facts_when_it_is_gone() {
    let mut child = sleep();
    let (pid, start_ns) = (child.0.id(), child.start_ns());
    let table = Table::new(BOOT);
    let before = table.lookup(pid, Some(start_ns));
    child.end();
    assert_eq!(table.lookup(pid, Some(start_ns)), before);
}

#[test]
fn another_start_time_is_another_process() {
    let child = sleep();
    let (pid, start_ns) = (child.0.id(), child.start_ns());
    let table = Table::new(BOOT);
    table.exec(&exec(pid, start_ns));
    let earlier = table.lookup(pid, Some(start_ns - 50_000_000));
    assert_eq!(earlier.facts.exe, UNKNOWN_EXE);
    assert_eq!((earlier.facts.uid, earlier.facts.args.len()), (None, 0));
    assert_eq!(earlier.start_ticks, Some(start_ns / 10_000_000 - 5));
    // The live one is not touched by that.
    assert_ne!(table.lookup(pid, Some(start_ns)).facts.exe, UNKNOWN_EXE);
}

#[test]
fn nothing_is_invented_for_what_was_never_seen() {
    let table = Table::new(BOOT);
    // No process has a pid above 2^22 (PID_MAX_LIMIT).
    let facts = &table.lookup(5_000_000, None).facts;
    assert_eq!((facts.pid, facts.exe.as_str(), facts.started.as_str()), (5_000_000, UNKNOWN_EXE, ""));
    assert_eq!((facts.uid, facts.parent_pid), (None, None));
    assert_eq!(table.lookup(0, Some(1)).facts.exe, UNKNOWN_EXE);
}

#[test]
fn an_exec_makes_it_be_read_again() {
    // The shell becomes another program when a line reaches it.
    let mut child = Running::new(
        Command::new("/bin/sh").args(["-c", "read line; exec /bin/sleep 60"]).stdin(std::process::Stdio::piped()),
    );
    let (pid, start_ns) = (child.0.id(), child.start_ns());
    let table = Table::new(BOOT);
    let shell = table.lookup(pid, Some(start_ns)).facts.exe.clone();
    assert_eq!(shell, std::fs::canonicalize("/bin/sh").unwrap().to_str().unwrap());

    std::io::Write::write_all(child.0.stdin.as_mut().unwrap(), b"go\n").unwrap();
    let sleep = std::fs::canonicalize("/bin/sleep").unwrap().to_str().unwrap().to_owned();
    await_true("the shell's exec", || proc::exe(pid).as_deref() == Some(sleep.as_str()));
    assert_eq!(table.lookup(pid, Some(start_ns)).facts.exe, shell, "facts hold until the exec is told");
    table.exec(&exec(pid, start_ns));
    assert_eq!(table.lookup(pid, Some(start_ns)).facts.exe, sleep);
}

#[test]
fn hostile_names_and_arguments_are_taken_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("a) S 1 1\n(b");
    std::fs::copy(std::fs::canonicalize("/bin/sleep").unwrap(), &program).unwrap();
    let child = Running::new(Command::new(&program).arg0("x\ny\u{1b}[31m").arg("60"));
    let table = Table::new(BOOT);
    let facts = &table.lookup(child.0.id(), Some(child.start_ns())).facts;
    assert_eq!(facts.exe, program.to_str().unwrap());
    assert_eq!(facts.args, ["x\ny\u{1b}[31m", "60"]);
    assert_eq!(facts.parent_pid, Some(std::process::id()));

    std::fs::remove_file(&program).unwrap();
    table.exec(&exec(child.0.id(), child.start_ns()));
    let facts = &table.lookup(child.0.id(), None).facts;
    assert_eq!(facts.exe, program.to_str().unwrap(), "no mark of a deleted file");
}

#[test]
fn a_zombie_has_the_name_of_its_exec() {
    let mut child = sleep();
    let (pid, start_ns) = (child.0.id(), child.start_ns());
    let table = Table::new(BOOT);
    table.exec(&exec(pid, start_ns));
    child.0.kill().unwrap();
    await_true("the child's end", || proc::exe(pid).is_none());
    let facts = &table.lookup(pid, Some(start_ns)).facts;
    assert_eq!(facts.exe, "/usr/bin/short-lived");
    assert_eq!(facts.args, ["short-lived", "--once"]);
}

#[test]
fn memory_is_bounded_and_the_recently_used_stay() {
    let table = Table::new(BOOT);
    let start = |pid: u32| u64::from(pid) * 10_000_000;
    let first = 10_000_000;
    // One shard, four times as many as it holds; the first is asked for now and then.
    for count in 0..4 * MAX_SLOTS as u32 {
        let pid = first + count * SHARDS as u32;
        table.exec(&exec(pid, start(pid)));
        if count % 100 == 0 {
            assert_eq!(table.lookup(first, Some(start(first))).facts.exe, "/usr/bin/short-lived");
        }
    }
    let shard = table.shard(first);
    assert!(shard.slots.len() <= MAX_SLOTS && shard.slots.len() >= MAX_SLOTS / 2, "{}", shard.slots.len());
    assert_eq!(shard.bytes, shard.slots.values().map(|slot| slot.bytes).sum::<usize>());
    drop(shard);

    for count in 0..MAX_SLOTS as u32 {
        let pid = first + count * SHARDS as u32;
        let mut record = exec(pid, start(pid));
        record.args = vec![b'x'; 1 << 20];
        table.exec(&record);
    }
    assert!(table.shard(first).bytes <= MAX_BYTES);
}

#[test]
fn threads_may_ask_and_tell_at_once() {
    let child = sleep();
    let (pid, start_ns) = (child.0.id(), child.start_ns());
    let table = Table::new(BOOT);
    let sleep = std::fs::canonicalize("/bin/sleep").unwrap().to_str().unwrap().to_owned();
    std::thread::scope(|scope| {
        scope.spawn(|| (0..200).for_each(|_| table.exec(&exec(pid, start_ns))));
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let exe = table.lookup(pid, Some(start_ns)).facts.exe.clone();
                    assert!(exe == sleep || exe == "/usr/bin/short-lived", "{exe}");
                }
            });
        }
    });
    assert_eq!(table.lookup(pid, Some(start_ns)).facts.exe, sleep);
}
