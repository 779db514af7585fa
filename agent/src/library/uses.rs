//! What a process has of TLS: the files with code that it maps, and what its program is made of.
//!
//! In: a process id. Out: [`Uses`], to be compared with the targets of a running agent ([`super::Found`]). Called
//! by `tapstack explain`, in a process of its own.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::file::Place;
use super::mappings::{self, Mapping};
use super::{overlay, roots};
use crate::process::proc;

/// Files of one process that are looked at; a program with more libraries than that was not seen yet.
const MAX_FILES: usize = 8192;
/// Sections of a program, and bytes of their names: Go's linker makes some thirty.
const MAX_SECTIONS: u16 = 1024;
const MAX_NAMES: u64 = 64 << 10;
/// Bytes of a Go program that are searched, and at a time.
const MAX_PROGRAM: u64 = 1 << 30;
const PIECE: usize = 1 << 20;

/// A file with code that a process maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// As the process sees it.
    pub path: PathBuf,
    /// Device and inode: of the file as the process sees it, and of the real one when that lies below an overlay.
    /// None when it could not be opened (deleted, and no right to `/proc/PID/map_files`; or on FUSE).
    pub ids: Vec<(u64, u64)>,
}

/// What a process is and uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uses {
    /// Its program, as it sees it; none of a kernel thread.
    pub exe: Option<PathBuf>,
    /// Start in clock ticks since boot: tells it from a later process of the same id.
    pub start_ticks: u64,
    /// Where it sees its files, in the words of [`super::Found::root`].
    pub root: String,
    /// The files, each once, in the order of their addresses.
    pub files: Vec<Mapped>,
    /// It is a Go program with Go's own TLS in it.
    pub go_tls: bool,
}

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum NotSeen {
    /// No such process, or it has ended meanwhile.
    #[error("there is no process {0}")]
    Missing(u32),
    /// It is somebody else's.
    #[error("process {0} may not be looked at: that takes sudo, and in a container the capability SYS_PTRACE")]
    Forbidden(u32),
    /// Something else.
    #[error("process {0} could not be looked at: {1}")]
    Other(u32, io::Error),
}

impl Uses {
    /// Looks at a live process. A process of another user takes root.
    pub fn of(pid: u32) -> Result<Uses, NotSeen> {
        let why = |error: io::Error| match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => NotSeen::Missing(pid),
            Some(libc::EACCES | libc::EPERM) => NotSeen::Forbidden(pid),
            _ => NotSeen::Other(pid, error),
        };
        let stat = proc::stat(pid).ok_or(NotSeen::Missing(pid))?;
        let (mut mapped, mut seen) = (Vec::new(), HashSet::new());
        let wanted = |file| seen.len() < MAX_FILES && seen.insert(file);
        mappings::of_process(pid, &mut Vec::new(), wanted, |mapping| mapped.push(mapping.seen_by(pid))).map_err(why)?;
        let files = mapped.iter().map(|mapping| Mapped::of(pid, mapping)).collect();
        let exe = exe(pid);
        let hangs = mapped.iter().any(|mapping| Some(&mapping.path) == exe.as_ref() && may_hang(pid, mapping));
        let program = || Place::open(Path::new(&format!("/proc/{pid}/exe")))?.read();
        let go_tls = !hangs && program().and_then(|file| has_go_tls(&file)).unwrap_or(false);
        let uses = Uses { exe, start_ticks: stat.start_ticks, root: root(pid), files, go_tls };
        // The process may have ended, and another one have its id: then this is a mixture.
        match proc::stat(pid) {
            Some(now) if now.start_ticks == stat.start_ticks => Ok(uses),
            _ => Err(NotSeen::Missing(pid)),
        }
    }
}

impl Mapped {
    fn of(pid: u32, mapping: &Mapping) -> Mapped {
        let mut ids = Vec::new();
        if !may_hang(pid, mapping)
            && let Ok(place) = mapping.open(pid)
        {
            ids.push(place.id());
            let process = format!("/proc/{pid}");
            let hosts = [roots::host().to_owned(), format!("{process}/root").into()];
            if place.on_overlay().unwrap_or(false)
                && let Ok(real) = overlay::real(&place, Path::new(&process), &mapping.path, &hosts)
            {
                ids.push(real.id());
            }
        }
        Mapped { path: mapping.path.clone(), ids: ids.iter().map(|id| (id.dev, id.ino)).collect() }
    }
}

/// As in discovery: a file whose server may never answer is not asked for anything.
fn may_hang(pid: u32, mapping: &Mapping) -> bool {
    roots::may_hang(pid, mapping.device)
}

/// The program as the process sees it: in a chroot the kernel gives the path from outside, as for mappings.
fn exe(pid: u32) -> Option<PathBuf> {
    let path = PathBuf::from(proc::exe(pid)?);
    let root = std::fs::read_link(format!("/proc/{pid}/root")).unwrap_or_default();
    let inside = path.strip_prefix(&root).map(|inside| Path::new("/").join(inside));
    Some(inside.unwrap_or(path))
}

/// What discovery calls the process's root.
fn root(pid: u32) -> String {
    let host = roots::Root::open(roots::host()).ok();
    match (host, roots::id_of(pid)) {
        (Some(host), Ok(own)) if host.id() == own => "host".to_owned(),
        _ => roots::name_of(pid),
    }
}

/// Whether a program was made by Go (it has the section `.go.buildinfo`, package `debug/buildinfo`) and has the
/// methods of `crypto/tls.Conn`: Go keeps the names of functions for its traces, stripped or not.
fn has_go_tls(file: &File) -> io::Result<bool> {
    if !has_section(file, b".go.buildinfo")? {
        return Ok(false);
    }
    let name = b"crypto/tls.(*Conn).";
    let finder = memchr::memmem::Finder::new(name);
    let mut piece = vec![0; PIECE];
    let (mut at, mut kept) = (0, 0);
    while at < MAX_PROGRAM {
        let read = file.read_at(&mut piece[kept..], at)?;
        if read == 0 {
            break;
        }
        let filled = kept + read;
        if finder.find(&piece[..filled]).is_some() {
            return Ok(true);
        }
        // The name may begin in one piece and end in the next.
        kept = filled.min(name.len() - 1);
        piece.copy_within(filled - kept..filled, 0);
        at += read as u64;
    }
    Ok(false)
}

/// Whether an ELF file of 64 bits, little end first, has a section of that name (System V ABI, chapter 4). What is
/// no such file has none.
fn has_section(file: &File, wanted: &[u8]) -> io::Result<bool> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    let table = u64_at(&head, 0x28);
    let (size, count, names) = (u16_at(&head, 0x3a), u16_at(&head, 0x3c), u16_at(&head, 0x3e));
    if size != 64 || count > MAX_SECTIONS || names >= count {
        return Ok(false);
    }
    let section = |number: u16| -> io::Result<[u8; 64]> {
        let mut entry = [0; 64];
        file.read_exact_at(&mut entry, table.saturating_add(u64::from(number) * 64))?;
        Ok(entry)
    };
    let strings = section(names)?;
    let mut text = vec![0; u64_at(&strings, 0x20).min(MAX_NAMES) as usize];
    file.read_exact_at(&mut text, u64_at(&strings, 0x18))?;
    for number in 0..count {
        let start = u32_at(&section(number)?, 0) as usize;
        let name = text.get(start..).unwrap_or_default();
        if name.strip_prefix(wanted).is_some_and(|rest| rest.first() == Some(&0)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn u16_at(bytes: &[u8; 64], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8; 64], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8; 64], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_known_by_its_files() {
        let own = std::env::current_exe().unwrap();
        let uses = Uses::of(std::process::id()).unwrap();
        assert_eq!(uses.exe.as_ref(), Some(&own));
        assert!(!uses.go_tls);
        let program = uses.files.iter().find(|file| file.path == own).expect("our own code is mapped");
        let id = Place::open(&own).unwrap().id();
        assert!(program.ids.contains(&(id.dev, id.ino)), "{program:?}");
        let paths: HashSet<_> = uses.files.iter().map(|file| &file.path).collect();
        assert_eq!(paths.len(), uses.files.len(), "a file twice: {:?}", uses.files);
    }

    #[test]
    fn a_process_that_is_not_there_is_missing() {
        // Beyond PID_MAX_LIMIT.
        assert!(matches!(Uses::of(u32::MAX), Err(NotSeen::Missing(u32::MAX))));
    }

    /// An ELF file with sections of these names, and a text.
    fn program(sections: &[&str], text: &[u8]) -> File {
        let mut names = vec![0];
        let mut table = vec![0; 64];
        for name in sections.iter().chain(&[".shstrtab"]) {
            let mut entry = vec![0; 64];
            entry[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
            names.extend_from_slice(name.as_bytes());
            names.push(0);
            table.extend(entry);
        }
        let (count, last) = (table.len() / 64, table.len() - 64);
        let strings = 64 + table.len();
        table[last + 0x18..last + 0x20].copy_from_slice(&(strings as u64).to_le_bytes());
        table[last + 0x20..last + 0x28].copy_from_slice(&(names.len() as u64).to_le_bytes());
        let mut file = b"\x7fELF\x02\x01".to_vec();
        file.resize(64, 0);
        file[0x28] = 64;
        file[0x3a] = 64;
        file[0x3c] = count as u8;
        file[0x3e] = count as u8 - 1;
        file.extend(table);
        file.extend(names);
        file.extend(text);
        let made = tempfile::tempfile().unwrap();
        made.write_all_at(&file, 0).unwrap();
        made
    }

    #[test]
    fn go_is_known_by_its_section_and_its_tls_by_the_names_of_functions() {
        let tls = b"xcrypto/tls.(*Conn).Read\0";
        assert!(has_go_tls(&program(&[".text", ".go.buildinfo"], tls)).unwrap());
        assert!(!has_go_tls(&program(&[".text", ".go.buildinfo"], b"crypto/tls.(*Config)")).unwrap());
        assert!(!has_go_tls(&program(&[".text", ".go.buildinfos"], tls)).unwrap());
        // Across the pieces that are read.
        for before in [PIECE - 600, PIECE - 300, 2 * PIECE - 300] {
            let mut far = vec![b'c'; before];
            far.extend(tls);
            assert!(has_go_tls(&program(&[".go.buildinfo"], &far)).unwrap(), "{before}");
        }
    }

    #[test]
    fn a_damaged_program_is_no_go_program() {
        let whole = program(&[".text", ".go.buildinfo"], b"crypto/tls.(*Conn).Read\0");
        let length = whole.metadata().unwrap().len() as usize;
        let mut bytes = vec![0; length];
        whole.read_exact_at(&mut bytes, 0).unwrap();
        for cut in 0..length - 60 {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes[..cut], 0).unwrap();
            assert!(!has_go_tls(&file).unwrap_or(false), "{cut}");
        }
        for at in 0x28..0x40 {
            let mut wrong = bytes.clone();
            wrong[at] = 0xff;
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&wrong, 0).unwrap();
            // Whatever it says: it ends, and takes little memory.
            let _ = has_go_tls(&file);
        }
    }
}
