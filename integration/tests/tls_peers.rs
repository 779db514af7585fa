//! The HTTPS clients and servers of the tests talk to each other, without a capture: a kernel test that fails is
//! then not their fault. Needs no root.

use anyhow::{Context as _, Result, ensure};
use integration::{
    content,
    program::{self, Dialogue},
    tls::{Server, Site, asked},
};

const C: [&str; 13] = [
    "",
    "ex",
    "memory",
    "chain",
    "partial",
    "thread",
    "process",
    "readahead",
    "fresh",
    "clear",
    "fork",
    "seccomp",
    "tls1.2 ex",
];

fn servers(site: &Site) -> Result<Vec<Server>> {
    let mut all = vec![site.nginx("", |_| {})?];
    for model in ["threads", "prefork", "asyncio", "node"] {
        all.push(site.server(model).context(model)?);
    }
    Ok(all)
}

#[test]
fn every_client_can_talk_to_every_server() -> Result<()> {
    let site = Site::new()?;
    let (small, large) = (site.file(1, 1)?, site.file(2, 1 << 20)?);
    let sent = content::body(2, 1 << 20);
    for server in servers(&site)? {
        let port = server.port;
        let mut clients = Vec::new();
        for model in ["session", "urllib", "asyncio", "nonblocking", "resumed"] {
            clients.push((model, site.python(model, "a.tls.test", port, &[])));
        }
        for model in ["fetch", "https"] {
            clients.push((model, site.node(model, "a.tls.test", port)));
        }
        for options in C {
            clients.push((options, site.c(options, "a.tls.test", port)?));
        }
        for (name, mut command) in clients {
            let mut talk = || -> Result<()> {
                let mut client = Dialogue::start(&mut command)?;
                asked(&mut client, &format!("GET /x/{small}"), 200, &content::body(1, 1))?;
                asked(&mut client, &format!("GET /x/{large}"), 200, &sent)?;
                if name == "seccomp" {
                    return Ok(());
                }
                let file = site.folder().join(&large);
                if server.name == "nginx" {
                    asked(
                        &mut client,
                        &format!("PUT /x/put {}", file.display()),
                        if name.is_empty() { 201 } else { 204 },
                        b"",
                    )?;
                    ensure!(std::fs::read(site.folder().join("put"))? == sent, "nginx has stored something else");
                } else {
                    asked(&mut client, &format!("POST /x/echo {}", file.display()), 200, &sent)?;
                }
                Ok(())
            };
            // `PUT` makes the file first: 201 once, 204 from then on.
            let _ = (server.name == "nginx").then(|| std::fs::write(site.folder().join("put"), b""));
            if name.is_empty() && server.name == "nginx" {
                std::fs::remove_file(site.folder().join("put"))?;
            }
            talk().with_context(|| format!("{name} of {} to {}", command.get_program().display(), server.name))?;
        }
    }
    Ok(())
}

#[test]
fn sessions_are_resumed_and_calls_are_tried_again() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("ssl_session_cache shared:a:1m;", |_| {})?;
    let file = site.file(3, 1 << 20)?;
    let body = content::body(3, 1 << 20);
    for options in [&[][..], &["tls1.2"]] {
        let mut client = Dialogue::start(&mut site.python("resumed", "localhost", server.port, options))?;
        for expected in ["new", "resumed", "resumed"] {
            let note = asked(&mut client, &format!("GET /{file}"), 200, &body)?;
            ensure!(note == expected, "{options:?}: a session that is {note}, not {expected}");
        }
    }
    // More than the buffers of both sockets hold, however quick the server is.
    let large = site.file(4, 16 << 20)?;
    let mut client = Dialogue::start(&mut site.python("nonblocking", "localhost", server.port, &[]))?;
    let note = asked(&mut client, &format!("PUT /put {}", site.folder().join(&large).display()), 201, b"")?;
    println!("{note} calls were tried again");
    ensure!(note.parse::<u32>()? > 5, "{note} calls were tried again: no test");
    Ok(())
}

#[test]
fn wrk_sends_as_many_requests_as_it_is_told() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let file = site.file(4, 100)?;
    let output = program::output(&mut site.wrk(&server.url("localhost", "/"), "/n/", &file, 1000))?;
    let said = String::from_utf8_lossy(&output);
    ensure!(said.contains("1000 requests in"), "{said}");
    Ok(())
}

#[test]
fn wget_reads_from_gnutls() -> Result<()> {
    let site = Site::new()?;
    let server = site.server("gnutls")?;
    let file = site.file(5, 3 << 20)?;
    let mut command = program::command("wget");
    command.args(["-q", "-O", "-", "--ca-certificate"]).arg(site.authority());
    let got = program::output(command.arg(server.url("localhost", &format!("/{file}"))))?;
    ensure!(got == content::body(5, 3 << 20), "{} bytes came", got.len());
    Ok(())
}
