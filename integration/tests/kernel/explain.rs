//! What `tapstack explain` says of this host's libraries and of real processes, beside what they have mapped.

use std::{
    net::TcpListener,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration::{
    program::{self, Dialogue, PATIENCE, Running},
    tapstack::{Tapstack, binary},
    tls::Site,
    wait,
};
use serde_json::Value;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("explain_lists_the_libraries_that_are_read", libraries),
    ("explain_says_of_a_process_whether_its_https_is_read", processes),
];

fn explain(tapstack: &Tapstack, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(["explain", "--status", &tapstack.status.to_string()]).args(arguments);
    program::outcome(&mut command, PATIENCE)
}

fn text(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn libraries() -> Result<()> {
    // What the host's loader gives to a program that has it.
    let said = program::output(program::command("ldd").arg(program::find("openssl").context("Debian: openssl")?))?;
    let said = String::from_utf8(said)?;
    let path = said.split_whitespace().find(|w| w.starts_with('/') && w.contains("libssl")).context("no libssl")?;
    let path = std::fs::canonicalize(path)?.display().to_string();

    let tapstack = Tapstack::start()?;
    let listed = explain(&tapstack, &["--verbose"])?;
    let lines = String::from_utf8_lossy(&listed.stdout).into_owned();
    ensure!(listed.status.success(), "{listed:?}");
    let mut block = lines.lines().skip_while(|line| *line != format!("{path} (host)"));
    ensure!(block.next().is_some(), "{path} is not listed:\n{lines}");
    let stands = block.next().unwrap_or_default();
    ensure!(stands.contains("OpenSSL 3.") && stands.contains(": read, "), "{stands}");
    ensure!(block.next().is_some_and(|line| line.contains("tls_")), "no probe is explained:\n{lines}");

    let report: Value = serde_json::from_slice(&explain(&tapstack, &["--json"])?.stdout)?;
    let library = report["libraries"].as_array().and_then(|all| all.iter().find(|library| library["path"] == *path));
    let library = library.with_context(|| format!("{path} is not in {report}"))?;
    ensure!(library["state"] == "attached" && library["root"] == "host", "{library}");
    let plan = library["plan"].as_array().map_or(0, Vec::len) as u64;
    ensure!(plan > 0 && library["probes"] == plan, "not a line for each probe: {library}");
    ensure!(report["agent"]["pid"] == tapstack.pid()?, "{}", report["agent"]);
    Ok(())
}

/// Starts a client of a server that never answers, and waits until it has connected: its libraries are mapped.
fn hangs(listener: &TcpListener, command: &mut Command) -> Result<(Running, std::net::TcpStream)> {
    let running = Running::start(command)?;
    let mut accepted = None;
    wait::until("it connects", PATIENCE, || {
        accepted = listener.accept().ok().map(|(stream, _)| stream);
        Ok(accepted.is_some().then_some(()))
    })?;
    Ok((running, accepted.context("no connection")?))
}

fn processes() -> Result<()> {
    let site = Site::new()?;
    let image = site.image()?;
    let container = site.container(&image)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let url = format!("https://{}/", listener.local_addr()?);
    let mut python = program::command("python3");
    let python = Dialogue::start(python.args(["-c", "import ssl, sys; print('ready', flush=True); sys.stdin.read()"]))?;
    let sleep = Running::start(program::command("sleep").arg("100"))?;
    let wget = hangs(&listener, program::command("wget").args(["-q", "-O", "-", &url]))?;

    let tapstack = Tapstack::start()?;
    let mut inside = program::command("nsenter");
    let process = format!("/proc/{}", container.pid());
    inside.args([format!("--mount={process}/ns/mnt"), format!("--root={process}/root")]);
    let curl = hangs(&listener, inside.args(["/usr/bin/curl", "-sS", "--cacert", "/ca.pem", &url]))?;

    let verdicts = [
        (python.pid(), 0, "uses libssl.so."),
        (python.pid(), 0, "its HTTPS is read; "),
        // The same library as on the host by its path, but another file, below an overlay.
        (curl.0.pid(), 0, "(/usr/bin/curl, root of process "),
        (curl.0.pid(), 0, "its HTTPS is read; "),
        (sleep.pid(), 0, "has no TLS library: there is nothing to read."),
        (wget.0.pid(), 2, "(GnuTLS), which is not read yet; "),
        (tapstack.pid()?, 0, "is the agent itself"),
    ];
    for (pid, code, words) in verdicts {
        let mut said = String::new();
        // The libraries of processes that were there before are looked for when the capture runs.
        wait::until("it is known", Duration::from_secs(10), || {
            let output = explain(&tapstack, &[&pid.to_string()])?;
            said = text(&output);
            Ok((output.status.code() == Some(code) && said.contains(words)).then_some(()))
        })
        .with_context(|| format!("not {words:?} but: {said}"))?;
        println!("{said}");
    }
    let pid = sleep.pid();
    drop(sleep);
    let gone = explain(&tapstack, &[&pid.to_string()])?;
    ensure!(gone.status.code() == Some(1) && text(&gone).contains("there is no process"), "{gone:?}");
    Ok(())
}
