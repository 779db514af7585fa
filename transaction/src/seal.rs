//! Turns a transaction into the bytes that are stored, their digest, and the record that points at them.

use crate::{ArtifactRecord, Digest, Transaction};

/// An object ready to be stored.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The exact bytes; their SHA-1 is `record.digest`.
    pub bytes: Vec<u8>,
    /// What points at them.
    pub record: ArtifactRecord,
}

/// Serialises `transaction`, names it by its SHA-1 and derives the record. `time_unix_ns` is the time of
/// the request's first byte, `duration_ns` and `timing` are taken from the transaction.
#[must_use]
pub fn seal(transaction: &Transaction, time_unix_ns: u64) -> Sealed {
    let (req, res) = (transaction.request.as_ref(), transaction.response.as_ref());
    // Bodies grow by a third in base64; the rest is seldom more than this.
    let bodies = req.map_or(0, |r| r.body.0.len()) + res.map_or(0, |r| r.body.0.len());
    let mut bytes = Vec::with_capacity(4096 + bodies / 3 * 4);
    // A transaction holds nothing that JSON cannot, and writing to memory cannot fail.
    if serde_json::to_writer(&mut bytes, transaction).is_err() {
        bytes.clear();
    }
    let digest = Digest::of(&bytes);
    let text = |f: fn(&crate::object::Request) -> &String| req.map(f).cloned().unwrap_or_default();
    let record = ArtifactRecord {
        time_unix_ns,
        digest,
        request_method: text(|r| &r.method),
        request_host: text(|r| &r.authority),
        request_scheme: text(|r| &r.scheme),
        request_path: text(|r| &r.path),
        request_protocol: text(|r| &r.protocol),
        request_content_type: text(|r| &r.content_type),
        response_status: res.map(|r| r.status),
        response_content_type: res.map(|r| r.content_type.clone()).unwrap_or_default(),
        duration_ns: transaction.timing.total_ns,
        ttfb_ns: transaction.timing.ttfb_ns,
        bytes_sent: transaction.metadata.bytes_sent,
        bytes_received: transaction.metadata.bytes_received,
        process_exe: transaction.process.exe.clone(),
        process_pid: transaction.process.pid,
        process_unit: transaction.process.unit.clone(),
        container_id: transaction.process.container_id.clone(),
        container_name: transaction.metadata.container_name.clone(),
        direction: transaction.direction,
        end: transaction.end,
        level: transaction.level,
        complete: transaction.completeness.complete,
        error_type: transaction.error_type.clone(),
        request_id: transaction.metadata.request_id.clone(),
        connection_id: transaction.metadata.connection_id.clone(),
        exchange_id: transaction.exchange_id.clone(),
    };
    Sealed { bytes, record }
}
