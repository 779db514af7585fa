//! Who owns a socket: the process that talks, not the one that made it; also when it is gone, and when both are
//! older than the agent.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content,
    program::{self, Peer},
    tapstack::{Object, Tapstack},
};

use crate::{
    PEER, Test,
    content_checks::{body_is, exactly},
};

pub(crate) const TESTS: &[Test] = &[
    ("connections_older_than_the_agent_are_captured_from_the_next_message", older),
    ("the_child_of_a_forking_server_is_the_owner", forking),
    ("the_worker_of_a_preforking_server_is_the_owner", preforking),
    ("the_process_that_a_socket_was_passed_to_is_the_owner", passed),
    ("a_process_that_is_gone_still_has_its_name", gone),
    ("a_process_in_a_child_cgroup_has_unit_and_container", in_cgroup),
    ("both_ends_of_an_exchange_share_an_id", shared_id),
];

fn older() -> Result<()> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let address = server.address.to_string();
    // One has talked before, the other is silent until later.
    let mut talker = Peer::start(PEER, "client", &address, "", None)?;
    let mut silent = Peer::start(PEER, "client", &address, "", None)?;
    talker.ask("GET /before/bytes/1/500")?;
    let mut tapstack = Tapstack::start()?;
    for (name, client) in [("talker", &mut talker), ("silent", &mut silent)] {
        for seed in [51_u64, 52] {
            let path = format!("/older/{name}/bytes/{seed}/60000");
            let answer = client.ask(&format!("GET {path}"))?;
            let sent = content::body(seed, 60000);
            ensure!(answer.ends_with(&content::sha1(&sent)), "{answer}");
            let (asking, answering) = tapstack.both(&path)?;
            for record in [&asking, &answering] {
                let object = body_is(&mut tapstack, record, "response", &sent)?;
                ensure!(object.0["connection"]["from_start"] == false, "{}", object.0["connection"]);
            }
            let (asks, answers) = (asking.number("process_pid"), answering.number("process_pid"));
            ensure!(asks == Some(u64::from(client.pid())), "{path}: client is {}, found {asks:?}", client.pid());
            ensure!(answers == Some(u64::from(server.pid())), "{path}: server is {}, found {answers:?}", server.pid());
        }
    }
    exactly(&mut tapstack, "/older/", 8)
}

/// Each transaction at the server's end belongs to the process that says `X-Pid` in its answer, which is not
/// always (`parent`: never) the server that was started.
fn answers(model: &str, name: &str) -> Result<()> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", &format!("--model {model}"), None)?;
    let mut tapstack = Tapstack::start()?;
    let base = format!("http://{}/{name}", server.address);
    for n in 0..6 {
        program::output(program::command("curl").args([
            "-sSf",
            "-o",
            "/dev/null",
            &format!("{base}/{n}/bytes/{n}/9000"),
        ]))?;
    }
    for n in 0..6 {
        let (client, at_server) = tapstack.both(&format!("/{name}/{n}/bytes/{n}/9000"))?;
        body_is(&mut tapstack, &client, "response", &content::body(n, 9000))?;
        let object = body_is(&mut tapstack, &at_server, "response", &content::body(n, 9000))?;
        let says: u64 = object.header("response", "X-Pid").parse()?;
        ensure!(says != u64::from(server.pid()), "the first process answered: no test");
        let owner = at_server.number("process_pid");
        ensure!(owner == Some(says), "{says} answered, {owner:?} is the owner (first process {})", server.pid());
        ensure!(object.text("/process/exe") == PEER, "owner {}", object.text("/process/exe"));
    }
    exactly(&mut tapstack, &format!("/{name}/"), 12)
}

fn forking() -> Result<()> {
    answers("fork", "fork")
}

fn preforking() -> Result<()> {
    answers("prefork", "prefork")
}

fn passed() -> Result<()> {
    answers("pass", "pass")
}

fn nanoseconds(text: &str) -> Result<Duration> {
    // date(1) reads RFC 3339; a parser of our own would be one more thing to test.
    let seconds = program::output(program::command("date").args(["-d", text, "+%s.%N"]))?;
    Ok(Duration::from_secs_f64(String::from_utf8(seconds)?.trim().parse()?))
}

/// A curl of its own user against a server; returns the object at its end. It is gone before anybody asks.
fn curl(
    tapstack: &mut Tapstack,
    path: &str,
    prepare: impl FnOnce(&mut std::process::Command),
) -> Result<(u32, Object)> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let mut command = program::command("curl");
    command.args(["-sS", "-f", "-o", "/dev/null", "-H", "X-Mark: abc", &format!("http://{}{path}", server.address)]);
    prepare(&mut command);
    integration::sys::dies_with_us(&mut command);
    let mut child = command.spawn()?;
    let pid = child.id();
    ensure!(child.wait()?.success(), "curl failed");
    let (client, _) = tapstack.both(path)?;
    Ok((pid, tapstack.object(&client)?))
}

fn gone() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    let before = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let (pid, object) = curl(&mut tapstack, "/gone/bytes/1/100", |command| {
        command.uid(65534);
    })?;
    let after = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let process = &object.0["process"];
    ensure!(process["pid"] == pid, "pid {pid}: {process}");
    ensure!(process["exe"].as_str().is_some_and(|exe| exe.ends_with("/curl")), "exe: {process}");
    let arguments = process["args"].to_string();
    ensure!(arguments.contains("X-Mark: abc") && arguments.contains("/gone/bytes/1/100"), "args: {process}");
    ensure!(process["uid"] == 65534, "uid: {process}");
    ensure!(process["user"] == "nobody", "user: {process}");
    ensure!(process["parent_pid"] == std::process::id(), "parent: {process}");
    let own = std::env::current_exe()?;
    ensure!(process["parent_exe"].as_str().map(PathBuf::from) == Some(own), "parent's exe: {process}");
    let started = nanoseconds(object.text("/process/started")).with_context(|| format!("started: {process}"))?;
    // Clock ticks are 10 ms.
    let slack = Duration::from_millis(50);
    ensure!(started + slack >= before && started <= after + slack, "{before:?} <= {started:?} <= {after:?}: {process}");
    exactly(&mut tapstack, "/gone/", 2)
}

/// A cgroup that goes when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: &str) -> Result<Cgroup> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mount =
            mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).context("no cgroup2 mount")?;
        let folder = PathBuf::from(mount.split(' ').nth(1).context("no mount point")?).join(path);
        fs::create_dir_all(&folder)?;
        Ok(Cgroup(folder))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be in it for a moment.
        let _ =
            integration::wait::until(
                "the cgroup is empty",
                Duration::from_secs(5),
                || Ok(fs::remove_dir(&self.0).ok()),
            );
        let _ = self.0.parent().map(fs::remove_dir);
    }
}

fn in_cgroup() -> Result<()> {
    let id = "0123456789abcdef".repeat(4);
    let cgroup = Cgroup::new(&format!("tapstack-test-{}.service/docker-{id}.scope", std::process::id()))?;
    let mut tapstack = Tapstack::start()?;
    let file = cgroup.0.join("cgroup.procs");
    let (_, object) = curl(&mut tapstack, "/cgroup/bytes/1/100", |command| {
        // SAFETY: the closure opens and writes one file; the child has one thread, and nothing else is shared.
        unsafe { command.pre_exec(move || fs::write(&file, "0")) };
    })?;
    let process = &object.0["process"];
    ensure!(process["container_id"] == *id, "container: {process}");
    ensure!(process["unit"].as_str().is_some_and(|u| u == format!("docker-{id}.scope")), "unit: {process}");
    exactly(&mut tapstack, "/cgroup/", 2)
}

fn shared_id() -> Result<()> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let mut tapstack = Tapstack::start()?;
    let mut client = Peer::start(PEER, "client", &server.address.to_string(), "", None)?;
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..5 {
        let path = format!("/shared/{n}/bytes/{n}/100");
        client.ask(&format!("GET {path}"))?;
        let (asking, answering) = tapstack.both(&path)?;
        ensure!(!asking.text("exchange_id").is_empty(), "no id: {:?}", asking.0);
        ensure!(asking.text("exchange_id") == answering.text("exchange_id"), "{path}: two ids");
        ensure!(asking.text("request_id") != answering.text("request_id"), "{path}: each end has its own request_id");
        ensure!(asking.text("direction") == "egress-internal", "{:?}", asking.0);
        ensure!(answering.text("direction") == "ingress", "{:?}", answering.0);
        ids.insert(asking.text("exchange_id").to_owned());
    }
    ensure!(ids.len() == 5, "five exchanges have five ids: {ids:?}");
    exactly(&mut tapstack, "/shared/", 10)
}
