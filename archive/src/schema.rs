//! The database: tables, settings, format number.
//!
//! Every table grows at its right end and shrinks at its left one, because a page that is touched is written
//! twice (log, then file) and that is most of what an archive costs:
//!
//! - `block`: one row a block, small, so that time bounds and retention read little; its bytes stand in `bytes`.
//! - `record`: one row a transaction, keyed by position: what differs from one to the next.
//! - `profile`: what many transactions share (method, host, executable, …), written once and named by number.
//!   Numbers live for a generation of 16,384 positions, so old ones can go without being searched for.
//! - `digest`: the first 64 bits of each digest in segments of 2,048 positions. An index over all digests would
//!   touch a page of its own for nearly every transaction; a segment has some ten pages, which many of a commit
//!   share, and is deleted as a whole. A look-up asks each segment, newest first: a microsecond or two each.
//! - `event`: entries without an object; their JSON stands in a block.
//! - `state`: the next numbers, for when everything has been deleted: numbers are never used again.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Error, folder};

/// Format of the tables below; `PRAGMA user_version`.
pub(crate) const VERSION: i64 = 1;

/// "TAPS": `PRAGMA application_id`, what `file` shows.
const APPLICATION: i64 = 0x5441_5053;

/// Positions in a segment of `digest`, as a shift.
pub(crate) const SEGMENT: u32 = 11;

/// Positions in a generation of profiles, as a shift.
pub(crate) const GENERATION: u32 = 14;

const TABLES: &str = "
CREATE TABLE block (
    id INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,     -- position of its first entry
    last INTEGER NOT NULL,      -- and of its last
    records INTEGER NOT NULL,   -- transactions among them
    committed INTEGER NOT NULL, -- ns since 1970
    oldest INTEGER NOT NULL,    -- smallest time of its entries, ns since 1970
    newest INTEGER NOT NULL,    -- largest
    profile INTEGER NOT NULL,   -- no profile below this number is used from here on
    plain INTEGER NOT NULL,     -- bytes before compression
    stored INTEGER NOT NULL     -- bytes after it
);
CREATE TABLE bytes (
    block INTEGER PRIMARY KEY,
    stored BLOB NOT NULL        -- zstd
);
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    block INTEGER NOT NULL,
    start INTEGER NOT NULL,     -- where the object begins in the block before compression
    size INTEGER NOT NULL,
    time INTEGER NOT NULL,      -- ns since 1970
    profile INTEGER NOT NULL,
    status INTEGER,
    pid INTEGER NOT NULL,
    path TEXT NOT NULL,
    duration INTEGER NOT NULL,  -- ns
    ttfb INTEGER,               -- ns
    sent INTEGER NOT NULL,
    received INTEGER NOT NULL,
    digest BLOB NOT NULL,
    request_id NOT NULL,        -- identifiers: 13 bytes for 20 characters of base32hex, else text
    connection_id NOT NULL,
    exchange_id NOT NULL
);
CREATE TABLE profile (
    id INTEGER PRIMARY KEY,
    method TEXT NOT NULL,
    host TEXT NOT NULL,
    scheme TEXT NOT NULL,
    protocol TEXT NOT NULL,
    request_type TEXT NOT NULL,
    response_type TEXT NOT NULL,
    exe TEXT NOT NULL,
    unit TEXT NOT NULL,
    container_id TEXT NOT NULL,
    container_name TEXT NOT NULL,
    direction TEXT NOT NULL,
    end TEXT NOT NULL,
    level TEXT NOT NULL,
    complete INTEGER NOT NULL,
    error TEXT
);
CREATE TABLE digest (
    segment INTEGER NOT NULL,
    prefix INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (segment, prefix, position)
) WITHOUT ROWID;
CREATE TABLE event (
    position INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,      -- 1 connection
    block INTEGER NOT NULL,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    time INTEGER NOT NULL,
    connection_id NOT NULL
);
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    position INTEGER NOT NULL,
    block INTEGER NOT NULL,
    profile INTEGER NOT NULL
);
INSERT INTO state VALUES (1, 1, 1, 1);
";

/// What the next entry, block and profile are called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) position: i64,
    pub(crate) block: i64,
    pub(crate) profile: i64,
}

/// Opens the database in `dir` for the one writer, who holds the lock; makes it when it is not there. A newer
/// format and a file that is no database are set aside.
pub(crate) fn open_for_writing(dir: &Path) -> Result<(Connection, Numbers), Error> {
    let path = folder::file(dir);
    folder::create_file(&path)?;
    match prepare(&path) {
        Ok(Found::Ready(connection, numbers)) => Ok((connection, numbers)),
        Ok(Found::Newer(version)) => {
            let aside = folder::set_aside(dir, &format!("format-{version}"))?;
            tracing::warn!(
                "The archive was written by a newer version (format {version}, known here: {VERSION}). It is kept as {} and a new one begun.",
                aside.display()
            );
            begin_anew(&path)
        }
        Err(error) if is_damage(&error) => replace_damaged(dir, &error),
        Err(error) => Err(error.into()),
    }
}

/// Sets a damaged database aside and begins a new one. No connection to it may be open: SQLite would delete the
/// new one's log when it closes the old one.
pub(crate) fn replace_damaged(dir: &Path, error: &rusqlite::Error) -> Result<(Connection, Numbers), Error> {
    let aside = folder::set_aside(dir, "damaged")?;
    tracing::error!("The archive cannot be read ({error}). It is kept as {} and a new one begun.", aside.display());
    begin_anew(&folder::file(dir))
}

fn begin_anew(path: &Path) -> Result<(Connection, Numbers), Error> {
    folder::create_file(path)?;
    match prepare(path)? {
        Found::Ready(connection, numbers) => Ok((connection, numbers)),
        Found::Newer(found) => {
            Err(Error::Newer { dir: path.parent().unwrap_or(path).to_owned(), found, known: VERSION })
        }
    }
}

enum Found {
    Ready(Connection, Numbers),
    Newer(i64),
}

/// Opens the file and gives it tables when it is empty.
fn prepare(path: &Path) -> rusqlite::Result<Found> {
    let mut connection = connect(path)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    if version > VERSION {
        return Ok(Found::Newer(version));
    }
    if version == 0 {
        // Must be set before the first table: only so can the file shrink in small steps.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    // Readers and the writer do not wait for each other, and a commit is one sequential write.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    if version == 0 {
        let tx = connection.transaction()?;
        tx.execute_batch(TABLES)?;
        tx.pragma_update(None, "application_id", APPLICATION)?;
        tx.pragma_update(None, "user_version", VERSION)?;
        tx.commit()?;
    }
    // The pages that one commit touches: the right ends of the tables and one segment of digests.
    connection.pragma_update(None, "cache_size", -4096)?;
    let numbers = connection.query_row(
        "SELECT max(position, (SELECT ifnull(max(last), 0) + 1 FROM block)),
                max(block, (SELECT ifnull(max(id), 0) + 1 FROM block)),
                max(profile, (SELECT ifnull(max(id), 0) + 1 FROM profile)) FROM state",
        [],
        |r| Ok(Numbers { position: r.get(0)?, block: r.get(1)?, profile: r.get(2)? }),
    )?;
    Ok(Found::Ready(connection, numbers))
}

/// The connection that moves the log into the file; see `checkpoint.rs`.
pub(crate) fn open_for_checkpoints(path: &Path) -> Result<Connection, Error> {
    Ok(connect(path)?)
}

/// What both connections of the writing process have in common.
fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    // NORMAL: a commit is not forced to the disk (a process that is killed loses nothing by that), the log is
    // before each checkpoint, at least each 5 s.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Checkpoints force data to the disk: a thread of their own does them, so that no commit waits for it.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // Closing would wait for the disk; the last checkpoint is `checkpoint`'s, and may be left out.
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Whether the file's content is at fault, not the disk or the caller.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}
