//! What can go wrong, in the words that a user reads.

use std::{io, path::PathBuf};

/// Why the archive could not be opened, read or closed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process writes to this folder.
    #[error(
        "the archive in {dir} is in use by {}; stop that process, or choose another folder with --data-dir",
        pid.map_or_else(|| "another process".to_owned(), |p| format!("process {p}"))
    )]
    InUse {
        /// The archive's folder.
        dir: PathBuf,
        /// Process id of the writer, when it could be read.
        pid: Option<u32>,
    },
    /// There is nothing to read.
    #[error("there is no archive in {dir}; start `tapstack up`, or name another folder with --data-dir")]
    Missing {
        /// The folder that was looked in.
        dir: PathBuf,
    },
    /// The archive may not be read by this user.
    #[error("the archive in {dir} may not be read by this user; use sudo, or join the group `tapstack`")]
    Forbidden {
        /// The archive's folder.
        dir: PathBuf,
    },
    /// The archive was written by a newer version of this program.
    #[error(
        "the archive in {dir} has format {found}, this program reads format {known}; use the program that wrote it"
    )]
    Newer {
        /// The archive's folder.
        dir: PathBuf,
        /// Format of the file.
        found: i64,
        /// Newest format that this program knows.
        known: i64,
    },
    /// What is stored does not agree with itself.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// Entries were taken and could not be written before the archive was closed.
    #[error("{entries} entries could not be written to the archive: {why}")]
    Unwritten {
        /// How many.
        entries: u64,
        /// The last failure.
        why: String,
    },
    /// A reader that was stopped in the middle of a read keeps the write-ahead log from being reused.
    #[error("a process that reads the archive is stopped in the middle of a read: the log may not grow further")]
    LogHeld,
    /// The folder or a file in it could not be used.
    #[error("{what} {path}: {source}{}", advice(source.kind()))]
    Io {
        /// What was tried, e.g. `cannot create`.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// SQLite's answer.
    #[error("the archive's database: {0}")]
    Database(#[from] rusqlite::Error),
}

/// What a user can do about the system's answer.
fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; use sudo, or choose another folder with --data-dir"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "; choose another folder with --data-dir",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room, or choose another folder with --data-dir"
        }
        _ => "",
    }
}

/// Why an entry was not taken. Counted in [`crate::Stats::refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More waits to be written than the queue may hold: the disk is slower than the traffic, full or failing.
    #[error("the archive's queue is full")]
    Full,
    /// The writer has ended.
    #[error("the archive is closed")]
    Closed,
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { what, path, source }
    }
}
