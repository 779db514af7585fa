//! One kernel record, checked and typed.

use agent_ebpf::{Address, Connection, Data, Exec, Header, Library, Object, kind};

/// A record of one of the rings.
#[derive(Clone)]
pub enum Record<'a> {
    /// Bytes of a stream (or none, when the record only announces a socket).
    Data(Data, &'a [u8]),
    /// A connection opened, changed its owner, or closed; [`Header::kind`] says which.
    Connection(Connection),
    /// A program was started.
    Exec(Box<Exec>),
    /// Plaintext of a TLS library.
    Library(Library, &'a [u8]),
    /// What became of a TLS object; [`Header::kind`] says what.
    Object(Object),
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
// SAFETY: as above.
unsafe impl Plain for Library {}
// SAFETY: as above.
unsafe impl Plain for Object {}

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
            kind::LIBRARY => {
                let library: Library = read(bytes)?;
                let payload = bytes.get(size_of::<Library>()..)?.get(..header.len as usize)?;
                Some(Record::Library(library, payload))
            }
            kind::BIND | kind::UNBIND | kind::FREE => Some(Record::Object(read(bytes)?)),
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
            Record::Library(_, payload) => size_of::<Library>() + payload.len(),
            Record::Object(_) => size_of::<Object>(),
        };
        bytes.get(..len)
    }

    /// The addresses by which the record finds its connection; none for a program's start.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Record::Data(d, _) => Some(&d.address),
            Record::Connection(c) => Some(&c.address),
            Record::Library(l, _) => Some(&l.address),
            Record::Object(o) => Some(&o.address),
            Record::Exec(_) => None,
        }
    }

    /// The owning process and its start in nanoseconds since boot; zeros where they are not known.
    #[must_use]
    pub fn owner(&self) -> (u32, u64) {
        match self {
            Record::Data(d, _) => (d.owner, 0),
            Record::Connection(c) => (c.owner, c.owner_start),
            Record::Library(l, _) => (l.owner, l.owner_start),
            Record::Object(_) | Record::Exec(_) => (0, 0),
        }
    }

    /// Kernel time, nanoseconds.
    #[must_use]
    pub fn time(&self) -> u64 {
        match self {
            Record::Data(d, _) => d.header.time,
            Record::Connection(c) => c.header.time,
            Record::Library(l, _) => l.header.time,
            Record::Object(o) => o.header.time,
            Record::Exec(e) => e.header.time,
        }
    }
}

/// The bytes of a record of kind `LIBRARY` with another fixed part.
#[must_use]
pub fn library_bytes(library: &Library, payload: &[u8]) -> Vec<u8> {
    with_fixed_part(library, payload)
}

/// The bytes of a record of kind `BIND`, `UNBIND` or `FREE`.
#[must_use]
pub fn object_bytes(object: &Object) -> Vec<u8> {
    with_fixed_part(object, &[])
}

fn with_fixed_part<T: Plain>(fixed: &T, payload: &[u8]) -> Vec<u8> {
    // SAFETY: a plain layout without padding, read as its own bytes.
    let head = unsafe { std::slice::from_raw_parts(std::ptr::from_ref(fixed).cast::<u8>(), size_of::<T>()) };
    [head, payload].concat()
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
