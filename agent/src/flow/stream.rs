//! Reassembly of one direction of a connection by TCP sequence numbers.
//!
//! In order, bytes go straight to the [`Sink`]: no copy, no allocation. What comes early is held, bounded by
//! [`HELD_LIMIT`] and by the shared budget. A hole is given up, that is reported as a gap, when
//! - the kernel side said that it is final: it stopped copying there ([`Stream::capped`]), or it lost at
//!   least as many bytes in this direction ([`Stream::lost`]);
//! - the socket has accepted bytes beyond it ([`Stream::confirm`]): then its record never came;
//! - no more bytes can be held (cause `memory`, if nothing else explains the hole);
//! - it is older than [`HOLE_PATIENCE_NS`] ([`Stream::expire`]), or the connection ended ([`Stream::finish`]).
//!
//! Sent bytes are trusted: the hook sees what the host's own TCP sends. Received bytes are not: the hook runs
//! before TCP checks checksum and window, so they wait until the socket's `rcv_nxt` has passed them, and
//! until then a later copy replaces an earlier one (the earlier may have been the refused one).

use std::sync::Arc;

use super::held::{Held, Piece};
use super::{Budget, Lease};
use crate::http::{GapCause, Note};

/// Most that one stream holds out of order or unconfirmed, bytes.
pub const HELD_LIMIT: usize = 8 << 20;
/// A hole before sent bytes is given up after this time: the host's own segments are never this late.
pub const HOLE_PATIENCE_NS: u64 = 1_000_000_000;
/// Received bytes in order that nothing confirmed are delivered after this time, and counted.
pub const UNCONFIRMED_PATIENCE_NS: u64 = 500_000_000;
/// A hole before received bytes may be filled by a retransmission, which backs off for many seconds.
const RECEIVED_HOLE_PATIENCE_NS: u64 = 30_000_000_000;
/// Farther from the expected sequence number than any window (RFC 7323 section 2.2): not of this stream.
const WINDOW: u32 = 1 << 30;
/// Places where the kernel side stopped copying that are remembered at a time.
const CAPS: usize = 64;

/// Takes what a [`Stream`] delivers, in stream order and without overlaps.
pub trait Sink {
    /// Bytes at a stream offset; `ns`: kernel time at which the segment passed the hook.
    fn data(&mut self, offset: u64, bytes: &[u8], ns: u64);
    /// `len` bytes are missing.
    fn gap(&mut self, offset: u64, len: u64, cause: GapCause);
    /// A finding about the bytes delivered next.
    fn note(&mut self, note: Note);
}

/// What happened in one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes delivered.
    pub bytes: u64,
    /// Segments that repeated bytes, wholly or in part.
    pub duplicates: u64,
    /// Segments that came before bytes that precede them.
    pub out_of_order: u64,
    /// Gaps reported.
    pub gaps: u64,
    /// Bytes in them.
    pub gap_bytes: u64,
    /// Segments and acknowledgements with a sequence number outside any window.
    pub refused: u64,
    /// Segments that repeated bytes with other content.
    pub differing: u64,
    /// Pieces of received bytes delivered although nothing confirmed them.
    pub unconfirmed: u64,
}

/// One direction of a connection. Offsets are bytes from its beginning, 64 bits wide: they outlive the
/// 32 bits of the sequence number.
#[derive(Debug)]
pub struct Stream {
    /// Sequence number of offset 0.
    base: Option<u32>,
    /// Offset of the next byte to deliver.
    next: u64,
    /// Offset of the FIN.
    fin: Option<u64>,
    held: Held,
    caps: Vec<u64>,
    lost_total: u64,
    lost_left: u64,
    counters: Counters,
}

impl Stream {
    /// `base`: the sequence number of stream offset 0 if the opening was seen (initial sequence number + 1),
    /// else the first segment or confirmation decides.
    #[must_use]
    pub fn new(base: Option<u32>, budget: Arc<Budget>) -> Self {
        Self {
            base,
            next: 0,
            fin: None,
            held: Held::new(Lease::new(budget, HELD_LIMIT)),
            caps: Vec::new(),
            lost_total: 0,
            lost_left: 0,
            counters: Counters::default(),
        }
    }

    /// Counters so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Offset of the next byte to deliver.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// Whether bytes wait here, so that [`Stream::expire`] has something to do.
    #[must_use]
    pub fn waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// A sent segment: delivered at once when it is in order.
    pub fn segment(&mut self, seq: u32, bytes: &[u8], ns: u64, sink: &mut impl Sink) {
        let Some(start) = self.place(seq, bytes.len()) else { return };
        if start > self.next as i64 {
            self.counters.out_of_order += 1;
            self.hold(start as u64, bytes, ns, true, sink);
            self.settle(sink);
            return;
        }
        let bytes = &bytes[(self.next as i64 - start) as usize..];
        if !self.held.is_empty() {
            // The held copy, if any, came first; the note is all that the difference can leave.
            let differs = self.held.differs(self.next, bytes);
            self.differing(differs, sink);
        }
        self.deliver(self.next, bytes, ns, sink);
        if !self.held.is_empty() {
            self.settle(sink);
        }
    }

    /// Before a segment that comes again: TCP has made up its mind about all earlier copies, so one that begins
    /// where the socket still waits (after [`Stream::confirm`]) was refused, and is forgotten.
    pub fn settled(&mut self) {
        if self.held.first().is_some_and(|(offset, piece)| offset == self.next && !piece.trusted) {
            self.held.take_first();
        }
    }

    /// A received segment, which TCP has not accepted yet.
    pub fn unconfirmed(&mut self, seq: u32, bytes: &[u8], ns: u64, sink: &mut impl Sink) {
        let Some(start) = self.place(seq, bytes.len()) else { return };
        let skip = (self.next as i64 - start).max(0);
        let start = start + skip;
        if start > self.next as i64 && self.held.end() < start as u64 {
            self.counters.out_of_order += 1;
        }
        self.hold(start as u64, &bytes[skip as usize..], ns, false, sink);
    }

    /// The socket has accepted everything before `rcv_nxt`: what is held up to there is delivered, what is
    /// missing below is a gap. One missing byte at the very end is not reported: a FIN takes a sequence
    /// number too.
    pub fn confirm(&mut self, rcv_nxt: u32, sink: &mut impl Sink) {
        let Some(base) = self.base else {
            self.base = Some(rcv_nxt);
            return;
        };
        let ahead = rcv_nxt.wrapping_sub(base.wrapping_add(self.next as u32)) as i32;
        if ahead.unsigned_abs() > WINDOW {
            self.counters.refused += 1;
            return;
        }
        if ahead <= 0 {
            return;
        }
        let mut limit = self.next + ahead as u64;
        if let Some(fin) = self.fin {
            limit = limit.min(fin);
        }
        while let Some((offset, piece)) = self.held.take_before(limit) {
            self.gap_before(offset, false, sink);
            self.deliver(offset, &piece.bytes, piece.ns, sink);
        }
        if limit > self.next && (limit - self.next > 1 || self.fin.is_some() || !self.held.is_empty()) {
            self.gap_before(limit, false, sink);
        }
    }

    /// The sequence number of the FIN: the stream has no bytes from there on.
    pub fn fin(&mut self, seq: u32) {
        if let Some(base) = self.base {
            let ahead = seq.wrapping_sub(base.wrapping_add(self.next as u32)) as i32;
            if ahead >= 0 && ahead.unsigned_abs() <= WINDOW {
                self.fin = Some(self.next + ahead as u64);
            }
        }
    }

    /// Delivers what is in order although nothing confirmed it, and counts it.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        while self.held.first().is_some_and(|(offset, _)| offset <= self.next) {
            self.deliver_first(sink);
        }
    }

    /// The connection is over: delivers everything held; holes become gaps.
    pub fn finish(&mut self, sink: &mut impl Sink) {
        while let Some((offset, _)) = self.held.first() {
            self.gap_before(offset, false, sink);
            self.deliver_first(sink);
        }
        if let Some(fin) = self.fin {
            self.gap_before(fin, false, sink);
        }
    }

    /// Gives up what has waited too long at kernel time `now_ns`. Call it a few times a second for streams
    /// that are [`waiting`](Stream::waiting).
    pub fn expire(&mut self, now_ns: u64, sink: &mut impl Sink) {
        while let Some((offset, piece)) = self.held.first() {
            let patience = match (offset > self.next, piece.trusted) {
                (true, true) => HOLE_PATIENCE_NS,
                (true, false) => RECEIVED_HOLE_PATIENCE_NS,
                (false, true) => 0,
                (false, false) => UNCONFIRMED_PATIENCE_NS,
            };
            if now_ns.saturating_sub(piece.ns) < patience {
                return;
            }
            self.gap_before(offset, false, sink);
            self.deliver_first(sink);
        }
    }

    /// Bytes of this direction that found the ring full, since the connection began. Holes are then put
    /// down to the ring, as long as lost bytes remain that explain no hole yet.
    pub fn lost(&mut self, bytes_total: u64) {
        if bytes_total > self.lost_total {
            self.lost_left += bytes_total - self.lost_total;
            self.lost_total = bytes_total;
        }
    }

    /// The kernel side stopped copying at this sequence number: the hole that begins there is a cap's.
    pub fn capped(&mut self, seq: u32) {
        let base = *self.base.get_or_insert(seq);
        let ahead = seq.wrapping_sub(base.wrapping_add(self.next as u32)) as i32;
        if ahead < 0 || ahead.unsigned_abs() > WINDOW || self.caps.len() >= CAPS {
            return;
        }
        let offset = self.next + ahead as u64;
        if let Err(place) = self.caps.binary_search(&offset) {
            self.caps.insert(place, offset);
        }
    }

    /// Stream offset of a segment, negative before the beginning; None when there is nothing new in it.
    fn place(&mut self, seq: u32, len: usize) -> Option<i64> {
        if len == 0 {
            return None;
        }
        let base = *self.base.get_or_insert(seq);
        let ahead = seq.wrapping_sub(base.wrapping_add(self.next as u32)) as i32;
        if ahead.unsigned_abs() > WINDOW || len > WINDOW as usize {
            self.counters.refused += 1;
            return None;
        }
        let start = self.next as i64 + i64::from(ahead);
        if start < self.next as i64 {
            self.counters.duplicates += 1;
            if start + len as i64 <= self.next as i64 {
                return None;
            }
        }
        Some(start)
    }

    fn hold(&mut self, start: u64, bytes: &[u8], ns: u64, trusted: bool, sink: &mut impl Sink) {
        let stored = self.held.store(start, bytes, ns, trusted, !trusted);
        if stored.overlapped {
            self.counters.duplicates += 1;
        }
        self.differing(stored.differed, sink);
        if !stored.refused {
            return;
        }
        // No memory: holes are given up until the segment is in order and needs none.
        while let Some((offset, _)) = self.held.first().filter(|(offset, _)| *offset < start) {
            self.gap_before(offset, true, sink);
            self.deliver_first(sink);
        }
        self.gap_before(start, true, sink);
        self.counters.unconfirmed += u64::from(!trusted);
        self.deliver(start, bytes, ns, sink);
    }

    /// Delivers trusted pieces that are in order now, over holes that are known to be final.
    fn settle(&mut self, sink: &mut impl Sink) {
        while let Some((offset, _)) = self.held.first().filter(|(_, piece)| piece.trusted) {
            if offset > self.next && !self.is_final(offset) {
                return;
            }
            self.gap_before(offset, false, sink);
            self.deliver_first(sink);
        }
    }

    fn is_final(&self, to: u64) -> bool {
        self.caps.contains(&self.next) || self.lost_left >= to - self.next
    }

    fn deliver_first(&mut self, sink: &mut impl Sink) {
        if let Some((offset, Piece { bytes, ns, trusted })) = self.held.take_first() {
            self.counters.unconfirmed += u64::from(!trusted);
            self.deliver(offset, &bytes, ns, sink);
        }
    }

    /// Hands on the part of `bytes` that was not delivered before.
    fn deliver(&mut self, offset: u64, bytes: &[u8], ns: u64, sink: &mut impl Sink) {
        let known = self.next.saturating_sub(offset);
        if known >= bytes.len() as u64 {
            return;
        }
        let bytes = &bytes[known as usize..];
        let at = self.next;
        self.next += bytes.len() as u64;
        self.counters.bytes += bytes.len() as u64;
        sink.data(at, bytes, ns);
    }

    /// Reports everything missing before `to`, with its causes.
    fn gap_before(&mut self, to: u64, no_memory: bool, sink: &mut impl Sink) {
        while self.next < to {
            let passed = self.caps.partition_point(|cap| *cap < self.next);
            self.caps.drain(..passed);
            let cap = self.caps.first().copied();
            let until = if cap == Some(self.next) { to } else { cap.unwrap_or(to).min(to) };
            let len = until - self.next;
            let cause = if cap == Some(self.next) {
                GapCause::Cap
            } else if self.lost_left > 0 {
                self.lost_left = self.lost_left.saturating_sub(len);
                GapCause::Ring
            } else if no_memory {
                GapCause::Memory
            } else {
                GapCause::Unseen
            };
            let at = self.next;
            self.next = until;
            self.counters.gaps += 1;
            self.counters.gap_bytes += len;
            sink.gap(at, len, cause);
        }
    }

    fn differing(&mut self, differs: bool, sink: &mut impl Sink) {
        if differs {
            self.counters.differing += 1;
            sink.note(Note::RetransmissionDiffers);
        }
    }
}
