//! The folder on disk: names, modes, group, the lock of the one writer, and setting a file aside.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::Error;

/// Group whose members may read.
const GROUP: &str = "tapstack";

/// The database file of an archive's folder.
pub(crate) fn file(dir: &Path) -> PathBuf {
    dir.join("archive.db")
}

/// Makes the folder if it is not there. An existing folder keeps its mode: it may be shared on purpose.
pub(crate) fn create(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(Error::io("cannot create the folder", dir))?;
    // The process's umask may have taken more away than is wanted.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o750)).map_err(Error::io("cannot set the mode of", dir))?;
    give_to_group(dir);
    Ok(())
}

/// Makes the database file with the right mode and group before SQLite opens it: SQLite gives its log and
/// shared memory the same ones.
pub(crate) fn create_file(path: &Path) -> Result<(), Error> {
    match OpenOptions::new().write(true).create_new(true).mode(0o640).open(path) {
        Ok(_) => {
            give_to_group(path);
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::io("cannot create", path)(e)),
    }
}

/// Hands a path to group `tapstack`, when there is one and this user may: without it the group's members
/// cannot read, which is no reason not to capture.
fn give_to_group(path: &Path) {
    let Some(gid) = fs::read_to_string("/etc/group").ok().and_then(|text| gid_of(&text, GROUP)) else { return };
    if let Err(error) = chown(path, None, Some(gid)) {
        tracing::debug!(path = %path.display(), %error, "Cannot give the path to group {GROUP}.");
    }
}

/// The number of a group in the text of `/etc/group` (group(5): `name:password:number:members`).
fn gid_of(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

/// The lock of the one writer: an advisory lock (flock) on a file that holds the writer's process id. The
/// kernel gives it back when the process ends, however it ends.
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the archive in `dir`.
    pub(crate) fn take(dir: &Path) -> Result<Lock, Error> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&path)
            .map_err(Error::io("cannot open the lock file", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse { dir: dir.to_owned(), pid: holder(&mut file) }),
            Err(TryLockError::Error(e)) => return Err(Error::io("cannot lock", &path)(e)),
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(Error::io("cannot write", &path))?;
        Ok(Lock { _file: file })
    }
}

/// The process id in a lock file that another process holds. It may have taken the lock this moment and not
/// yet written: a few tries.
fn holder(file: &mut File) -> Option<u32> {
    for _ in 0..10 {
        let mut text = String::new();
        if file.rewind().is_ok() && file.read_to_string(&mut text).is_ok() && text.ends_with('\n') {
            return text.trim().parse().ok();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Renames the database with its log, so that a new one can be begun; `why` becomes part of the name. Returns
/// the new name.
pub(crate) fn set_aside(dir: &Path, why: &str) -> Result<PathBuf, Error> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let from = file(dir);
    let with = |path: &Path, end: &str| {
        let mut name = OsString::from(path);
        name.push(end);
        PathBuf::from(name)
    };
    let to = with(&from, &format!(".{why}-{}", now.as_millis()));
    // The log first: were the database renamed alone, its log would be taken for the new database's.
    for end in ["-wal", "-shm", ""] {
        let (from, to) = (with(&from, end), with(&to, end));
        match fs::rename(&from, &to) {
            Err(e) if end.is_empty() || e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("cannot rename", &from)(e));
            }
            _ => {}
        }
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::gid_of;

    #[test]
    fn finds_a_group_by_its_whole_name() {
        let text = "root:x:0:\ntapstackers:x:7:\ntapstack:x:990:ann,bob\n";
        assert_eq!(gid_of(text, "tapstack"), Some(990));
        assert_eq!(gid_of(text, "nobody"), None);
    }
}
