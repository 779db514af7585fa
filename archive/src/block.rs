//! Blocks: the bytes of many entries joined and compressed, because a compressor that sees many similar objects
//! at once makes a tenth of them, and because one large value costs SQLite less than many small ones.

use crate::Error;

/// Most bytes of a block before compression: one object is read back in well under a millisecond. A larger
/// object is a block of its own.
pub(crate) const MOST: usize = 256 << 10;

/// No block is larger before compression; a larger figure in the file is damage, and is not allocated.
const ABSURD: usize = 1 << 30;

/// zstd's fastest ordinary level: higher ones cost several times the CPU for a few percent.
const LEVEL: i32 = 1;

/// A block being filled.
#[derive(Default)]
pub(crate) struct Open {
    /// The bytes so far.
    pub(crate) plain: Vec<u8>,
    /// Position of its first entry, once there is one.
    pub(crate) first: Option<i64>,
    /// Position of its last entry.
    pub(crate) last: i64,
    /// Transactions in it.
    pub(crate) records: i64,
    /// Smallest time of its entries.
    pub(crate) oldest: i64,
    /// Largest.
    pub(crate) newest: i64,
}

impl Open {
    /// Whether `bytes` more belong into the next block.
    pub(crate) fn is_full_for(&self, bytes: usize) -> bool {
        self.first.is_some() && self.plain.len() + bytes > MOST
    }

    /// Adds an entry; returns where its bytes begin.
    pub(crate) fn add(&mut self, position: i64, time_unix_ns: u64, bytes: &[u8], is_record: bool) -> i64 {
        let time = i64::try_from(time_unix_ns).unwrap_or(i64::MAX);
        if self.first.is_none() {
            self.first = Some(position);
            (self.oldest, self.newest) = (time, time);
        }
        self.last = position;
        self.records += i64::from(is_record);
        self.oldest = self.oldest.min(time);
        self.newest = self.newest.max(time);
        let start = self.plain.len();
        self.plain.extend_from_slice(bytes);
        start as i64
    }

    /// Empties it for the next block; keeps the allocation unless one large object has made it large.
    pub(crate) fn clear(&mut self) {
        self.plain.clear();
        self.plain.shrink_to(MOST);
        *self = Open { plain: std::mem::take(&mut self.plain), ..Open::default() };
    }
}

/// Compresses blocks; keeps its working memory and the place for what comes out.
pub(crate) struct Compressor {
    context: zstd::bulk::Compressor<'static>,
    stored: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Compressor { context: zstd::bulk::Compressor::new(LEVEL)?, stored: Vec::new() })
    }

    pub(crate) fn compress(&mut self, plain: &[u8]) -> std::io::Result<&[u8]> {
        let most = zstd::zstd_safe::compress_bound(plain.len());
        self.stored.clear();
        // One large object must not keep its memory for ever.
        self.stored.shrink_to(most.max(2 * MOST));
        self.stored.reserve(most);
        self.context.compress_to_buffer(plain, &mut self.stored)?;
        Ok(&self.stored)
    }
}

/// The bytes of one entry out of a stored block of `plain` bytes.
pub(crate) fn extract(stored: &[u8], plain: u64, start: u64, size: u64) -> Result<Vec<u8>, Error> {
    let damaged = |what: &str| Error::Damaged(format!("a block {what}"));
    let plain = usize::try_from(plain).ok().filter(|n| *n <= ABSURD).ok_or_else(|| damaged("has an absurd size"))?;
    let mut bytes =
        zstd::bulk::decompress(stored, plain).map_err(|e| damaged(&format!("cannot be decompressed: {e}")))?;
    let end = start.checked_add(size).filter(|end| *end <= bytes.len() as u64);
    let end = end.ok_or_else(|| damaged("is shorter than its index says"))?;
    bytes.truncate(end as usize);
    bytes.drain(..start as usize);
    Ok(bytes)
}
