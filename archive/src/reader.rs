//! The reading side: any process, any number, while the writer writes or not.
//!
//! A read holds its snapshot only for as long as it takes to look at [`CHUNK`] rows; a long search is many short
//! ones. So the log can begin anew between them, and since what is stored is never rewritten, nothing changes
//! under a search but what retention takes away.

use std::{
    cell::{RefCell, RefMut},
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};
use transaction::{ArtifactRecord, ConnectionEvent, Digest};

use crate::{
    Error, Filter, block, folder,
    profile::Profile,
    row::{self, Identifier},
    schema::{SEGMENT, VERSION},
    writer::KIND_CONNECTION,
};

/// Rows looked at in one snapshot.
const CHUNK: usize = 4096;
/// Most profiles kept in memory.
const PROFILES: usize = 4096;

/// A transaction's record and its place in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Rises from one entry to the next and is never used again; from 1.
    pub position: u64,
    /// The record, exactly as it was appended.
    pub record: ArtifactRecord,
}

/// A connection's event and its place in the log.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionRow {
    /// As in [`Row`].
    pub position: u64,
    /// The event, exactly as it was appended.
    pub event: ConnectionEvent,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Transactions kept.
    pub transactions: u64,
    /// Bytes on disk, the write-ahead log included.
    pub disk_bytes: u64,
    /// Bytes of all objects and events before compression.
    pub plain_bytes: u64,
    /// When the oldest kept entry began: nanoseconds since 1970.
    pub oldest_unix_ns: Option<u64>,
    /// The same of the newest.
    pub newest_unix_ns: Option<u64>,
}

/// Reads an archive. `Send`, not `Sync`: one for each thread.
pub struct Reader {
    dir: PathBuf,
    inner: RefCell<Inner>,
}

/// The open file, and what is remembered of it.
struct Inner {
    connection: Connection,
    /// Device and inode: a writer may have begun a new file.
    identity: (u64, u64),
    /// Opened without the log's shared memory, which a reader who may not write into the folder cannot make
    /// while no writer runs.
    immutable: bool,
    profiles: HashMap<i64, Profile>,
}

impl Reader {
    /// Opens the archive in `dir` for reading.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Forbidden`], [`Error::Newer`], or SQLite's answer.
    pub fn open(dir: &Path) -> Result<Reader, Error> {
        let inner = Inner::open(dir)?;
        Ok(Reader { dir: dir.to_owned(), inner: RefCell::new(inner) })
    }

    /// The folder that is read.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The open file; opened anew when a writer has begun another one.
    fn inner(&self) -> Result<RefMut<'_, Inner>, Error> {
        let mut inner = self.inner.borrow_mut();
        let file = folder::file(&self.dir);
        let same = identity(&file).is_ok_and(|now| now == inner.identity);
        // An immutable view does not see what a writer adds: opened anew as soon as there is one.
        let stale = inner.immutable && log_of(&file).exists();
        if !same || stale {
            *inner = Inner::open(&self.dir)?;
        }
        Ok(inner)
    }

    /// The exact bytes of an object; `None` when it is not kept (any more).
    ///
    /// # Errors
    /// [`Error::Damaged`] when the stored bytes do not have this digest.
    pub fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let inner = self.inner()?;
        let Some(position) = inner.find_digest(digest)? else { return Ok(None) };
        let bytes = inner.bytes("record", position)?;
        match bytes {
            Some(bytes) if Digest::of(&bytes) == *digest => Ok(Some(bytes)),
            Some(_) => Err(Error::Damaged(format!("the stored bytes of object {digest} have another digest"))),
            None => Ok(None),
        }
    }

    /// The row of an object; `None` when it is not kept (any more).
    pub fn record(&self, digest: &Digest) -> Result<Option<Row>, Error> {
        let mut inner = self.inner()?;
        let Some(position) = inner.find_digest(digest)? else { return Ok(None) };
        inner.row(position)
    }

    /// The digests that begin with these lower-case hexadecimal digits, at most `limit`, newest first.
    ///
    /// # Errors
    /// None of its own: what is no such text finds nothing.
    pub fn digests(&self, prefix: &str, limit: usize) -> Result<Vec<Digest>, Error> {
        let hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if prefix.is_empty() || prefix.len() > 40 || !prefix.bytes().all(hex) {
            return Ok(Vec::new());
        }
        let short = &prefix[..prefix.len().min(16)];
        let mut found: Vec<Digest> = Vec::new();
        let inner = self.inner()?;
        inner.each_digest(filled(short, '0'), filled(short, 'f'), |_, digest| {
            if digest.to_string().starts_with(prefix) && !found.contains(&digest) {
                found.push(digest);
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    /// Rows that fit, newest first.
    pub fn find(&self, filter: &Filter) -> Result<Vec<Row>, Error> {
        let mut inner = self.inner()?;
        let (low, mut high) = inner.bounds(filter)?;
        let mut found = Vec::new();
        // Whether a profile fits, decided once.
        let mut fits: HashMap<i64, bool> = HashMap::new();
        while found.len() < filter.limit && high >= low {
            let Some(next) = inner.chunk(filter, low, high, &mut fits, &mut found)? else { break };
            high = next - 1;
        }
        Ok(found)
    }

    /// Rows after a position, oldest first: for following the log.
    pub fn after(&self, position: u64, limit: usize) -> Result<Vec<Row>, Error> {
        let mut inner = self.inner()?;
        let Inner { connection, profiles, .. } = &mut *inner;
        let sql = format!("SELECT {} FROM record WHERE position > ?1 ORDER BY position LIMIT ?2", row::COLUMNS);
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![position as i64, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let profile = profile_of(connection, profiles, row.get(2)?)?;
            found.push(Row { position: row::unsigned(row, 0)?, record: row::record(row, profile)? });
        }
        Ok(found)
    }

    /// Position of the newest entry of any kind; 0 when there never was one.
    pub fn newest(&self) -> Result<u64, Error> {
        let inner = self.inner()?;
        let sql = "SELECT max(position - 1, (SELECT ifnull(max(last), 0) FROM block WHERE id = (SELECT max(id) FROM block))) FROM state";
        Ok(inner.connection.prepare_cached(sql)?.query_row([], |r| r.get::<_, i64>(0))? as u64)
    }

    /// Events of connections before a position (`None`: from the newest on), newest first, at most `limit`; of
    /// one connection only when its identifier is given.
    pub fn connections(
        &self,
        connection_id: Option<&str>,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<ConnectionRow>, Error> {
        let inner = self.inner()?;
        let mut found = Vec::new();
        let mut before = before.map_or(i64::MAX, |b| b as i64);
        // A page at a time: each event needs its block, and a snapshot should be short.
        while found.len() < limit {
            let page = inner.events(connection_id, before, (limit - found.len()).min(256))?;
            let Some(last) = page.last() else { break };
            before = last.position as i64;
            found.extend(page);
        }
        Ok(found)
    }

    /// How much there is.
    pub fn summary(&self) -> Result<Summary, Error> {
        let inner = self.inner()?;
        let sql = "SELECT ifnull(sum(records), 0), ifnull(sum(plain), 0), min(oldest), max(newest) FROM block";
        let mut statement = inner.connection.prepare_cached(sql)?;
        let mut summary = statement.query_row([], |r| {
            Ok(Summary {
                transactions: r.get::<_, i64>(0)? as u64,
                plain_bytes: r.get::<_, i64>(1)? as u64,
                oldest_unix_ns: r.get::<_, Option<i64>>(2)?.map(|n| n as u64),
                newest_unix_ns: r.get::<_, Option<i64>>(3)?.map(|n| n as u64),
                disk_bytes: 0,
            })
        })?;
        let file = folder::file(&self.dir);
        summary.disk_bytes = [&file, &log_of(&file)].iter().filter_map(|p| fs::metadata(p).ok()).map(|m| m.len()).sum();
        Ok(summary)
    }
}

impl Inner {
    fn open(dir: &Path) -> Result<Inner, Error> {
        let file = folder::file(dir);
        let identity = match identity(&file) {
            Ok(identity) => identity,
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                return Err(Error::Forbidden { dir: dir.to_owned() });
            }
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Err(Error::Missing { dir: dir.to_owned() });
            }
            Err(e) => return Err(Error::io("cannot read", &file)(e)),
        };
        if let Err(e) = fs::File::open(&file)
            && e.kind() == std::io::ErrorKind::PermissionDenied
        {
            return Err(Error::Forbidden { dir: dir.to_owned() });
        }
        let mut immutable = false;
        let (connection, version) = match connect(&file, false) {
            // No writer has left its log's shared memory, and this user cannot make it. Without a log the file
            // is whole by itself.
            Err(e)
                if matches!(e.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                    && !log_of(&file).exists() =>
            {
                immutable = true;
                connect(&file, true)?
            }
            other => other?,
        };
        match version {
            VERSION => Ok(Inner { connection, identity, immutable, profiles: HashMap::new() }),
            // The writer has made the file this moment and not yet its tables.
            0 => Err(Error::Missing { dir: dir.to_owned() }),
            found => Err(Error::Newer { dir: dir.to_owned(), found, known: VERSION }),
        }
    }

    /// Calls `each` with position and digest of what the index has between two prefixes, newest segment first,
    /// until it returns false.
    fn each_digest(&self, low: u64, high: u64, mut each: impl FnMut(i64, Digest) -> bool) -> Result<(), Error> {
        let mut statement =
            self.connection.prepare_cached("SELECT ifnull(min(first), 1), ifnull(max(last), 0) FROM block")?;
        let (first, last): (i64, i64) = statement.query_row([], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let mut statement = self.connection.prepare_cached(
            "SELECT d.position, r.digest FROM digest d JOIN record r ON r.position = d.position \
             WHERE d.segment = ?1 AND d.prefix BETWEEN ?2 AND ?3 ORDER BY d.position DESC",
        )?;
        for segment in (first >> SEGMENT..=last >> SEGMENT).rev() {
            let mut rows = statement.query(params![segment, low as i64, high as i64])?;
            while let Some(row) = rows.next()? {
                let digest = row.get_ref(1)?.as_blob().ok().and_then(|b| b.try_into().ok()).map(Digest);
                let digest = digest.ok_or_else(|| Error::Damaged("a digest is not 20 bytes".to_owned()))?;
                if !each(row.get(0)?, digest) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn find_digest(&self, digest: &Digest) -> Result<Option<i64>, Error> {
        let mut found = None;
        let prefix = digest.prefix64();
        self.each_digest(prefix, prefix, |position, candidate| {
            if candidate == *digest {
                found = Some(position);
            }
            found.is_none()
        })?;
        Ok(found)
    }

    fn row(&mut self, position: i64) -> Result<Option<Row>, Error> {
        let Inner { connection, profiles, .. } = self;
        let sql = format!("SELECT {} FROM record WHERE position = ?1", row::COLUMNS);
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([position])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let profile = profile_of(connection, profiles, row.get(2)?)?;
        Ok(Some(Row { position: position as u64, record: row::record(row, profile)? }))
    }

    /// The bytes of the entry at a position of `table`.
    fn bytes(&self, table: &str, position: i64) -> Result<Option<Vec<u8>>, Error> {
        let sql = format!(
            "SELECT b.stored, k.plain, e.start, e.size FROM {table} e JOIN block k ON k.id = e.block \
             JOIN bytes b ON b.block = e.block WHERE e.position = ?1"
        );
        let mut statement = self.connection.prepare_cached(&sql)?;
        let found = statement
            .query_row([position], |r| {
                let number = |i| r.get::<_, i64>(i).map(|n| n as u64);
                let stored = r.get_ref(0)?.as_blob()?;
                Ok(block::extract(stored, number(1)?, number(2)?, number(3)?))
            })
            .optional()?;
        found.transpose()
    }

    /// The lowest and highest position that can fit a filter's times and page.
    fn bounds(&self, filter: &Filter) -> Result<(i64, i64), Error> {
        let time = |t: u64| i64::try_from(t).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(
            "SELECT ifnull((SELECT min(first) FROM block WHERE newest >= ?1), 1), \
                    ifnull((SELECT max(last) FROM block WHERE oldest <= ?2), 0)",
        )?;
        let (since, until) = (filter.since_unix_ns.unwrap_or(0), filter.until_unix_ns.unwrap_or(u64::MAX));
        let (low, high): (i64, i64) =
            statement.query_row([time(since), time(until)], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let before = filter.before.map_or(i64::MAX, |b| i64::try_from(b).unwrap_or(i64::MAX).saturating_sub(1));
        Ok((low, high.min(before)))
    }

    /// Looks at one chunk of rows from `high` downwards; returns the lowest position looked at, `None` when there
    /// was none.
    fn chunk(
        &mut self,
        filter: &Filter,
        low: i64,
        high: i64,
        fits: &mut HashMap<i64, bool>,
        found: &mut Vec<Row>,
    ) -> Result<Option<i64>, Error> {
        let Inner { connection, profiles, .. } = self;
        let sql = format!(
            "SELECT {} FROM record WHERE position BETWEEN ?1 AND ?2 ORDER BY position DESC LIMIT {CHUNK}",
            row::COLUMNS
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows = statement.query([low, high])?;
        let mut lowest = None;
        if fits.len() > PROFILES {
            fits.clear();
        }
        while let Some(row) = rows.next()? {
            let position: i64 = row.get(0)?;
            lowest = Some(position);
            if !filter.fits_numbers(row::unsigned(row, 1)?, row.get(3)?, row.get(4)?) {
                continue;
            }
            let number: i64 = row.get(2)?;
            let known = fits.get(&number).copied();
            if known == Some(false) {
                continue;
            }
            let profile = profile_of(connection, profiles, number)?;
            if known.is_none() {
                let fit = filter.fits_profile(&profile.method, &profile.host, &profile.exe, profile.end);
                fits.insert(number, fit);
                if !fit {
                    continue;
                }
            }
            if !filter.fits_path(row.get_ref(5)?.as_str().unwrap_or_default()) {
                continue;
            }
            let record = row::record(row, profile)?;
            if filter.fits_identifiers(&record.connection_id, &record.exchange_id) {
                found.push(Row { position: position as u64, record });
                if found.len() >= filter.limit {
                    break;
                }
            }
        }
        Ok(lowest)
    }

    fn events(&self, connection_id: Option<&str>, before: i64, limit: usize) -> Result<Vec<ConnectionRow>, Error> {
        let mut statement = self.connection.prepare_cached(
            "SELECT position, time FROM event WHERE kind = ?1 AND position < ?2 AND (?3 IS NULL OR connection_id = ?3) \
             ORDER BY position DESC LIMIT ?4",
        )?;
        let identifier = connection_id.map(Identifier::of);
        let mut rows = statement.query(params![KIND_CONNECTION, before, identifier, limit as i64])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (position, time): (i64, i64) = (row.get(0)?, row.get(1)?);
            let bytes = self.bytes("event", position)?;
            let bytes = bytes.ok_or_else(|| Error::Damaged(format!("the block of event {position} is missing")))?;
            let mut event: ConnectionEvent = serde_json::from_slice(&bytes)
                .map_err(|e| Error::Damaged(format!("event {position} cannot be read: {e}")))?;
            event.time_unix_ns = time as u64;
            found.push(ConnectionRow { position: position as u64, event });
        }
        Ok(found)
    }
}

/// A profile by its number, from memory or the file.
fn profile_of<'a>(
    connection: &Connection,
    known: &'a mut HashMap<i64, Profile>,
    number: i64,
) -> Result<&'a Profile, Error> {
    if !known.contains_key(&number) {
        if known.len() >= PROFILES {
            known.clear();
        }
        known.insert(number, Profile::read(connection, number)?);
    }
    known.get(&number).ok_or_else(|| Error::Damaged(format!("profile {number} is missing")))
}

/// A short prefix filled up to 16 digits.
fn filled(short: &str, fill: char) -> u64 {
    let mut text = short.to_owned();
    while text.len() < 16 {
        text.push(fill);
    }
    u64::from_str_radix(&text, 16).unwrap_or(0)
}

fn identity(file: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(file).map(|m| (m.dev(), m.ino()))
}

/// The write-ahead log of a database file.
fn log_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

/// Opens the file and reads its format, which is the first thing that needs the log.
fn connect(file: &Path, immutable: bool) -> rusqlite::Result<(Connection, i64)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = if immutable {
        Connection::open_with_flags(uri(file), flags | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(file, flags)?
    };
    // The writer never makes a reader wait, but opening while it starts or ends can.
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "query_only", true)?;
    let version = connection.query_row("PRAGMA user_version", [], |r| r.get(0))?;
    Ok((connection, version))
}

/// A file name as SQLite's URI, percent-encoded, for the one option that has no other form.
fn uri(file: &Path) -> String {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt as _};
    let mut text = "file:".to_owned();
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => text.push(char::from(*byte)),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(text, "%{byte:02x}");
            }
        }
    }
    text + "?immutable=1"
}
