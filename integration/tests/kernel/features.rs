//! HTTP/1 on the wire, through the real kernel: what each form becomes in the archive.
//!
//! Both ends are sockets of the test; what they send is written out, byte for byte.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread::JoinHandle,
};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content,
    http::PATIENCE,
    tapstack::{Object, Record, Tapstack},
};
use serde_json::json;

use crate::{Test, content_checks::exactly};

pub(crate) const TESTS: &[Test] = &[
    ("eleven_pipelined_requests_are_eleven_exchanges", pipelined),
    ("chunks_and_trailers_are_understood", chunked),
    ("head_204_and_304_have_no_body", bodiless),
    ("interim_responses_are_kept_with_the_final_one", interim),
    ("a_body_may_end_with_the_connection", close_delimited),
    ("connect_hands_the_connection_over", connect),
    ("an_upgrade_hands_the_connection_over", upgrade),
    ("an_unanswered_request_is_kept_and_marked", unanswered),
    ("a_body_cut_by_a_reset_is_marked", reset),
    ("a_repeated_header_keeps_its_order", repeated),
];

/// Reads until the stream has said something that ends like this.
fn expect(stream: &mut TcpStream, end: &[u8]) -> Result<()> {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !seen.ends_with(end) {
        let n = stream.read(&mut piece)?;
        ensure!(n > 0, "the end, after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..n]);
    }
    Ok(())
}

type Side = fn(&mut TcpStream) -> Result<()>;

/// Lets two scripts talk over one connection to its end.
fn talk(client: Side, server: Side) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let bounded = |stream: &TcpStream| -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream.set_write_timeout(Some(PATIENCE))?)
    };
    let served: JoinHandle<Result<()>> = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        bounded(&stream)?;
        server(&mut stream).context("the server's script")
    });
    let mut stream = TcpStream::connect(address)?;
    bounded(&stream)?;
    let asked = client(&mut stream).context("the client's script");
    drop(stream);
    served.join().map_err(|_| anyhow::anyhow!("the server's script panicked"))??;
    asked.map(|()| address)
}

/// Sends bytes.
fn say(stream: &mut TcpStream, text: impl AsRef<[u8]>) -> Result<()> {
    Ok(stream.write_all(text.as_ref())?)
}

/// Reads to the end.
fn drain(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    Ok(rest)
}

/// The objects of both ends of the exchange with this path.
fn objects(tapstack: &mut Tapstack, path: &str) -> Result<Vec<(Record, Object)>> {
    let (client, server) = tapstack.both(path)?;
    [client, server].into_iter().map(|r| tapstack.object(&r).map(|object| (r, object))).collect()
}

fn pipelined() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            let all: String = (0..11)
                .map(|n| match n {
                    3 => "POST /pipe/3 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
                    _ => format!("GET /pipe/{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
                })
                .collect();
            say(client, all)?;
            expect(client, b"answer 10")
        },
        |server| {
            expect(server, b"GET /pipe/10 HTTP/1.1\r\nHost: a\r\n\r\n")?;
            let answer = |n: usize| {
                let text = format!("answer {n}");
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
            };
            say(server, (0..11).map(answer).collect::<String>())
        },
    )?;
    let found = tapstack.wait_for("/pipe/", 22)?;
    for record in &found {
        let object = tapstack.object(record)?;
        let n = record.path().trim_start_matches("/pipe/");
        ensure!(object.body("response")? == format!("answer {n}").as_bytes(), "{}: {}", record.path(), object.0);
        ensure!(
            object.0["connection"]["exchange"].as_u64() == n.parse().ok(),
            "number {n}: {}",
            object.0["connection"]
        );
        ensure!(object.body("request")? == if n == "3" { &b"body"[..] } else { b"" }, "request body of {n}");
        ensure!(record.complete(), "{n}: {}", object.0["completeness"]);
    }
    exactly(&mut tapstack, "/pipe/", 22)
}

fn chunked() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            say(client, "5;name=value\r\nhello\r\n")?;
            say(client, "6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n")?;
            expect(client, b"X-Check: yes\r\n\r\n")
        },
        |server| {
            expect(server, b"X-Sum: 11\r\n\r\n")?;
            say(server, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n")?;
            say(server, "1\r\na\r\n")?;
            say(server, "00a\r\nbcdefghijk\r\n0\r\nX-Check: yes\r\n\r\n")
        },
    )?;
    for (record, object) in objects(&mut tapstack, "/chunked")? {
        ensure!(object.body("request")? == b"hello world", "{}", object.0);
        ensure!(object.body("response")? == b"abcdefghijk", "{}", object.0);
        ensure!(object.0["request"]["trailer_list"] == json!([["X-Sum", "11"]]), "{}", object.0["request"]);
        ensure!(object.0["response"]["trailer_list"] == json!([["X-Check", "yes"]]), "{}", object.0["response"]);
        ensure!(object.text("/completeness/response/end") == "chunked", "{}", object.0["completeness"]);
        ensure!(record.complete(), "{}", object.0["completeness"]);
    }
    exactly(&mut tapstack, "/chunked", 2)
}

fn bodiless() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "HEAD /none/head HTTP/1.1\r\nHost: a\r\n\r\n")?;
            expect(client, b"Content-Length: 1000\r\n\r\n")?;
            say(client, "GET /none/204 HTTP/1.1\r\nHost: a\r\n\r\n")?;
            expect(client, b"HTTP/1.1 204 No Content\r\n\r\n")?;
            say(client, "GET /none/304 HTTP/1.1\r\nHost: a\r\n\r\n")?;
            expect(client, b"Content-Length: 7\r\n\r\n")?;
            say(client, "GET /none/last HTTP/1.1\r\nHost: a\r\n\r\n")?;
            expect(client, b"last")
        },
        |server| {
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 204 No Content\r\n\r\n")?;
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n")?;
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast")
        },
    )?;
    for (path, status) in [("/none/head", 200), ("/none/204", 204), ("/none/304", 304), ("/none/last", 200)] {
        for (record, object) in objects(&mut tapstack, path)? {
            ensure!(record.number("response_status") == Some(status), "{path}: {:?}", record.0);
            let body = if path == "/none/last" { &b"last"[..] } else { b"" };
            ensure!(object.body("response")? == body, "{path}: {}", object.0);
            ensure!(record.complete(), "{path}: {}", object.0["completeness"]);
        }
    }
    exactly(&mut tapstack, "/none/", 8)
}

fn interim() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "PUT /interim HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")?;
            expect(client, b"HTTP/1.1 100 Continue\r\n\r\n")?;
            say(client, "12345")?;
            expect(client, b"done")
        },
        |server| {
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 100 Continue\r\n\r\n")?;
            expect(server, b"12345")?;
            say(server, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")?;
            say(server, "HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\ndone")
        },
    )?;
    for (record, object) in objects(&mut tapstack, "/interim")? {
        ensure!(record.number("response_status") == Some(201), "{:?}", record.0);
        ensure!(object.body("request")? == b"12345" && object.body("response")? == b"done", "{}", object.0);
        let statuses: Vec<_> =
            object.0["response"]["interim"].as_array().into_iter().flatten().map(|i| &i["status"]).collect();
        ensure!(statuses == [100, 103], "{}", object.0["response"]);
        ensure!(record.complete(), "{}", object.0["completeness"]);
    }
    exactly(&mut tapstack, "/interim", 2)
}

fn close_delimited() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "GET /close HTTP/1.0\r\n\r\n")?;
            ensure!(drain(client)?.len() > 100_000, "cut");
            Ok(())
        },
        |server| {
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n")?;
            say(server, content::body(100, 100_000))
        },
    )?;
    for (record, object) in objects(&mut tapstack, "/close")? {
        ensure!(object.body("response")? == content::body(100, 100_000), "the body differs");
        ensure!(object.text("/completeness/response/end") == "close", "{}", object.0["completeness"]);
        ensure!(object.text("/request/version") == "HTTP/1.0", "{}", object.0["request"]);
        ensure!(record.complete(), "{}", object.0["completeness"]);
    }
    exactly(&mut tapstack, "/close", 2)
}

/// What goes through a tunnel looks like HTTP and is not of this connection.
fn tunnel(tapstack: &mut Tapstack, opened: &[(Record, Object)], status: u64) -> Result<()> {
    for (record, object) in opened {
        ensure!(record.number("response_status") == Some(status), "{:?}", record.0);
        ensure!(object.body("response")?.is_empty() && object.body("request")?.is_empty(), "{}", object.0);
    }
    ensure!(tapstack.metric("handovers")? >= 1, "a hand-over is counted");
    exactly(tapstack, "/inside", 0)
}

fn connect() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "CONNECT inner.test:443 HTTP/1.1\r\nHost: inner.test:443\r\n\r\n")?;
            expect(client, b"\r\n\r\n")?;
            say(client, "GET /inside HTTP/1.1\r\nHost: b\r\n\r\n")?;
            expect(client, b"secret")
        },
        |server| {
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 200 Connection established\r\n\r\n")?;
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
        },
    )?;
    let mine = |r: &&Record| r.text("request_method") == "CONNECT" && r.text("request_host").starts_with("inner.test");
    let opened = tapstack.wait("", |all| {
        let found: Vec<Record> = all.iter().filter(mine).cloned().collect();
        (found.len() >= 2).then_some(found)
    })?;
    ensure!(opened.len() == 2, "{opened:?}");
    let opened = opened.into_iter().map(|r| tapstack.object(&r).map(|o| (r, o))).collect::<Result<Vec<_>>>()?;
    tunnel(&mut tapstack, &opened, 200)
}

fn upgrade() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(
                client,
                "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            )?;
            expect(client, b"\r\n\r\n")?;
            say(client, b"\x81\x05hello")?;
            say(client, "GET /inside HTTP/1.1\r\nHost: b\r\n\r\n")?;
            expect(client, b"\x81\x03bye")
        },
        |server| {
            expect(server, b"\r\n\r\n")?;
            say(
                server,
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
            )?;
            expect(server, b"\r\n\r\n")?;
            say(server, b"\x81\x03bye")
        },
    )?;
    let opened = objects(&mut tapstack, "/upgrade")?;
    tunnel(&mut tapstack, &opened, 101)
}

fn unanswered() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "POST /unanswered HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")?;
            drain(client).map(drop)
        },
        |server| expect(server, b"abc"),
    )?;
    for (record, object) in objects(&mut tapstack, "/unanswered")? {
        ensure!(record.number("response_status").is_none(), "a status was invented: {:?}", record.0);
        ensure!(record.text("error_type") == "no_response" && !record.complete(), "{:?}", record.0);
        ensure!(object.body("request")? == b"abc" && object.0["response"].is_null(), "{}", object.0);
    }
    exactly(&mut tapstack, "/unanswered", 2)
}

fn reset() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "GET /reset HTTP/1.1\r\nHost: a\r\n\r\n")?;
            expect(client, b"part")?;
            // Unread data at a close makes it a reset.
            client.shutdown(Shutdown::Write)?;
            let _ = drain(client);
            Ok(())
        },
        |server| {
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart")?;
            integration::sys::abort_on_close(server)?;
            expect(server, b"never").err().context("the client said more").map(drop)
        },
    )?;
    for (record, object) in objects(&mut tapstack, "/reset")? {
        ensure!(record.text("error_type") == "connection_closed" && !record.complete(), "{:?}", record.0);
        ensure!(object.body("response")? == b"part", "{}", object.0);
        ensure!(object.text("/completeness/response/end") == "cut", "{}", object.0["completeness"]);
    }
    exactly(&mut tapstack, "/reset", 2)
}

fn repeated() -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    talk(
        |client| {
            say(client, "GET /repeated HTTP/1.1\r\nHost: a\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\n\r\n")?;
            expect(client, b"ok")
        },
        |server| {
            expect(server, b"\r\n\r\n")?;
            say(server, "HTTP/1.1 200 OK\r\nVary: a\r\nContent-Length: 2\r\nVary: b\r\n\r\nok")
        },
    )?;
    for (_, object) in objects(&mut tapstack, "/repeated")? {
        let sent = json!([["Host", "a"], ["X-B", "1"], ["x-a", "2"], ["X-B", "3"]]);
        ensure!(object.0["request"]["header_list"] == sent, "{}", object.0["request"]);
        let answered = json!([["Vary", "a"], ["Content-Length", "2"], ["Vary", "b"]]);
        ensure!(object.0["response"]["header_list"] == answered, "{}", object.0["response"]);
        ensure!(object.text("/response/headers/Vary") == "a, b", "{}", object.0["response"]);
    }
    exactly(&mut tapstack, "/repeated", 2)
}
