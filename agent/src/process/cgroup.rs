//! systemd unit and container of a process, from the paths of its cgroups.
//!
//! In: `/proc/PID/cgroup`, or the path of a cgroup v2 directory. Out: [`Place`]. Pure. The paths are those
//! that systemd, Docker, containerd, CRI-O, Podman, the kubelet (each with both of its cgroup drivers) and LXC
//! make; a process may live in a container inside a container, and then the innermost counts.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Bytes of `/proc/PID/cgroup` that are read: a dozen hierarchies of the longest paths.
pub(super) const MAX_READ: usize = 64 << 10;

/// Where a process runs. What does not apply is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Innermost systemd service or scope, user units included; in a container with its own systemd, that one's.
    pub(super) unit: String,
    /// Innermost container: 64 hexadecimal digits.
    pub(super) container_id: String,
}

/// Reads `/proc/PID/cgroup`: lines of `number:controllers:path` (`cgroups(7)`).
///
/// The unit comes from systemd's own hierarchy (`name=systemd` on v1 and hybrid hosts) and the unified one;
/// the container from any, because Docker's cgroupfs driver on a hybrid host leaves the unified one at `/`.
pub(super) fn place(table: &[u8]) -> Place {
    let mut lines: Vec<(u8, &[u8])> = table
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.splitn(3, |byte| *byte == b':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let rank = match controllers {
                b"name=systemd" => 0,
                b"" => 1,
                _ => 2,
            };
            Some((rank, path))
        })
        .collect();
    lines.sort_by_key(|(rank, _)| *rank);
    let mut place = Place::default();
    for (rank, path) in lines {
        let found = place_of_path(path);
        if place.unit.is_empty() && rank < 2 {
            place.unit = found.unit;
        }
        if place.container_id.is_empty() {
            place.container_id = found.container_id;
        }
    }
    place
}

/// Reads one cgroup's path.
pub(super) fn place_of_path(path: &[u8]) -> Place {
    // A zombie's cgroup may be gone already; the kernel then marks the path.
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let mut place = Place::default();
    for component in path.split(|byte| *byte == b'/').rev() {
        let Ok(component) = std::str::from_utf8(component) else { continue };
        // systemd puts `_` before names that would collide with the kernel's files.
        let component = component.strip_prefix('_').unwrap_or(component);
        if place.container_id.is_empty()
            && let Some(id) = container_id(component)
        {
            id.clone_into(&mut place.container_id);
        }
        // `init.scope` inside something is that manager's own process: its unit outside says more.
        if is_unit(component) && (place.unit.is_empty() || place.unit == "init.scope") {
            component.clone_into(&mut place.unit);
        }
    }
    place
}

fn is_unit(component: &str) -> bool {
    [".service", ".scope"].iter().any(|kind| component.strip_suffix(kind).is_some_and(|name| !name.is_empty()))
}

/// `ID`, `PREFIX-ID`, `SLICE:PREFIX:ID`, each also with `.scope` or `.service`. Monitors that run outside
/// their container (`crio-conmon-ID.scope`) are not in it.
fn container_id(component: &str) -> Option<&str> {
    let name = component.strip_suffix(".scope").or_else(|| component.strip_suffix(".service")).unwrap_or(component);
    let (prefix, id) = match name.rfind(['-', ':']) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => ("", name),
    };
    let is_id = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !prefix.ends_with("conmon")).then_some(id)
}

/// Paths of v2 cgroups by their identifiers, for processes that are gone.
#[derive(Debug)]
pub(super) struct Names {
    root: OwnedFd,
    prefix: PathBuf,
}

impl Names {
    /// `root`: an open directory of the cgroup v2 file system.
    pub(super) fn new(root: OwnedFd) -> io::Result<Self> {
        let prefix = path_of(&root)?;
        Ok(Names { root, prefix })
    }

    /// Where processes of that cgroup run; `None` when the cgroup is gone or may not be looked at.
    pub(super) fn place(&self, id: u64) -> Option<Place> {
        let directory = self.open(id).ok()?;
        let path = path_of(&directory).ok()?;
        let inner = path.strip_prefix(&self.prefix).unwrap_or(&path);
        Some(place_of_path(inner.as_os_str().as_bytes()))
    }

    fn open(&self, id: u64) -> io::Result<OwnedFd> {
        /// `struct file_handle` with kernfs's 64-bit identifier (include/linux/exportfs.h).
        #[repr(C)]
        struct Handle {
            bytes: u32,
            kind: i32,
            id: [u8; 8],
        }
        const FILEID_KERNFS: i32 = 0xfe;
        let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
        // SAFETY: the handle is valid for the call and says its own length; the kernel returns a new
        // descriptor or an error.
        unsafe {
            let fd = libc::syscall(
                libc::SYS_open_by_handle_at,
                self.root.as_raw_fd(),
                &raw mut handle,
                libc::O_PATH | libc::O_CLOEXEC,
            );
            if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as libc::c_int)) }
        }
    }
}

fn path_of(fd: &OwnedFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests;
