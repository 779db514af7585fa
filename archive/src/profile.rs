//! What many transactions have in common, kept once and named by a number: method, host, executable and the
//! like. An index row then needs two bytes for all of it, and a search decides once for all rows that share it.

use std::collections::HashMap;

use rusqlite::{Connection, Row, Transaction as Tx, params};
use transaction::{
    ArtifactRecord, Level,
    object::{Direction, End},
};

use crate::Error;

/// Most numbers kept in memory; a host under attack with random names must not fill it.
const MOST: usize = 4096;
/// Longest combination kept in memory, in bytes.
const LONGEST: usize = 1024;

/// See the module. Fields as in [`ArtifactRecord`].
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) scheme: String,
    pub(crate) protocol: String,
    pub(crate) request_type: String,
    pub(crate) response_type: String,
    pub(crate) exe: String,
    pub(crate) unit: String,
    pub(crate) container_id: String,
    pub(crate) container_name: String,
    pub(crate) direction: Direction,
    pub(crate) end: End,
    pub(crate) level: Level,
    pub(crate) complete: bool,
    pub(crate) error: Option<String>,
}

impl Profile {
    /// Reads a profile by its number.
    pub(crate) fn read(connection: &Connection, id: i64) -> Result<Profile, Error> {
        let mut statement = connection.prepare_cached(
            "SELECT method, host, scheme, protocol, request_type, response_type, exe, unit, container_id, \
             container_name, direction, end, level, complete, error FROM profile WHERE id = ?1",
        )?;
        let mut rows = statement.query([id])?;
        let Some(row) = rows.next()? else { return Err(Error::Damaged(format!("profile {id} is missing"))) };
        Profile::of_row(row)
    }

    fn of_row(row: &Row<'_>) -> Result<Profile, Error> {
        let (direction, end, level): (String, String, String) = (row.get(10)?, row.get(11)?, row.get(12)?);
        let unknown = |what: &str, text: &str| Error::Damaged(format!("unknown {what} {text:?}"));
        Ok(Profile {
            method: row.get(0)?,
            host: row.get(1)?,
            scheme: row.get(2)?,
            protocol: row.get(3)?,
            request_type: row.get(4)?,
            response_type: row.get(5)?,
            exe: row.get(6)?,
            unit: row.get(7)?,
            container_id: row.get(8)?,
            container_name: row.get(9)?,
            direction: [Direction::Ingress, Direction::EgressInternal, Direction::EgressExternal]
                .into_iter()
                .find(|d| d.as_str() == direction)
                .ok_or_else(|| unknown("direction", &direction))?,
            end: [End::Client, End::Server]
                .into_iter()
                .find(|e| e.as_str() == end)
                .ok_or_else(|| unknown("end", &end))?,
            level: [Level::None, Level::Summary, Level::Headers, Level::Full]
                .into_iter()
                .find(|l| l.as_str() == level)
                .ok_or_else(|| unknown("level", &level))?,
            complete: row.get(13)?,
            error: row.get(14)?,
        })
    }
}

/// The writer's numbers.
pub(crate) struct Profiles {
    known: HashMap<Box<[u8]>, i64>,
    /// The combination being looked up, as bytes; kept for its allocation.
    key: Vec<u8>,
    next: i64,
    /// First number of this generation: what is used from here on is not below it.
    first: i64,
}

impl Profiles {
    pub(crate) fn new(next: i64) -> Self {
        Profiles { known: HashMap::new(), key: Vec::new(), next, first: next }
    }

    /// The number of a record's profile; written when it is new.
    pub(crate) fn number(&mut self, tx: &Tx<'_>, record: &ArtifactRecord) -> rusqlite::Result<i64> {
        let r = record;
        self.key.clear();
        for text in [
            &r.request_method,
            &r.request_host,
            &r.request_scheme,
            &r.request_protocol,
            &r.request_content_type,
            &r.response_content_type,
            &r.process_exe,
            &r.process_unit,
            &r.container_id,
            &r.container_name,
        ] {
            self.key.extend((text.len() as u32).to_le_bytes());
            self.key.extend(text.as_bytes());
        }
        self.key.extend([
            r.direction as u8,
            r.end as u8,
            r.level as u8,
            u8::from(r.complete),
            u8::from(r.error_type.is_some()),
        ]);
        self.key.extend(r.error_type.as_deref().unwrap_or_default().as_bytes());
        if let Some(&id) = self.known.get(self.key.as_slice()) {
            return Ok(id);
        }
        tx.prepare_cached(
            "INSERT INTO profile VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            self.next,
            r.request_method,
            r.request_host,
            r.request_scheme,
            r.request_protocol,
            r.request_content_type,
            r.response_content_type,
            r.process_exe,
            r.process_unit,
            r.container_id,
            r.container_name,
            r.direction.as_str(),
            r.end.as_str(),
            r.level.as_str(),
            r.complete,
            r.error_type,
        ])?;
        let id = self.next;
        self.next += 1;
        if self.key.len() <= LONGEST {
            if self.known.len() >= MOST {
                self.known.clear();
            }
            self.known.insert(self.key.as_slice().into(), id);
        }
        Ok(id)
    }

    /// Begins a generation: what was known is written again when it is next used, so that the old numbers can
    /// go when the blocks before this do.
    pub(crate) fn begin_generation(&mut self) {
        self.restart(self.next);
    }

    /// Forgets everything and goes on with `next`: what was written since then was rolled back.
    pub(crate) fn restart(&mut self, next: i64) {
        self.known.clear();
        self.next = next;
        self.first = next;
    }

    /// The number that the next new profile gets.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// First number of this generation.
    pub(crate) fn first(&self) -> i64 {
        self.first
    }
}
