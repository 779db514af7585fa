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
    generation: u64,
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
}

impl Plaintext {
    pub(super) fn new(r: &Library, limits: http::Limits, budget: &Arc<Budget>) -> Plaintext {
        let fresh = r.header.flags & flag::FRESH != 0;
        let budget = Arc::clone(budget);
        let parser =
            if fresh { http::Connection::new(limits, budget) } else { http::Connection::midway(limits, budget) };
        let stream = Stream { next: fresh.then_some(0), ..Stream::default() };
        Plaintext { generation: r.generation, parser, streams: [stream; 2], done: false }
    }

    /// Whether the record is of this object, and not of another one at the same address.
    pub(super) fn is_of(&self, r: &Library) -> bool {
        self.generation == r.generation
    }

    /// Takes the bytes of a record of the end at `side`.
    pub(super) fn data(&mut self, side: Side, r: &Library, bytes: &[u8], counters: &Counters, out: &mut Vec<Output>) {
        if self.done {
            return;
        }
        let from = if r.header.direction == direction::OUT { side } else { ends::other(side) };
        let s = &mut self.streams[ends::index(from)];
        let next = *s.next.get_or_insert(r.offset);
        if r.offset > next {
            let cause = if s.capped == Some(next) {
                GapCause::Cap
            } else if r.lost != s.lost {
                GapCause::Ring
            } else {
                GapCause::Unseen
            };
            Counters::add(&counters.gaps, 1);
            Counters::add(&counters.gap_bytes, r.offset - next);
            self.parser.gap(from, next, r.offset - next, cause, out);
        }
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

    /// The object or its socket is gone, and so many bytes were written and read, as far as that is known.
    pub(super) fn close(&mut self, ns: u64, out: &mut Vec<Output>) {
        if !std::mem::replace(&mut self.done, true) {
            self.parser.close(ns, out);
        }
    }

    /// No more bytes are wanted.
    pub(super) fn abandon(&mut self) {
        self.done = true;
    }
}
