//! Turns a transaction into the bytes that are stored, their digest, and the record that points at them.
//!
//! An exchange on loopback has two observed ends, and most of what is kept of it is the same at both: [`Common`]
//! is written once, and [`Common::seal`] puts what one end alone knows around it. The shape is that of
//! [`Form`] either way.

use std::{cell::Cell, ops::Range};

use serde::{Serialize, Serializer};

use crate::{
    ArtifactRecord, Digest, Level, Transaction,
    object::{Completeness, Connection, Direction, End, Form, Metadata, Process, Request, Response, Text, Timing, Tls},
    write::{self, Part},
};

/// An object ready to be stored.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The exact bytes; their SHA-1 is `record.digest`.
    pub bytes: Vec<u8>,
    /// What points at them.
    pub record: ArtifactRecord,
}

/// A part of an object that was written once and stands in many, such as a process. Serialises in objects only.
#[derive(Clone, Debug)]
pub struct Written(Vec<u8>);

impl Written {
    /// Writes `part`, one of this crate's types.
    #[must_use]
    pub fn of<T: Serialize>(part: &T) -> Self {
        let mut bytes = Vec::with_capacity(256);
        put(&mut bytes, part);
        Written(bytes)
    }
}

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Part(&self.0).serialize(s)
    }
}

/// The members of a transaction that do not depend on the end it is seen from. They mean what they mean there.
#[expect(missing_docs, reason = "as in Form")]
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a, T = String, B: AsRef<[u8]> = Vec<u8>> {
    /// Nanoseconds since 1970 of the request's first byte, for the record.
    pub time_unix_ns: u64,
    pub request: Option<&'a Request<T, B>>,
    pub response: Option<&'a Response<T, B>>,
    pub transaction_time: &'a str,
    pub duration_ms: f64,
    pub level: Level,
    pub rule: Option<&'a str>,
    pub exchange_id: &'a str,
    pub error_type: Option<&'a str>,
    pub timing: Timing,
    pub completeness: &'a Completeness<T>,
    pub tls: Option<&'a Tls>,
}

/// The members of a transaction that one end of an exchange alone has.
#[derive(Clone, Debug)]
pub struct Observed<'a, T, P, R> {
    /// Who was observed.
    pub metadata: &'a Metadata<T>,
    /// Direction, seen from the observed process.
    pub direction: Direction,
    /// Which end it is.
    pub end: End,
    /// The process, for the record.
    pub process: &'a Process,
    /// The same, for the object: a [`Process`] with its arguments redacted, or one that is [`Written`].
    pub shown: P,
    /// The socket.
    pub connection: &'a Connection<T>,
    /// All that was replaced, in `process` too.
    pub redactions: Vec<R>,
}

/// What both ends of an exchange have in common, written.
#[derive(Clone, Debug)]
pub struct Common {
    /// The parts one after the other.
    parts: Vec<u8>,
    request: Option<Range<usize>>,
    response: Option<Range<usize>>,
    completeness: Range<usize>,
    tls: Option<Range<usize>>,
    texts: Texts,
    has_error: bool,
    has_rule: bool,
    status: Option<u16>,
    time_unix_ns: u64,
    duration_ms: f64,
    timing: Timing,
    level: Level,
    complete: bool,
}

const TEXTS: usize = 11;

/// Short texts one after the other, so that they need no memory each.
#[derive(Clone, Debug)]
struct Texts {
    all: String,
    ends: [usize; TEXTS],
}

impl Texts {
    fn fill(&mut self, texts: [&str; TEXTS]) {
        self.all.clear();
        for (text, end) in texts.iter().zip(&mut self.ends) {
            self.all.push_str(text);
            *end = self.all.len();
        }
    }

    fn list(&self) -> [&str; TEXTS] {
        let mut from = 0;
        self.ends.map(|end| &self.all[std::mem::replace(&mut from, end)..end])
    }
}

impl Common {
    /// Writes what is the same at both ends.
    #[must_use]
    pub fn new<T: Text, B: AsRef<[u8]>>(shared: &Shared<'_, T, B>) -> Self {
        let (req, res) = (shared.request, shared.response);
        // Bodies grow by a third in base64; the rest is seldom more than this.
        let bodies = req.map_or(0, |r| r.body.0.as_ref().len()) + res.map_or(0, |r| r.body.0.as_ref().len());
        let mut parts = SPARE.take();
        parts.clear();
        parts.reserve(3072 + bodies / 3 * 4);
        let request = req.map(|part| put(&mut parts, part));
        let response = res.map(|part| put(&mut parts, part));
        let completeness = put(&mut parts, shared.completeness);
        let tls = shared.tls.map(|part| put(&mut parts, part));
        let mut texts = Texts { all: SPARE_TEXT.take(), ends: [0; TEXTS] };
        texts.fill([
            req.map_or("", |r| r.method.as_ref()),
            req.map_or("", |r| r.authority.as_ref()),
            req.map_or("", |r| r.scheme.as_ref()),
            req.map_or("", |r| r.path.as_ref()),
            req.map_or("", |r| r.protocol.as_ref()),
            req.map_or("", |r| r.content_type.as_ref()),
            res.map_or("", |r| r.content_type.as_ref()),
            shared.exchange_id,
            shared.transaction_time,
            shared.error_type.unwrap_or_default(),
            shared.rule.unwrap_or_default(),
        ]);
        Common {
            parts,
            request,
            response,
            completeness,
            tls,
            texts,
            has_error: shared.error_type.is_some(),
            has_rule: shared.rule.is_some(),
            status: res.map(|r| r.status),
            time_unix_ns: shared.time_unix_ns,
            duration_ms: shared.duration_ms,
            timing: shared.timing,
            level: shared.level,
            complete: shared.completeness.complete,
        }
    }

    /// The host that was asked for, with its port when it was given; empty without a request.
    #[must_use]
    pub fn authority(&self) -> &str {
        let [_, authority, ..] = self.texts.list();
        authority
    }

    /// The object of one end, named by its SHA-1, and its record.
    #[must_use]
    pub fn seal<T: Text, P: Serialize, R: Serialize>(&self, observed: Observed<'_, T, P, R>) -> Sealed {
        let Observed { metadata, direction, end, process, shown, connection, redactions } = observed;
        let [
            method,
            authority,
            scheme,
            path,
            protocol,
            request_type,
            response_type,
            exchange_id,
            transaction_time,
            error_type,
            rule,
        ] = self.texts.list();
        let error_type = self.has_error.then_some(error_type);
        let part = |range: &Range<usize>| Part(&self.parts[range.clone()]);
        let form = Form {
            metadata,
            request: self.request.as_ref().map(part),
            response: self.response.as_ref().map(part),
            transaction_time,
            duration_ms: self.duration_ms,
            direction,
            end,
            level: self.level,
            rule: self.has_rule.then_some(rule),
            exchange_id,
            error_type,
            timing: self.timing,
            completeness: part(&self.completeness),
            process: shown,
            connection,
            tls: self.tls.as_ref().map(part),
            redactions,
        };
        let mut bytes = Vec::with_capacity(2048 + self.parts.len());
        put(&mut bytes, &form);
        let record = ArtifactRecord {
            time_unix_ns: self.time_unix_ns,
            digest: Digest::of(&bytes),
            request_method: method.to_owned(),
            request_host: authority.to_owned(),
            request_scheme: scheme.to_owned(),
            request_path: path.to_owned(),
            request_protocol: protocol.to_owned(),
            request_content_type: request_type.to_owned(),
            response_status: self.status,
            response_content_type: response_type.to_owned(),
            duration_ns: self.timing.total_ns,
            ttfb_ns: self.timing.ttfb_ns,
            bytes_sent: metadata.bytes_sent,
            bytes_received: metadata.bytes_received,
            process_exe: process.exe.clone(),
            process_pid: process.pid,
            process_unit: process.unit.clone(),
            container_id: process.container_id.clone(),
            container_name: metadata.container_name.as_ref().to_owned(),
            direction,
            end,
            level: self.level,
            complete: self.complete,
            error_type: error_type.map(str::to_owned),
            request_id: metadata.request_id.as_ref().to_owned(),
            connection_id: metadata.connection_id.as_ref().to_owned(),
            exchange_id: exchange_id.to_owned(),
        };
        Sealed { bytes, record }
    }
}

/// A larger buffer is given back to the system: bodies of that size are rare.
const LARGEST_SPARE: usize = 256 * 1024;

thread_local! {
    /// The parts of the last exchange of this thread, for the next one's: a buffer of their size is dear.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SPARE_TEXT: Cell<String> = const { Cell::new(String::new()) };
}

impl Drop for Common {
    fn drop(&mut self) {
        if self.parts.capacity() <= LARGEST_SPARE {
            // Fails while the thread ends; then nobody needs it.
            let _ = SPARE.try_with(|spare| spare.set(std::mem::take(&mut self.parts)));
        }
        if self.texts.all.capacity() <= LARGEST_SPARE {
            let _ = SPARE_TEXT.try_with(|spare| spare.set(std::mem::take(&mut self.texts.all)));
        }
    }
}

/// Appends a part; answers where it stands. A transaction holds nothing that JSON cannot, and writing to memory
/// cannot fail; if it did, nothing would be better than half of it.
fn put<T: Serialize>(to: &mut Vec<u8>, part: &T) -> Range<usize> {
    let start = to.len();
    if write::append(to, part).is_err() {
        to.truncate(start);
    }
    start..to.len()
}

/// Serialises `transaction`, names it by its SHA-1 and derives the record. `time_unix_ns` is the time of
/// the request's first byte, `duration_ns` and `timing` are taken from the transaction.
#[must_use]
pub fn seal(transaction: &Transaction, time_unix_ns: u64) -> Sealed {
    let t = transaction;
    let common = Common::new(&Shared {
        time_unix_ns,
        request: t.request.as_ref(),
        response: t.response.as_ref(),
        transaction_time: &t.transaction_time,
        duration_ms: t.duration_ms,
        level: t.level,
        rule: t.rule.as_deref(),
        exchange_id: &t.exchange_id,
        error_type: t.error_type.as_deref(),
        timing: t.timing,
        completeness: &t.completeness,
        tls: t.tls.as_ref(),
    });
    common.seal(Observed {
        metadata: &t.metadata,
        direction: t.direction,
        end: t.end,
        process: &t.process,
        shown: &t.process,
        connection: &t.connection,
        redactions: t.redactions.iter().collect(),
    })
}
