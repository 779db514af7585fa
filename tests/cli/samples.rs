//! Transactions for an archive to read.

use std::{path::Path, time::SystemTime};

use archive::{Archive, Entry, Options};
use transaction::{
    Digest, Level, Sealed, Transaction,
    object::{
        Body, Completeness, Connection, Direction, End, Gap, Headers, Metadata, Process, Redaction, Request, Response,
        Seen, Timing,
    },
    seal,
};

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// Opens an archive for writing.
pub(crate) fn open(dir: &Path) -> Archive {
    Archive::open(dir, Options::default()).expect("the archive opens")
}

/// Appends a transaction; returns its digest.
pub(crate) fn append(archive: &Archive, sealed: Sealed) -> Digest {
    let digest = sealed.record.digest;
    archive.append(Entry::Transaction(sealed)).expect("the queue has room");
    digest
}

/// An archive with the first `count` of [`sample`].
pub(crate) fn fill(dir: &Path, count: u64) -> Vec<Digest> {
    let archive = open(dir);
    let digests = (0..count).map(|n| append(&archive, sample(n))).collect();
    archive.close().expect("all is written");
    digests
}

/// Number `n`: status, method, end and age go round.
pub(crate) fn sample(n: u64) -> Sealed {
    let body = format!(r#"{{"id":{n},"name":"item {n}"}}"#);
    let text = |s: &str| s.to_owned();
    let status = [200, 301, 404, 503][(n % 4) as usize];
    let end = if n.is_multiple_of(2) { End::Client } else { End::Server };
    let fields = vec![
        (text("Host"), text("api.example:8080")),
        (text("Authorization"), text("***")),
        (text("Accept"), text("application/json")),
    ];
    let transaction = Transaction {
        metadata: Metadata {
            process_exe: text("/usr/bin/curl"),
            bytes_sent: 95,
            bytes_received: 170,
            request_id: transaction::id::id(&[b"r", &n.to_le_bytes()]),
            connection_id: transaction::id::id(&[b"c"]),
            ..Metadata::default()
        },
        request: Some(Request {
            method: text(if n.is_multiple_of(3) { "POST" } else { "GET" }),
            url: format!("http://api.example:8080/items/{n}?q={n}"),
            scheme: text("http"),
            path: format!("/items/{n}"),
            authority: text("api.example:8080"),
            protocol: text("http1"),
            version: text("HTTP/1.1"),
            headers: Headers(fields.clone()),
            header_list: fields,
            ..Request::default()
        }),
        response: Some(Response {
            status,
            reason: text(["OK", "Moved Permanently", "Not Found", "Service Unavailable"][(n % 4) as usize]),
            version: text("HTTP/1.1"),
            content_type: text("application/json"),
            header_list: vec![(text("Content-Type"), text("application/json"))],
            body: Body(body.into_bytes()),
            ..Response::default()
        }),
        end,
        direction: if end == End::Client { Direction::EgressInternal } else { Direction::Ingress },
        level: Level::Full,
        exchange_id: transaction::id::id(&[b"x", &(n / 2).to_le_bytes()]),
        timing: Timing { total_ns: 12_345_678, ttfb_ns: Some(9_000_000), ..Timing::default() },
        completeness: Completeness {
            complete: true,
            request: Seen { head_bytes: 95, ..Seen::default() },
            response: Seen { head_bytes: 140, body_bytes: 30, kept_bytes: 30, end: text("length"), ..Seen::default() },
            ..Completeness::default()
        },
        process: Process { pid: 4321, exe: text("/usr/bin/curl"), user: text("ann"), ..Process::default() },
        connection: Connection {
            local: text("127.0.0.1:40000"),
            remote: text("127.0.0.1:8080"),
            source: text("edge"),
            from_start: true,
            exchange: n,
        },
        redactions: vec![Redaction { place: text("request.header.Authorization"), action: text("mask"), count: 1 }],
        ..Transaction::default()
    };
    seal(&transaction, now() - n % 5 * 3_600_000_000_000)
}

/// A hostile one: what a terminal would act on in every place that comes from the wire, and a binary body with a
/// gap.
pub(crate) fn hostile() -> Sealed {
    let evil = |s: &str| format!("{s}\x1b]0;owned\x07\u{9b}31m\r\n\u{202e}");
    let transaction = Transaction {
        request: Some(Request {
            method: evil("GET"),
            url: evil("http://h/"),
            path: evil("/"),
            authority: evil("h"),
            version: evil("HTTP/1.1"),
            header_list: vec![(evil("X"), evil("y"))],
            body: Body(evil("text").into_bytes()),
            ..Request::default()
        }),
        response: Some(Response {
            status: 200,
            reason: evil("OK"),
            header_list: vec![(evil("X"), evil("y"))],
            body: Body(b"\xff\x00\x1b[2J".repeat(100)),
            ..Response::default()
        }),
        error_type: Some(evil("timeout")),
        process: Process { pid: 1, exe: evil("/bin/x"), args: vec![evil("-a")], ..Process::default() },
        completeness: Completeness {
            notes: vec![evil("n")],
            response: Seen {
                body_bytes: 900,
                kept_bytes: 600,
                truncated: vec!["gap".to_owned()],
                gaps: vec![Gap { offset: 600, bytes: 300, cause: "ring".to_owned() }],
                end: "cut".to_owned(),
                ..Seen::default()
            },
            ..Completeness::default()
        },
        redactions: vec![Redaction { place: evil("p"), action: "mask".to_owned(), count: 2 }],
        ..Transaction::default()
    };
    seal(&transaction, now())
}
