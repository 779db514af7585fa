//! Kernel records kept in a file, and read back: everything after the kernel can be run again, without
//! root, on any machine.
//!
//! A recording holds plaintext of other people's traffic: it is made on request only, mode 600, up to a
//! size. Layout, all numbers little-endian: the magic `TAPREC01`; a `u32` length and as many bytes of JSON
//! ([`About`]); then entries, each a `u32` length, a `u32` tag ([`TAG_RECORD`], [`TAG_PROCESS`]), the bytes,
//! and zeros up to a multiple of eight.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use agent_ebpf::RECORD_VERSION;
use serde::{Deserialize, Serialize};
use transaction::object::Process;

/// First bytes of a recording; the last two digits are the version of the file's frame.
pub const MAGIC: &[u8; 8] = b"TAPREC01";
/// A record of one of the kernel's rings.
pub const TAG_RECORD: u32 = 1;
/// JSON of a [`RecordedProcess`].
pub const TAG_PROCESS: u32 = 2;
/// No record is longer: a record's size class and its fixed part.
const LONGEST: usize = 64 << 10;

/// The oldest version of the records that can be read: 2 has added kinds and changed none.
const OLDEST: u32 = 1;

/// Where and when a recording was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Version of the records' layouts ([`RECORD_VERSION`]).
    pub record_version: u32,
    /// Host name.
    pub host_name: String,
    /// `uname -r`.
    pub kernel: String,
    /// Added to a record's time, gives nanoseconds since 1970.
    pub wall_offset_ns: i64,
    /// Boot id, part of connection identifiers.
    pub boot_id: String,
    /// Process id of the agent that recorded.
    pub own_pid: u32,
    /// Addresses of the host's interfaces.
    pub addresses: Vec<std::net::IpAddr>,
}

/// A process as it was known when its first record came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedProcess {
    /// Start in nanoseconds since boot, 0 when not known.
    pub start_ns: u64,
    /// What was known.
    pub process: Process,
}

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// Not a recording.
    #[error("{}: this is no recording of tapstack (its first bytes are not TAPREC01)", .0.display())]
    NotARecording(PathBuf),
    /// Made by another version.
    #[error("{}: the recording's records have version {found}, this program reads versions {OLDEST} to {RECORD_VERSION}; replay it with the version that recorded it", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Damaged.
    #[error("{}: damaged at byte {at}: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Offset in the file.
        at: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes a recording.
pub struct Recorder {
    path: PathBuf,
    file: BufWriter<File>,
    left: u64,
    dropped: u64,
}

impl Recorder {
    /// Begins a recording of at most `limit` bytes. An existing file is not overwritten.
    pub fn create(path: &Path, about: &About, limit: u64) -> Result<Recorder, Error> {
        let io = |error| Error::Io { path: path.to_owned(), error };
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        let json = serde_json::to_vec(about).map_err(|e| io(e.into()))?;
        file.write_all(MAGIC).map_err(io)?;
        file.write_all(&(json.len() as u32).to_le_bytes()).map_err(io)?;
        file.write_all(&json).map_err(io)?;
        Ok(Recorder { path: path.to_owned(), file, left: limit, dropped: 0 })
    }

    /// Adds an entry; past the limit it is counted instead.
    pub fn add(&mut self, tag: u32, bytes: &[u8]) -> Result<(), Error> {
        let len = 8 + bytes.len().next_multiple_of(8) as u64;
        if bytes.len() > LONGEST || len > self.left {
            // A recording has an end, no holes: smaller entries would still fit.
            self.left = 0;
            self.dropped += 1;
            return Ok(());
        }
        self.left -= len;
        let io = |error| Error::Io { path: self.path.clone(), error };
        self.file.write_all(&(bytes.len() as u32).to_le_bytes()).map_err(io)?;
        self.file.write_all(&tag.to_le_bytes()).map_err(io)?;
        self.file.write_all(bytes).map_err(io)?;
        let pad = bytes.len().next_multiple_of(8) - bytes.len();
        self.file.write_all(&[0; 8][..pad]).map_err(io)
    }

    /// Ends the recording; gives the number of entries that the limit kept out.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.file.flush().map_err(|error| Error::Io { path: self.path.clone(), error })?;
        Ok(self.dropped)
    }
}

/// Reads a recording.
pub struct Player {
    path: PathBuf,
    file: BufReader<File>,
    about: About,
    at: u64,
    buffer: Vec<u8>,
}

/// One entry of a recording.
pub enum Entry<'a> {
    /// A kernel record's bytes.
    Record(&'a [u8]),
    /// A process.
    Process(Box<RecordedProcess>),
}

impl Player {
    /// Opens a recording and checks its version.
    pub fn open(path: &Path) -> Result<Player, Error> {
        let io = |error| Error::Io { path: path.to_owned(), error };
        let damaged = |at, what| Error::Damaged { path: path.to_owned(), at, what };
        let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
        let mut magic = [0; 8];
        if file.read_exact(&mut magic).is_err() || &magic != MAGIC {
            return Err(Error::NotARecording(path.to_owned()));
        }
        let mut len = [0; 4];
        file.read_exact(&mut len).map_err(|_| damaged(8, "cut short"))?;
        let len = u32::from_le_bytes(len) as usize;
        if len > LONGEST {
            return Err(damaged(8, "the description is too long"));
        }
        let mut json = vec![0; len];
        file.read_exact(&mut json).map_err(|_| damaged(12, "cut short"))?;
        let about: About =
            serde_json::from_slice(&json).map_err(|_| damaged(12, "the description is not what it should be"))?;
        if !(OLDEST..=RECORD_VERSION).contains(&about.record_version) {
            return Err(Error::Version { path: path.to_owned(), found: about.record_version });
        }
        Ok(Player { path: path.to_owned(), file, about, at: 12 + len as u64, buffer: vec![0; LONGEST] })
    }

    /// Where and when it was made.
    #[must_use]
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The next entry; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'_>>, Error> {
        let damaged = |at, what| Error::Damaged { path: self.path.clone(), at, what };
        let mut head = [0; 8];
        let mut have = 0;
        while have < head.len() {
            match self.file.read(&mut head[have..]) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return Err(damaged(self.at, "cut short")),
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Io { path: self.path.clone(), error }),
            }
        }
        let head = u64::from_le_bytes(head);
        let (len, tag) = (head as u32 as usize, (head >> 32) as u32);
        if len > LONGEST {
            return Err(damaged(self.at, "an entry is longer than any can be"));
        }
        let padded = len.next_multiple_of(8);
        let bytes = &mut self.buffer[..padded];
        if self.file.read_exact(bytes).is_err() {
            return Err(Error::Damaged { path: self.path.clone(), at: self.at + 8, what: "cut short" });
        }
        let at = self.at;
        self.at += 8 + padded as u64;
        match tag {
            TAG_RECORD => Ok(Some(Entry::Record(&bytes[..len]))),
            TAG_PROCESS => {
                serde_json::from_slice(&bytes[..len]).map(|p| Some(Entry::Process(Box::new(p)))).map_err(|_| {
                    Error::Damaged { path: self.path.clone(), at, what: "a process is not what it should be" }
                })
            }
            _ => Err(Error::Damaged { path: self.path.clone(), at, what: "unknown kind of entry" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { record_version: RECORD_VERSION, host_name: "h".into(), ..About::default() }
    }

    #[test]
    fn gives_back_what_was_kept_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        let mut r = Recorder::create(&path, &about(), 40).unwrap();
        r.add(TAG_RECORD, b"12345").unwrap();
        r.add(TAG_RECORD, b"12345678").unwrap();
        r.add(TAG_RECORD, b"over the limit").unwrap();
        assert_eq!(r.finish().unwrap(), 1);
        let mut p = Player::open(&path).unwrap();
        assert_eq!(p.about(), &about());
        assert!(matches!(p.next_entry().unwrap(), Some(Entry::Record(b"12345"))));
        assert!(matches!(p.next_entry().unwrap(), Some(Entry::Record(b"12345678"))));
        assert!(p.next_entry().unwrap().is_none());
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn says_what_is_wrong_with_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r");
        std::fs::write(&path, b"GIF89a..........").unwrap();
        assert!(matches!(Player::open(&path), Err(Error::NotARecording(_))));
        std::fs::remove_file(&path).unwrap();
        let mut r = Recorder::create(&path, &About { record_version: RECORD_VERSION + 1, ..about() }, 1 << 20).unwrap();
        r.add(TAG_RECORD, b"x").unwrap();
        r.finish().unwrap();
        assert!(matches!(Player::open(&path), Err(Error::Version { .. })));
        std::fs::remove_file(&path).unwrap();
        let mut r = Recorder::create(&path, &about(), 1 << 20).unwrap();
        r.add(TAG_RECORD, b"0123456789").unwrap();
        r.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        assert!(matches!(Player::open(&path).unwrap().next_entry(), Err(Error::Damaged { .. })));
    }
}
