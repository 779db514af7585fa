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
