//! Segments that cannot be delivered yet, by stream offset, without overlaps.
//!
//! Kept by [`Stream`](super::Stream) only. Each piece is charged to the budget with what it costs beside
//! its bytes, so that a flood of one-byte segments is bounded too.

use std::collections::BTreeMap;

use super::Lease;

/// What a piece costs beside its bytes: tree node, vector header, allocator.
const OVERHEAD: usize = 128;

/// Bytes of one segment, or of a part of it.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) ns: u64,
    /// May be delivered when it is in order; otherwise it waits until the socket has accepted it.
    pub(super) trusted: bool,
}

/// What storing a segment showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    /// Bytes were there already.
    pub(super) overlapped: bool,
    /// Of those some differed.
    pub(super) differed: bool,
    /// No memory for all of it; what was there before is unchanged in number.
    pub(super) refused: bool,
}

#[derive(Debug)]
pub(super) struct Held {
    pieces: BTreeMap<u64, Piece>,
    lease: Lease,
}

impl Held {
    pub(super) fn new(lease: Lease) -> Self {
        Self { pieces: BTreeMap::new(), lease }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Offset and piece that come first.
    pub(super) fn first(&self) -> Option<(u64, &Piece)> {
        self.pieces.first_key_value().map(|(offset, piece)| (*offset, piece))
    }

    pub(super) fn take_first(&mut self) -> Option<(u64, Piece)> {
        let (offset, piece) = self.pieces.pop_first()?;
        self.lease.shrink(piece.bytes.len() + OVERHEAD);
        Some((offset, piece))
    }

    /// Removes and returns what lies before `end`: the whole first piece, or its part up to there.
    pub(super) fn take_before(&mut self, end: u64) -> Option<(u64, Piece)> {
        let (offset, piece) = self.pieces.first_key_value()?;
        let offset = *offset;
        if offset >= end {
            return None;
        }
        let keep_from = (end - offset).min(piece.bytes.len() as u64) as usize;
        let (_, mut piece) = self.pieces.pop_first()?;
        if keep_from == piece.bytes.len() {
            self.lease.shrink(piece.bytes.len() + OVERHEAD);
        } else {
            let rest = piece.bytes.split_off(keep_from);
            self.pieces.insert(end, Piece { bytes: rest, ns: piece.ns, trusted: piece.trusted });
            self.lease.shrink(keep_from);
        }
        Some((offset, piece))
    }

    /// Offset behind the last byte held; 0 when there is none.
    pub(super) fn end(&self) -> u64 {
        self.pieces.last_key_value().map_or(0, |(offset, piece)| offset + piece.bytes.len() as u64)
    }

    /// Whether bytes held differ from `bytes` at `offset`; nothing held may begin before it.
    pub(super) fn differs(&self, offset: u64, bytes: &[u8]) -> bool {
        let end = offset + bytes.len() as u64;
        self.pieces.range(offset..end).any(|(from, piece)| {
            let theirs = &bytes[(from - offset) as usize..];
            let both = theirs.len().min(piece.bytes.len());
            theirs[..both] != piece.bytes[..both]
        })
    }

    /// Keeps `bytes` at `offset`. Where bytes are already held, `replace` says which copy stays.
    pub(super) fn store(&mut self, offset: u64, bytes: &[u8], ns: u64, trusted: bool, replace: bool) -> Stored {
        let mut stored = Stored::default();
        let end = offset + bytes.len() as u64;
        let part = |from: u64, to: u64| &bytes[(from - offset) as usize..(to - offset) as usize];
        let mut at = offset;
        // The piece that begins before may reach into the segment, so the walk starts there.
        let begin = self.pieces.range(..=offset).next_back().map_or(offset, |(from, _)| *from);
        let mut missing: Vec<(u64, u64)> = Vec::new();
        for (from, piece) in self.pieces.range_mut(begin..end) {
            let to = from + piece.bytes.len() as u64;
            if to <= at {
                continue;
            }
            if *from > at {
                missing.push((at, *from));
                at = *from;
            }
            let until = to.min(end);
            let mine = &mut piece.bytes[(at - from) as usize..(until - from) as usize];
            let theirs = part(at, until);
            stored.overlapped = true;
            if mine != theirs {
                stored.differed = true;
                if replace {
                    mine.copy_from_slice(theirs);
                    piece.ns = ns;
                }
            }
            piece.trusted |= trusted;
            at = until;
        }
        if at < end {
            missing.push((at, end));
        }
        for (from, to) in missing {
            if !self.lease.grow((to - from) as usize + OVERHEAD) {
                stored.refused = true;
                break;
            }
            self.pieces.insert(from, Piece { bytes: part(from, to).to_vec(), ns, trusted });
        }
        stored
    }
}
