//! One kernel record, checked and typed.

use agent_ebpf::{Connection, Data, Exec, Header, kind};

/// A record of one of the rings.
#[derive(Clone)]
pub enum Record<'a> {
    /// Bytes of a stream (or none, when the record only announces a socket).
    Data(Data, &'a [u8]),
    /// A connection opened, changed its owner, or closed; [`Header::kind`] says which.
    Connection(Connection),
    /// A program was started.
    Exec(Box<Exec>),
}

/// Layouts whose every bit pattern is a value, so that they may be read from any bytes.
///
/// # Safety
/// `#[repr(C)]`, no padding that is read, no references, no enums.
unsafe trait Plain: Copy {}
// SAFETY: integers and arrays of integers only.
unsafe impl Plain for Header {}
// SAFETY: as above.
unsafe impl Plain for Data {}
// SAFETY: as above.
unsafe impl Plain for Connection {}
// SAFETY: as above.
unsafe impl Plain for Exec {}

fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes, the read is unaligned, and any bytes are a T.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

impl<'a> Record<'a> {
    /// Reads the record at the start of `bytes`; `None` when they are none (cut short, or of an unknown
    /// kind).
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Record<'a>> {
        let header: Header = read(bytes)?;
        match header.kind {
            kind::DATA | kind::HANDSHAKE => {
                let data: Data = read(bytes)?;
                let payload = bytes.get(size_of::<Data>()..)?.get(..header.len as usize)?;
                Some(Record::Data(data, payload))
            }
            kind::OPEN | kind::OWNER | kind::END | kind::CLOSE => Some(Record::Connection(read(bytes)?)),
            kind::EXEC => read(bytes).map(|exec| Record::Exec(Box::new(exec))),
            _ => None,
        }
    }

    /// Bytes of the record that carry something; the rest of a data record's size class is left out.
    #[must_use]
    pub fn significant(bytes: &[u8]) -> Option<&[u8]> {
        let len = match Record::parse(bytes)? {
            Record::Data(_, payload) => size_of::<Data>() + payload.len(),
            Record::Connection(_) => size_of::<Connection>(),
            Record::Exec(_) => size_of::<Exec>(),
        };
        bytes.get(..len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_cut_short() {
        let mut d = [0u8; 200];
        d[0] = kind::DATA;
        d[4] = 100;
        assert!(matches!(Record::parse(&d), Some(Record::Data(_, p)) if p.len() == 100));
        assert!(Record::parse(&d[..size_of::<Data>() + 99]).is_none());
        d[0] = 77;
        assert!(Record::parse(&d).is_none());
        assert!(Record::parse(&[]).is_none());
    }
}
