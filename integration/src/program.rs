//! Programs that the tests run: always bounded, never left behind.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{net::Netns, sys, wait};

/// Longest time that a program may take to get ready, or to answer a line.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The programs that the tests need, each with its Debian package.
const NEEDED: [(&str, &str); 13] = [
    ("curl", "curl"),
    ("wget", "wget"),
    ("nginx", "nginx-light"),
    ("python3", "python3"),
    ("node", "nodejs"),
    ("haproxy", "haproxy"),
    ("ip", "iproute2"),
    ("bpftool", "bpftool"),
    ("setpriv", "util-linux"),
    ("openssl", "openssl"),
    ("wrk", "wrk"),
    ("cc", "build-essential"),
    ("busybox", "busybox-static"),
];

/// The packages whose programs are missing.
#[must_use]
pub fn missing() -> Vec<&'static str> {
    NEEDED.iter().filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect()
}

/// The path of a program, also of one that only root's path has.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian's own first: a shim in front of python3 would be another process than the one that talks.
    let fixed = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(OsStr::new);
    fixed
        .into_iter()
        .chain(path.as_bytes().split(|b| *b == b':').map(OsStr::from_bytes))
        .map(|folder| Path::new(folder).join(name))
        .find(|p| p.is_file())
}

/// A command for a program by name.
#[must_use]
pub fn command(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}

/// A port of 127.0.0.1 that is free now, another one each time; below the ports that the kernel gives to clients
/// (32768 and up), so that none of them takes it before the server does.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        // Two processes begin at different places.
        let n = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(std::process::id().wrapping_mul(97));
        let port = 20_000 + (n % 12_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 20000 and 32000")
}

/// A child process that is killed when the test is over.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts a command; it ends with the test process at the latest.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Result<Running> {
        sys::dies_with_us(command);
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| name.clone())?;
        Ok(Running { child, name })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When it has not ended in time.
    pub fn ended(&mut self, patience: Duration) -> Result<std::process::ExitStatus> {
        let Running { child, name } = self;
        wait::until(&format!("{name} ends"), patience, || Ok(child.try_wait()?))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// Those of waitpid(2).
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until somebody listens on a port of 127.0.0.1.
    ///
    /// # Errors
    /// When it has ended, or nobody listens in time.
    pub fn listens(mut self, port: u16) -> Result<Running> {
        let what = format!("{} listens on port {port}", self.name);
        wait::until(&what, PATIENCE, || {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended: {status}", self.name);
            }
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok().map(drop))
        })?;
        Ok(self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and returns what it wrote.
///
/// # Errors
/// When it fails, with what it says, or takes too long.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = outcome(command, Duration::from_secs(30))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(output.status.success(), "{name}: {}: {said}", output.status);
    Ok(output.stdout)
}

/// Runs a command to its end, whatever that is.
///
/// # Errors
/// When it cannot be started, or takes too long.
pub fn outcome(command: &mut Command, patience: Duration) -> Result<Output> {
    outcome_of(command, Stdio::null(), patience)
}

/// The same with this standard input.
///
/// # Errors
/// As [`outcome`].
pub fn outcome_of(command: &mut Command, input: Stdio, patience: Duration) -> Result<Output> {
    sys::dies_with_us(command);
    let name = command.get_program().to_string_lossy().into_owned();
    let child =
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| name.clone())?;
    let pid = child.id();
    let (done, ended) = mpsc::channel();
    // The thread only reads: the child's parent stays the thread that started it.
    let reader = std::thread::spawn(move || {
        let _ = done.send(child.wait_with_output());
    });
    let Ok(output) = ended.recv_timeout(patience) else {
        // Not waited for yet, so the number is still the child's.
        sys::signal(pid, libc::SIGKILL)?;
        let _ = reader.join();
        bail!("{name}: not at its end within {patience:?}");
    };
    let _ = reader.join();
    Ok(output?)
}

/// A child process that is asked by lines on its standard input, and answers each by a line.
#[derive(Debug)]
pub struct Dialogue {
    running: Running,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    /// The line that it began with.
    pub greeting: String,
}

impl Dialogue {
    /// Starts a command and waits for its first line.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn start(command: &mut Command) -> Result<Dialogue> {
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let input = running.child.stdin.take();
        let out = running.child.stdout.take().context("no standard output")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut this = Dialogue { running, input, lines, greeting: String::new() };
        this.greeting = this.line()?;
        Ok(this)
    }

    fn line(&mut self) -> Result<String> {
        self.lines
            .recv_timeout(PATIENCE)
            .map_err(|_| anyhow::anyhow!("{} {} says nothing", self.running.name, self.pid()))
    }

    /// Says a line without waiting for the answer.
    ///
    /// # Errors
    /// When it is gone.
    pub fn say(&mut self, line: &str) -> Result<()> {
        writeln!(self.input.as_mut().context("no standard input")?, "{line}").with_context(|| line.to_owned())
    }

    /// The answer to a line.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        self.line().with_context(|| line.to_owned())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }
}

/// A `peer` process that serves or asks.
#[derive(Debug)]
pub struct Peer {
    dialogue: Dialogue,
    /// Where a server listens.
    pub address: SocketAddr,
}

impl Peer {
    /// Starts `peer ROLE ADDRESS OPTIONS…`, in a network namespace when one is given, and waits until it is
    /// ready. `program`: the path of `peer`.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn start(program: &str, role: &str, address: &str, options: &str, netns: Option<&Netns>) -> Result<Peer> {
        let mut command = Command::new(program);
        command.arg(role).arg(address).args(options.split_whitespace());
        if let Some(netns) = netns {
            netns.holds(&mut command)?;
        }
        let dialogue = Dialogue::start(&mut command)?;
        let address = dialogue.greeting.strip_prefix("listening ").unwrap_or(address).parse()?;
        Ok(Peer { dialogue, address })
    }

    /// A client's request: `METHOD PATH [SEED LENGTH]`. Returns `STATUS LENGTH SHA1`.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.dialogue.ask(line)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.dialogue.pid()
    }
}

/// How long something took.
pub fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let from = Instant::now();
    let result = f();
    (result, from.elapsed())
}
