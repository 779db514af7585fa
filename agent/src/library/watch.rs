//! Folders that are watched for new libraries: a package upgrade replaces a file, and the next process that
//! starts should find its probes in place.
//!
//! In: open folders. Out: the root and path of each file that was finished or renamed there. Used by
//! `discover`'s thread alone. A watch holds the folder's inode and not its mount (`inotify(7)`): containers
//! can go away under it.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::file::FileId;
use super::roots::{Folder, is_library};

/// Of the host and all containers together. The system's own limit is often 8,192 for each user.
const MAX_FOLDERS: usize = 2048;

/// Files told of at a time; beyond, all folders are read again.
const MAX_FILES: usize = 1024;

/// What happened since the last time.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Root and path of libraries that are new or replaced.
    pub(super) files: Vec<(FileId, PathBuf)>,
    /// Some were not told: all folders are to be read again.
    pub(super) overflow: bool,
}

/// The watched folders.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: File,
    folders: HashMap<i32, (FileId, PathBuf)>,
}

impl Watch {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { inotify: inotify()?.into(), folders: HashMap::new() })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }

    /// Watches a folder of a root from now on. One that is watched already stays as it was.
    pub(super) fn add(&mut self, root: FileId, folder: &Folder) -> io::Result<()> {
        if self.folders.len() >= MAX_FOLDERS {
            return Err(io::Error::other(format!("{MAX_FOLDERS} folders are watched already")));
        }
        let path = CString::new(format!("/proc/self/fd/{}", folder.directory.as_raw_fd()))?;
        // A renamed file is whole, one closed after writing as well; one just created is not, unless it is a link.
        let events = libc::IN_MOVED_TO | libc::IN_CLOSE_WRITE | libc::IN_CREATE | libc::IN_ONLYDIR;
        // SAFETY: open inotify, NUL-ended path.
        let number = unsafe { libc::inotify_add_watch(self.inotify.as_raw_fd(), path.as_ptr(), events) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        self.folders.entry(number).or_insert_with(|| (root, folder.path.clone()));
        Ok(())
    }

    /// Takes what there is.
    pub(super) fn drain(&mut self) -> Changes {
        let mut changes = Changes::default();
        let mut buffer = [0; 16 << 10];
        while let Ok(read @ 1..) = self.inotify.read(&mut buffer) {
            let mut rest = &buffer[..read];
            while let Some((event, name, after)) = next_event(rest) {
                rest = after;
                if event.mask & libc::IN_Q_OVERFLOW != 0 {
                    changes.overflow = true;
                }
                if event.mask & libc::IN_IGNORED != 0 {
                    self.folders.remove(&event.number);
                }
                if let Some((root, folder)) = self.folders.get(&event.number)
                    && is_library(name)
                {
                    let file = (*root, folder.join(OsStr::from_bytes(name)));
                    if changes.files.len() >= MAX_FILES {
                        changes.overflow = true;
                    } else if !changes.files.contains(&file) {
                        changes.files.push(file);
                    }
                }
            }
        }
        changes
    }

    /// Forgets the folders of roots that are gone.
    pub(super) fn keep(&mut self, alive: impl Fn(FileId) -> bool) {
        let inotify = self.inotify.as_raw_fd();
        self.folders.retain(|number, (root, _)| {
            let stays = alive(*root);
            if !stays {
                // SAFETY: numbers only; a folder that is gone by itself is an error without effect.
                unsafe { libc::inotify_rm_watch(inotify, *number) };
            }
            stays
        });
    }
}

/// An inotify that does not block.
pub(super) fn inotify() -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor out of flags.
    let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else closes.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The parts of `struct inotify_event` that count.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Of the watch: what `inotify_add_watch` returned.
    pub(super) number: i32,
    pub(super) mask: u32,
}

/// Event, name without its NULs, and what follows.
pub(super) fn next_event(bytes: &[u8]) -> Option<(Event, &[u8], &[u8])> {
    let number = i32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let mask = u32::from_ne_bytes(bytes.get(4..8)?.try_into().ok()?);
    let length = u32::from_ne_bytes(bytes.get(12..16)?.try_into().ok()?) as usize;
    let name = bytes.get(16..16 + length)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(length);
    Some((Event { number, mask }, &name[..end], &bytes[16 + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::roots::Root;
    use std::fs;

    #[test]
    fn new_replaced_and_linked_libraries_are_told() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("usr/lib");
        fs::create_dir_all(&folder).unwrap();
        let root = Root::open(base.path()).unwrap();
        let mut watch = Watch::open().unwrap();
        for found in root.folders(&[]) {
            watch.add(root.id(), &found).unwrap();
        }
        assert!(watch.drain().files.is_empty());
        fs::write(folder.join("libc.so"), "x").unwrap();
        assert!(watch.drain().files.is_empty());
        let expected = |name: &str| vec![(root.id(), PathBuf::from("/usr/lib").join(name))];
        fs::write(folder.join("libssl.so.3"), "x").unwrap();
        assert_eq!(watch.drain().files, expected("libssl.so.3"));
        fs::write(folder.join("temporary"), "y").unwrap();
        fs::rename(folder.join("temporary"), folder.join("libssl.so.3")).unwrap();
        assert_eq!(watch.drain().files, expected("libssl.so.3"));
        std::os::unix::fs::symlink("libssl.so.3", folder.join("libssl.so")).unwrap();
        assert_eq!(watch.drain().files, expected("libssl.so"));
        watch.keep(|_| false);
        fs::write(folder.join("libssl.so.4"), "x").unwrap();
        assert!(watch.drain().files.is_empty());
    }

    #[test]
    fn cut_events_are_none() {
        let event = [&3i32.to_ne_bytes()[..], &8u32.to_ne_bytes(), &[0; 4], &4u32.to_ne_bytes(), b"ab\0\0"].concat();
        assert_eq!(next_event(&event), Some((Event { number: 3, mask: 8 }, &b"ab"[..], &[][..])));
        for len in 0..event.len() {
            assert_eq!(next_event(&event[..len]), None, "{len}");
        }
    }
}
