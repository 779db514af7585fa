//! Libraries that come late, are replaced, are shared, and connections that were there before.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content, program,
    program::Dialogue,
    tapstack::Tapstack,
    tls::{Server, Site, asked},
};

use crate::{
    Test,
    tls::{Asking, Checks, Owner, Wanted, soon},
};

pub(crate) const TESTS: &[Test] = &[
    ("tls_connections_older_than_the_agent_are_captured_from_the_next_message", older),
    ("tls_a_library_loaded_later_is_found", late),
    ("tls_a_replaced_library_is_found_and_the_old_one_stays", replaced),
    ("tls_three_containers_of_one_image_are_captured_once_each", containers),
    ("tls_ten_thousand_processes_are_looked_at_before_readiness", ten_thousand),
];

fn older() -> Result<()> {
    let site = Site::new()?;
    let (nginx, node) = (site.nginx("", |_| {})?, site.server("node")?);
    let host = "old.tls.test";
    let commands = [
        (site.python("session", host, nginx.port, &[]), &nginx),
        (site.python("asyncio", host, node.port, &[]), &node),
        (site.node("fetch", host, nginx.port), &nginx),
        (site.c("memory", host, node.port)?, &node),
        (site.c("partial", host, nginx.port)?, &nginx),
    ];
    let file = site.file(200, 5000)?;
    let mut clients = Vec::new();
    for (command, server) in commands {
        let mut client = Asking::start(command, host, server)?;
        asked(&mut client.dialogue, &format!("GET /before/{file}"), 200, &content::body(200, 5000))?;
        client.shared.older = true;
        clients.push(client);
    }
    let mut checks = Checks::start("/tls/older/", &[])?;
    for (at, client) in clients.iter_mut().enumerate() {
        found(&checks.tapstack, &mut client.dialogue, &file, &content::body(200, 5000))?;
        for n in 0..3 {
            client.get(&mut checks, &site, &format!("/tls/older/{at}/{n}"), 201 + n, 30_000)?;
        }
    }
    checks.done()
}

/// Python with libraries of its own, which it loads when it is first asked. A connection for each request.
fn private(site: &Site, libraries: &Path, server: &Server) -> Result<Asking> {
    let mut command = site.python("urllib", "late.tls.test", server.port, &[]);
    command.env("LD_LIBRARY_PATH", libraries);
    let client = Asking::start(command, "late.tls.test", server)?;
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", client.dialogue.pid()))?;
    ensure!(!maps.contains("libssl"), "the library is there already: no test");
    Ok(client)
}

/// Asks until an exchange is captured at both ends.
fn found(tapstack: &Tapstack, client: &mut Dialogue, file: &str, body: &[u8]) -> Result<()> {
    soon(tapstack, |path| asked(client, &format!("GET {path}/{file}"), 200, body).map(drop))
}

fn late() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let libraries = site.libraries()?;
    let mut client = private(&site, &libraries, &server)?;
    let mut checks = Checks::start("/tls/late/", &[])?;
    let file = site.file(210, 100)?;
    found(&checks.tapstack, &mut client.dialogue, &file, &content::body(210, 100))?;
    for n in 0..5 {
        client.get(&mut checks, &site, &format!("/tls/late/{n}"), 211 + n, 20_000)?;
    }
    checks.done()
}

fn replaced() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let libraries = site.libraries()?;
    let (file, body) = (site.file(220, 100)?, content::body(220, 100));
    let mut old = private(&site, &libraries, &server)?;
    asked(&mut old.dialogue, &format!("GET /before/{file}"), 200, &body)?;
    let mut checks = Checks::start("/tls/replaced/", &[])?;
    found(&checks.tapstack, &mut old.dialogue, &file, &body)?;
    old.get(&mut checks, &site, "/tls/replaced/0", 221, 20_000)?;
    site.libraries()?;
    let mut new = private(&site, &libraries, &server)?;
    found(&checks.tapstack, &mut new.dialogue, &file, &body)?;
    let maps = |client: &Asking| std::fs::read_to_string(format!("/proc/{}/maps", client.dialogue.pid()));
    ensure!(maps(&old)?.contains("libssl.so.3 (deleted)") && !maps(&new)?.contains("(deleted)"), "no test");
    for n in 1..5 {
        old.get(&mut checks, &site, &format!("/tls/replaced/{n}/old"), 222 + n, 20_000)?;
        new.get(&mut checks, &site, &format!("/tls/replaced/{n}/new"), 232 + n, 20_000)?;
    }
    checks.done()
}

fn containers() -> Result<()> {
    let site = Site::new()?;
    let server = site.server("node")?;
    let image = site.image()?;
    let running = (0..3).map(|_| site.container(&image)).collect::<Result<Vec<_>>>()?;
    let mut checks = Checks::start("/tls/containers/", &[])?;
    let (host, body) = ("container.tls.test", content::body(240, 10_000));
    let file = site.file(240, 10_000)?;
    let ask = |container: &Dialogue, path: &str| -> Result<()> {
        let pid = container.pid();
        let mut command = program::command("nsenter");
        command.args([format!("--mount=/proc/{pid}/ns/mnt"), format!("--root=/proc/{pid}/root")]);
        command.args(["/usr/bin/curl", "-sSf", "--http1.1", "--cacert", "/ca.pem"]);
        command.args(["--resolve", &format!("{host}:{}:127.0.0.1", server.port), &server.url(host, path)]);
        let got = program::output(&mut command).context("curl in a container")?;
        ensure!(got == body, "curl got something else");
        Ok(())
    };
    // The probes that the first container gets are those of all.
    soon(&checks.tapstack, |path| ask(&running[0], &format!("{path}/{file}")))?;
    for turn in 0..3 {
        for (n, container) in running.iter().enumerate() {
            let path = format!("/tls/containers/{turn}/{n}/{file}");
            ask(container, &path)?;
            let (client, server) = (Owner("curl", None), Owner("node", Some(server.pid())));
            checks.add(Wanted { sni: host.to_owned(), client, server, ..Wanted::get(&path, 240, 10_000) });
        }
    }
    checks.done()
}

/// A library that only the last of ten thousand processes has, in a folder that no loader looks into, is probed when the
/// capture is ready, and that is in time.
fn ten_thousand() -> Result<()> {
    const CROWD: &str = "import ctypes, os, signal\n\
        libc = ctypes.CDLL(None)\n\
        for _ in range(10000):\n    \
            if os.fork() == 0:\n        \
                libc.prctl(1, signal.SIGKILL); signal.pause()\n\
        print('ready', flush=True)\nsignal.pause()";
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let libraries = site.libraries()?;
    let crowd = Dialogue::start(program::command("python3").args(["-S", "-E", "-c", CROWD]))?;
    let file = site.file(250, 100)?;
    let mut last = private(&site, &libraries, &server)?;
    asked(&mut last.dialogue, &format!("GET /before/{file}"), 200, &content::body(250, 100))?;
    let mut checks = Checks::start("/tls/crowd/", &[])?;
    let took = checks.tapstack.ready;
    let memory = checks.tapstack.peak()?;
    println!("ready in {took:?}, {} MiB resident", memory >> 20);
    last.get(&mut checks, &site, "/tls/crowd/0", 251, 20_000)?;
    drop(crowd);
    ensure!(took < Duration::from_secs(2), "ready only after {took:?}");
    ensure!(memory < 128 << 20, "{memory} bytes resident");
    checks.done()
}
