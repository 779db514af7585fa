//! The index row of a transaction: an [`ArtifactRecord`] into columns and back, exactly.

use rusqlite::{
    Row, ToSql,
    types::{ToSqlOutput, ValueRef},
};
use transaction::{ArtifactRecord, Digest};

use crate::{Error, profile::Profile};

/// The columns that [`record`] and `Filter` read, in this order.
pub(crate) const COLUMNS: &str = "position, time, profile, status, pid, path, duration, ttfb, sent, received, digest, \
                                  request_id, connection_id, exchange_id, block, start, size";

/// Puts a row and its profile together again.
pub(crate) fn record(row: &Row<'_>, profile: &Profile) -> Result<ArtifactRecord, Error> {
    let digest: [u8; 20] = row
        .get_ref(10)?
        .as_blob()
        .ok()
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| Error::Damaged("a digest is not 20 bytes".to_owned()))?;
    let p = profile.clone();
    Ok(ArtifactRecord {
        time_unix_ns: unsigned(row, 1)?,
        digest: Digest(digest),
        request_method: p.method,
        request_host: p.host,
        request_scheme: p.scheme,
        request_path: row.get(5)?,
        request_protocol: p.protocol,
        request_content_type: p.request_type,
        response_status: row.get(3)?,
        response_content_type: p.response_type,
        duration_ns: unsigned(row, 6)?,
        ttfb_ns: row.get::<_, Option<i64>>(7)?.map(|n| n as u64),
        bytes_sent: unsigned(row, 8)?,
        bytes_received: unsigned(row, 9)?,
        process_exe: p.exe,
        process_pid: row.get(4)?,
        process_unit: p.unit,
        container_id: p.container_id,
        container_name: p.container_name,
        direction: p.direction,
        end: p.end,
        level: p.level,
        complete: p.complete,
        error_type: p.error,
        request_id: identifier(row, 11)?,
        connection_id: identifier(row, 12)?,
        exchange_id: identifier(row, 13)?,
    })
}

/// SQLite's numbers are signed; all 64 bits come back as they went.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64, Error> {
    Ok(row.get::<_, i64>(column)? as u64)
}

/// An identifier's column as text.
pub(crate) fn identifier(row: &Row<'_>, column: usize) -> Result<String, Error> {
    let bad = || Error::Damaged("an identifier is neither text nor 13 bytes".to_owned());
    match row.get_ref(column)? {
        ValueRef::Text(text) => String::from_utf8(text.to_vec()).map_err(|_| bad()),
        ValueRef::Blob(bytes) => unpack(bytes).ok_or_else(bad),
        _ => Err(bad()),
    }
}

/// An identifier on its way into a column: 20 characters of base32hex (RFC 4648 section 7, lower case) as 13
/// bytes, anything else as text.
pub(crate) enum Identifier<'a> {
    Packed([u8; 13]),
    Text(&'a str),
}

impl Identifier<'_> {
    pub(crate) fn of(text: &str) -> Identifier<'_> {
        pack(text).map_or(Identifier::Text(text), Identifier::Packed)
    }
}

impl ToSql for Identifier<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Identifier::Packed(bytes) => ValueRef::Blob(bytes),
            Identifier::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// 100 bits in the upper end of 13 bytes.
pub(crate) fn pack(text: &str) -> Option<[u8; 13]> {
    let text: &[u8; 20] = text.as_bytes().try_into().ok()?;
    // Two halves of 50 bits: arithmetic on 128 bits is several times slower, and this is done three times a row.
    let half = |part: &[u8]| {
        part.iter().try_fold(0u64, |bits, c| {
            let five = match c {
                b'0'..=b'9' => c - b'0',
                b'a'..=b'v' => c - b'a' + 10,
                _ => return None,
            };
            Some(bits << 5 | u64::from(five))
        })
    };
    let bits = u128::from(half(&text[..10])?) << 50 | u128::from(half(&text[10..])?);
    let mut bytes = [0; 13];
    bytes.copy_from_slice(&(bits << 28).to_be_bytes()[..13]);
    Some(bytes)
}

fn unpack(bytes: &[u8]) -> Option<String> {
    let bytes: &[u8; 13] = bytes.try_into().ok()?;
    let mut wide = [0; 16];
    wide[..13].copy_from_slice(bytes);
    let bits = u128::from_be_bytes(wide) >> 28;
    Some(
        (0..20)
            .map(|i| char::from(b"0123456789abcdefghijklmnopqrstuv"[(bits >> (95 - 5 * i)) as usize & 31]))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_fits_thirteen_bytes_and_comes_back() {
        for text in [transaction::id::id(&[b"x"]), "0".repeat(20), "v".repeat(20)] {
            assert_eq!(pack(&text).and_then(|b| unpack(&b)), Some(text));
        }
        for other in ["", "w0000000000000000000", "0000000000000000000", "A0000000000000000000"] {
            assert_eq!(pack(other), None, "{other}");
        }
    }
}
