//! Executable mappings of files, as `/proc/PID/maps` and as the kernel's side-band records tell of them.
//!
//! In: bytes of either. Out: [`Mapping`]. Pure, apart from [`of_process`], which reads the one file. Called by
//! `discover` (scans) and `sideband` (records).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::file::Place;

/// More of one process's table is not read: some 60,000 mappings.
const MAX_TABLE: u64 = 8 << 20;
/// A longer line cannot be: a path has at most 4,096 bytes, each written as up to four.
const MAX_LINE: usize = 20 << 10;
/// More mappings of one process are not asked for: the kernel's own limit (`vm.max_map_count`) is usually as many.
const MAX_MAPPINGS: usize = 65_536;

/// An executable mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    /// As the kernel prints it, which `stat(2)` need not agree with (overlayfs, btrfs).
    pub(super) device: (u32, u32),
    pub(super) ino: u64,
    /// Of the inode; 0 from `/proc`, which does not say it.
    pub(super) generation: u64,
    /// As the process sees it. From `/proc` it is as we see it first: [`Mapping::seen_by`].
    pub(super) path: PathBuf,
}

impl Mapping {
    /// Makes a path of `/proc/PID/maps` the process's own. The kernel writes it for the reader: from the root of
    /// the mount namespace, which differs for a process in a chroot.
    pub(super) fn seen_by(mut self, pid: u32) -> Self {
        if let Ok(root) = std::fs::read_link(format!("/proc/{pid}/root"))
            && root != Path::new("/")
            && let Ok(inside) = self.path.strip_prefix(&root)
        {
            self.path = Path::new("/").join(inside);
        }
        self
    }

    /// Opens the file that is mapped, while the process lives.
    ///
    /// The link in `map_files` is the file itself, deleted or renamed or not, but takes `CAP_SYS_ADMIN` or
    /// `CAP_CHECKPOINT_RESTORE`. The path below the process's root, and below our own once the process is gone,
    /// count only when they still lead to the same inode number.
    pub(super) fn open(&self, pid: u32) -> io::Result<Place> {
        if let Ok(place) = Place::open(Path::new(&format!("/proc/{pid}/map_files/{:x}-{:x}", self.start, self.end)))
            && place.id().ino == self.ino
        {
            return Ok(place);
        }
        let inside = self.path.strip_prefix("/").unwrap_or(&self.path);
        let place =
            Place::open(&Path::new(&format!("/proc/{pid}/root")).join(inside)).or_else(|_| Place::open(&self.path))?;
        if place.id().ino == self.ino {
            Ok(place)
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "another file has that path by now"))
        }
    }
}

/// What can be no library: mappings without a file, shared memory, devices.
fn is_file(path: &[u8]) -> bool {
    const NONE: [&[u8]; 5] = [b"//", b"/dev/zero", b"/SYSV", b"/memfd:", b"/anon_hugepage"];
    path.first() == Some(&b'/') && !NONE.iter().any(|start| path.starts_with(start))
}

/// A line of `proc_pid_maps(5)`: `start-end perms offset major:minor inode   path`.
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let range = fields.next()?;
    if fields.next()?.get(2) != Some(&b'x') {
        return None;
    }
    let (device, ino, path) = (fields.nth(1)?, fields.next()?, fields.next()?.trim_ascii_start());
    if !is_file(path) {
        return None;
    }
    let hex = |bytes: &[u8]| u64::from_str_radix(std::str::from_utf8(bytes).ok()?, 16).ok();
    let pair = |bytes: &[u8], by: u8| {
        let at = bytes.iter().position(|byte| *byte == by)?;
        Some((hex(&bytes[..at])?, hex(&bytes[at + 1..])?))
    };
    let (start, end) = pair(range, b'-')?;
    let (major, minor) = pair(device, b':')?;
    let ino = std::str::from_utf8(ino).ok()?.parse().ok()?;
    // Only line feeds are escaped here, and no library's name has one.
    let path = path_of(path);
    Some(Mapping { start, end, device: (major as u32, minor as u32), ino, generation: 0, path })
}

/// What a mapping is of: device and inode number, as the kernel prints them.
pub(super) type Of = ((u32, u32), u64);

/// Hands on each executable mapping of a file that `wanted` asks for. `buffer` is used again from one process to
/// the next.
///
/// Kernels of 6.11 and later are asked for those mappings one by one, which takes a third of the time of reading the
/// text of all; others give the text.
pub(super) fn of_process(
    pid: u32,
    buffer: &mut Vec<u8>,
    mut wanted: impl FnMut(Of) -> bool,
    mut found: impl FnMut(Mapping),
) -> io::Result<()> {
    let mut table = File::open(format!("/proc/{pid}/maps"))?;
    match by_query(&table, buffer, &mut wanted, &mut found) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => {}
        done => return done,
    }
    by_text(&mut table, buffer, |mapping| {
        if wanted((mapping.device, mapping.ino)) {
            found(mapping);
        }
    })
}

/// `struct procmap_query` of `linux/fs.h` (Linux 6.11).
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    inode: u64,
    major: u32,
    minor: u32,
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}

impl Query {
    const EXECUTABLE: u64 = 0x04;
    const OR_NEXT: u64 = 0x10;
    const OF_FILE: u64 = 0x20;

    fn ask(&mut self, table: &File) -> io::Result<()> {
        // _IOWR('f', 17, struct procmap_query)
        const PROCMAP_QUERY: u64 = 3 << 30 | (size_of::<Query>() as u64) << 16 | (b'f' as u64) << 8 | 0x11;
        self.size = size_of::<Self>() as u64;
        // SAFETY: the structure says its size, and the room for the name, when there is one, is as long as it says.
        let done = unsafe { libc::ioctl(table.as_raw_fd(), PROCMAP_QUERY as libc::Ioctl, &raw mut *self) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn by_query(
    table: &File,
    buffer: &mut Vec<u8>,
    wanted: &mut impl FnMut(Of) -> bool,
    found: &mut impl FnMut(Mapping),
) -> io::Result<()> {
    let flags = Query::EXECUTABLE | Query::OR_NEXT | Query::OF_FILE;
    let mut address = 0;
    for _ in 0..MAX_MAPPINGS {
        let mut query = Query { flags, address, ..Query::default() };
        match query.ask(table) {
            Ok(()) => {}
            // There is no further one, or the process has no memory any more.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(()),
            Err(error) => return Err(error),
        }
        address = query.end;
        if !wanted(((query.major, query.minor), query.inode)) {
            continue;
        }
        buffer.resize(MAX_LINE, 0);
        let mut named = Query { flags, address: query.start, ..Query::default() };
        (named.name, named.name_size) = (buffer.as_mut_ptr() as u64, libc::PATH_MAX as u32);
        // It may have been unmapped between.
        if named.ask(table).is_err() || (named.start, named.inode) != (query.start, query.inode) {
            continue;
        }
        let name = &buffer[..(named.name_size as usize).saturating_sub(1).min(MAX_LINE)];
        if !is_file(name) {
            continue;
        }
        found(Mapping {
            start: query.start,
            end: query.end,
            device: (query.major, query.minor),
            ino: query.inode,
            generation: 0,
            path: path_of(name),
        });
    }
    Ok(())
}

fn by_text(table: &mut File, buffer: &mut Vec<u8>, mut found: impl FnMut(Mapping)) -> io::Result<()> {
    let mut table = table.take(MAX_TABLE);
    buffer.resize(MAX_LINE + (12 << 10), 0);
    let mut filled = 0;
    loop {
        let read = table.read(&mut buffer[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let whole = buffer[..filled].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        buffer[..whole].split(|byte| *byte == b'\n').filter_map(parse_line).for_each(&mut found);
        buffer.copy_within(whole..filled, 0);
        filled -= whole;
        if filled == buffer.len() {
            return Err(io::Error::other("a line without an end"));
        }
    }
}

/// A path without the mark of a file that was deleted since.
fn path_of(name: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(name.strip_suffix(b" (deleted)").unwrap_or(name)))
}

/// A `PERF_RECORD_MMAP2`, after its header: `linux/perf_event.h`. Returns the process, too.
pub(super) fn parse_record(body: &[u8]) -> Option<(u32, Mapping)> {
    let u32_at = |at: usize| body.get(at..at + 4).map(|b| u32::from_ne_bytes(b.try_into().unwrap_or_default()));
    let u64_at = |at: usize| body.get(at..at + 8).map(|b| u64::from_ne_bytes(b.try_into().unwrap_or_default()));
    let pid = u32_at(0)?;
    let (start, len) = (u64_at(8)?, u64_at(16)?);
    let (major, minor, ino, generation) = (u32_at(32)?, u32_at(36)?, u64_at(40)?, u64_at(48)?);
    let name = body.get(64..)?;
    let name = &name[..name.iter().position(|byte| *byte == 0)?];
    if !is_file(name) {
        return None;
    }
    let path = path_of(name);
    Some((pid, Mapping { start, end: start.checked_add(len)?, device: (major, minor), ino, generation, path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_mappings_of_files_are_read_from_a_line() {
        let line = b"7f12a0000000-7f12a0100000 r-xp 00023000 fe:01 1234                     /usr/lib/a b.so (deleted)";
        let mapping = parse_line(line).unwrap();
        assert_eq!((mapping.start, mapping.end), (0x7f12_a000_0000, 0x7f12_a010_0000));
        assert_eq!((mapping.device, mapping.ino), ((0xfe, 1), 1234));
        assert_eq!(mapping.path, Path::new("/usr/lib/a b.so"));
    }

    #[test]
    fn everything_else_is_passed_over() {
        for line in [
            "7f12a0000000-7f12a0100000 r--p 00000000 fe:01 1234   /usr/lib/a.so",
            "7ffd1000-7ffd3000 r-xp 00000000 00:00 0              [vdso]",
            "7ffd1000-7ffd3000 rwxp 00000000 00:00 0 ",
            "7ffd1000-7ffd3000 rwxs 00000000 00:01 77             /memfd:jit (deleted)",
            "7ffd1000-7ffd3000 rwxp 00000000 00:01 77             /dev/zero (deleted)",
            "x-y r-xp 0 fe:01 1 /a",
            "1 r-xp 0 fe:01 1 /a",
            "1-2 r-xp 0 fe:01 -1 /a",
            "1-2 r-xp 0 fe 1 /a",
            "1-2 r",
            "",
        ] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn our_own_table_names_our_executable() {
        let exe = std::env::current_exe().unwrap();
        let (mut seen, mut buffer) = (Vec::new(), Vec::new());
        of_process(std::process::id(), &mut buffer, |_| true, |mapping| seen.push(mapping)).unwrap();
        let ours = seen.iter().find(|mapping| mapping.path == exe).expect("our own code is mapped");
        assert_eq!(ours.open(std::process::id()).unwrap().id(), Place::open(&exe).unwrap().id());
    }

    #[test]
    fn asking_gives_what_the_text_gives() {
        // A process that maps nothing new meanwhile.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let mut table = File::open(format!("/proc/{}/maps", child.id())).unwrap();
        let (mut asked, mut read, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
        // Once it has its libraries, and nothing but them.
        let begun = std::time::Instant::now();
        while !read.iter().any(|mapping: &Mapping| mapping.path.to_string_lossy().contains("libc")) {
            assert!(begun.elapsed().as_secs() < 10, "{read:?}");
            read.clear();
            table = File::open(format!("/proc/{}/maps", child.id())).unwrap();
            by_text(&mut table, &mut buffer, |mapping| read.push(mapping)).unwrap();
        }
        let answer = by_query(&table, &mut buffer, &mut |_| true, &mut |mapping| asked.push(mapping));
        child.kill().unwrap();
        child.wait().unwrap();
        match answer {
            Ok(()) => assert_eq!(asked, read),
            Err(error) => eprintln!("skipped: mappings cannot be asked for here: {error}"),
        }
    }

    #[test]
    fn a_cut_record_is_none() {
        let mut body = vec![0; 64];
        body[0] = 42;
        body[17] = 0x10;
        body[40] = 7;
        body.extend_from_slice(b"/usr/lib/a.so\0\0\0");
        let (pid, mapping) = parse_record(&body).unwrap();
        assert_eq!((pid, mapping.ino, mapping.end, mapping.path.to_str()), (42, 7, 0x1000, Some("/usr/lib/a.so")));
        // Without the NUL that ends the name.
        for len in 0..body.len() - 3 {
            assert_eq!(parse_record(&body[..len]), None, "{len}");
        }
    }
}
