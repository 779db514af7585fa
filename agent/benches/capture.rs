//! What one exchange costs from the parser's output to the sealed object, in nanoseconds of one thread.
//!
//! `cargo bench -p agent --bench capture`. CPU time of the thread, the best of several rounds, so that other work
//! on the machine counts as little as it can; beside it what the SHA-1 of the object alone costs, because absolute
//! times differ from machine to machine. A part of a name after `--` measures only those.
#![allow(missing_docs, clippy::cast_precision_loss)]

use std::{fmt::Write as _, hint::black_box, time::Duration};

use agent::{
    capture::{Capture, Context, Observed},
    http::{Exchange, Framing, Head, Message},
};
use transaction::{
    Level,
    object::{Direction, End, Process},
};

fn message(method: &str, target: &str, status: u16, fields: &[(&str, &str)], body: Vec<u8>) -> Message {
    Message {
        head: Head {
            method: method.into(),
            target: target.into(),
            status,
            version: 11,
            fields: fields.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect(),
        },
        head_bytes: 200,
        body_bytes: body.len() as u64,
        wire_bytes: 200 + body.len() as u64,
        framing: if body.is_empty() { Framing::None } else { Framing::Length },
        body,
        ended: true,
        first_ns: 1_000_000,
        last_ns: 2_000_000,
        ..Message::default()
    }
}

fn exchange(media: &str, body: Vec<u8>) -> Exchange {
    let request = [
        ("Host", "api.example.com"),
        ("User-Agent", "python-requests/2.32.3"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Accept", "*/*"),
        ("Connection", "keep-alive"),
        ("Authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ];
    let length = body.len().to_string();
    let response = [
        ("Server", "nginx/1.27.1"),
        ("Date", "Sat, 21 Nov 2026 11:00:00 GMT"),
        ("Content-Type", media),
        ("Content-Length", &length),
        ("Connection", "keep-alive"),
        ("ETag", "\"66f3b1a5-400\""),
        ("Cache-Control", "no-cache"),
    ];
    Exchange {
        request: Some(message("GET", "/v1/orders/1234?page=2&limit=50", 0, &request, Vec::new())),
        response: Some(message("", "OK", 200, &response, body)),
        ..Exchange::default()
    }
}

/// Orders as an API would list them, `bytes` long.
fn json(bytes: usize) -> Vec<u8> {
    let mut text = String::from("[");
    let mut n = 0;
    while text.len() < bytes {
        n += 1;
        let _ = write!(
            text,
            r#"{{"id":{n},"customer":"Customer {n}","status":"shipped","total":{}.50,"items":[{{"sku":"AB-{n}","count":2}}],"note":"left at the door"}},"#,
            n * 3
        );
    }
    text.truncate(bytes);
    text.into_bytes()
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the right type, and the call keeps none.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn main() {
    let process = Process {
        pid: 4242,
        exe: "/usr/bin/python3.13".into(),
        args: vec!["python3".into(), "client.py".into()],
        ..Process::default()
    };
    let context = Context {
        host_name: "host-1",
        server: ([198, 51, 100, 7], 8080).into(),
        exchange_id: "abcdefghij0123456789",
        from_start: true,
        source: "edge",
        tls: None,
        scheme: "http",
        unix_offset_ns: 1_790_000_000_000_000_000,
    };
    let client = Observed {
        process: &process,
        local: Some(([192, 0, 2, 1], 40000).into()),
        remote: Some(([198, 51, 100, 7], 8080).into()),
        end: End::Client,
        direction: Direction::EgressExternal,
        connection_id: "0123456789abcdefghij",
        container_name: "",
        container_image: "",
        pod_name: "",
        pod_namespace: "",
        tags: &[],
    };
    let answering = Process { pid: 4343, exe: "/usr/sbin/nginx".into(), ..process.clone() };
    let server = Observed {
        process: &answering,
        local: client.remote,
        remote: client.local,
        end: End::Server,
        direction: Direction::Ingress,
        connection_id: "fedcba9876543210fedc",
        ..client
    };
    let kib = 1024;
    println!(
        "{:<38} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "exchange", "one end", "both ends", "object", "its SHA-1", "ratio"
    );
    for (name, level, exchange) in [
        ("GET, 1 KiB JSON, summary", Level::Summary, exchange("application/json", json(kib))),
        ("GET, 1 KiB JSON, headers", Level::Headers, exchange("application/json", json(kib))),
        ("GET, 1 KiB JSON, full", Level::Full, exchange("application/json", json(kib))),
        ("GET, 1 KiB text, full", Level::Full, exchange("text/plain", vec![b'x'; kib])),
        ("GET, 4 KiB JSON, full", Level::Full, exchange("application/json", json(4 * kib))),
        ("GET, 64 KiB JSON, full", Level::Full, exchange("application/json", json(64 * kib))),
        (
            "GET, 400 KiB octets, full",
            Level::Full,
            exchange(
                "application/octet-stream",
                (0..400 * kib).map(|n| ((n * 2_654_435_761usize) >> 11) as u8).collect(),
            ),
        ),
    ] {
        if std::env::args().nth(1).is_some_and(|wanted| wanted != "--bench" && !name.contains(&wanted)) {
            continue;
        }
        let capture = Capture::new(level);
        let times = if exchange.response.as_ref().is_some_and(|r| r.body.len() > 16 * kib) { 200 } else { 5_000 };
        let (mut best, mut size) = ([f64::MAX; 2], 0);
        // In turns, so that a disturbance meets both.
        for round in 0..24 {
            let ends = &[&client, &server][..=round % 2];
            let started = cpu();
            for _ in 0..times {
                let prepared = capture.prepare(black_box(&exchange), black_box(&context)).unwrap();
                for end in ends {
                    let sealed = prepared.keep(black_box(end));
                    size = sealed.bytes.len();
                    black_box(sealed);
                }
            }
            let took = cpu().checked_sub(started).unwrap().as_nanos() as f64 / f64::from(times);
            best[round % 2] = best[round % 2].min(took);
        }
        let bytes = vec![b'x'; size];
        let mut sum = f64::MAX;
        for _ in 0..12 {
            let started = cpu();
            for _ in 0..times {
                black_box(transaction::Digest::of(black_box(&bytes)));
            }
            sum = sum.min(cpu().checked_sub(started).unwrap().as_nanos() as f64 / f64::from(times));
        }
        let [one, both] = best;
        println!("{name:<38} {one:>10.0} {both:>10.0} {size:>10} {sum:>10.0} {:>8.1}", one / sum);
    }
}
