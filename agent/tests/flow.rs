//! Reassembly through the public interface of `agent::flow`: each rule on its own, then for any traffic.

use std::sync::Arc;

use agent::flow::{Budget, HELD_LIMIT, HOLE_PATIENCE_NS, Sink, Stream, UNCONFIRMED_PATIENCE_NS};
use agent::http::{GapCause, Note};
use proptest::prelude::*;
use proptest::sample::Index;

/// Collects what a stream delivers and checks that it is in order.
#[derive(Debug, Default)]
struct Collected {
    next: u64,
    bytes: Vec<u8>,
    gaps: Vec<(u64, u64, GapCause)>,
    notes: Vec<Note>,
}

impl Sink for Collected {
    fn data(&mut self, offset: u64, bytes: &[u8], _ns: u64) {
        assert_eq!(offset, self.next, "out of order");
        assert!(!bytes.is_empty());
        self.bytes.extend(bytes);
        self.next += bytes.len() as u64;
    }

    fn gap(&mut self, offset: u64, len: u64, cause: GapCause) {
        assert_eq!(offset, self.next, "out of order");
        assert!(len > 0);
        match self.gaps.last_mut() {
            Some(last) if last.0 + last.1 == offset && last.2 == cause => last.1 += len,
            _ => self.gaps.push((offset, len, cause)),
        }
        self.next += len;
    }

    fn note(&mut self, note: Note) {
        self.notes.push(note);
    }
}

fn stream(base: u32) -> (Stream, Collected) {
    (Stream::new(Some(base), Budget::new(Budget::DEFAULT)), Collected::default())
}

#[test]
fn in_order_segments_need_no_memory() {
    let budget = Budget::new(0);
    let mut stream = Stream::new(Some(7), budget);
    let mut got = Collected::default();
    stream.segment(7, b"ab", 1, &mut got);
    stream.segment(9, b"cd", 2, &mut got);
    stream.segment(8, b"bcde", 3, &mut got);
    assert_eq!((got.bytes.as_slice(), got.gaps.len()), (&b"abcde"[..], 0));
    assert_eq!((stream.counters().duplicates, stream.offset()), (1, 5));
}

#[test]
fn a_copy_that_tcp_has_refused_is_forgotten_without_a_doubt() {
    let (mut stream, mut got) = stream(0);
    stream.unconfirmed(0, b"gOOd", 1, &mut got);
    stream.unconfirmed(4, b"next", 2, &mut got);
    // It comes again, the socket still waits for it, and nothing is in its backlog.
    stream.confirm(0, &mut got);
    stream.settled();
    stream.unconfirmed(0, b"good", 3, &mut got);
    stream.confirm(8, &mut got);
    assert_eq!(got.bytes, b"goodnext");
    assert_eq!((got.notes.len(), got.gaps.len()), (0, 0));
    // Ahead of what the socket waits for, nobody knows which copy it has kept.
    stream.unconfirmed(12, b"LATE", 4, &mut got);
    stream.settled();
    stream.unconfirmed(12, b"late", 5, &mut got);
    assert_eq!(got.notes, [Note::RetransmissionDiffers]);
}

#[test]
fn early_segments_wait_for_the_missing_one() {
    let (mut stream, mut got) = stream(0);
    stream.segment(4, b"ef", 1, &mut got);
    stream.segment(2, b"cd", 2, &mut got);
    assert!(got.bytes.is_empty() && stream.waiting());
    stream.segment(0, b"ab", 3, &mut got);
    assert_eq!(got.bytes, b"abcdef");
    assert_eq!((stream.counters().out_of_order, stream.waiting()), (2, false));
}

#[test]
fn offsets_outlive_the_sequence_number() {
    let (mut stream, mut got) = stream(u32::MAX - 10);
    let chunk = vec![1; 1 << 20];
    let mut seq = u32::MAX - 10;
    for _ in 0..4100 {
        stream.segment(seq, &chunk, 1, &mut got);
        seq = seq.wrapping_add(1 << 20);
        got.bytes.clear();
    }
    assert_eq!(stream.offset(), 4100 << 20);
    stream.segment(seq.wrapping_add(2), b"later", 1, &mut got);
    stream.segment(seq, b"..", 1, &mut got);
    assert_eq!((got.bytes.as_slice(), got.next), (&b"..later"[..], (4100 << 20) + 7));
}

#[test]
fn a_hole_before_sent_bytes_is_given_up_after_its_patience() {
    let (mut stream, mut got) = stream(0);
    stream.segment(3, b"def", 1_000, &mut got);
    stream.expire(1_000 + HOLE_PATIENCE_NS - 1, &mut got);
    assert_eq!(got.next, 0);
    stream.expire(1_000 + HOLE_PATIENCE_NS, &mut got);
    assert_eq!((got.bytes.as_slice(), got.gaps.as_slice()), (&b"def"[..], &[(0, 3, GapCause::Unseen)][..]));
    assert_eq!((stream.counters().gaps, stream.counters().gap_bytes), (1, 3));
}

#[test]
fn a_hole_at_a_cap_is_final_at_once() {
    let (mut stream, mut got) = stream(0);
    stream.segment(0, b"ab", 1, &mut got);
    stream.capped(2);
    stream.segment(10, b"cd", 2, &mut got);
    assert_eq!(got.gaps, [(2, 8, GapCause::Cap)]);
    assert_eq!(got.bytes, b"abcd");
}

#[test]
fn lost_bytes_explain_holes_until_they_are_used_up() {
    let (mut stream, mut got) = stream(0);
    stream.lost(4);
    stream.segment(4, b"x", 1, &mut got);
    assert_eq!(got.gaps, [(0, 4, GapCause::Ring)], "as many bytes were lost as are missing: final");
    stream.segment(9, b"y", 1, &mut got);
    assert_eq!(got.next, 5, "nothing explains this hole, so it may be filled");
    stream.finish(&mut got);
    assert_eq!(got.gaps, [(0, 4, GapCause::Ring), (5, 4, GapCause::Unseen)]);
}

#[test]
fn a_cap_inside_a_hole_splits_it() {
    let (mut stream, mut got) = stream(0);
    stream.lost(3);
    stream.capped(3);
    stream.segment(10, b"z", 1, &mut got);
    stream.finish(&mut got);
    assert_eq!(got.gaps, [(0, 3, GapCause::Ring), (3, 7, GapCause::Cap)]);
}

#[test]
fn received_bytes_wait_until_the_socket_has_accepted_them() {
    let (mut stream, mut got) = stream(100);
    stream.unconfirmed(100, b"abcdef", 1, &mut got);
    assert!(got.bytes.is_empty());
    stream.confirm(103, &mut got);
    assert_eq!(got.bytes, b"abc");
    stream.confirm(106, &mut got);
    assert_eq!(got.bytes, b"abcdef");
    assert_eq!(stream.counters().unconfirmed, 0);
}

#[test]
fn the_copy_that_was_accepted_is_the_later_one() {
    let (mut stream, mut got) = stream(0);
    stream.unconfirmed(0, b"abXdef", 1, &mut got);
    stream.unconfirmed(2, b"cdefgh", 2, &mut got);
    stream.confirm(8, &mut got);
    assert_eq!(got.bytes, b"abcdefgh");
    assert_eq!((got.notes.as_slice(), stream.counters().differing), (&[Note::RetransmissionDiffers][..], 1));
}

#[test]
fn what_was_accepted_and_never_seen_is_a_gap() {
    let (mut stream, mut got) = stream(0);
    stream.unconfirmed(0, b"ab", 1, &mut got);
    stream.unconfirmed(4, b"ef", 1, &mut got);
    stream.confirm(6, &mut got);
    assert_eq!((got.bytes.as_slice(), got.gaps.as_slice()), (&b"abef"[..], &[(2, 2, GapCause::Unseen)][..]));
    // One more is the FIN until bytes behind it say otherwise.
    stream.confirm(7, &mut got);
    assert_eq!(got.next, 6);
    stream.confirm(9, &mut got);
    assert_eq!(got.gaps, [(2, 2, GapCause::Unseen), (6, 3, GapCause::Unseen)]);
}

#[test]
fn a_known_fin_ends_the_stream() {
    let (mut stream, mut got) = stream(0);
    stream.unconfirmed(0, b"ab", 1, &mut got);
    stream.fin(5);
    stream.confirm(6, &mut got);
    assert_eq!((got.next, got.gaps.as_slice()), (5, &[(2, 3, GapCause::Unseen)][..]));
}

#[test]
fn unconfirmed_bytes_are_delivered_after_their_patience_and_counted() {
    let (mut stream, mut got) = stream(0);
    stream.unconfirmed(0, b"ab", 5, &mut got);
    stream.expire(5 + UNCONFIRMED_PATIENCE_NS - 1, &mut got);
    assert_eq!(got.next, 0);
    stream.expire(5 + UNCONFIRMED_PATIENCE_NS, &mut got);
    stream.unconfirmed(2, b"cd", 6, &mut got);
    stream.flush(&mut got);
    assert_eq!((got.bytes.as_slice(), stream.counters().unconfirmed), (&b"abcd"[..], 2));
}

#[test]
fn held_bytes_are_bounded_for_the_stream_and_by_the_budget() {
    for (budget, limit) in [(Budget::new(1 << 30), HELD_LIMIT), (Budget::new(100_000), 100_000)] {
        let mut stream = Stream::new(Some(0), Arc::clone(&budget));
        let mut got = Collected::default();
        // Every other byte, as single-byte segments: the overhead counts too.
        for n in 0..200_000u32 {
            stream.segment(1 + 2 * n, b"x", 1, &mut got);
            assert!(budget.used() <= limit);
        }
        assert!(got.gaps.iter().any(|gap| gap.2 == GapCause::Memory));
        stream.finish(&mut got);
        assert_eq!((got.bytes.len(), budget.used()), (200_000, 0));
    }
}

#[test]
fn without_memory_received_bytes_are_delivered_unconfirmed() {
    let mut stream = Stream::new(Some(0), Budget::new(0));
    let mut got = Collected::default();
    stream.unconfirmed(0, b"ab", 1, &mut got);
    stream.unconfirmed(4, b"ef", 1, &mut got);
    assert_eq!((got.bytes.as_slice(), got.gaps.as_slice()), (&b"abef"[..], &[(2, 2, GapCause::Memory)][..]));
    assert_eq!(stream.counters().unconfirmed, 2);
}

#[test]
fn numbers_outside_any_window_are_refused() {
    let (mut stream, mut got) = stream(0);
    stream.segment(0, b"ab", 1, &mut got);
    stream.segment(0x7000_0000, b"zz", 1, &mut got);
    stream.confirm(0x7000_0000, &mut got);
    assert_eq!((got.next, stream.counters().refused), (2, 2));
}

#[test]
fn without_the_opening_the_first_segment_begins_the_stream() {
    let mut stream = Stream::new(None, Budget::new(1000));
    let mut got = Collected::default();
    stream.segment(5000, b"ab", 1, &mut got);
    stream.segment(4998, b"__ab", 1, &mut got);
    assert_eq!((got.bytes.as_slice(), got.next), (&b"ab"[..], 2));
    let mut stream = Stream::new(None, Budget::new(1000));
    let mut got = Collected::default();
    stream.confirm(5000, &mut got);
    stream.unconfirmed(5002, b"cd", 1, &mut got);
    stream.unconfirmed(5000, b"ab", 1, &mut got);
    stream.confirm(5004, &mut got);
    assert_eq!(got.bytes, b"abcd");
}

/// Cuts `0..len` into segments of the given lengths (used in turn).
fn cut(len: usize, lengths: &[usize]) -> Vec<(usize, usize)> {
    let mut lengths = lengths.iter().cycle();
    let mut segments = Vec::new();
    let mut at = 0;
    while at < len {
        let end = len.min(at + lengths.next().unwrap());
        segments.push((at, end));
        at = end;
    }
    segments
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect()
}

proptest! {
    #[test]
    fn any_segmentation_order_and_repetition_gives_the_same_bytes(
        base in prop_oneof![any::<u32>(), (u32::MAX - 300)..=u32::MAX],
        len in 1..600usize,
        lengths in prop::collection::vec(1..50usize, 1..10),
        again in prop::collection::vec((any::<Index>(), any::<Index>()), 0..20),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..40),
        sent in any::<bool>(),
    ) {
        let bytes = content(len);
        let mut segments = cut(len, &lengths);
        // Repetitions with other boundaries.
        for (a, b) in again {
            let (a, b) = (a.index(len), b.index(len));
            segments.push((a.min(b), a.max(b) + 1));
        }
        for (a, b) in swaps {
            let (a, b) = (a.index(segments.len()), b.index(segments.len()));
            segments.swap(a, b);
        }
        let budget = Budget::new(1 << 20);
        let mut stream = Stream::new(Some(base), Arc::clone(&budget));
        let mut got = Collected::default();
        let (mut seen, mut accepted) = (vec![false; len], 0);
        for (from, to) in segments {
            let seq = base.wrapping_add(from as u32);
            if sent {
                stream.segment(seq, &bytes[from..to], 1, &mut got);
            } else {
                stream.unconfirmed(seq, &bytes[from..to], 1, &mut got);
                seen[from..to].fill(true);
                accepted += seen[accepted..].iter().take_while(|seen| **seen).count();
                stream.confirm(base.wrapping_add(accepted as u32), &mut got);
            }
        }
        prop_assert_eq!(&got.bytes, &bytes);
        prop_assert!(got.gaps.is_empty() && got.notes.is_empty());
        prop_assert_eq!((budget.used(), stream.counters().differing), (0, 0));
    }

    #[test]
    fn dropped_segments_are_exactly_the_gaps(
        base in any::<u32>(),
        len in 1..600usize,
        lengths in prop::collection::vec(2..50usize, 1..10),
        dropped in prop::collection::vec(any::<bool>(), 64),
        swaps in prop::collection::vec((any::<Index>(), any::<Index>()), 0..20),
        sent in any::<bool>(),
        count_losses in any::<bool>(),
    ) {
        let bytes = content(len);
        let all = cut(len, &lengths);
        let (lost, mut kept): (Vec<_>, Vec<_>) =
            all.into_iter().enumerate().partition(|(n, _)| dropped[n % dropped.len()]);
        // In order, a hole explained by the counter is final at once; reordered, only the end is.
        if !count_losses {
            for (a, b) in swaps {
                if !kept.is_empty() {
                    let (a, b) = (a.index(kept.len()), b.index(kept.len()));
                    kept.swap(a, b);
                }
            }
        }
        let mut stream = Stream::new(Some(base), Budget::new(1 << 20));
        let mut got = Collected::default();
        for (_, (from, to)) in &kept {
            if count_losses {
                stream.lost(lost.iter().filter(|(_, l)| l.0 < *from).map(|(_, l)| (l.1 - l.0) as u64).sum());
            }
            let seq = base.wrapping_add(*from as u32);
            if sent {
                stream.segment(seq, &bytes[*from..*to], 1, &mut got);
            } else {
                stream.unconfirmed(seq, &bytes[*from..*to], 1, &mut got);
            }
        }
        if count_losses {
            stream.lost(lost.iter().map(|(_, l)| (l.1 - l.0) as u64).sum());
        }
        stream.fin(base.wrapping_add(len as u32));
        if !sent {
            stream.confirm(base.wrapping_add(len as u32 + 1), &mut got);
        }
        stream.finish(&mut got);
        let cause = if count_losses { GapCause::Ring } else { GapCause::Unseen };
        let mut expected: Vec<(u64, u64, GapCause)> = Vec::new();
        for (_, (from, to)) in &lost {
            let (from, len) = (*from as u64, (to - from) as u64);
            match expected.last_mut() {
                Some(last) if last.0 + last.1 == from => last.1 += len,
                _ => expected.push((from, len, cause)),
            }
        }
        prop_assert_eq!(&got.gaps, &expected);
        let mut delivered: Vec<u8> = Vec::new();
        kept.sort_unstable();
        for (_, (from, to)) in &kept {
            delivered.extend(&bytes[*from..*to]);
        }
        prop_assert_eq!(got.bytes, delivered);
    }

    #[test]
    fn a_corrupted_copy_followed_by_the_right_one_gives_the_right_bytes(
        base in any::<u32>(),
        len in 1..400usize,
        lengths in prop::collection::vec(1..50usize, 1..10),
        corrupted in prop::collection::vec((any::<Index>(), any::<Index>()), 1..10),
    ) {
        let bytes = content(len);
        let mut stream = Stream::new(Some(base), Budget::new(1 << 20));
        let mut got = Collected::default();
        let mut accepted = 0;
        for (n, (from, to)) in cut(len, &lengths).into_iter().enumerate() {
            let seq = base.wrapping_add(from as u32);
            // TCP refuses this copy: rcv_nxt stays.
            if let Some((_, place)) = corrupted.iter().find(|(which, _)| which.index(20) == n % 20) {
                let mut copy = bytes[from..to].to_vec();
                let place = place.index(copy.len());
                copy[place] ^= 0x20;
                stream.unconfirmed(seq, &copy, 1, &mut got);
                stream.confirm(base.wrapping_add(accepted), &mut got);
            }
            stream.unconfirmed(seq, &bytes[from..to], 2, &mut got);
            accepted = to as u32;
            stream.confirm(base.wrapping_add(accepted), &mut got);
        }
        prop_assert_eq!(got.bytes, bytes);
        prop_assert!(got.gaps.is_empty());
        prop_assert_eq!(got.notes.len() as u64, stream.counters().differing);
    }

    #[test]
    fn any_operations_keep_the_promises(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        agent::flow::fuzz::reassembly(&input);
    }
}
