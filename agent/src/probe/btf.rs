//! Where the running kernel keeps the members of its structures.
//!
//! In: the kernel's own BTF type information (`/sys/kernel/btf/vmlinux`; format: the kernel's
//! `Documentation/bpf/btf.rst`). Out: byte offsets and sizes, which the loader writes into the programs'
//! read-only settings. Called once at start, so it is one pass without tables of names: the bytes are kept,
//! the position of every type is noted, and a name is looked for only when it is asked for.
//!
//! The bytes come from the kernel, but nothing here trusts them: every read is bounded, every walk is too.

use std::fmt;
use std::path::Path;

/// Where the kernel shows its type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Larger files are refused; the largest kernels have about 10 MiB.
const MAX_BYTES: u64 = 256 << 20;
/// Members looked at for one path, anonymous ones included.
const MAX_STEPS: u32 = 200_000;
/// Typedefs and modifiers in a row, and anonymous structures inside one another.
const MAX_DEPTH: u32 = 32;

/// Kinds of `struct btf_type` (include/uapi/linux/btf.h).
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why the type information could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there or cannot be read.
    #[error("cannot read {path}: {source}; the kernel must be built with CONFIG_DEBUG_INFO_BTF=y and /sys be mounted")]
    Read {
        /// Which file.
        path: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The bytes are not BTF of this machine's byte order, or end too early.
    #[error("the kernel's type information is not usable: {what} at byte {at}")]
    Malformed {
        /// What was found.
        what: &'static str,
        /// Where.
        at: usize,
    },
}

/// Why one path has no byte offset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kernel structure member `{path}`: {why}")]
pub struct Missing {
    /// The path asked for.
    pub path: String,
    /// What stands in the way.
    pub why: Why,
}

/// The reason inside [`Missing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No structure or union of that name.
    NoStruct,
    /// The structure has no member of that name.
    NoMember(String),
    /// The member is a bit-field: it has no byte of its own.
    BitField,
    /// A further member was asked of something that is not a structure.
    NotStruct(String),
    /// The type's size is not known.
    NoSize,
    /// The type information is broken or goes round in circles there.
    Broken,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NoStruct => f.write_str("this kernel has no such structure"),
            Why::NoMember(name) => write!(f, "this kernel has no member `{name}` there"),
            Why::BitField => f.write_str("it is a bit-field, which has no byte offset"),
            Why::NotStruct(name) => write!(f, "`{name}` is asked of something that is not a structure"),
            Why::NoSize => f.write_str("its size is not known"),
            Why::Broken => f.write_str("the kernel's type information is broken there"),
        }
    }
}

/// Place and size of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the path's structure.
    pub offset: u32,
    /// Bytes that the member takes; `None` where its type has no size (a flexible array).
    pub size: Option<u32>,
}

/// A kernel's type information.
pub struct Btf {
    bytes: Vec<u8>,
    /// Range of the names in `bytes`.
    names: std::ops::Range<usize>,
    /// Position of each type in `bytes`; the index is the type's number, 0 is void.
    types: Vec<u32>,
    /// Numbers of the named structures and unions.
    structs: Vec<u32>,
}

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Btf({} types)", self.types.len())
    }
}

/// One `struct btf_type`.
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    len: usize,
    /// For structures: the upper eight bits of a member's offset are its width in bits.
    flag: bool,
    /// Bytes, or the type that this one is about: `btf_type.size` and `.type` share a place.
    extra: u32,
}

impl Btf {
    /// Reads the running kernel's type information.
    pub fn load() -> Result<Self, Error> {
        Self::read(Path::new(VMLINUX))
    }

    /// Reads type information from a file in BTF's raw form.
    pub fn read(path: &Path) -> Result<Self, Error> {
        use std::io::Read as _;
        let wrap = |source| Error::Read { path: path.display().to_string(), source };
        let file = std::fs::File::open(path).map_err(wrap)?;
        // sysfs tells the true size, so one allocation and one read are enough.
        let expected = file.metadata().map_err(wrap)?.len().min(MAX_BYTES);
        let mut bytes = Vec::with_capacity(expected as usize + 1);
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(wrap)?;
        Self::parse(bytes)
    }

    /// Takes type information in BTF's raw form, of this machine's byte order.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Error> {
        let malformed = |what, at| Error::Malformed { what, at };
        let word = |at: usize| u32_at(&bytes, at).ok_or(malformed("a header that is cut off", at));
        // struct btf_header: magic u16, version u8, flags u8, hdr_len, type_off, type_len, str_off, str_len.
        match word(0)? & 0xffff {
            0xeb9f => {}
            0x9feb => return Err(malformed("the other byte order", 0)),
            _ => return Err(malformed("no BTF magic number", 0)),
        }
        let (header, type_off, type_len) = (word(4)? as usize, word(8)? as usize, word(12)? as usize);
        let (name_off, name_len) = (word(16)? as usize, word(20)? as usize);
        // On 64-bit machines five u32 cannot overflow; on others the end test below fails first.
        let section = |off: usize, len: usize| {
            let start = header.checked_add(off)?;
            let end = start.checked_add(len)?;
            (header >= 24 && end <= bytes.len()).then_some(start..end)
        };
        let names = section(name_off, name_len).ok_or(malformed("names outside the file", 16))?;
        let body = section(type_off, type_len).ok_or(malformed("types outside the file", 8))?;

        let mut types = Vec::with_capacity(type_len / 24 + 1);
        types.push(0);
        let mut structs = Vec::new();
        let mut at = body.start;
        while at < body.end {
            let info = u32_at(&bytes, at + 4).ok_or(malformed("a type that is cut off", at))?;
            let (kind, len) = ((info >> 24) & 31, (info & 0xffff) as usize);
            if matches!(kind, kind::STRUCT | kind::UNION) && u32_at(&bytes, at) != Some(0) {
                structs.push(types.len() as u32);
            }
            types.push(at as u32);
            at += 12 + tail(kind, len).ok_or(malformed("a type of unknown kind", at))?;
        }
        if at != body.end {
            return Err(malformed("a type that is cut off", body.end));
        }
        Ok(Btf { bytes, names, types, structs })
    }

    /// Byte offset of a member, e.g. `sock.__sk_common.skc_state`; the first part is the structure's name.
    /// Members of anonymous structures and unions are found without naming these.
    pub fn offset(&self, path: &str) -> Result<u32, Missing> {
        self.resolve(path).map(|found| found.offset)
    }

    /// Offset and size of a member; of a structure as a whole where the path is only its name.
    pub fn member(&self, path: &str) -> Result<Member, Missing> {
        let found = self.resolve(path)?;
        Ok(Member { offset: found.offset, size: self.size_of(found.ty) })
    }

    /// Bytes of a structure or of a member.
    pub fn size(&self, path: &str) -> Result<u32, Missing> {
        self.member(path)?.size.ok_or_else(|| Missing { path: path.to_owned(), why: Why::NoSize })
    }

    fn resolve(&self, path: &str) -> Result<Found, Missing> {
        let missing = |why| Missing { path: path.to_owned(), why };
        let mut parts = path.split('.');
        let root = parts.next().unwrap_or_default();
        let mut reason = None;
        // Some kernels have several structures of one name, private to different files: the first that has
        // the whole path is meant.
        for id in self.structs.iter().copied().filter(|id| self.is_named(*id, root)) {
            match self.walk(id, parts.clone()) {
                Ok(found) => return Ok(found),
                Err(why) => reason = reason.or(Some(why)),
            }
        }
        Err(missing(reason.unwrap_or(Why::NoStruct)))
    }

    fn walk<'a>(&self, id: u32, parts: impl Iterator<Item = &'a str>) -> Result<Found, Why> {
        let mut found = Found { ty: id, offset: 0 };
        let mut steps = MAX_STEPS;
        for name in parts {
            let ty = self.plain(found.ty).ok_or(Why::Broken)?;
            if !matches!(ty.kind, kind::STRUCT | kind::UNION) {
                return Err(Why::NotStruct(name.to_owned()));
            }
            let next = self.find(&ty, name, MAX_DEPTH, &mut steps)?.ok_or_else(|| Why::NoMember(name.to_owned()))?;
            found = Found { ty: next.ty, offset: found.offset.checked_add(next.offset).ok_or(Why::Broken)? };
        }
        Ok(found)
    }

    /// The member `name` of a structure, anonymous members searched in their order.
    fn find(&self, ty: &Type, name: &str, depth: u32, steps: &mut u32) -> Result<Option<Found>, Why> {
        if depth == 0 {
            return Err(Why::Broken);
        }
        for index in 0..ty.len {
            *steps = steps.checked_sub(1).ok_or(Why::Broken)?;
            // struct btf_member: name, type, offset in bits.
            let at = ty.at + 12 + 12 * index;
            let (Some(label), Some(id), Some(raw)) = (self.u32(at), self.u32(at + 4), self.u32(at + 8)) else {
                return Err(Why::Broken);
            };
            let (bits, width) = if ty.flag { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            if label != 0 && self.name_is(label, name) {
                if width != 0 || bits % 8 != 0 || self.is_narrow_int(id) {
                    return Err(Why::BitField);
                }
                return Ok(Some(Found { ty: id, offset: bits / 8 }));
            }
            if label == 0 && width == 0 {
                let inner = self.plain(id).ok_or(Why::Broken)?;
                if matches!(inner.kind, kind::STRUCT | kind::UNION)
                    && let Some(found) = self.find(&inner, name, depth - 1, steps)?
                {
                    let offset = found.offset.checked_add(bits / 8).ok_or(Why::Broken)?;
                    return Ok(Some(Found { ty: found.ty, offset }));
                }
            }
        }
        Ok(None)
    }

    /// Older compilers write bit-fields as integers of fewer bits than their bytes hold.
    fn is_narrow_int(&self, id: u32) -> bool {
        self.plain(id).is_some_and(|ty| {
            ty.kind == kind::INT && self.u32(ty.at + 12).is_some_and(|int| (int & 0xff) != ty.extra.saturating_mul(8))
        })
    }

    fn size_of(&self, id: u32) -> Option<u32> {
        let (mut id, mut times) = (id, 1u32);
        for _ in 0..MAX_DEPTH {
            let ty = self.plain(id)?;
            match ty.kind {
                kind::PTR => return times.checked_mul(size_of::<usize>() as u32),
                kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::FLOAT | kind::ENUM64 => {
                    return times.checked_mul(ty.extra);
                }
                kind::ARRAY => {
                    // struct btf_array: element type, index type, number of elements; none = flexible.
                    let count = self.u32(ty.at + 20).filter(|count| *count != 0)?;
                    times = times.checked_mul(count)?;
                    id = self.u32(ty.at + 12)?;
                }
                _ => return None,
            }
        }
        None
    }

    /// The type behind typedefs and modifiers.
    fn plain(&self, id: u32) -> Option<Type> {
        let mut id = id;
        for _ in 0..MAX_DEPTH {
            let ty = self.ty(id)?;
            match ty.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => id = ty.extra,
                _ => return Some(ty),
            }
        }
        None
    }

    fn ty(&self, id: u32) -> Option<Type> {
        let at = *self.types.get(id as usize).filter(|at| **at != 0)? as usize;
        let info = self.u32(at + 4)?;
        Some(Type {
            at,
            name: self.u32(at)?,
            kind: (info >> 24) & 31,
            len: (info & 0xffff) as usize,
            flag: info >> 31 != 0,
            extra: self.u32(at + 8)?,
        })
    }

    fn is_named(&self, id: u32, name: &str) -> bool {
        self.ty(id).is_some_and(|ty| self.name_is(ty.name, name))
    }

    fn name_is(&self, offset: u32, name: &str) -> bool {
        self.bytes
            .get(self.names.clone())
            .and_then(|names| names.get(offset as usize..))
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        u32_at(&self.bytes, at)
    }
}

#[derive(Clone, Copy)]
struct Found {
    ty: u32,
    offset: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*four))
}

/// Bytes after a `struct btf_type`; `None` for a kind that this code does not know.
fn tail(kind: u32, len: usize) -> Option<usize> {
    Some(match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * len,
        kind::ENUM | kind::FUNC_PROTO => 8 * len,
        kind::PTR
        | kind::FWD
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
