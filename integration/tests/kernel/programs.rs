//! The programs that people use, as clients and as servers: each exchange captured once at each end, bodies
//! byte for byte.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    thread,
};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content,
    http::Client,
    program::{self, Peer, Running, free_port},
    tapstack::Tapstack,
};

use crate::{
    PEER, Test,
    content_checks::{body_is, exactly},
};

pub(crate) const TESTS: &[Test] = &[
    ("curl_wget_python_and_node_ask", clients),
    ("python_http_server_answers", python_server),
    ("node_http_answers", node_server),
    ("nginx_with_sendfile_sends_1_mb", nginx_sendfile),
    ("nginx_proxies_and_both_legs_are_captured", nginx_proxy),
    ("haproxy_speaks_proxy_protocol_to_nginx", haproxy),
    ("2000_requests_on_20_connections_are_captured_once_each", many_requests),
    ("posts_of_400_kb_in_both_directions", posts),
];

/// A server of the tests' own.
fn peer() -> Result<Peer> {
    Peer::start(PEER, "serve", "127.0.0.1:0", "", None)
}

fn python(code: &str) -> std::process::Command {
    let mut command = program::command("python3");
    command.args(["-c", code]);
    command
}

fn clients() -> Result<()> {
    let server = peer()?;
    let mut tapstack = Tapstack::start()?;
    let base = format!("http://{}/clients", server.address);
    program::output(program::command("curl").args(["-sSf", "-o", "/dev/null", &format!("{base}/curl/bytes/1/50000")]))?;
    program::output(program::command("wget").args(["-q", "-O", "/dev/null", &format!("{base}/wget/bytes/2/50000")]))?;
    program::output(&mut python(&format!(
        "import urllib.request as u; assert len(u.urlopen('{base}/urllib/bytes/3/50000').read()) == 50000"
    )))?;
    program::output(program::command("node").args([
        "-e",
        &format!("require('http').get('{base}/node/bytes/4/50000', r => {{ r.resume(); r.on('end', () => process.exit(0)) }})"),
    ]))?;
    for (seed, name, exe) in [(1, "curl", "curl"), (2, "wget", "wget"), (3, "urllib", "python"), (4, "node", "node")] {
        let path = format!("/clients/{name}/bytes/{seed}/50000");
        let (client, at_server) = tapstack.both(&path)?;
        let sent = content::body(seed, 50000);
        body_is(&mut tapstack, &client, "response", &sent)?;
        body_is(&mut tapstack, &at_server, "response", &sent)?;
        ensure!(client.text("process_exe").contains(exe), "{name}: owner {}", client.text("process_exe"));
        ensure!(at_server.number("process_pid") == Some(u64::from(server.pid())), "{name}: {:?}", at_server.0);
        ensure!(client.number("response_status") == Some(200), "{name}: {:?}", client.0);
    }
    exactly(&mut tapstack, "/clients/", 8)
}

fn python_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("file.bin"), content::body(5, 300_000))?;
    let port = free_port()?;
    let mut command = program::command("python3");
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(&folder);
    let server = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?.listens(port)?;
    let mut tapstack = Tapstack::start()?;
    let url = format!("http://127.0.0.1:{port}/file.bin");
    program::output(program::command("curl").args(["-sSf", "-o", "/dev/null", &url]))?;
    let (client, at_server) = tapstack.both("/file.bin")?;
    for record in [&client, &at_server] {
        body_is(&mut tapstack, record, "response", &content::body(5, 300_000))?;
    }
    ensure!(at_server.number("process_pid") == Some(u64::from(server.pid())), "{:?}", at_server.0);
    exactly(&mut tapstack, "/file.bin", 2)
}

fn node_server() -> Result<()> {
    let port = free_port()?;
    // Answers in chunks, what it got.
    let code = format!(
        "require('http').createServer((q, s) => {{ s.setHeader('content-type', 'application/octet-stream'); q.pipe(s) }})
         .listen({port}, '127.0.0.1')"
    );
    let server = Running::start(program::command("node").args(["-e", &code]))?.listens(port)?;
    let mut tapstack = Tapstack::start()?;
    let sent = content::body(6, 250_000);
    let mut client = Client::open(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let answer = client.ask("POST", "/node/echo", "", Some(&sent))?;
    ensure!(answer.body == sent && answer.field("transfer-encoding") == Some("chunked"), "node: {:?}", answer.fields);
    let (client, at_server) = tapstack.both("/node/echo")?;
    for record in [&client, &at_server] {
        body_is(&mut tapstack, record, "request", &sent)?;
        let object = body_is(&mut tapstack, record, "response", &sent)?;
        ensure!(object.text("/completeness/response/end") == "chunked", "{}", object.0["completeness"]);
    }
    ensure!(at_server.number("process_pid") == Some(u64::from(server.pid())), "{:?}", at_server.0);
    exactly(&mut tapstack, "/node/", 2)
}

/// Starts nginx with `server` as the content of its one server block. Without a master: that could only be ended
/// together with its worker as long as this process is there to do it.
pub(crate) fn nginx(folder: &Path, port: u16, server: &str) -> Result<Running> {
    let at = folder.display();
    let configuration = format!(
        "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log; user root;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; sendfile on; keepalive_requests 100000; default_type application/octet-stream;\n\
         client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u;\n\
         scgi_temp_path {at}/s; client_max_body_size 8m;\n\
         server {{ {server} }} }}\n"
    );
    fs::write(folder.join("nginx.conf"), configuration)?;
    let mut command = program::command("nginx");
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(folder.join("nginx.conf"));
    Running::start(&mut command)?.listens(port)
}

fn nginx_sendfile() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (file, port) = (content::body(7, 1_000_000), free_port()?);
    fs::write(folder.path().join("1mb"), &file)?;
    let root = folder.path().display();
    let _server = nginx(folder.path(), port, &format!("listen 127.0.0.1:{port}; root {root};"))?;
    let mut tapstack = Tapstack::start_with(&["--ring", "128M"])?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    thread::scope(|scope| {
        let each = (0..4).map(|c| {
            let file = &file;
            scope.spawn(move || -> Result<()> {
                let mut client = Client::open(address)?;
                for n in 0..5 {
                    let answer = client.ask("GET", &format!("/1mb?n={c}-{n}"), "", None)?;
                    ensure!(answer.body == *file, "nginx sent something else");
                }
                Ok(())
            })
        });
        let each: Vec<_> = each.collect();
        each.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    let found = tapstack.wait_for("/1mb", 40)?;
    for record in &found {
        body_is(&mut tapstack, record, "response", &file)?;
        if record.end() == "server" {
            ensure!(record.text("process_exe").ends_with("/nginx"), "owner {}", record.text("process_exe"));
        }
    }
    exactly(&mut tapstack, "/1mb", 40)
}

fn nginx_proxy() -> Result<()> {
    let server = peer()?;
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let conf = format!("listen 127.0.0.1:{port}; location / {{ proxy_pass http://{}; }}", server.address);
    let _proxy = nginx(folder.path(), port, &conf)?;
    let mut tapstack = Tapstack::start()?;
    let path = "/proxied/bytes/8/70000";
    program::output(program::command("curl").args([
        "-sSf",
        "-o",
        "/dev/null",
        &format!("http://127.0.0.1:{port}{path}"),
    ]))?;
    let found = tapstack.wait_for(path, 4)?;
    let mut owners = Vec::new();
    for record in &found {
        body_is(&mut tapstack, record, "response", &content::body(8, 70000))?;
        let exe = record.text("process_exe").rsplit('/').next().unwrap_or_default();
        owners.push(format!("{exe} {}", record.end()));
    }
    owners.sort();
    ensure!(owners == ["curl client", "nginx client", "nginx server", "peer server"], "{owners:?}");
    let legs: std::collections::BTreeSet<_> = found.iter().map(|r| r.text("exchange_id")).collect();
    ensure!(legs.len() == 2, "two legs are two exchanges: {legs:?}");
    exactly(&mut tapstack, path, 4)
}

fn haproxy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (front, back) = (free_port()?, free_port()?);
    fs::write(folder.path().join("file"), content::body(9, 30000))?;
    let root = folder.path().display();
    let conf = format!("listen 127.0.0.1:{back} proxy_protocol; root {root};");
    let _nginx = nginx(folder.path(), back, &conf)?;
    let configuration = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n\
         listen test\n bind 127.0.0.1:{front}\n server nginx 127.0.0.1:{back} send-proxy\n"
    );
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, configuration)?;
    let _haproxy = Running::start(program::command("haproxy").arg("-db").arg("-f").arg(&file))?.listens(front)?;
    let mut tapstack = Tapstack::start()?;
    program::output(program::command("curl").args([
        "-sSf",
        "-o",
        "/dev/null",
        &format!("http://127.0.0.1:{front}/file"),
    ]))?;
    let found = tapstack.wait_for("/file", 4)?;
    let mut noted = 0;
    for record in &found {
        let object = body_is(&mut tapstack, record, "response", &content::body(9, 30000))?;
        let notes = object.0["completeness"]["notes"].to_string();
        noted += usize::from(notes.contains("proxy-protocol"));
    }
    ensure!(noted == 2, "both ends of the leg behind haproxy say so: {noted}");
    exactly(&mut tapstack, "/file", 4)
}

fn many_requests() -> Result<()> {
    let server = peer()?;
    let mut tapstack = Tapstack::start_with(&["--ring", "128M"])?;
    let address = server.address;
    thread::scope(|scope| {
        let each: Vec<_> = (0..20_usize)
            .map(|c| {
                scope.spawn(move || -> Result<()> {
                    let mut client = Client::open(address)?;
                    for n in c * 100..c * 100 + 100 {
                        let path = format!("/many/{n}/bytes/{n}/{}", 200 + n);
                        let answer = client.ask("GET", &path, &format!("X-Number: {n}\r\n"), None)?;
                        ensure!(answer.body == content::body(n as u64, 200 + n), "wrong answer to {path}");
                    }
                    Ok(())
                })
            })
            .collect();
        each.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    let found = tapstack.wait_for("/many/", 4000)?;
    let mut seen = std::collections::BTreeSet::new();
    for record in &found {
        let n: usize = record.path().split('/').nth(2).unwrap_or_default().parse()?;
        ensure!(seen.insert((n, record.end().to_owned())), "{n} twice at the {} end", record.end());
        let object = body_is(&mut tapstack, record, "response", &content::body(n as u64, 200 + n))?;
        let number = object.header("request", "X-Number");
        ensure!(number == n.to_string(), "request {n} has the header of {number:?}");
    }
    exactly(&mut tapstack, "/many/", 4000)
}

fn posts() -> Result<()> {
    let server = peer()?;
    let mut tapstack = Tapstack::start()?;
    let mut client = Client::open(server.address)?;
    for seed in 20..25 {
        let sent = content::body(seed, 400 << 10);
        let answer = client.ask("POST", &format!("/post/{seed}"), "", Some(&sent))?;
        ensure!(answer.body == sent, "the echo differs");
    }
    for seed in 20..25 {
        let sent = content::body(seed, 400 << 10);
        let (client, server) = tapstack.both(&format!("/post/{seed}"))?;
        for record in [client, server] {
            body_is(&mut tapstack, &record, "request", &sent)?;
            body_is(&mut tapstack, &record, "response", &sent)?;
        }
    }
    // What `show` prints is what the gateway serves.
    let record = tapstack.find("/post/24")?.pop().context("gone")?;
    let (shown, opened) = (tapstack.show(&record)?, tapstack.object(&record)?);
    ensure!(shown.0 == opened.0, "show and gateway differ");
    exactly(&mut tapstack, "/post/", 10)
}
