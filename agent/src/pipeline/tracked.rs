//! One connection in a worker: its facts, and while it carries HTTP its streams and parser.

use std::sync::{Arc, atomic::AtomicU64};

use agent_ebpf::{Data, Library, direction, flag, kind, protocol};

use super::{Counters, hello::Hello, plaintext::Plaintext};
use crate::{
    connection::{Connection, ends},
    flow::{self, Budget, Stream},
    http::{self, GapCause, Note, Output, Side},
};

/// More than any connection loses.
const ALL_LOST: u64 = u64::MAX / 2;

/// A connection as a worker keeps it.
pub(super) struct Tracked {
    pub(super) connection: Connection,
    /// Tells generations of one pair of addresses apart.
    pub(super) serial: u64,
    http: Option<Box<Http>>,
    hello: Option<Box<Hello>>,
    /// What the TLS library at each end saw.
    plaintext: [Option<Box<Plaintext>>; 2],
    /// Nothing more is wanted of its bytes.
    done: bool,
    limits: http::Limits,
}

struct Http {
    /// By the side that sends; made when its first byte's sequence number is known.
    streams: [Option<Stream>; 2],
    parser: http::Connection,
}

/// Hands a stream's bytes to the parser.
struct Feed<'a> {
    side: Side,
    parser: &'a mut http::Connection,
    out: &'a mut Vec<Output>,
}

impl flow::Sink for Feed<'_> {
    fn data(&mut self, offset: u64, bytes: &[u8], ns: u64) {
        self.parser.data(self.side, offset, bytes, ns, self.out);
    }

    fn gap(&mut self, offset: u64, len: u64, cause: GapCause) {
        self.parser.gap(self.side, offset, len, cause, self.out);
    }

    fn note(&mut self, note: Note) {
        self.parser.note(self.side, note);
    }
}

impl Http {
    fn new(fresh: bool, limits: http::Limits, budget: &Arc<Budget>) -> Box<Http> {
        let budget = Arc::clone(budget);
        let parser =
            if fresh { http::Connection::new(limits, budget) } else { http::Connection::midway(limits, budget) };
        Box::new(Http { streams: [None, None], parser })
    }

    /// Runs `f` on the stream that `side` sends, if it has begun.
    fn on(&mut self, side: Side, out: &mut Vec<Output>, f: impl FnOnce(&mut Stream, &mut Feed<'_>)) {
        if let Some(stream) = &mut self.streams[ends::index(side)] {
            f(stream, &mut Feed { side, parser: &mut self.parser, out });
        }
    }

    /// The same, beginning it at `base`.
    fn begun(&mut self, side: Side, base: u32, budget: &Arc<Budget>) {
        self.streams[ends::index(side)].get_or_insert_with(|| Stream::new(Some(base), Arc::clone(budget)));
    }
}

impl Tracked {
    pub(super) fn new(connection: Connection, serial: u64, limits: http::Limits) -> Self {
        Tracked { connection, serial, http: None, hello: None, plaintext: [None, None], done: false, limits }
    }

    /// Whether bytes wait for others, so that [`Tracked::expire`] has something to do.
    pub(super) fn waiting(&self) -> bool {
        self.http.as_ref().is_some_and(|h| h.streams.iter().flatten().any(Stream::waiting))
            || self.hello.as_ref().is_some_and(|h| h.waiting())
    }

    /// Takes the bytes of a data record of the socket at `side`.
    pub(super) fn data(&mut self, side: Side, r: &Data, bytes: &[u8], budget: &Arc<Budget>, out: &mut Vec<Output>) {
        self.connection.last_ns = r.header.time;
        if r.header.protocol != protocol::UNKNOWN {
            self.connection.protocol = r.header.protocol;
        }
        if self.connection.own || bytes.is_empty() {
            return;
        }
        if r.header.kind == kind::HANDSHAKE {
            return self.hello(side, r, bytes, budget);
        }
        if self.done {
            return;
        }
        let sent = r.header.direction == direction::OUT;
        let from = if sent { side } else { ends::other(side) };
        let fresh = r.header.flags & (flag::FRESH | flag::LISTENER) != 0;
        let known = &mut self.connection.base;
        if known[ends::index(from)].is_none() {
            // Without the opening, a stream begins at the first byte seen: for received ones, at what the
            // socket expects next.
            let first = if r.header.flags & flag::FRESH != 0 {
                r.base
            } else if sent || r.confirmed == 0 {
                r.seq
            } else {
                r.confirmed
            };
            known[ends::index(from)] = Some(first);
        }
        let base = known[ends::index(from)].unwrap_or(r.seq);
        let limits = self.limits;
        let http = self.http.get_or_insert_with(|| Http::new(fresh, limits, budget));
        http.begun(from, base, budget);
        let time = r.header.time;
        if sent {
            // Sending tells how far the socket has accepted what it received: the request comes before its
            // answer.
            if r.header.flags & flag::LOOPBACK == 0 {
                http.on(ends::other(from), out, |s, feed| {
                    if s.waiting() {
                        s.confirm(r.confirmed, feed);
                    }
                });
            }
            http.on(from, out, |s, feed| {
                s.lost(u64::from(r.lost));
                s.segment(r.seq, bytes, time, feed);
                if r.header.flags & flag::CAPPED != 0 {
                    s.capped(r.seq.wrapping_add(bytes.len() as u32));
                }
            });
        } else {
            http.on(from, out, |s, feed| {
                s.lost(u64::from(r.lost));
                if r.header.flags & flag::LISTENER == 0 {
                    s.confirm(r.confirmed, feed);
                }
                if r.header.flags & flag::SETTLED != 0 {
                    s.settled();
                }
                s.unconfirmed(r.seq, bytes, time, feed);
                if r.header.flags & flag::CAPPED != 0 {
                    s.capped(r.seq.wrapping_add(bytes.len() as u32));
                }
            });
        }
    }

    /// Takes bytes of the handshake.
    fn hello(&mut self, side: Side, r: &Data, bytes: &[u8], budget: &Arc<Budget>) {
        if self.connection.tls.is_some() && self.hello.is_none() {
            return;
        }
        let from = if r.header.direction == direction::OUT { side } else { ends::other(side) };
        if self.connection.base[ends::index(from)] == Some(r.seq) {
            // The very first bytes, overtaken by others that were taken for HTTP.
            self.http = None;
        }
        // In a tunnel TLS begins later than the connection.
        let base = match self.connection.base[ends::index(from)] {
            Some(base) if self.http.is_none() && !self.done => base,
            _ => r.seq,
        };
        let hello = self.hello.get_or_insert_with(|| Box::new(Hello::new()));
        hello.bytes(from, base, r.seq, bytes, r.header.time, budget);
        self.learn();
    }

    /// Keeps what the handshake has said so far.
    fn learn(&mut self) {
        if let Some(hello) = &self.hello {
            self.connection.tls = Some(Box::new(hello.facts().clone()));
            if hello.done() {
                self.hello = None;
            }
        }
    }

    /// Takes what the TLS library of the process at `side` saw.
    pub(super) fn library(
        &mut self,
        side: Side,
        r: &Library,
        bytes: &[u8],
        shared: &super::Shared,
        out: &mut Vec<Output>,
    ) {
        self.connection.last_ns = r.header.time;
        if self.connection.own {
            return;
        }
        let place = &mut self.plaintext[ends::index(side)];
        if place.as_ref().is_some_and(|p| !p.is_of(r.object, r.generation)) {
            // Another object on this socket: what the first one left unfinished is handed on.
            if let Some(mut old) = place.take() {
                old.close(r.header.time, &shared.counters, out);
            }
        }
        let plaintext = place.get_or_insert_with(|| Box::new(Plaintext::new(r, shared.limits, &shared.budget)));
        plaintext.data(side, r, bytes, &shared.counters, out);
    }

    /// What the TLS library of the process at `side` sees.
    pub(super) fn plaintext(&mut self, side: Side) -> Option<&mut Plaintext> {
        self.plaintext[ends::index(side)].as_deref_mut()
    }

    /// The TLS library's streams at `side` have ended.
    pub(super) fn library_ends(&mut self, side: Side, ns: u64, counters: &Counters, out: &mut Vec<Output>) {
        if let Some(plaintext) = self.plaintext(side) {
            plaintext.close(ns, counters, out);
        }
    }

    /// No more of the TLS library's bytes at `side` are wanted.
    pub(super) fn library_abandon(&mut self, side: Side) {
        if let Some(plaintext) = self.plaintext(side) {
            plaintext.abandon();
        }
    }

    /// Gives up what has waited too long.
    pub(super) fn expire(&mut self, now: u64, out: &mut Vec<Output>) {
        if let Some(hello) = &mut self.hello {
            hello.expire(now);
            self.learn();
        }
        if let Some(http) = &mut self.http {
            for side in [Side::A, Side::B] {
                http.on(side, out, |s, feed| s.expire(now, feed));
            }
        }
    }

    /// Bytes known to be lost at the end of a direction. Where both ends are here the sender's hook has seen every byte,
    /// so whatever is missing was lost behind it, also when the record at hand is the receiver's and does not count it.
    fn known_lost(&self, lost: u32) -> u64 {
        if self.connection.ends.iter().all(Option::is_some) { ALL_LOST } else { u64::from(lost) }
    }

    /// What `side` sends has ended: its next sequence number is `next`, and `lost` bytes of it met a full ring.
    pub(super) fn end(&mut self, side: Side, next: u32, lost: u32, ns: u64, out: &mut Vec<Output>) {
        let lost = self.known_lost(lost);
        if let Some(http) = &mut self.http {
            http.on(side, out, |s, feed| {
                s.lost(lost);
                // The FIN has taken one sequence number; the last byte is delivered by finish().
                s.confirm(next.wrapping_sub(1), feed);
                s.finish(feed);
            });
            http.parser.end(side, ns, out);
        }
    }

    /// The connection is over: everything unfinished is handed on, and the parser is let go. `last`: by side, the next
    /// sequence number that it would send, and how many of its bytes met a full ring.
    pub(super) fn close(&mut self, last: Option<[(u32, u32); 2]>, ns: u64, counters: &Counters, out: &mut Vec<Output>) {
        let local = self.known_lost(0) == ALL_LOST;
        let Some(mut http) = self.http.take() else { return };
        for side in [Side::A, Side::B] {
            http.on(side, out, |s, feed| {
                if let Some(last) = last {
                    let (next, lost) = last[ends::index(side)];
                    s.lost(if local { ALL_LOST } else { u64::from(lost) });
                    s.confirm(next.wrapping_sub(1), feed);
                }
                s.finish(feed);
            });
        }
        http.parser.close(ns, out);
        self.done = true;
        for c in http.streams.iter().flatten().map(Stream::counters) {
            let pairs: [(&AtomicU64, u64); 6] = [
                (&counters.gap_bytes, c.gap_bytes),
                (&counters.gaps, c.gaps),
                (&counters.out_of_order, c.out_of_order),
                (&counters.duplicate_segments, c.duplicates),
                (&counters.refused_segments, c.refused),
                (&counters.differing_segments, c.differing),
            ];
            for (counter, by) in pairs {
                Counters::add(counter, by);
            }
        }
    }

    /// No more bytes are wanted; what is there is let go. True the first time.
    pub(super) fn abandon(&mut self) -> bool {
        self.http = None;
        !std::mem::replace(&mut self.done, true)
    }
}
