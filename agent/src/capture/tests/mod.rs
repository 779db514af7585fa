//! Exchanges in, transactions out. `secrets` plants secrets everywhere and looks for them.

mod secrets;
mod shape;

use std::io::Write as _;

use transaction::{
    Level, Sealed, Transaction,
    object::{Direction, End, Process},
};

use super::{Capture, Context, Observed, Unkept};
use crate::http::{Exchange, Framing, Head, Message};

/// A message of HTTP/1.1 whose body came whole.
pub(super) fn message(method: &str, target: &str, status: u16, fields: &[(&str, &str)], body: &[u8]) -> Message {
    Message {
        head: Head {
            method: method.into(),
            target: target.into(),
            status,
            version: 11,
            fields: fields.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        },
        body: body.to_vec(),
        head_bytes: 100,
        body_bytes: body.len() as u64,
        wire_bytes: 100 + body.len() as u64,
        framing: if body.is_empty() { Framing::None } else { Framing::Length },
        ended: true,
        first_ns: 1_000_000,
        last_ns: 1_500_000,
        ..Message::default()
    }
}

pub(super) fn request(target: &str, fields: &[(&str, &str)], body: &[u8]) -> Message {
    message(if body.is_empty() { "GET" } else { "POST" }, target, 0, fields, body)
}

pub(super) fn response(status: u16, fields: &[(&str, &str)], body: &[u8]) -> Message {
    Message { first_ns: 3_000_000, last_ns: 3_250_499, ..message("", "OK", status, fields, body) }
}

pub(super) fn exchange(request: Message, response: Message) -> Exchange {
    Exchange { request: Some(request), response: Some(response), ..Exchange::default() }
}

pub(super) fn process() -> Process {
    Process { pid: 4242, exe: "/usr/bin/curl".into(), args: vec!["curl".into(), "-s".into()], ..Process::default() }
}

pub(super) fn context() -> Context<'static> {
    Context {
        host_name: "host-1",
        server: "198.51.100.7:8080".parse().unwrap(),
        exchange_id: "abcdefghij0123456789",
        from_start: true,
        source: "edge",
        tls: None,
        scheme: "http",
        unix_offset_ns: 1_790_000_000_000_000_000,
    }
}

/// The client's end.
pub(super) fn observed(process: &Process) -> Observed<'_> {
    Observed {
        process,
        local: "192.0.2.1:40000".parse().ok(),
        remote: "198.51.100.7:8080".parse().ok(),
        end: End::Client,
        direction: Direction::EgressExternal,
        connection_id: "0123456789abcdefghij",
        container_name: "",
        container_image: "",
        pod_name: "",
        pod_namespace: "",
        tags: &[],
    }
}

/// What is kept of an exchange that this process asked for.
pub(super) fn sealed(capture: &Capture, exchange: &Exchange, process: &Process) -> Result<Sealed, Unkept> {
    Ok(capture.prepare(exchange, &context())?.keep(&observed(process)))
}

/// The object's bytes.
pub(super) fn bytes(capture: &Capture, exchange: &Exchange, process: &Process) -> Vec<u8> {
    sealed(capture, exchange, process).unwrap().bytes
}

pub(super) fn keep(level: Level, exchange: &Exchange) -> Transaction {
    serde_json::from_slice(&bytes(&Capture::new(level), exchange, &process())).unwrap()
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}
