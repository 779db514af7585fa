//! Roots of processes, and the folders in which their loader looks for libraries.
//!
//! In: `/proc/PID/root`. Out: [`Root`], its loader folders and the TLS libraries that lie in them. Called by
//! `discover` (folders of the host and of each container) and `registry` (is a file still where it was).
//!
//! A container's folders are read as the container sees them: links end at its root, and none leads out of it.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file::{FileId, Place, Within, open_within};
use crate::process::{self, proc};

/// Names of libraries that are looked for in folders begin so.
const NAMES: [&str; 1] = ["libssl.so"];
/// Where loaders look without being told: glibc on Debian and Red Hat, musl, and what people install.
const FOLDERS: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    #[cfg(target_arch = "aarch64")]
    "/lib/aarch64-linux-gnu",
    #[cfg(not(target_arch = "aarch64"))]
    "/lib/x86_64-linux-gnu",
    #[cfg(target_arch = "aarch64")]
    "/usr/lib/aarch64-linux-gnu",
    #[cfg(not(target_arch = "aarch64"))]
    "/usr/lib/x86_64-linux-gnu",
    "/usr/local/ssl/lib",
];
/// Of one root; the rest is found when it is mapped.
const MAX_FOLDERS: usize = 64;
const MAX_LIBRARIES: usize = 256;
/// Of `ld.so.conf` and what it includes.
const MAX_CONFIG_FILES: usize = 64;
const MAX_CONFIG: u64 = 64 << 10;
/// More of a mount table is not read.
const MAX_TABLE: usize = 16 << 20;
/// Entries of one folder that are looked at.
const MAX_ENTRIES: usize = 65_536;

/// An open root. Not to be kept: it holds the container's file system.
#[derive(Debug)]
pub(super) struct Root {
    directory: File,
    id: FileId,
    /// What the kernel calls the directory; not `/` in a chroot.
    own_path: PathBuf,
}

/// A folder of a root.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) directory: File,
    pub(super) id: FileId,
    /// As the root's processes see it, without links.
    pub(super) path: PathBuf,
}

/// Root of a live process, told apart from others. Its file system is not asked: it may not answer.
pub(super) fn id_of(pid: u32) -> io::Result<FileId> {
    let name = CString::new(format!("/proc/{pid}/root"))?;
    // SAFETY: all zeros is a valid value; the kernel fills it in.
    let mut facts: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    // SAFETY: a NUL-ended name and a structure of the right type.
    if unsafe { libc::statx(libc::AT_FDCWD, name.as_ptr(), flags, libc::STATX_INO, &raw mut facts) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(FileId { dev: libc::makedev(facts.stx_dev_major, facts.stx_dev_minor), ino: facts.stx_ino })
}

/// Whether a device is a FUSE file system in a process's mount table. Anybody may mount one, and its server may
/// leave each question unanswered, for good: such files are not looked at.
pub(super) fn may_hang(pid: u32, device: (u32, u32)) -> bool {
    // Other devices than those without a number of their own have no server.
    device.0 == 0
        && proc::read(pid, "mountinfo", MAX_TABLE).is_ok_and(|table| {
            kind_of(&table, device).is_some_and(|kind| kind == b"fuse" || kind.starts_with(b"fuse."))
        })
}

/// Type of a file system in a table of `proc_pid_mountinfo(5)`.
fn kind_of(table: &[u8], device: (u32, u32)) -> Option<&[u8]> {
    let device = format!("{}:{}", device.0, device.1);
    table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        (fields.nth(2)? == device.as_bytes()).then_some(())?;
        fields.find(|field| *field == b"-")?;
        fields.next()
    })
}

/// The host's root as it can be reached from here: our own, or that of process 1 where we run in a mount
/// namespace of our own (a container with the host's processes).
pub(super) fn host() -> &'static Path {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let first = Path::new("/proc/1/root");
    let own = namespace("self");
    if own.is_some() && namespace("1").is_some_and(|other| Some(other) != own) && first.join("proc").exists() {
        first
    } else {
        Path::new("/")
    }
}

/// What people call the root of a process.
pub(super) fn name_of(pid: u32) -> String {
    match process::container(pid) {
        Some(container) => format!("container {}", container.get(..12).unwrap_or(&container)),
        None => format!("root of process {pid}"),
    }
}

impl Root {
    /// Opens a root by its path: `/proc/PID/root`, or [`host`].
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let directory = File::open(path)?;
        let metadata = directory.metadata()?;
        let own_path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
        Ok(Self { directory, id: FileId { dev: metadata.dev(), ino: metadata.ino() }, own_path })
    }

    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Opens a file as a process of this root would.
    pub(super) fn place(&self, path: &Path) -> io::Result<Place> {
        Place::of(open_within(self.directory.as_fd(), path, libc::O_PATH, Within::Root)?)
    }

    /// What a process of this root calls the file.
    pub(super) fn path_of(&self, place: &Place) -> PathBuf {
        self.inside(&place.path())
    }

    fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(&self.own_path).unwrap_or(path))
    }

    fn folder(&self, path: &Path) -> io::Result<Folder> {
        let directory = open_within(self.directory.as_fd(), path, libc::O_RDONLY | libc::O_DIRECTORY, Within::Root)?;
        let metadata = directory.metadata()?;
        let path = self.inside(&fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()))?);
        Ok(Folder { directory, id: FileId { dev: metadata.dev(), ino: metadata.ino() }, path })
    }

    /// The loader's folders that exist, each once, `further` ones first.
    pub(super) fn folders(&self, further: &[PathBuf]) -> Vec<Folder> {
        let mut names = further.to_vec();
        let mut files = 0;
        self.configured(Path::new("/etc/ld.so.conf"), &mut names, &mut files);
        names.extend(FOLDERS.iter().map(PathBuf::from));
        let mut seen = HashSet::new();
        let mut folders = Vec::new();
        for name in names {
            let Ok(folder) = self.folder(&name) else { continue };
            if folders.len() < MAX_FOLDERS && seen.insert(folder.id) {
                folders.push(folder);
            }
        }
        folders
    }

    /// Folders that `ld.so.conf` names, and the files that it includes: `ldconfig(8)`.
    fn configured(&self, path: &Path, names: &mut Vec<PathBuf>, files: &mut usize) {
        *files += 1;
        if *files > MAX_CONFIG_FILES {
            return;
        }
        let mut text = String::new();
        let read = self.place(path).and_then(|place| place.read()?.take(MAX_CONFIG).read_to_string(&mut text));
        if read.is_err() {
            return;
        }
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(patterns) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
                for pattern in patterns.split_whitespace() {
                    let pattern = path.parent().unwrap_or(Path::new("/")).join(pattern);
                    for included in self.matching(&pattern) {
                        self.configured(&included, names, files);
                    }
                }
            } else if line.starts_with('/') && names.len() < 4 * MAX_FOLDERS {
                // Old files name the kind of library after the folder: `/usr/lib=libc6`.
                names.push(PathBuf::from(line.split('=').next().unwrap_or(line)));
            }
        }
    }

    /// Files whose last component has at most one `*`, which is all that these files use.
    fn matching(&self, pattern: &Path) -> Vec<PathBuf> {
        let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str())) else {
            return Vec::new();
        };
        let Some((start, end)) = name.split_once('*') else { return vec![pattern.to_owned()] };
        let Ok(folder) = self.folder(folder) else { return Vec::new() };
        let fits = |name: &[u8]| {
            name.len() >= start.len() + end.len()
                && name.starts_with(start.as_bytes())
                && name.ends_with(end.as_bytes())
        };
        let mut found = names_in(&folder.directory, fits, MAX_CONFIG_FILES);
        found.sort();
        found.into_iter().map(|name| folder.path.join(name)).collect()
    }

    /// TLS libraries in a folder, with their paths in it.
    pub(super) fn libraries(folder: &Folder) -> Vec<PathBuf> {
        let found = names_in(&folder.directory, is_library, MAX_LIBRARIES);
        found.into_iter().map(|name| folder.path.join(name)).collect()
    }
}

/// Whether a file of that name may be a TLS library.
pub(super) fn is_library(name: &[u8]) -> bool {
    NAMES.iter().any(|start| name.starts_with(start.as_bytes()))
}

fn names_in(directory: &File, fits: impl Fn(&[u8]) -> bool, limit: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd())) else { return Vec::new() };
    entries
        .take(MAX_ENTRIES)
        .flatten()
        .map(|entry| PathBuf::from(entry.file_name()))
        .filter(|name| fits(name.as_os_str().as_bytes()))
        .take(limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = Root::open(folder.path()).unwrap();
        (folder, root)
    }

    fn paths(folders: &[Folder]) -> Vec<&str> {
        folders.iter().map(|folder| folder.path.to_str().unwrap()).collect()
    }

    #[test]
    fn file_systems_with_a_server_are_told_by_the_mount_table() {
        let table = b"30 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            31 30 0:44 / /home/a/mnt rw - fuse.sshfs a:/ rw,user_id=1000\n\
            32 30 0:45 / /mnt rw - overlay overlay rw\n33 30 0:46\n\n";
        assert_eq!(kind_of(table, (0, 44)), Some(&b"fuse.sshfs"[..]));
        assert_eq!(kind_of(table, (8, 1)), Some(&b"ext4"[..]));
        assert_eq!(kind_of(table, (0, 46)), None);
        assert_eq!(kind_of(table, (0, 4)), None);
    }

    #[test]
    fn roots_are_told_apart_as_by_stat() {
        assert_eq!(id_of(std::process::id()).unwrap(), Root::open(Path::new("/")).unwrap().id());
        assert!(id_of(0).is_err());
    }

    #[test]
    fn folders_come_from_the_configuration_and_from_habit() {
        let (_folder, root) = root(&[
            ("etc/ld.so.conf", "# comment\ninclude ld.so.conf.d/*.conf\n/opt/a=libc6 # end\nhwcap 1 x\nincluded\n"),
            ("etc/ld.so.conf.d/b.conf", "/opt/b\n/missing\n"),
            ("etc/ld.so.conf.d/b.conf.old", "/opt/c\n"),
            ("opt/a/x", ""),
            ("opt/b/x", ""),
            ("opt/c/x", ""),
            ("usr/lib/x", ""),
        ]);
        assert_eq!(paths(&root.folders(&[])), ["/opt/b", "/opt/a", "/usr/lib"]);
        assert_eq!(paths(&root.folders(&["/opt/c".into()])), ["/opt/c", "/opt/b", "/opt/a", "/usr/lib"]);
    }

    #[test]
    fn a_configuration_that_includes_itself_ends() {
        let (_folder, root) =
            root(&[("etc/ld.so.conf", "include /etc/ld.so.conf\n/usr/lib\ninclude /etc/*.conf\n"), ("usr/lib/x", "")]);
        assert_eq!(paths(&root.folders(&[])), ["/usr/lib"]);
    }

    #[test]
    fn links_stay_inside_and_a_folder_counts_once() {
        let (folder, root) =
            root(&[("usr/lib/libssl.so.3", ""), ("usr/lib/libssl.so.3.hmac", ""), ("usr/lib/libc.so", "")]);
        symlink("/usr/lib", folder.path().join("lib")).unwrap();
        symlink("../../../../../../usr/lib", folder.path().join("lib64")).unwrap();
        let folders = root.folders(&[]);
        assert_eq!(paths(&folders), ["/usr/lib"]);
        let mut found = Root::libraries(&folders[0]);
        found.sort();
        assert_eq!(found, [Path::new("/usr/lib/libssl.so.3"), Path::new("/usr/lib/libssl.so.3.hmac")]);
        let place = root.place(Path::new("/lib/libssl.so.3")).unwrap();
        assert_eq!(root.path_of(&place), Path::new("/usr/lib/libssl.so.3"));
    }
}
