//! The plaintext that one end's TLS library saw: its two streams and their parser.
//!
//! Records come in order (one ring); what the kernel side could not hand over is missing between their offsets.

use std::sync::Arc;

use agent_ebpf::{Library, direction, flag};

use super::Counters;
use crate::{
    connection::ends,
    flow::Budget,
    http::{self, GapCause, Output, Side},
};

pub(super) struct Plaintext {
    object: u64,
    generation: u64,
    fresh: bool,
    last_ns: u64,
    parser: http::Connection,
    /// By the side that sends.
    streams: [Stream; 2],
    /// Nothing more is wanted.
    done: bool,
}

#[derive(Clone, Copy, Default)]
struct Stream {
    /// Offset of the next byte; none when the stream was not seen from its beginning and has none yet.
    next: Option<u64>,
    lost: u32,
    /// Copying has stopped at this offset.
    capped: Option<u64>,
    /// So many bytes have moved in all, as last said.
    total: u64,
}

impl Plaintext {
    pub(super) fn new(r: &Library, limits: http::Limits, budget: &Arc<Budget>) -> Plaintext {
        let fresh = r.header.flags & flag::FRESH != 0;
        let budget = Arc::clone(budget);
        let parser =
            if fresh { http::Connection::new(limits, budget) } else { http::Connection::midway(limits, budget) };
        let stream = Stream { next: fresh.then_some(0), ..Stream::default() };
        Plaintext {
            object: r.object,
            generation: r.generation,
            fresh,
            last_ns: 0,
            parser,
            streams: [stream; 2],
            done: false,
        }
    }

    /// Whether these streams are the object's, and not those of another one, perhaps at the same address.
    pub(super) fn is_of(&self, object: u64, generation: u64) -> bool {
        (self.object, self.generation) == (object, generation)
    }

    /// Seen since the object's handshake.
    pub(super) fn fresh(&self) -> bool {
        self.fresh
    }

    /// Names the object's streams on this host, until it is started again.
    pub(super) fn name(&self) -> [u64; 2] {
        [self.object, self.generation]
    }

    /// Kernel time of the last record.
    pub(super) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// The end at `side` has written and read so many bytes when its object was freed or its socket closed.
    pub(super) fn moved(&mut self, side: Side, bytes: [u64; 2]) {
        for (from, total) in [(side, bytes[0]), (ends::other(side), bytes[1])] {
            self.streams[ends::index(from)].total = total;
        }
    }

    /// Takes the bytes of a record of the end at `side`.
    pub(super) fn data(&mut self, side: Side, r: &Library, bytes: &[u8], counters: &Counters, out: &mut Vec<Output>) {
        if self.done {
            return;
        }
        self.last_ns = r.header.time;
        let from = if r.header.direction == direction::OUT { side } else { ends::other(side) };
        let s = &mut self.streams[ends::index(from)];
        let next = *s.next.get_or_insert(r.offset);
        if r.offset > next {
            let cause = if r.lost == s.lost { GapCause::Unseen } else { GapCause::Ring };
            Self::miss(&mut self.parser, s, from, r.offset, cause, counters, out);
        }
        let s = &mut self.streams[ends::index(from)];
        s.lost = r.lost;
        let end = r.offset.saturating_add(bytes.len() as u64);
        if end > next {
            s.next = Some(end);
        }
        if r.header.flags & flag::CAPPED != 0 {
            s.capped = Some(end);
        }
        self.parser.data(from, r.offset, bytes, r.header.time, out);
    }

    /// What lies between the bytes seen and the offset `to` is missing.
    fn miss(
        parser: &mut http::Connection,
        s: &Stream,
        from: Side,
        to: u64,
        cause: GapCause,
        counters: &Counters,
        out: &mut Vec<Output>,
    ) {
        let Some(next) = s.next.filter(|next| *next < to) else { return };
        Counters::add(&counters.gaps, 1);
        Counters::add(&counters.gap_bytes, to - next);
        parser.gap(from, next, to - next, if s.capped == s.next { GapCause::Cap } else { cause }, out);
    }

    /// The object or its socket is gone: what has moved and was not seen is missing, what is unfinished is handed on.
    pub(super) fn close(&mut self, ns: u64, counters: &Counters, out: &mut Vec<Output>) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        for from in [Side::A, Side::B] {
            let s = self.streams[ends::index(from)];
            Self::miss(&mut self.parser, &s, from, s.total, GapCause::Ring, counters, out);
        }
        self.parser.close(ns, out);
    }

    /// No more bytes are wanted.
    pub(super) fn abandon(&mut self) {
        self.done = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_ebpf::{Header, kind};
    use std::sync::atomic::Ordering;

    /// The end of a client: it writes requests and reads responses.
    struct Client {
        plaintext: Plaintext,
        counters: Counters,
        out: Vec<Output>,
    }

    fn record(direction: u8, offset: u64, flags: u8, lost: u32) -> Library {
        Library {
            header: Header { kind: kind::LIBRARY, direction, flags: flags | flag::FRESH, time: 1, ..Header::default() },
            offset,
            lost,
            generation: 1,
            ..Library::default()
        }
    }

    impl Client {
        fn new() -> Client {
            let first = record(direction::OUT, 0, 0, 0);
            let plaintext = Plaintext::new(&first, http::Limits::default(), &Budget::new(1 << 20));
            Client { plaintext, counters: Counters::default(), out: Vec::new() }
        }

        fn takes(&mut self, direction: u8, offset: u64, flags: u8, lost: u32, bytes: &[u8]) {
            let r = record(direction, offset, flags, lost);
            self.plaintext.data(Side::A, &r, bytes, &self.counters, &mut self.out);
        }

        /// The socket has closed after so many bytes were written and read.
        fn closes(mut self, bytes: [u64; 2]) -> (http::Exchange, u64) {
            self.plaintext.moved(Side::A, bytes);
            self.plaintext.close(2, &self.counters, &mut self.out);
            match self.out.pop() {
                Some(Output::Exchange(e)) => (*e, self.counters.gap_bytes.load(Ordering::Relaxed)),
                other => panic!("{other:?}"),
            }
        }
    }

    const ASK: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhello";

    #[test]
    fn a_body_that_ends_with_the_connection_is_whole_when_all_that_was_read_was_seen() {
        let mut c = Client::new();
        c.takes(direction::OUT, 0, 0, 0, ASK);
        c.takes(direction::IN, 0, 0, 0, ANSWER);
        let (e, gap) = c.closes([ASK.len() as u64, ANSWER.len() as u64]);
        let answer = e.response.unwrap();
        assert_eq!((answer.body.as_slice(), answer.gaps.len(), gap), (&b"hello"[..], 0, 0));
    }

    #[test]
    fn bytes_that_were_read_and_never_came_are_a_gap_at_the_end() {
        let mut c = Client::new();
        c.takes(direction::OUT, 0, 0, 0, ASK);
        c.takes(direction::IN, 0, 0, 0, ANSWER);
        let (e, gap) = c.closes([ASK.len() as u64, ANSWER.len() as u64 + 100]);
        let answer = e.response.unwrap();
        assert_eq!(gap, 100);
        assert_eq!(answer.gaps.iter().map(|g| (g.1, g.2)).collect::<Vec<_>>(), [(100, GapCause::Ring)]);
    }

    #[test]
    fn what_was_not_copied_is_a_gap_of_its_own_cause() {
        for (flags, lost, cause) in [(flag::CAPPED, 0, GapCause::Cap), (0, 7, GapCause::Ring), (0, 0, GapCause::Unseen)]
        {
            let mut c = Client::new();
            c.takes(direction::OUT, 0, 0, 0, ASK);
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n0123456789";
            c.takes(direction::IN, 0, flags, 0, head);
            c.takes(direction::IN, head.len() as u64 + 10, 0, lost, b"0123456789");
            let (e, gap) = c.closes([ASK.len() as u64, head.len() as u64 + 20]);
            let answer = e.response.unwrap();
            assert_eq!(gap, 10);
            assert_eq!(answer.gaps.iter().map(|g| g.2).collect::<Vec<_>>(), [cause]);
        }
    }
}
