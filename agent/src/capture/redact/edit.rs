//! A copy of bytes with some ranges replaced, made only when there is something to replace.

use std::ops::Range;

/// What stands in the place of a secret; its length tells nothing about the secret's.
pub(super) const MASK: &[u8] = b"[redacted]";

/// Replacements from front to back.
#[derive(Debug)]
pub(super) struct Edit<'a> {
    src: &'a [u8],
    out: Vec<u8>,
    /// How far `src` has been taken over.
    taken: usize,
    changed: bool,
}

impl<'a> Edit<'a> {
    pub(super) fn new(src: &'a [u8]) -> Self {
        Edit { src, out: Vec::new(), taken: 0, changed: false }
    }

    /// Puts `with` in the place of `range`. A range that begins before the end of the last one is cut.
    pub(super) fn replace(&mut self, range: Range<usize>, with: &[u8]) {
        let start = range.start.max(self.taken);
        if range.end < start {
            return;
        }
        if !self.changed {
            self.out.reserve(self.src.len() + MASK.len());
            self.changed = true;
        }
        self.out.extend_from_slice(&self.src[self.taken..start]);
        self.out.extend_from_slice(with);
        self.taken = range.end;
    }

    /// Up to where bytes have been replaced.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// The changed copy, or `None` when nothing was replaced.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if !self.changed {
            return None;
        }
        self.out.extend_from_slice(&self.src[self.taken..]);
        Some(self.out)
    }
}
