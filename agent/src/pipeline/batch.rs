//! Records on their way from the reader to a worker: many in one allocation.

/// Records one behind the other, each with its length in front.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// A batch is handed over at the latest when it has reached this size.
    pub(super) const FULL: usize = 256 << 10;

    pub(super) fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(&(record.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(record);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= Self::FULL
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first_chunk::<4>()?;
            let (record, tail) = tail.split_at_checked(u32::from_ne_bytes(*len) as usize)?;
            rest = tail;
            Some(record)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Batch;

    #[test]
    fn gives_back_the_records_in_order() {
        let mut b = Batch::default();
        assert!(b.is_empty());
        for r in [&b"one"[..], b"", b"three"] {
            b.push(r);
        }
        assert_eq!(b.records().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
    }
}
