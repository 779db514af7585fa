//! Files looked at with care: opened by place first, read only when they are regular, told apart by inode.
//!
//! In: paths, of our own or below `/proc/PID`. Out: [`Place`], [`FileId`], [`Stamp`]. Called by everything in
//! this room that touches a file of somebody else's.
//!
//! A path that a process names may be a device or a FIFO by now, and opening such a thing can hang or have
//! effects: so the place is opened with `O_PATH`, which does neither, and read through its descriptor once it
//! is known to be a regular file.

use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `OVERLAYFS_SUPER_MAGIC` of `linux/magic.h`.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// A file as `stat(2)` knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

/// Changes whenever the file's content does: the time of change cannot be set by anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    changed: (i64, i64),
    size: u64,
}

/// A regular file that was opened without a right to read.
#[derive(Debug)]
pub(super) struct Place {
    file: File,
    metadata: Metadata,
}

impl Place {
    /// Opens a path, links followed. What is no regular file is an error.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC);
        Self::of(options.open(path)?)
    }

    /// Takes an open descriptor (`O_PATH` will do).
    pub(super) fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { file, metadata })
    }

    pub(super) fn id(&self) -> FileId {
        FileId { dev: self.metadata.dev(), ino: self.metadata.ino() }
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { changed: (self.metadata.ctime(), self.metadata.ctime_nsec()), size: self.metadata.len() }
    }

    pub(super) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The same file, as it is now.
    pub(super) fn anew(&self) -> io::Result<Self> {
        Self::of(self.file.try_clone()?)
    }

    /// Names it now has; 0 once it is deleted.
    pub(super) fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    /// The same file, open for reading.
    pub(super) fn read(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
        options.open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    /// Where it lies, as the kernel says: from the root of its own mount namespace.
    pub(super) fn path(&self) -> PathBuf {
        std::fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd())).unwrap_or_default()
    }

    /// Whether it is seen through an overlay, so that the inode that probes lie on is another.
    pub(super) fn on_overlay(&self) -> io::Result<bool> {
        // SAFETY: all zeros is a valid value; the kernel fills it in.
        let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: an open descriptor and a structure of the right type.
        if unsafe { libc::fstatfs(self.file.as_raw_fd(), &raw mut facts) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(facts.f_type as u64 == OVERLAY_MAGIC)
    }
}

impl AsFd for Place {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// How far a path may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Within {
    /// `..` and absolute links end at the directory, as for a process whose root it is (`RESOLVE_IN_ROOT`).
    Root,
    /// No link at all, and nothing outside (`RESOLVE_NO_SYMLINKS`, `RESOLVE_BENEATH`).
    Beneath,
}

/// Opens `path` inside `directory` with `openat2(2)` (Linux 5.6), with no way out of it.
pub(super) fn open_within(directory: BorrowedFd<'_>, path: &Path, flags: i32, within: Within) -> io::Result<File> {
    // Documented in openat2(2); magic links lead out of any root.
    const RESOLVE_NO_MAGICLINKS: u64 = 0x02;
    const RESOLVE_NO_SYMLINKS: u64 = 0x04;
    const RESOLVE_BENEATH: u64 = 0x08;
    const RESOLVE_IN_ROOT: u64 = 0x10;
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeros is a valid value of this structure of numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = match within {
        Within::Root => RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
        Within::Beneath => RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
    };
    // SAFETY: open directory, NUL-ended name, structure with its size.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_raw_fd(),
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else closes.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_regular_files_are_places() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        let name = CString::new(fifo.as_os_str().as_bytes()).unwrap();
        // SAFETY: a NUL-ended name.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        for path in [folder.path(), &fifo, Path::new("/dev/null")] {
            assert_eq!(Place::open(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{}", path.display());
        }
    }

    #[test]
    fn a_place_is_the_file_and_not_its_name() {
        use std::io::Read as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let place = Place::open(&path).unwrap();
        std::fs::write(folder.path().join("b"), "new").unwrap();
        std::fs::rename(folder.path().join("b"), &path).unwrap();
        let mut text = String::new();
        place.read().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "old");
        assert_eq!(place.links().unwrap(), 0);
        assert_ne!(Place::open(&path).unwrap().id(), place.id());
    }

    #[test]
    fn a_root_cannot_be_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("inside"), "x").unwrap();
        symlink("/inside", folder.path().join("absolute")).unwrap();
        symlink("../../../../../etc/passwd", folder.path().join("out")).unwrap();
        let root = File::open(folder.path()).unwrap();
        let open = |path: &str, within| open_within(root.as_fd(), Path::new(path), libc::O_PATH, within);
        assert!(open("absolute", Within::Root).is_ok(), "a link of the container's is followed inside of it");
        assert_eq!(open("out", Within::Root).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(open("../etc/passwd", Within::Beneath).is_err());
        assert!(open("absolute", Within::Beneath).is_err());
        assert!(open("inside", Within::Beneath).is_ok());
    }
}
