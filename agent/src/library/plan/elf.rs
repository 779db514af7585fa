//! What an ELF file says of its functions, read piece by piece.
//!
//! In: a file of which nothing is known. Out: where the wanted symbols are defined, the code there, and where a
//! virtual address is in the file. Called by `openssl`. The file is read with pread, never mapped (a file that is
//! truncated while it is mapped kills the reader) and never whole: one piece of [`PIECE`] bytes at a time, each
//! table up to a limit. Layouts: System V ABI, gABI 4.1 chapters 4 and 5, and the Linux Standard Base for
//! `.eh_frame_hdr`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use memchr::memmem;

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Longest table of names or symbols that is searched.
const TABLE: u64 = 64 << 20;
/// Longest piece of code that is handed out.
pub(super) const CODE: u64 = 64 << 10;
/// Program headers and sections that are looked at: real files have a few dozen.
const HEADERS: usize = 4096;
/// Entries of `.eh_frame_hdr` that are read: a browser has about a million.
const FUNCTIONS: usize = 2 << 20;
/// Callers of one function that are looked for: libssl has one beside the exported functions.
const CALLERS: usize = 64;

/// Why a file cannot be read as ELF.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// cannot read {length} bytes at {offset:#x}
    #[error("cannot read {length} bytes at {offset:#x}")]
    Read {
        /// Where.
        offset: u64,
        /// How many.
        length: usize,
        /// What the system says.
        source: io::Error,
    },
    /// {what} at {offset:#x} lies outside the file of {size} bytes: it is truncated or being written
    #[error("{what} at {offset:#x} lies outside the file of {size} bytes: it is truncated or being written")]
    Outside {
        /// The table.
        what: &'static str,
        /// Where it should be.
        offset: u64,
        /// Size of the file.
        size: u64,
    },
}

/// A file, or what stands for one.
pub(super) trait Bytes {
    /// Its size now.
    fn size(&self) -> io::Result<u64>;
    /// Reads at `offset`; fewer bytes than asked for only at the end.
    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl Bytes for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(&mut buffer[done..], offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

impl Bytes for [u8] {
    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..)).unwrap_or(&[]);
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
}

/// Machine types that are known ([`Elf::machine`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    X86_64,
    Aarch64,
}

/// A segment that is mapped.
#[derive(Clone, Copy)]
struct Load {
    address: u64,
    offset: u64,
    /// Bytes in the file.
    length: u64,
    executable: bool,
}

#[derive(Clone, Copy)]
struct Section {
    kind: u32,
    flags: u64,
    offset: u64,
    size: u64,
    link: u32,
}

/// A defined function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Virtual address.
    pub(super) address: u64,
    /// Bytes; 0 when the file does not say.
    pub(super) size: u64,
}

/// An ELF file for a machine that is known: 64 bits, little-endian, a program or a shared library.
pub(super) struct Elf<'a, B: Bytes + ?Sized> {
    bytes: &'a B,
    size: u64,
    pub(super) machine: Machine,
    loads: Vec<Load>,
    sections: Vec<Section>,
    /// Offset and length in the file of the table of functions (`PT_GNU_EH_FRAME`), and its address.
    unwind: Option<(u64, u64, u64)>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl<'a, B: Bytes + ?Sized> Elf<'a, B> {
    /// `None`: not ELF, or none that a process of this host's own word size could run.
    pub(super) fn open(bytes: &'a B) -> Result<Option<Self>, Error> {
        let mut head = [0; 64];
        let got = bytes.read(&mut head, 0).map_err(|source| Error::Read { offset: 0, length: 64, source })?;
        // e_ident: the magic number, ELFCLASS64, ELFDATA2LSB. e_type: ET_EXEC or ET_DYN.
        if got < 64 || head[..6] != *b"\x7fELF\x02\x01" || !matches!(u16_at(&head, 16), 2 | 3) {
            return Ok(None);
        }
        let machine = match u16_at(&head, 18) {
            62 => Machine::X86_64,
            183 => Machine::Aarch64,
            _ => return Ok(None),
        };
        let size = bytes.size().map_err(|source| Error::Read { offset: 0, length: 0, source })?;
        let mut elf = Elf { bytes, size, machine, loads: Vec::new(), sections: Vec::new(), unwind: None };
        elf.program_headers(u64_at(&head, 32), u16_at(&head, 54), u16_at(&head, 56))?;
        elf.section_headers(u64_at(&head, 40), u16_at(&head, 58), u16_at(&head, 60))?;
        Ok(Some(elf))
    }

    fn program_headers(&mut self, offset: u64, entry: u16, count: u16) -> Result<(), Error> {
        if entry != 56 {
            return Ok(());
        }
        let table = self.read("the program header table", offset, usize::from(count).min(HEADERS) * 56)?;
        for header in table.chunks_exact(56) {
            let (offset, address, length) = (u64_at(header, 8), u64_at(header, 16), u64_at(header, 32));
            match u32_at(header, 0) {
                // PT_LOAD
                1 => self.loads.push(Load { address, offset, length, executable: u32_at(header, 4) & 1 != 0 }),
                // PT_GNU_EH_FRAME
                0x6474_e550 => self.unwind = Some((offset, length, address)),
                _ => {}
            }
        }
        Ok(())
    }

    fn section_headers(&mut self, offset: u64, entry: u16, count: u16) -> Result<(), Error> {
        if entry != 64 {
            return Ok(());
        }
        let table = self.read("the section header table", offset, usize::from(count).min(HEADERS) * 64)?;
        self.sections.extend(table.chunks_exact(64).map(|header| Section {
            kind: u32_at(header, 4),
            flags: u64_at(header, 8),
            offset: u64_at(header, 24),
            size: u64_at(header, 32),
            link: u32_at(header, 40),
        }));
        Ok(())
    }

    fn read(&self, what: &'static str, offset: u64, length: usize) -> Result<Vec<u8>, Error> {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(Error::Outside { what, offset, size: self.size });
        }
        let mut buffer = vec![0; length];
        let got = self.bytes.read(&mut buffer, offset).map_err(|source| Error::Read { offset, length, source })?;
        if got < length {
            return Err(Error::Outside { what, offset, size: self.size });
        }
        Ok(buffer)
    }

    /// Calls `look` with pieces of `offset..offset + size` and each piece's beginning relative to `offset`, until it
    /// says `false`. Each piece begins with the last `overlap` bytes of the one before it, so that nothing up to
    /// that length is cut.
    fn pieces(
        &self,
        what: &'static str,
        offset: u64,
        size: u64,
        overlap: usize,
        mut look: impl FnMut(&[u8], u64) -> bool,
    ) -> Result<(), Error> {
        let mut at = 0;
        while at < size {
            let length = (size - at).min(PIECE as u64);
            let piece = self.read(what, offset.saturating_add(at), length as usize)?;
            if !look(&piece, at) || at + length >= size {
                break;
            }
            at += length - overlap as u64;
        }
        Ok(())
    }

    /// Where each of `names` is defined as a function; `None` unless `needed` (one of them) is. The dynamic symbols
    /// are asked first, then the full table, where a file has kept it. Nearly all files end after one search
    /// through the names of the first.
    pub(super) fn symbols(&self, names: &[&str], needed: &str) -> Result<Option<Vec<Option<Symbol>>>, Error> {
        // SHT_DYNSYM, SHT_SYMTAB
        for kind in [11, 2] {
            let Some(table) = self.sections.iter().find(|s| s.kind == kind) else { continue };
            let Some(strings) = self.sections.get(table.link as usize) else { continue };
            let places = self.names(strings, names)?;
            if places.iter().any(|(_, name)| names[*name] == needed) {
                let found = self.defined(table, &places, names.len())?;
                if names.iter().zip(&found).any(|(name, symbol)| *name == needed && symbol.is_some()) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Offsets in a string table at which one of `names` stands (also as the end of a longer one: linkers share
    /// them), with the index of the name; sorted.
    fn names(&self, strings: &Section, names: &[&str]) -> Result<Vec<(u32, usize)>, Error> {
        let longest = names.iter().map(|n| n.len()).max().unwrap_or(0) + 1;
        let finder = memmem::Finder::new("SSL_");
        let mut places = Vec::new();
        self.pieces("a table of names", strings.offset, strings.size.min(TABLE), longest, |piece, begin| {
            for at in finder.find_iter(piece) {
                let rest = &piece[at..];
                let whole =
                    |name: &&str| rest.len() > name.len() && rest.starts_with(name.as_bytes()) && rest[name.len()] == 0;
                if let Some(name) = names.iter().position(whole) {
                    places.push((begin as u32 + at as u32, name));
                }
            }
            // A file that is full of them is no library.
            places.len() < HEADERS
        })?;
        places.sort_unstable();
        places.dedup();
        Ok(places)
    }

    fn defined(&self, table: &Section, places: &[(u32, usize)], names: usize) -> Result<Vec<Option<Symbol>>, Error> {
        let mut found = vec![None; names];
        // A piece is a whole number of symbols of 24 bytes: read by multiples of them.
        let size = table.size.min(TABLE);
        let step = (PIECE / 24 * 24) as u64;
        let mut at = 0;
        while at < size {
            let piece = self.read("a symbol table", table.offset.saturating_add(at), (size - at).min(step) as usize)?;
            for entry in piece.chunks_exact(24) {
                let Ok(place) = places.binary_search_by_key(&u32_at(entry, 0), |(at, _)| *at) else { continue };
                // STT_FUNC, and defined in this file (st_shndx is not SHN_UNDEF).
                if entry[4] & 15 == 2 && u16_at(entry, 6) != 0 {
                    let symbol = Symbol { address: u64_at(entry, 8), size: u64_at(entry, 16) };
                    found[places[place].1].get_or_insert(symbol);
                }
            }
            at += step;
        }
        Ok(found)
    }

    fn load(&self, address: u64) -> Option<&Load> {
        self.loads.iter().find(|l| l.executable && address >= l.address && address - l.address < l.length)
    }

    /// Offset in the file of a virtual address that is mapped executable.
    pub(super) fn offset(&self, address: u64) -> Option<u64> {
        let load = self.load(address)?;
        load.offset.checked_add(address - load.address).filter(|offset| *offset < self.size)
    }

    /// Up to `length` bytes of code (at most [`CODE`]) at a virtual address; fewer at the end of what is mapped.
    pub(super) fn code(&self, address: u64, length: u64) -> Result<Vec<u8>, Error> {
        let (Some(load), Some(offset)) = (self.load(address), self.offset(address)) else { return Ok(Vec::new()) };
        let length = length.min(load.length - (address - load.address)).min(CODE).min(self.size - offset);
        self.read("code", offset, length as usize)
    }

    /// Beginnings of all functions that can be unwound, sorted, from the search table of `.eh_frame_hdr`; empty when
    /// the file has none of the usual form.
    pub(super) fn functions(&self) -> Result<Vec<u64>, Error> {
        let Some((offset, length, address)) = self.unwind else { return Ok(Vec::new()) };
        if length < 12 {
            return Ok(Vec::new());
        }
        let head = self.read("the table of functions", offset, 12)?;
        // Version 1, count as udata4, entries as sdata4 relative to the table: what all linkers write.
        if head[0] != 1 || head[2] != 0x03 || head[3] != 0x3b {
            return Ok(Vec::new());
        }
        let count = u64::from(u32_at(&head, 8)).min((length - 12) / 8).min(FUNCTIONS as u64);
        let mut functions = Vec::with_capacity(count as usize);
        self.pieces("the table of functions", offset.saturating_add(12), count * 8, 0, |piece, _| {
            let start = |entry: &[u8]| address.wrapping_add_signed(i64::from(u32_at(entry, 0) as i32));
            functions.extend(piece.chunks_exact(8).map(start));
            true
        })?;
        functions.sort_unstable();
        functions.dedup();
        Ok(functions)
    }

    /// Addresses at which executable segments hold a five-byte call or jump to `target`, whether they are
    /// instructions or not: (address, is a jump).
    pub(super) fn callers(&self, target: u64) -> Result<Vec<(u64, bool)>, Error> {
        let mut found = Vec::new();
        for load in self.loads.iter().filter(|l| l.executable) {
            self.pieces("code", load.offset, load.length.min(TABLE), 4, |piece, begin| {
                for at in memchr::memchr2_iter(0xe8, 0xe9, piece) {
                    let Some(relative) = piece.get(at + 1..at + 5) else { break };
                    let address = load.address.wrapping_add(begin + at as u64);
                    let to = address.wrapping_add(5).wrapping_add_signed(i64::from(u32_at(relative, 0) as i32));
                    if to == target {
                        found.push((address, piece[at] == 0xe9));
                    }
                }
                found.len() < CALLERS
            })?;
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Calls `look` with pieces of the constant data, with an overlap of 64 bytes, until it says `false`.
    pub(super) fn constants(&self, mut look: impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
        let mut left = TABLE;
        let mut on = true;
        // SHT_PROGBITS, SHF_ALLOC, neither SHF_WRITE nor SHF_EXECINSTR.
        for section in self.sections.iter().filter(|s| s.kind == 1 && s.flags & 7 == 2) {
            let size = section.size.min(left);
            left -= size;
            self.pieces("constant data", section.offset, size, 64, |piece, _| {
                on = look(piece);
                on
            })?;
            if !on {
                break;
            }
        }
        Ok(())
    }

    /// Calls `look` with pieces of the names of dynamic symbols and versions, with an overlap of 64 bytes.
    pub(super) fn dynamic_names(&self, mut look: impl FnMut(&[u8]) -> bool) -> Result<(), Error> {
        let table = self.sections.iter().find(|s| s.kind == 11).and_then(|t| self.sections.get(t.link as usize));
        let Some(strings) = table else { return Ok(()) };
        self.pieces("a table of names", strings.offset, strings.size.min(TABLE), 64, |piece, _| look(piece))
    }
}
