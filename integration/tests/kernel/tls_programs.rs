//! HTTPS between the programs that people use.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content,
    program::{self, Running, free_port},
    tapstack::{Record, Tapstack},
    tls::{Server, Site, python},
};

use crate::{
    Test,
    tls::{Asking, Checks, Owner, Wanted, curl, curl_file},
};

pub(crate) const TESTS: &[Test] = &[
    ("tls_a_curl_right_after_readiness_is_captured", first_run),
    ("tls_curl_python_and_node_ask_nginx_python_and_node", programs),
    ("tls_openssl_s_client_asks_s_server_and_nginx", openssl),
    ("tls_wrk_1000_requests_on_16_connections_are_captured_once_each", wrk),
    ("tls_a_tunnel_inside_connect_is_read", tunnel),
];

/// No process has the library loaded but this curl, which is new and lives for some 30 ms. (The server's end is read
/// from soon after readiness on: it has OpenSSL in its executable.)
fn first_run() -> Result<()> {
    let site = Site::new()?;
    let server = site.server("node")?;
    site.file(1, 1000)?;
    let mut tapstack = Tapstack::start()?;
    let (wanted, took) = program::timed(|| curl_file(&site, &server, "/tls/first", 1, 1000, &[]));
    let wanted = wanted?;
    println!("curl lived for {took:?}, begun at once after readiness");
    let record = tapstack.wait(&wanted.path, |all| all.iter().find(|r| r.end() == "client").cloned())?;
    wanted.end(&mut tapstack, &record)
}

fn programs() -> Result<()> {
    let site = Site::new()?;
    let mut servers = vec![site.nginx("", |_| {})?];
    for model in ["threads", "prefork", "asyncio", "node"] {
        servers.push(site.server(model).context(model)?);
    }
    let mut checks = Checks::start("/tls/programs/", &[])?;
    for (at, server) in servers.iter().enumerate() {
        let at = format!("/tls/programs/{at}-{}", server.name);
        let seed = u64::from(server.port);
        let own = (server.name != "python3").then(|| server.pid());
        let answering = Owner(server.name, own);
        let wanted = curl_file(&site, server, &format!("{at}/curl"), seed, 50_000, &[])?;
        checks.add(Wanted { server: answering, ..wanted });
        let mut clients = Vec::new();
        for model in ["session", "urllib", "asyncio"] {
            let host = format!("{model}.tls.test");
            clients.push((model, host.clone(), site.python(model, &host, server.port, &[])));
        }
        for model in ["fetch", "https"] {
            let host = format!("{model}.tls.test");
            clients.push((model, host.clone(), site.node(model, &host, server.port)));
        }
        for (model, host, command) in clients {
            let mut client = Asking::start(command, &host, server)?;
            client.shared.server = answering;
            let at = format!("{at}/{model}");
            client.get(&mut checks, &site, &format!("{at}/1"), seed, 20_000)?;
            client.send(&mut checks, &site, &at, seed, 30_000)?;
            client.get(&mut checks, &site, &format!("{at}/2"), seed + 1, 300)?;
        }
    }
    checks.done()
}

/// One request by `openssl s_client`, with further options. The body is text: `s_server` calls all files that.
pub(crate) fn s_client(
    mut command: std::process::Command,
    server: &Server,
    path: &str,
    options: &[&str],
    body: &[u8],
) -> Result<Wanted> {
    let port = server.port;
    command.args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}"), "-servername", "a.tls.test"]);
    // Reads standard input to its end, then the connection to its end.
    let request = tempfile::NamedTempFile::new()?;
    std::fs::write(request.path(), format!("GET {path} HTTP/1.0\r\nHost: a.tls.test\r\n\r\n"))?;
    command.args(options).arg("-ign_eof");
    let output = program::outcome_of(&mut command, request.reopen()?.into(), Duration::from_secs(20))?;
    let got = output.stdout.windows(4).position(|w| w == b"\r\n\r\n").map(|at| &output.stdout[at + 4..]);
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(got == Some(body), "{path}: s_client got {} bytes: {said}", output.stdout.len());
    let (client, server) = (Owner("openssl", None), Owner(server.name, None));
    let wanted = Wanted::get(path, 0, 0);
    Ok(Wanted { response: body.to_vec(), sni: "a.tls.test".to_owned(), client, server, ..wanted })
}

fn openssl() -> Result<()> {
    let site = Site::new()?;
    // s_server takes the path as it is.
    let folder = site.folder().join("tls/openssl");
    std::fs::create_dir_all(&folder)?;
    let own = site.s_server(program::command("openssl"), &[])?;
    let nginx = site.nginx("", |_| {})?;
    let mut checks = Checks::start("/tls/openssl/", &[])?;
    for (server, versions) in [(&own, ["-tls1_3", "-tls1_2"]), (&nginx, ["-tls1_2", "-tls1_3"])] {
        for version in versions {
            for len in [0_usize, 700, 40_000] {
                let name = format!("{}{version}-{len}", server.name);
                let body = content::text(len as u64, len);
                std::fs::write(folder.join(&name), &body)?;
                std::fs::write(site.folder().join(&name), &body)?;
                let path = format!("/tls/openssl/{name}");
                let mut wanted = s_client(program::command("openssl"), server, &path, &[version], &body)?;
                wanted.version = if version == "-tls1_2" { "TLSv1.2" } else { "TLSv1.3" };
                checks.add(wanted);
            }
        }
    }
    checks.done()
}

fn wrk() -> Result<()> {
    const COUNT: usize = 1000;
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let file = site.file(3, 1000)?;
    let mut checks = Checks::start("/tls/wrk/", &["--ring", "128M"])?;
    let said = program::output(&mut site.wrk(&server.url("localhost", "/"), "/tls/wrk/", &file, COUNT))?;
    let said = String::from_utf8_lossy(&said);
    ensure!(said.contains(&format!("{COUNT} requests in")), "{said}");
    for n in 1..=COUNT {
        let wanted = Wanted::get(&format!("/tls/wrk/{n}/{file}"), 3, 1000);
        let (client, server) = (Owner("wrk", None), Owner("nginx", Some(server.pid())));
        checks.add(Wanted { sni: "localhost".to_owned(), client, server, ..wanted });
    }
    let connections = |end: &str, found: &[Record]| {
        let mine = found.iter().filter(|r| r.end() == end);
        mine.map(|r| r.text("connection_id").to_owned()).collect::<BTreeSet<_>>().len()
    };
    let found = checks.tapstack.wait_for("/tls/wrk/", COUNT * 2);
    if let Ok(found) = found {
        let (asked, answered) = (connections("client", &found), connections("server", &found));
        ensure!(asked == 16 && answered == 16, "16 connections, not {asked} and {answered}");
    }
    checks.done()
}

fn tunnel() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let port = free_port()?;
    let mut proxy = python("connect_proxy.py");
    let proxy = Running::start(proxy.arg(port.to_string()).stdin(Stdio::null()))?.listens(port)?;
    let mut checks = Checks::start("/tls/tunnel/", &[])?;
    let through = format!("http://127.0.0.1:{port}");
    for n in 0..3_u64 {
        let name = site.file(n, 30_000)?;
        let options = ["--noproxy", "", "-x", &through];
        let wanted = curl(&site, &server, &format!("/tls/tunnel/{n}/{name}"), &options)?;
        checks.add(Wanted { apart: true, response: content::body(n, 30_000), ..wanted });
    }
    // The tunnels' openings are exchanges of their own, in the clear, between curl and the proxy.
    let opened = checks.tapstack.wait("", |all| {
        let mine = |r: &&Record| r.text("request_method") == "CONNECT";
        let found: Vec<_> = all.iter().filter(mine).cloned().collect();
        (found.len() >= 6).then_some(found)
    })?;
    ensure!(opened.len() == 6, "{} records of CONNECT, not 6", opened.len());
    for record in opened.iter().filter(|r| r.end() == "server") {
        ensure!(record.number("process_pid") == Some(u64::from(proxy.pid())), "owner: {:?}", record.0);
    }
    checks.done()
}
