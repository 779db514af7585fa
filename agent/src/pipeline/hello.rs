//! The beginning of a connection with TLS: the bytes of both directions put in order for `connection::tls`.
//!
//! Unlike bodies, hellos are taken as they are seen, also where TCP has not accepted them yet: they are facts about a
//! connection, not content.

use std::sync::Arc;

use crate::{
    connection::{
        ends,
        tls::{Facts, Handshake},
    },
    flow::{self, Budget, Stream},
    http::{GapCause, Note, Side},
};

pub(super) struct Hello {
    streams: [Option<Stream>; 2],
    handshake: Handshake,
}

struct Feed<'a>(Side, &'a mut Handshake);

impl flow::Sink for Feed<'_> {
    fn data(&mut self, _: u64, bytes: &[u8], _: u64) {
        self.1.bytes(self.0, bytes);
    }

    fn gap(&mut self, _: u64, _: u64, _: GapCause) {
        self.1.gap(self.0);
    }

    fn note(&mut self, _: Note) {}
}

impl Hello {
    pub(super) fn new() -> Hello {
        Hello { streams: [None, None], handshake: Handshake::new() }
    }

    /// Takes bytes of the direction that `from` sends; a direction begins at `base`.
    pub(super) fn bytes(&mut self, from: Side, base: u32, seq: u32, bytes: &[u8], ns: u64, budget: &Arc<Budget>) {
        let stream = self.streams[ends::index(from)].get_or_insert_with(|| Stream::new(Some(base), Arc::clone(budget)));
        stream.segment(seq, bytes, ns, &mut Feed(from, &mut self.handshake));
    }

    pub(super) fn waiting(&self) -> bool {
        self.streams.iter().flatten().any(Stream::waiting)
    }

    pub(super) fn expire(&mut self, now: u64) {
        for side in [Side::A, Side::B] {
            if let Some(stream) = &mut self.streams[ends::index(side)] {
                stream.expire(now, &mut Feed(side, &mut self.handshake));
            }
        }
    }

    /// Nothing more can be learned.
    pub(super) fn done(&self) -> bool {
        self.handshake.done()
    }

    pub(super) fn facts(&self) -> &Facts {
        self.handshake.facts()
    }
}
