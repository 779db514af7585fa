//! Body of the fuzz target `reassembly`, also run by the property tests: any operations on a [`Stream`] from
//! bytes, with the promises that hold for all of them.

use std::sync::Arc;

use super::{Budget, Sink, Stream};
use crate::http::{GapCause, Note};

const BUDGET: usize = 16 << 10;

#[derive(Default)]
struct Checked {
    next: u64,
    bytes: u64,
    gaps: u64,
    gap_bytes: u64,
    notes: u64,
}

impl Sink for Checked {
    fn data(&mut self, offset: u64, bytes: &[u8], _ns: u64) {
        assert_eq!(offset, self.next, "delivered out of order");
        assert!(!bytes.is_empty());
        self.next += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
    }

    fn gap(&mut self, offset: u64, len: u64, _cause: GapCause) {
        assert_eq!(offset, self.next, "gap out of order");
        assert!(len > 0);
        self.next += len;
        self.gaps += 1;
        self.gap_bytes += len;
    }

    fn note(&mut self, _note: Note) {
        self.notes += 1;
    }
}

/// Reads operations of four bytes from `input`: which, two for the place near the stream's position, length.
///
/// # Panics
/// When a promise is broken: out of order, memory beyond the budget, counters that contradict the deliveries.
pub fn reassembly(input: &[u8]) {
    let budget = Budget::new(BUDGET);
    let base = u32::MAX - 5000;
    let known = input.first().is_none_or(|byte| byte & 1 == 0);
    let mut stream = Stream::new(known.then_some(base), Arc::clone(&budget));
    let mut sink = Checked::default();
    let mut ns = 0;
    for op in input.chunks_exact(4) {
        let near = i32::from(i16::from_le_bytes([op[1], op[2]]) >> 4);
        let seq = base.wrapping_add(stream.offset() as u32).wrapping_add_signed(near);
        let bytes = [op[1] ^ op[3]; 255];
        let bytes = &bytes[..usize::from(op[3])];
        ns += u64::from(op[1]) << 22;
        let before = sink.next;
        match op[0] >> 4 {
            0..=4 => stream.segment(seq, bytes, ns, &mut sink),
            5..=9 => stream.unconfirmed(seq, bytes, ns, &mut sink),
            10 | 11 => stream.confirm(seq, &mut sink),
            12 => stream.lost(u64::from(op[3]) * 8),
            13 => stream.capped(seq),
            14 => stream.expire(ns, &mut sink),
            _ if op[3] < 16 => stream.fin(seq),
            _ if op[3] < 32 => stream.segment(seq.wrapping_add(u32::from(op[3]) << 24), bytes, ns, &mut sink),
            _ => stream.flush(&mut sink),
        }
        assert!(sink.next >= before && sink.next == stream.offset());
        assert!(budget.used() <= BUDGET);
        assert!(stream.waiting() || budget.used() == 0, "memory not given back");
    }
    stream.finish(&mut sink);
    assert!(!stream.waiting() && budget.used() == 0, "memory not given back");
    let counters = stream.counters();
    assert_eq!((counters.bytes, counters.gaps, counters.gap_bytes), (sink.bytes, sink.gaps, sink.gap_bytes));
    assert_eq!(counters.differing, sink.notes);
    assert_eq!(sink.bytes + sink.gap_bytes, stream.offset());
}
