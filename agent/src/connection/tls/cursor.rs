//! Reads numbers and vectors of the TLS presentation language (RFC 8446 section 3) from bytes.

/// What is left of some bytes. A read that finds too few gives `None` and takes nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    /// A vector whose length stands before it in one byte.
    pub(super) fn vector8(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let count = ahead.u8()?;
        let bytes = ahead.take(count.into())?;
        *self = ahead;
        Some(bytes)
    }

    /// A vector whose length stands before it in two bytes.
    pub(super) fn vector16(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let count = ahead.u16()?;
        let bytes = ahead.take(count.into())?;
        *self = ahead;
        Some(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Calls `each` with the type and the data of the extensions at the end of a hello (RFC 8446 section 4.2) that are
/// there from first to last byte; `at` stands before their length. A hello may end without any. Of one that is `whole`
/// the answer says whether they fill it as their lengths say; of one that was cut it is yes.
pub(super) fn extensions<'a>(mut at: Cursor<'a>, whole: bool, mut each: impl FnMut(u16, &'a [u8])) -> bool {
    if at.is_empty() {
        return true;
    }
    let Some(count) = at.u16() else { return !whole };
    let fits = at.0.len() == usize::from(count);
    let mut rest = Cursor(at.0.get(..count.into()).unwrap_or(at.0));
    while !rest.is_empty() {
        let (Some(kind), Some(data)) = (rest.u16(), rest.vector16()) else { return !whole };
        each(kind, data);
    }
    fits || !whole
}
