//! Start, own traffic, stop: one clear line when it cannot start, nothing captured of itself, nothing left
//! behind.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration::{
    http::Client,
    program::{self, Peer, free_port},
    tapstack::{Attached, Record, Tapstack, up},
};

use crate::{PEER, Test, content_checks::exactly};

pub(crate) const TESTS: &[Test] = &[
    ("own_traffic_is_not_captured", own_traffic),
    ("a_second_up_on_the_same_folder_names_the_first", second),
    ("a_port_in_use_is_said", port_in_use),
    ("an_unwritable_folder_is_said", unwritable),
    ("not_being_root_is_said", not_root),
    ("ready_in_less_than_a_second", ready),
    ("sigterm_and_sigint_leave_nothing_attached", clean_stop),
    ("a_stop_under_load_is_clean_and_in_time", || stop_under_load(Path::new("/dev/shm"))),
    ("a_stop_under_load_detaches_in_time_whatever_the_disk_does", detach_under_load),
    ("sigkill_leaves_nothing_attached", killed),
];

fn own_traffic() -> Result<()> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let mut tapstack = Tapstack::start()?;
    let curl =
        |arguments: &[&str]| program::output(program::command("curl").args(["-sS", "-o", "/dev/null"]).args(arguments));
    for address in [tapstack.listen, tapstack.status] {
        for path in ["/", "/readyz", "/metrics", "/own"] {
            curl(&[&format!("http://{address}{path}")])?;
        }
    }
    let base = format!("http://{}", server.address);
    curl(&["-A", "tapstack/0.1.0", &format!("{base}/own/agent/bytes/1/10")])?;
    curl(&["-A", "mytapstack/0.1.0", &format!("{base}/other/agent/bytes/1/10")])?;
    // The last was captured, so everything before it is through as well.
    tapstack.both("/other/agent/bytes/1/10")?;
    let ports = [tapstack.listen.port(), tapstack.status.port()];
    ensure!(tapstack.metric("own_exchanges")? >= 1, "what is dropped is counted");
    exactly(&mut tapstack, "/own", 0)?;
    for record in tapstack.find("")? {
        let host = record.text("request_host");
        ensure!(!ports.iter().any(|p| host.ends_with(&format!(":{p}"))), "captured itself: {:?}", record.0);
    }
    Ok(())
}

/// One line on standard error that has all these words, an exit code, and nothing left attached.
fn refused(command: &mut Command, words: &[&str], before: &Attached) -> Result<()> {
    let Output { status, stderr, stdout } = program::outcome(command, Duration::from_secs(20))?;
    let said = String::from_utf8_lossy(&stderr).trim().to_owned();
    ensure!(!status.success() && status.code().is_some(), "an exit code that is not 0: {status}, said {said:?}");
    ensure!(said.lines().count() == 1, "one line: {said:?}");
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in {said:?}");
    }
    ensure!(stdout.is_empty(), "said that it runs: {}", String::from_utf8_lossy(&stdout));
    before.nothing_left()
}

/// `tapstack up` on this folder and on free ports.
fn another(data: &Path) -> Result<Command> {
    up(data, ([127, 0, 0, 1], free_port()?).into(), ([127, 0, 0, 1], free_port()?).into())
}

fn second() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    let (before, pid) = (Attached::now()?, tapstack.pid()?.to_string());
    let data = tapstack.data();
    refused(&mut another(&data)?, &[&pid, &data.display().to_string()], &before)?;
    ensure!(tapstack.alive()?, "the first one ended");
    tapstack.stop(libc::SIGTERM).map(drop)
}

fn port_in_use() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let before = Attached::now()?;
    let data = folder.path().join("data");
    let free = ([127, 0, 0, 1], free_port()?).into();
    refused(&mut up(&data, address, free)?, &[&address.to_string(), "--listen"], &before)?;
    refused(&mut up(&data, free, address)?, &[&address.to_string(), "--status-listen"], &before)
}

fn unwritable() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let before = Attached::now()?;
    // Root may write anywhere but where there is a file, and where nothing can be made.
    let file = folder.path().join("file");
    std::fs::write(&file, "")?;
    for data in [file.join("data"), "/proc/tapstack-test".into()] {
        refused(&mut another(&data)?, &[&data.display().to_string()], &before)?;
    }
    Ok(())
}

fn not_root() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // What nobody may write to and run: so that being nobody is all that is wrong.
    let folder = tempfile::tempdir()?;
    let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
    open(folder.path(), 0o777)?;
    let before = Attached::now()?;
    let up = another(&folder.path().join("data"))?;
    let binary = folder.path().join("tapstack");
    std::fs::copy(up.get_program(), &binary)?;
    open(&binary, 0o755)?;
    let mut command = program::command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&binary).args(up.get_args());
    refused(&mut command, &["root"], &before)
}

fn ready() -> Result<()> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let mut tapstack = Tapstack::start()?;
        best = best.min(tapstack.ready);
        tapstack.stop(libc::SIGTERM)?;
    }
    let optimised = integration::tapstack::binary()?.components().any(|c| c.as_os_str() == "release");
    println!("ready in {best:?} ({})", if optimised { "release" } else { "not optimised" });
    let limit = if optimised { Duration::from_secs(1) } else { Duration::from_secs(3) };
    ensure!(best < limit, "ready in {best:?}");
    Ok(())
}

fn clean_stop() -> Result<()> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let before = Attached::now()?;
        let mut tapstack = Tapstack::start()?;
        let held = Attached::held_by(tapstack.pid()?)?;
        ensure!(held >= 4, "while it runs, {held} programs and links are there: the check would see nothing");
        let took = tapstack.stop(signal)?;
        println!("signal {signal}: stopped in {took:?}; it had {held} programs and links");
        before.nothing_left()?;
    }
    Ok(())
}

/// Calls `f` while eight connections ask as fast as they can.
fn under_load<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let (address, over) = (server.address, AtomicBool::new(false));
    thread::scope(|scope| {
        let over = &over;
        for c in 0..8 {
            scope.spawn(move || {
                let Ok(mut client) = Client::open(address) else { return };
                while !over.load(Ordering::Relaxed) {
                    let Ok(answer) = client.ask("GET", &format!("/load/{c}/bytes/{c}/20000"), "", None) else { return };
                    if answer.body.len() != 20000 {
                        return;
                    }
                }
            });
        }
        let result = f();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// On a disk that others keep busy the end of the process can take as long as a write; the applications are let go
/// at once all the same.
fn detach_under_load() -> Result<()> {
    let before = Attached::now()?;
    let mut tapstack = Tapstack::start()?;
    under_load(|| {
        tapstack.wait_for("/load/", 200)?;
        let (detached, ended) = tapstack.detach(libc::SIGTERM)?;
        println!("under load: detached after {detached:?}, ended after {ended:?}");
        before.nothing_left()
    })?;
    ensure!(tapstack.find("/load/")?.iter().any(Record::complete), "nothing was kept");
    Ok(())
}

/// In memory the time is the product's own.
fn stop_under_load(place: &Path) -> Result<()> {
    let before = Attached::now()?;
    let mut tapstack = Tapstack::start_in(place, &[])?;
    under_load(|| {
        tapstack.wait_for("/load/", 200)?;
        let took = tapstack.stop(libc::SIGTERM)?;
        println!("under load: stopped in {took:?}");
        before.nothing_left()
    })?;
    let found = tapstack.find("/load/")?;
    let whole = found.iter().filter(|r| r.complete()).count();
    println!("{} transactions, {whole} of them complete", found.len());
    ensure!(whole > 0, "nothing was kept");
    Ok(())
}

fn killed() -> Result<()> {
    let before = Attached::now()?;
    let mut tapstack = Tapstack::start()?;
    let data = tapstack.data();
    under_load(|| {
        tapstack.wait_for("/load/", 50)?;
        tapstack.stop(libc::SIGKILL)?;
        before.nothing_left()
    })?;
    // The archive is whole, and another one can go on with it.
    let kept = tapstack.find("/load/")?.len();
    ensure!(kept >= 50, "{kept} transactions are left");
    let mut again = another(&data)?;
    let status = again.get_args().last().context("no address")?.to_owned();
    let mut running = program::Running::start(again.stdout(Stdio::null()).stderr(Stdio::null()))?;
    let port = status.to_string_lossy().rsplit(':').next().unwrap_or_default().parse()?;
    running = running.listens(port)?;
    integration::sys::signal(running.pid(), libc::SIGTERM)?;
    ensure!(running.ended(Duration::from_secs(10))?.success(), "the next one failed");
    ensure!(integration::tapstack::find(&data, "/load/")?.len() >= kept, "something is gone");
    Ok(())
}
