//! How fast one core turns segments into exchanges: `cargo run --release -p agent --example http1_speed`.
//!
//! Prints, for the time that the thread was on a processor, GB/s for bodies of 64 KiB (length and chunked, in segments of 16 KiB, with and without reassembly)
//! and heads a second for small requests with their responses. One line a case: median of five runs, slowest
//! and fastest beside it.

use std::fs;
use std::hint::black_box;

use agent::flow::{Budget, Sink, Stream};
use agent::http::{Connection, GapCause, Limits, Note, Output, Side};

/// Hands one direction's bytes to the parser, as `pipeline` does.
struct Feed<'a> {
    connection: &'a mut Connection,
    side: Side,
    out: &'a mut Vec<Output>,
}

impl Sink for Feed<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8], ns: u64) {
        self.connection.data(self.side, offset, bytes, ns, self.out);
    }

    fn gap(&mut self, offset: u64, len: u64, cause: GapCause) {
        self.connection.gap(self.side, offset, len, cause, self.out);
    }

    fn note(&mut self, note: Note) {
        self.connection.note(self.side, note);
    }
}

/// How the response's segments reach the parser.
#[derive(Clone, Copy)]
enum Way {
    /// Straight.
    Plain,
    /// Through reassembly, trusted and in order.
    Sent,
    /// Through reassembly, each held until it is confirmed.
    Received,
}

/// Runs `exchanges` exchanges on one connection; returns how many came out and the body bytes kept.
fn run(ask: &[u8], tell: &[u8], segment: usize, exchanges: usize, way: Way) -> (usize, usize) {
    let budget = Budget::new(Budget::DEFAULT);
    let mut connection = Connection::new(Limits::default(), budget.clone());
    let mut stream = Stream::new(Some(0), budget);
    let mut out = Vec::new();
    let (mut asked, mut told) = (0u64, 0u64);
    let (mut count, mut kept) = (0, 0);
    for n in 0..exchanges as u64 {
        connection.data(Side::A, asked, ask, 2 * n, &mut out);
        asked += ask.len() as u64;
        for bytes in tell.chunks(segment) {
            let ns = 2 * n + 1;
            if matches!(way, Way::Plain) {
                connection.data(Side::B, told, bytes, ns, &mut out);
            } else {
                let mut feed = Feed { connection: &mut connection, side: Side::B, out: &mut out };
                if matches!(way, Way::Sent) {
                    stream.segment(told as u32, bytes, ns, &mut feed);
                } else {
                    stream.unconfirmed(told as u32, bytes, ns, &mut feed);
                    stream.confirm((told as u32).wrapping_add(bytes.len() as u32), &mut feed);
                }
            }
            told += bytes.len() as u64;
        }
        for output in out.drain(..) {
            if let Output::Exchange(exchange) = black_box(output) {
                count += 1;
                kept += exchange.response.map_or(0, |response| response.body.len());
            }
        }
    }
    (count, kept)
}

/// Nanoseconds that this thread has run: other load on the machine then costs caches only.
fn on_processor() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel with scheduler statistics");
    text.split_whitespace().next().and_then(|ns| ns.parse().ok()).expect("nanoseconds first")
}

fn measure(name: &str, unit: &str, per_exchange: f64, exchanges: usize, mut once: impl FnMut() -> (usize, usize)) {
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let begin = on_processor();
            let (count, _) = once();
            assert_eq!(count, exchanges);
            exchanges as f64 * per_exchange / ((on_processor() - begin) as f64 / 1e9)
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("{name:<44} {:8.2} {unit}  [{:.2} .. {:.2}]", rates[2], rates[0], rates[4]);
}

fn main() {
    let ask = b"GET /api/v1/items/17?full=yes HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: bench/1.0\r\n\
        Accept: application/json\r\nAuthorization: Bearer 0123456789abcdef\r\nAccept-Encoding: gzip\r\n\r\n";
    let small = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 21 Nov 2026 10:00:00 GMT\r\n\
        Content-Type: application/json\r\nContent-Length: 15\r\nConnection: keep-alive\r\n\r\n{\"answer\": 42}\n";
    let body = vec![b'x'; 64 << 10];
    let length = [b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n", body.as_slice()].concat();
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.chunks(8 << 10) {
        chunked.extend(format!("{:x}\r\n", chunk.len()).bytes());
        chunked.extend(chunk);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");

    let gigabytes = body.len() as f64 / 1e9;
    let bodies = 20_000;
    for (name, tell, way) in [
        ("64 KiB, length", &length, Way::Plain),
        ("64 KiB, chunks of 8 KiB", &chunked, Way::Plain),
        ("64 KiB, length, reassembled (sent)", &length, Way::Sent),
        ("64 KiB, length, reassembled (received)", &length, Way::Received),
    ] {
        measure(name, "GB/s", gigabytes, bodies, || run(ask, tell, 16 << 10, bodies, way));
    }
    let heads = 500_000;
    measure("small exchanges, 5 fields each head", "M heads/s", 2e-6, heads, || {
        run(ask, small, usize::MAX, heads, Way::Plain)
    });
    measure("the same, reassembled (received)", "M heads/s", 2e-6, heads, || {
        run(ask, small, usize::MAX, heads, Way::Received)
    });
    measure("heads without fields", "M heads/s", 2e-6, heads, || {
        run(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 204 x\r\n\r\n", usize::MAX, heads, Way::Plain)
    });
}
