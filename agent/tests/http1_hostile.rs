//! What a hostile peer can send: memory stays within the limits, time stays linear, nothing panics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::flow::Budget;
use agent::http::{Connection, Exchange, GapCause, Limits, Output, Side};

/// Memory that one connection may hold at the worst: the reader's longest head and what it keeps.
const WORST: usize = 20 << 20;

struct Peer {
    connection: Connection,
    budget: Arc<Budget>,
    out: Vec<Output>,
    at: [u64; 2],
    ns: u64,
    most: usize,
}

impl Peer {
    fn new() -> Self {
        let budget = Budget::new(Budget::DEFAULT);
        let connection = Connection::new(Limits::default(), Arc::clone(&budget));
        Peer { connection, budget, out: Vec::new(), at: [0; 2], ns: 0, most: 0 }
    }

    fn send(&mut self, side: Side, bytes: &[u8]) {
        self.ns += 1;
        let at = &mut self.at[side as usize];
        self.connection.data(side, *at, bytes, self.ns, &mut self.out);
        *at += bytes.len() as u64;
        self.most = self.most.max(self.budget.used());
    }

    fn gap(&mut self, side: Side, len: u64) {
        let at = &mut self.at[side as usize];
        self.connection.gap(side, *at, len, GapCause::Unseen, &mut self.out);
        *at += len;
    }

    fn close(mut self) -> Vec<Exchange> {
        self.connection.close(self.ns, &mut self.out);
        assert!(self.most <= WORST, "{} bytes held", self.most);
        assert_eq!(self.budget.used(), 0);
        self.out
            .into_iter()
            .filter_map(|output| match output {
                Output::Exchange(exchange) => Some(*exchange),
                _ => None,
            })
            .collect()
    }
}

/// Runs at least as fast as a fraction of the linear time on a busy machine.
fn within(limit: Duration, what: impl FnOnce()) {
    let begin = Instant::now();
    what();
    assert!(begin.elapsed() < limit, "took {:?}", begin.elapsed());
}

#[test]
fn a_head_of_8_mib_is_cut_and_the_next_message_found() {
    for segment in [1000, 65_536] {
        let mut peer = Peer::new();
        let head = format!("GET /long HTTP/1.1\r\n{}", format!("X: {}\r\n", "y".repeat(1000)).repeat(8400));
        for bytes in head.as_bytes().chunks(segment) {
            peer.send(Side::A, bytes);
        }
        peer.send(Side::A, b"\r\nGET /next HTTP/1.1\r\n\r\n");
        let all = peer.close();
        let targets: Vec<_> = all.iter().map(|e| e.request.as_ref().unwrap().head.target.clone()).collect();
        assert_eq!(targets, [b"/long".to_vec(), b"/next".to_vec()]);
        assert!(!all[0].request.as_ref().unwrap().ended);
    }
}

#[test]
fn one_line_of_2_mib_byte_by_byte_takes_linear_time() {
    within(Duration::from_mins(1), || {
        let mut peer = Peer::new();
        peer.send(Side::A, b"GET /");
        for _ in 0..2 << 20 {
            peer.send(Side::A, b"a");
        }
        assert_eq!(peer.close().len(), 0, "no line of it was whole");
    });
}

#[test]
fn a_million_fields_are_counted_out() {
    let mut peer = Peer::new();
    peer.send(Side::A, b"GET / HTTP/1.1\r\n");
    for _ in 0..10_000 {
        peer.send(Side::A, &b"a:b\r\n".repeat(100));
    }
    peer.send(Side::A, b"\r\n");
    let all = peer.close();
    assert_eq!(all[0].request.as_ref().unwrap().head.fields.len(), 512);
}

#[test]
fn chunks_of_one_byte_with_long_extensions() {
    let mut peer = Peer::new();
    peer.send(Side::A, b"GET / HTTP/1.1\r\n\r\n");
    peer.send(Side::B, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("1;{}\r\nx\r\n", "e".repeat(2000)).into_bytes();
    for _ in 0..5000 {
        peer.send(Side::B, &chunk);
    }
    peer.send(Side::B, b"0\r\n\r\n");
    let all = peer.close();
    let response = all[0].response.as_ref().unwrap();
    assert_eq!((response.body.len(), response.ended), (5000, true));
}

#[test]
fn chunk_sizes_that_overflow_end_the_message() {
    for size in ["ffffffffffffffff", "fffffffffffffffff", "0ffffffffffffffff0", "7fffffffffffffff", "400000000000000"] {
        let mut peer = Peer::new();
        peer.send(Side::A, b"GET / HTTP/1.1\r\n\r\n");
        peer.send(Side::B, format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nabc").as_bytes());
        let all = peer.close();
        assert!(!all[0].response.as_ref().unwrap().ended);
    }
}

#[test]
fn a_stated_length_costs_no_memory() {
    let mut peer = Peer::new();
    peer.send(Side::A, b"POST / HTTP/1.1\r\nContent-Length: 4611686018427387903\r\n\r\nx");
    assert!(peer.most < 300_000, "{}", peer.most);
    peer.gap(Side::A, u64::MAX >> 3);
    let all = peer.close();
    assert_eq!(all[0].request.as_ref().unwrap().body, b"x");
}

#[test]
fn many_gaps_are_listed_up_to_a_limit() {
    let mut peer = Peer::new();
    peer.send(Side::A, b"POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n");
    for _ in 0..100_000 {
        peer.send(Side::A, b"x");
        peer.gap(Side::A, 1);
    }
    let all = peer.close();
    let request = all[0].request.as_ref().unwrap();
    assert_eq!((request.gaps.len(), request.cut, request.body_bytes), (256, true, 200_000));
    assert_eq!(request.gaps.iter().map(|gap| gap.1).sum::<u64>(), 100_000);
}

#[test]
fn a_flood_of_pipelined_requests_is_handed_on() {
    let mut peer = Peer::new();
    for _ in 0..1000 {
        peer.send(Side::A, &b"GET / HTTP/1.1\r\n\r\n".repeat(100));
    }
    assert!(peer.out.len() >= 100_000 - 1024);
    assert_eq!(peer.close().len(), 100_000);
}

#[test]
fn pipelined_uploads_share_the_limit_of_their_connection() {
    let mut peer = Peer::new();
    let body = vec![b'x'; 1 << 20];
    for _ in 0..100 {
        peer.send(Side::A, b"POST / HTTP/1.1\r\nContent-Length: 1048576\r\n\r\n");
        peer.send(Side::A, &body);
    }
    let all = peer.close();
    assert_eq!(all.len(), 100);
    assert!(all.iter().filter(|e| e.request.as_ref().unwrap().starved).count() > 80);
}

#[test]
fn a_flood_of_responses_nobody_asked_for() {
    let mut peer = Peer::new();
    // In one delivery and in many; none may wait for ever, nor each take a turn of the stack.
    peer.send(Side::B, &b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(50_000));
    for _ in 0..50_000 {
        peer.send(Side::B, b"HTTP/1.1 100 Continue\r\n\r\n");
    }
    peer.send(Side::B, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let all = peer.close();
    assert_eq!(all.len(), 50_001);
    assert!(all.iter().all(|e| e.interim.len() <= 32));
}

#[test]
fn bytes_after_an_upgrade_that_nobody_answers_are_bounded() {
    let mut peer = Peer::new();
    peer.send(Side::A, b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n");
    for _ in 0..1000 {
        peer.send(Side::A, &[b'z'; 10_000]);
    }
    assert!(peer.most < 1 << 20);
    assert_eq!(peer.close().len(), 1);
}

#[test]
fn a_trailer_section_without_end_is_bounded() {
    let mut peer = Peer::new();
    peer.send(Side::A, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    for _ in 0..100_000 {
        peer.send(Side::A, b"some-trailer: some value of it, and more of it, to make it long\r\n");
    }
    assert!(peer.most < 4 << 20);
    assert!(!peer.close()[0].request.as_ref().unwrap().ended);
}

#[test]
fn binary_noise_after_a_gap_is_searched_in_linear_time() {
    within(Duration::from_mins(1), || {
        let mut peer = Peer::new();
        peer.gap(Side::A, 5);
        // Each line may begin a request, none does.
        for _ in 0..2000 {
            peer.send(Side::A, &b"GET GET GET\n".repeat(500));
        }
        for _ in 0..1 << 18 {
            peer.send(Side::A, b"G");
        }
        assert_eq!(peer.close().len(), 0);
    });
}
