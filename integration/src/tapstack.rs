//! The product under test: one `tapstack up` as a user would run it, and what it captured, read as a user
//! would read it: `tapstack find`, `tapstack show`, the gateway and /metrics.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    content,
    http::Client,
    program::{self, Running, free_port},
    sys, wait,
};

/// Within this time of its end an exchange is in the archive: commit, and a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(25);
/// A clean stop takes at most this long.
pub const STOP: Duration = Duration::from_secs(1);

/// The binary: `TAPSTACK_BIN`, or the newest of target/debug and target/release beside the tests.
///
/// # Errors
/// When there is none, with what to do.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TAPSTACK_BIN") {
        return std::fs::canonicalize(&path).with_context(|| format!("TAPSTACK_BIN={}", path.display()));
    }
    let own = std::env::current_exe()?;
    // target/debug/deps/kernel-0123456789abcdef
    let target = own.ancestors().nth(3).context("no target folder")?;
    let built = ["debug", "release"].map(|profile| target.join(profile).join("tapstack"));
    let newest = built.into_iter().filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path))).max();
    newest.map(|(_, path)| path).context("no tapstack beside the tests: run `cargo build` first, or set TAPSTACK_BIN")
}

/// One line of `find --json`: a flat `artifact_record`.
#[derive(Clone, Debug)]
pub struct Record(pub Value);

impl Record {
    /// A text; empty when there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// A whole number.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.0[name].as_u64()
    }

    /// Path without query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text("request_path")
    }

    /// Whether the capture says that nothing is missing.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.0["complete"] == true
    }

    /// `client` or `server`.
    #[must_use]
    pub fn end(&self) -> &str {
        self.text("end")
    }
}

/// An object: the transaction as it is stored.
#[derive(Clone, Debug)]
pub struct Object(pub Value);

impl Object {
    /// The body of `request` or `response`; empty when there is none.
    ///
    /// # Errors
    /// When it is not base64.
    pub fn body(&self, message: &str) -> Result<Vec<u8>> {
        Ok(STANDARD.decode(self.0[message]["body"].as_str().unwrap_or_default())?)
    }

    /// A text by JSON pointer; empty when there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.0.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A header's value as sent; `name` in any case.
    #[must_use]
    pub fn header(&self, message: &str, name: &str) -> &str {
        let fields = self.0[message]["header_list"].as_array().map(Vec::as_slice).unwrap_or_default();
        let field = fields.iter().find(|f| f[0].as_str().is_some_and(|n| n.eq_ignore_ascii_case(name)));
        field.and_then(|f| f[1].as_str()).unwrap_or_default()
    }
}

/// A running `tapstack up`, with an archive of its own. Killed when it is dropped.
#[derive(Debug)]
pub struct Tapstack {
    running: Option<Running>,
    folder: TempDir,
    /// The gateway.
    pub listen: SocketAddr,
    /// /readyz and /metrics.
    pub status: SocketAddr,
    /// From the start of the process to the first 200 of /readyz.
    pub ready: Duration,
    gateway: Option<Client>,
}

impl Tapstack {
    /// Starts `tapstack up` and waits until it captures.
    ///
    /// # Errors
    /// When it does not get ready, with what it says.
    pub fn start() -> Result<Tapstack> {
        Tapstack::start_with(&[])
    }

    /// The same with further options.
    ///
    /// # Errors
    /// As [`Tapstack::start`].
    pub fn start_with(options: &[&str]) -> Result<Tapstack> {
        Tapstack::start_in(&std::env::temp_dir(), options)
    }

    /// The same with the archive in a new folder in `place`.
    ///
    /// # Errors
    /// As [`Tapstack::start`].
    pub fn start_in(place: &Path, options: &[&str]) -> Result<Tapstack> {
        let folder = tempfile::Builder::new().prefix("tapstack-test-").tempdir_in(place)?;
        let listen = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let status = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = up(&folder.path().join("data"), listen, status)?;
        command.args(options);
        Tapstack::begin(command, folder, listen, status)
    }

    /// Starts `tapstack agent --record FILE`, which has no gateway, and waits until it captures.
    ///
    /// # Errors
    /// As [`Tapstack::start`].
    pub fn record(file: &Path) -> Result<Tapstack> {
        let folder = tempfile::Builder::new().prefix("tapstack-test-").tempdir()?;
        let status = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let mut command = Command::new(binary()?);
        command.arg("agent").arg("--record").arg(file).arg("--data-dir").arg(folder.path().join("data"));
        command.arg("--status-listen").arg(status.to_string());
        Tapstack::begin(command, folder, status, status)
    }

    fn begin(mut command: Command, folder: TempDir, listen: SocketAddr, status: SocketAddr) -> Result<Tapstack> {
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let from = Instant::now();
        let running = Some(Running::start(&mut command)?);
        let mut this = Tapstack { running, folder, listen, status, ready: Duration::ZERO, gateway: None };
        let ready = wait::until("/readyz says 200", Duration::from_secs(20), || {
            let running = this.running.as_mut().context("stopped")?;
            ensure!(running.alive()?, "it ended");
            Ok((this.get("/readyz").is_ok_and(|(code, _)| code == 200)).then(|| from.elapsed()))
        });
        match ready {
            Ok(ready) => this.ready = ready,
            Err(error) => bail!("tapstack: {error:#}\n{}", this.said()),
        }
        Ok(this)
    }

    /// The folder of the archive.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it wrote on standard output and standard error.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The same for a failing test: without the lines about objects that the test itself has viewed.
    fn said(&self) -> String {
        self.log().split_inclusive('\n').filter(|line| !line.contains("Object viewed.")).collect()
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running.as_ref().context("stopped")?.pid())
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn alive(&mut self) -> Result<bool> {
        self.running.as_mut().map_or(Ok(false), Running::alive)
    }

    /// Asks the status listener.
    fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut client = Client::open(self.status)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.status);
        client.stream.write_all(request.as_bytes())?;
        let answer = client.answer("GET")?;
        Ok((answer.status(), String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// The counters, as Prometheus text.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.get("/metrics")?.1)
    }

    /// All counters that are not 0, in one line for a failing test.
    #[must_use]
    pub fn counters(&self) -> String {
        let text = self.metrics().unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|l| !l.starts_with('#') && !l.ends_with(" 0")).collect();
        lines.join(", ").replace("tapstack_", "")
    }

    /// Waits until a counter is at least so high: those of the kernel are read now and then.
    ///
    /// # Errors
    /// When it does not rise in time.
    pub fn rises(&self, name: &str, to: u64) -> Result<u64> {
        wait::until(&format!("{name} is {to} or more"), Duration::from_secs(10), || {
            Ok(Some(self.metric(name)?).filter(|n| *n >= to))
        })
    }

    /// A counter of /metrics by its name without `tapstack_` and `_total`.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn metric(&self, name: &str) -> Result<u64> {
        let text = self.metrics()?;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("tapstack_{name}_total ")));
        let value = line.with_context(|| format!("no counter {name} in /metrics"))?;
        Ok(value.trim().parse::<f64>()? as u64)
    }

    /// Most resident memory so far, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn peak(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
    }

    /// What is in the archive under a path that begins with `prefix` (everything: an empty one), newest first.
    ///
    /// # Errors
    /// When `find` fails or prints what is not JSON.
    pub fn find(&self, prefix: &str) -> Result<Vec<Record>> {
        find(&self.data(), prefix)
    }

    /// Waits until `look` finds what it wants among the records whose path begins with `prefix`.
    ///
    /// # Errors
    /// When it does not in time; with what there is, and the counters.
    pub fn wait<T>(&self, prefix: &str, look: impl FnMut(&[Record]) -> Option<T>) -> Result<T> {
        self.wait_within(PATIENCE, prefix, look)
    }

    /// The same with another patience.
    ///
    /// # Errors
    /// As [`Tapstack::wait`].
    pub fn wait_within<T>(
        &self,
        patience: Duration,
        prefix: &str,
        mut look: impl FnMut(&[Record]) -> Option<T>,
    ) -> Result<T> {
        let mut seen = Vec::new();
        let found = wait::until("the archive has what was sent", patience, || {
            seen = self.find(prefix)?;
            Ok(look(&seen))
        });
        found.map_err(|error| {
            let newest: String = seen.first().map(|r| r.0.to_string()).unwrap_or_default();
            let paths: Vec<String> = seen.iter().take(20).map(|r| format!("{} {}", r.path(), r.end())).collect();
            error.context(format!(
                "{} records under {prefix}: {}\nthe newest: {newest}\ncounters: {}",
                seen.len(),
                paths.join(", "),
                self.counters()
            ))
        })
    }

    /// Waits until there are `count` records under `prefix`.
    ///
    /// # Errors
    /// As [`Tapstack::wait`].
    pub fn wait_for(&self, prefix: &str, count: usize) -> Result<Vec<Record>> {
        self.wait(prefix, |found| (found.len() >= count).then(|| found.to_vec()))
            .with_context(|| format!("{count} records were expected"))
    }

    /// Waits for both ends of the one exchange with this path.
    ///
    /// # Errors
    /// As [`Tapstack::wait`].
    pub fn both(&self, path: &str) -> Result<(Record, Record)> {
        let found = self.wait_for(path, 2)?;
        match found.as_slice() {
            [a, b] if a.end() == "client" && b.end() == "server" => Ok((a.clone(), b.clone())),
            [a, b] if a.end() == "server" && b.end() == "client" => Ok((b.clone(), a.clone())),
            other => bail!("{path}: not one record for each end: {other:?}"),
        }
    }

    /// Opens an object in the gateway, and checks that its bytes have the digest that names it.
    ///
    /// # Errors
    /// When the gateway does not have it, or has other bytes.
    pub fn object(&mut self, record: &Record) -> Result<Object> {
        let digest = record.text("digest");
        let path = format!("/qpoint/{digest}");
        let host = format!("Host: {}\r\n", self.listen);
        let ask = |client: &mut Client| {
            let request = format!("GET {path} HTTP/1.1\r\n{host}\r\n");
            client.stream.write_all(request.as_bytes())?;
            client.answer("GET")
        };
        let kept = self.gateway.take().and_then(|mut client| ask(&mut client).ok().map(|answer| (client, answer)));
        let (client, answer) = if let Some(both) = kept {
            both
        } else {
            let mut client = Client::open(self.listen)?;
            let answer = ask(&mut client)?;
            (client, answer)
        };
        self.gateway = Some(client);
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status() == 200, "GET {path}: {} {}", answer.start, text.chars().take(300).collect::<String>());
        ensure!(content::sha1(&answer.body) == digest, "the bytes of {digest} have another sha1");
        Ok(Object(serde_json::from_slice(&answer.body)?))
    }

    /// The object as `tapstack show DIGEST --json` prints it.
    ///
    /// # Errors
    /// When it fails.
    pub fn show(&self, record: &Record) -> Result<Object> {
        let mut command = Command::new(binary()?);
        command.args(["show", record.text("digest"), "--json", "--data-dir"]).arg(self.data());
        Ok(Object(serde_json::from_slice(&program::output(&mut command)?)?))
    }

    /// Sends a signal and waits for the end, which must come in time and be a success (but for SIGKILL: the kernel
    /// ends a process only when its writing to the disk is over). The archive stays.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self, signal: i32) -> Result<Duration> {
        let mut running = self.running.take().context("stopped before")?;
        self.gateway = None;
        sys::signal(running.pid(), signal)?;
        let (status, took) = program::timed(|| running.ended(Duration::from_secs(30)));
        let status = status.with_context(|| format!("{}\n{}", threads(running.pid()), self.said()))?;
        if signal == libc::SIGKILL {
            return Ok(took);
        }
        ensure!(status.success(), "at its stop: {status}\n{}", self.said());
        ensure!(took < STOP, "the stop took {took:?}\n{}", self.said());
        Ok(took)
    }
}

impl Tapstack {
    /// Sends a signal and waits until the process holds no program and no link any more, which must come in time, and
    /// then for its end: the kernel ends a process only when its writing to the disk is over.
    ///
    /// # Errors
    /// When it does not detach in time, or does not end well.
    pub fn detach(&mut self, signal: i32) -> Result<(Duration, Duration)> {
        let mut running = self.running.take().context("stopped before")?;
        self.gateway = None;
        let pid = running.pid();
        ensure!(Attached::held_by(pid)? > 0, "nothing was attached");
        let begun = std::time::Instant::now();
        sys::signal(pid, signal)?;
        wait::until("nothing is attached", Duration::from_secs(30), || {
            Ok((Attached::held_by(pid)? == 0).then_some(()))
        })?;
        let detached = begun.elapsed();
        let status = running.ended(Duration::from_secs(90)).with_context(|| threads(pid))?;
        ensure!(status.success(), "at its stop: {status}\n{}", self.said());
        ensure!(detached < STOP, "detached after {detached:?}\n{}", self.said());
        Ok((detached, begun.elapsed()))
    }
}

/// What each thread of a process waits for, for a test that failed because it does not end.
fn threads(pid: u32) -> String {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let line = |task: std::fs::DirEntry| {
        let at = |name: &str| read(task.path().join(name));
        format!("thread {}: {} (system call {})\n", at("comm"), at("wchan"), at("syscall"))
    };
    tasks.map(line).collect()
}

/// The command `tapstack up` with the options that every test gives.
///
/// # Errors
/// When there is no binary.
pub fn up(data: &Path, listen: SocketAddr, status: SocketAddr) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.arg("up").arg("--data-dir").arg(data).arg("--listen").arg(listen.to_string());
    command.arg("--status-listen").arg(status.to_string());
    Ok(command)
}

/// What is in an archive under a path that begins with `prefix` (everything: an empty one), newest first.
///
/// # Errors
/// When `find` fails or prints what is not JSON.
pub fn find(data: &Path, prefix: &str) -> Result<Vec<Record>> {
    let mut command = Command::new(binary()?);
    command.args(["find", "--json", "--limit", "1000000", "--data-dir"]).arg(data);
    if !prefix.is_empty() {
        command.args(["--path", prefix]);
    }
    let lines = program::output(&mut command)?;
    let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let records = lines.map(|line| Ok(Record(serde_json::from_slice(line)?))).collect::<Result<Vec<_>>>()?;
    let stray = records.iter().find(|r| !r.path().starts_with(prefix));
    ensure!(stray.is_none(), "find --path {prefix} found {stray:?}");
    Ok(records)
}

/// Ids of all BPF programs and links (`prog_id 7`, `link_id 9`), each with the processes that hold it by a
/// descriptor.
fn loaded() -> Result<BTreeMap<String, BTreeSet<u32>>> {
    let mut all: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for kind in ["prog", "link"] {
        let text = program::output(program::command("bpftool").args(["-j", kind, "show"]))?;
        let list: Value = serde_json::from_slice(&text)?;
        for item in list.as_array().map(Vec::as_slice).unwrap_or_default() {
            all.insert(format!("{kind}_id {}", item["id"]), BTreeSet::new());
        }
    }
    // Processes and descriptors may go while they are looked at.
    for process in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for descriptor in std::fs::read_dir(process.path().join("fdinfo")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(descriptor.path()).unwrap_or_default();
            for line in text.lines().filter(|l| l.starts_with("prog_id:") || l.starts_with("link_id:")) {
                if let Some(holders) = all.get_mut(&line.replace(":\t", " ")) {
                    holders.insert(pid);
                }
            }
        }
    }
    Ok(all)
}

/// What the kernel has loaded that no living process holds: what a program leaves behind when it pins or leaks.
#[derive(Debug)]
pub struct Attached {
    before: BTreeSet<String>,
}

impl Attached {
    /// What is there now.
    ///
    /// # Errors
    /// When bpftool fails.
    pub fn now() -> Result<Attached> {
        Ok(Attached { before: loaded()?.into_keys().collect() })
    }

    /// Programs and links that this process holds now.
    ///
    /// # Errors
    /// When bpftool fails.
    pub fn held_by(pid: u32) -> Result<usize> {
        Ok(loaded()?.values().filter(|holders| holders.contains(&pid)).count())
    }

    /// Waits until nothing is left that came since and that no living process holds. (The kernel frees programs
    /// some time after their last holder is gone.)
    ///
    /// # Errors
    /// When something is left.
    pub fn nothing_left(&self) -> Result<()> {
        let mut left: Vec<String> = Vec::new();
        wait::until("programs and links are gone", Duration::from_secs(5), || {
            left = loaded()?.into_iter().filter(|(_, holders)| holders.is_empty()).map(|(id, _)| id).collect();
            left.retain(|id| !self.before.contains(id));
            Ok(left.is_empty().then_some(()))
        })
        .with_context(|| format!("left behind: {left:?}"))
    }
}
