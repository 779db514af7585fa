//! The root of the host's cgroup v2 hierarchy, where the programs at the socket's edge are attached.
//!
//! In: `/proc/self/mountinfo`, `/proc/1/mountinfo`. Out: an open directory. Called once at start by the
//! loader.
//!
//! Only the true root sees every socket of the host. A container usually sees a sub-tree that looks like a
//! root: what tells them apart is that the true root has no `cgroup.type` (the kernel's
//! `Documentation/admin-guide/cgroup-v2.rst`: "exists on non-root cgroups"), which no namespace hides.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// More of a mount table is not read.
const MAX_TABLE: u64 = 16 << 20;

/// Why the root cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only a sub-tree can be seen.
    #[error(
        "only a part of the host's cgroup v2 tree can be seen here ({seen}): run on the host, or in a container \
         with the host's cgroup and process namespaces (--cgroupns=host --pid=host)"
    )]
    Namespaced {
        /// The folder that looked like a root.
        seen: PathBuf,
    },
    /// None is mounted and none could be mounted.
    #[error(
        "no cgroup v2 file system is mounted and mounting one failed: {0}; run as root (CAP_SYS_ADMIN) on a kernel with CONFIG_CGROUPS"
    )]
    Mount(#[source] io::Error),
}

/// The open root. Dropping it closes it; a file system that was mounted for it goes with it.
#[derive(Debug)]
pub struct Root {
    directory: File,
    path: Option<PathBuf>,
}

impl Root {
    /// Where the root was found; `None` when it was mounted for this process alone and has no path.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// A second descriptor of the same directory.
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        Ok(self.directory.try_clone()?.into())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Finds the root among this process's mounts, then among those of process 1, and else mounts it for this
/// process alone.
pub fn open_root() -> Result<Root, Error> {
    let mut seen = None;
    for (table, prefix) in [("/proc/self/mountinfo", "/"), ("/proc/1/mountinfo", "/proc/1/root")] {
        // A table that cannot be read has no candidates; what was not found is said at the end.
        for mount in cgroup2_mounts(&read_table(table).unwrap_or_default()) {
            let path = Path::new(prefix).join(mount.strip_prefix("/").unwrap_or(&mount));
            let Ok(directory) = File::open(&path) else { continue };
            if is_true_root(&directory) {
                return Ok(Root { directory, path: Some(path) });
            }
            seen.get_or_insert(path);
        }
    }
    // Mounting resets the hierarchy's options (nsdelegate and others) for the whole host: only where nobody
    // has it mounted.
    if let Some(seen) = seen {
        return Err(Error::Namespaced { seen });
    }
    let directory = mount_detached().map_err(Error::Mount)?;
    if is_true_root(&directory) {
        Ok(Root { directory, path: None })
    } else {
        Err(Error::Namespaced { seen: "a mount of its own".into() })
    }
}

fn read_table(path: &str) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut table = Vec::new();
    File::open(path)?.take(MAX_TABLE).read_to_end(&mut table)?;
    Ok(table)
}

/// Mount points of cgroup2 file systems, whole ones (root `/`) first: `proc_pid_mountinfo(5)`.
fn cgroup2_mounts(table: &[u8]) -> Vec<PathBuf> {
    let mut whole = Vec::new();
    let mut partial = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(root), Some(point)) = (fields.nth(3), fields.next()) else { continue };
        // Any number of optional fields, then `-`, then the file system's type.
        if fields.any(|field| field == b"-") && fields.next() == Some(b"cgroup2") {
            let list = if root == b"/" { &mut whole } else { &mut partial };
            list.push(PathBuf::from(std::ffi::OsString::from_vec(unescape(point))));
        }
    }
    whole.append(&mut partial);
    whole
}

/// The kernel writes space, tab, line feed and backslash as `\` and three octal digits.
pub(crate) fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        if let [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] = rest {
            out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

fn is_true_root(directory: &File) -> bool {
    exists(directory, c"cgroup.controllers") && !exists(directory, c"cgroup.type")
}

fn exists(directory: &File, name: &CStr) -> bool {
    // SAFETY: the descriptor is open for the time of the call and the name ends with a NUL.
    unsafe { libc::faccessat(directory.as_raw_fd(), name.as_ptr(), libc::F_OK, 0) == 0 }
}

/// A cgroup2 mount without a mount point (Linux 5.2): it cannot be seen by others, and even a killed process
/// leaves nothing behind.
fn mount_detached() -> io::Result<File> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: constant, NUL-ended name; the kernel returns a new descriptor or an error.
    let context = unsafe { owned(libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), FSOPEN_CLOEXEC))? };
    // SAFETY: the command takes neither key nor value.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, none, none, 0) };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as for fsopen; no attributes.
    let mount = unsafe { owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0))? };
    // The mount's own descriptor is a mere place (O_PATH); what is kept is the directory itself, which holds
    // the file system alive after the mount is dissolved.
    // SAFETY: constant, NUL-ended name and an open descriptor.
    let directory = unsafe {
        owned(libc::c_long::from(libc::openat(
            mount.as_raw_fd(),
            c".".as_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )))?
    };
    Ok(File::from(directory))
}

/// # Safety
/// `result` must be the result of a system call that returns a new descriptor.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller says that it is a new descriptor, so nobody else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn mount_points_are_read_from_the_table() {
        let table = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
            50 31 0:38 /part /mnt/part rw shared:4 master:1 - cgroup2 cgroup2 rw\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw\n\
            42 31 0:38 / /mnt/a\\040b\\134 rw - cgroup2 - rw\n\
            43 31 0:39 / /mnt/cgroup2 rw - tmpfs cgroup2 rw\n\
            44 31\n - \n";
        let points: Vec<_> = cgroup2_mounts(table).into_iter().map(|path| path.display().to_string()).collect();
        assert_eq!(points, ["/sys/fs/cgroup/unified", "/mnt/a b\\", "/mnt/part"]);
    }

    #[test]
    fn octal_that_is_none_stays() {
        assert_eq!(unescape(br"a\04"), br"a\04");
        assert_eq!(unescape(br"\999\011"), b"\\999\t");
    }

    /// Root of a build machine may still be without rights to cgroups; such machines are told, not failed.
    #[test]
    fn finds_the_true_root_and_its_number_is_one() {
        match open_root() {
            // kernfs gives the root of the hierarchy the number 1.
            Ok(root) => assert_eq!(root.directory.metadata().unwrap().ino(), 1),
            Err(error) => eprintln!("skipped: {error}"),
        }
    }

    fn has(line: &[u8], part: &[u8]) -> bool {
        line.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn a_mount_of_its_own_is_the_same_root_and_leaves_nothing() {
        let before = read_table("/proc/self/mountinfo").unwrap();
        if before.split(|byte| *byte == b'\n').any(|line| has(line, b" - cgroup2 ") && !line.ends_with(b" rw")) {
            return eprintln!("skipped: mounting would reset this host's cgroup options");
        }
        let directory = match mount_detached() {
            Ok(directory) => directory,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        assert!(is_true_root(&directory));
        assert_eq!(directory.metadata().unwrap().ino(), 1);
        assert_eq!(read_table("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn a_sub_tree_is_not_a_root() {
        let Ok(root) = open_root() else { return eprintln!("skipped: no root here") };
        let Some(path) = root.path() else { return eprintln!("skipped: the root has no path here") };
        let child = path.join(format!("tapstack-test-{}", std::process::id()));
        if let Err(error) = std::fs::create_dir(&child) {
            return eprintln!("skipped: {error}");
        }
        let answer = File::open(&child).map(|directory| is_true_root(&directory));
        std::fs::remove_dir(&child).unwrap();
        assert!(!answer.unwrap());
    }
}
