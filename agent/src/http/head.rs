//! One head, parsed once from contiguous bytes: start line, fields, and what they say about framing.
//!
//! Called by [`Reader`](super::reader::Reader) with a whole head, or with the whole lines of one that broke
//! off. Names and values are kept as on the wire. Framing facts are read from every line, also from those
//! beyond the limits.

use memchr::memchr;

use super::exchange::{Head, Note};
use super::start::{Kind, Start, chomp, is_token, start_line};

/// Name and value of each field, in order.
pub(super) type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// What a field costs in memory beside its bytes: two vectors and their allocations.
const FIELD_COST: usize = 80;

/// What the fields say about the body (RFC 9112 section 6).
// Each flag is a fact of its own; they do not exclude one another.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) length: Option<u64>,
    /// A Content-Length was there that is not a number.
    pub(super) bad_length: bool,
    /// A Transfer-Encoding was there.
    pub(super) coded: bool,
    /// The last transfer coding is chunked.
    pub(super) chunked: bool,
    /// An Upgrade field was there.
    pub(super) upgrade: bool,
}

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) kind: Kind,
    pub(super) head: Head,
    pub(super) facts: Facts,
    /// Memory that the head takes, bytes.
    pub(super) cost: usize,
    /// A field line was malformed.
    pub(super) malformed: bool,
}

/// End of the head in `bytes` (behind the empty line). `scanned`: how much of it is known to hold none, so
/// that a head that comes byte by byte is not searched from its beginning each time.
pub(super) fn head_end(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    loop {
        let Some(found) = memchr(b'\n', &bytes[*scanned..]) else {
            *scanned = bytes.len();
            return None;
        };
        let line_end = *scanned + found;
        // A line feed is passed only when what follows it is known.
        *scanned = line_end;
        match bytes[line_end + 1..] {
            [b'\n', ..] => return Some(line_end + 2),
            [b'\r', b'\n', ..] => return Some(line_end + 3),
            [] | [b'\r'] => return None,
            _ => *scanned += 1,
        }
    }
}

/// Parses a head; None if the first line begins no message. `kept`: most bytes of lines to keep.
pub(super) fn parse(bytes: &[u8], kept: usize, fields: usize, notes: &mut Vec<Note>) -> Option<Parsed> {
    let first = memchr(b'\n', bytes)?;
    let start = start_line(&bytes[..=first])?;
    let kind = start.kind();
    let mut head = match start {
        Start::Request { method, target, version } => {
            let room = kept.saturating_sub(method.len());
            if target.len() > room {
                push(notes, Note::HeadTooLong);
            }
            let target = target[..target.len().min(room)].to_vec();
            Head { method: method.to_vec(), target, status: 0, version, fields: Vec::new() }
        }
        Start::Response { version, status, reason } => {
            if reason.len() > kept {
                push(notes, Note::HeadTooLong);
            }
            let target = reason[..reason.len().min(kept)].to_vec();
            Head { method: Vec::new(), target, status, version, fields: Vec::new() }
        }
    };
    let mut lines =
        Lines { kept: kept.saturating_sub(first), limit: fields, facts: Facts::default(), malformed: false };
    if first == 0 || bytes[first - 1] != b'\r' {
        push(notes, Note::BareLineFeed);
    }
    head.fields = lines.read(&bytes[first + 1..], notes);
    if lines.facts.coded && (lines.facts.length.is_some() || lines.facts.bad_length || head.version == 10) {
        push(notes, Note::ConflictingFraming);
    }
    if lines.facts.bad_length {
        push(notes, Note::ConflictingFraming);
    }
    let cost = head.method.len()
        + head.target.len()
        + head.fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_COST).sum::<usize>();
    Some(Parsed { kind, head, facts: lines.facts, cost, malformed: lines.malformed })
}

/// Parses a trailer section, up to its empty line.
pub(super) fn parse_trailers(bytes: &[u8], kept: usize, fields: usize, notes: &mut Vec<Note>) -> (Fields, usize) {
    let mut lines = Lines { kept, limit: fields, facts: Facts::default(), malformed: false };
    let fields = lines.read(bytes, notes);
    let cost = fields.iter().map(|(name, value)| name.len() + value.len() + FIELD_COST).sum();
    (fields, cost)
}

/// Adds a note once.
pub(super) fn push(notes: &mut Vec<Note>, note: Note) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

struct Lines {
    kept: usize,
    limit: usize,
    facts: Facts,
    malformed: bool,
}

impl Lines {
    fn read(&mut self, mut bytes: &[u8], notes: &mut Vec<Note>) -> Fields {
        let mut fields: Fields = Vec::with_capacity(if bytes.len() > 2 { 8.min(self.limit) } else { 0 });
        let mut dropped = false;
        // Where a field goes on over several lines, it is judged when the last of them has been read.
        let mut folded: Option<(Vec<u8>, Vec<u8>)> = None;
        while let Some(end) = memchr(b'\n', bytes) {
            let line = chomp(&bytes[..=end]);
            if end == 0 || bytes[end - 1] != b'\r' {
                push(notes, Note::BareLineFeed);
            }
            bytes = &bytes[end + 1..];
            if line.is_empty() {
                break;
            }
            let continues = matches!(bytes.first(), Some(b' ' | b'\t'));
            if matches!(line[0], b' ' | b'\t') {
                if let Some((name, mut value)) = folded.take() {
                    push(notes, Note::ObsoleteFolding);
                    let more = trim(line);
                    if value.len() + more.len() < self.kept {
                        value.push(b' ');
                        value.extend_from_slice(more);
                    } else {
                        dropped = true;
                    }
                    if continues {
                        folded = Some((name, value));
                    } else {
                        self.judge(&name, trim(&value), notes);
                        self.keep(&mut fields, name, trim(&value).to_vec(), &mut dropped);
                    }
                    continue;
                }
                self.malformed(&mut fields, line, &mut dropped, notes);
                continue;
            }
            let Some(colon) = memchr(b':', line).filter(|colon| is_token(&line[..*colon])) else {
                self.malformed(&mut fields, line, &mut dropped, notes);
                continue;
            };
            let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
            if continues {
                let room = value.len().min(self.kept);
                folded = Some((name[..name.len().min(self.kept)].to_vec(), value[..room].to_vec()));
                continue;
            }
            self.judge(name, value, notes);
            if self.room(fields.len(), name.len() + value.len()) {
                fields.push((name.to_vec(), value.to_vec()));
            } else {
                dropped = true;
            }
        }
        // A head that broke off inside a folded field.
        if let Some((name, value)) = folded {
            self.keep(&mut fields, name, value, &mut dropped);
        }
        if dropped {
            push(notes, Note::HeadTooLong);
        }
        fields
    }

    fn room(&mut self, count: usize, bytes: usize) -> bool {
        let fits = count < self.limit && bytes + 4 <= self.kept;
        // Once a field is dropped all that follow are: what is kept is the beginning of the head.
        self.kept = if fits { self.kept - bytes - 4 } else { 0 };
        fits
    }

    fn keep(&mut self, fields: &mut Fields, name: Vec<u8>, value: Vec<u8>, dropped: &mut bool) {
        if self.room(fields.len(), name.len() + value.len()) {
            fields.push((name, value));
        } else {
            *dropped = true;
        }
    }

    fn malformed(&mut self, fields: &mut Fields, line: &[u8], dropped: &mut bool, notes: &mut Vec<Note>) {
        self.malformed = true;
        push(notes, Note::MalformedField);
        if self.room(fields.len(), line.len()) {
            fields.push((Vec::new(), line.to_vec()));
        } else {
            *dropped = true;
        }
    }

    /// Reads the fields that frame the body.
    fn judge(&mut self, name: &[u8], value: &[u8], notes: &mut Vec<Note>) {
        match name.len() {
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.facts.upgrade |= !value.is_empty(),
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                // `5, 5` comes from joined repeats (RFC 9110 section 8.6).
                for part in value.split(|b| *b == b',') {
                    match (number(trim(part)), self.facts.length) {
                        (None, _) => self.facts.bad_length = true,
                        (Some(length), None) => self.facts.length = Some(length),
                        (Some(length), Some(first)) if length != first => push(notes, Note::ConflictingFraming),
                        _ => {}
                    }
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                for coding in value.split(|b| *b == b',').map(trim).filter(|coding| !coding.is_empty()) {
                    self.facts.coded = true;
                    let coding = coding.split(|b| *b == b';').next().unwrap_or_default();
                    self.facts.chunked = trim(coding).eq_ignore_ascii_case(b"chunked");
                }
            }
            _ => {}
        }
    }
}

/// Without spaces and tabs around.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Digits only, within 63 bits (stream offsets are added to it).
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let value = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(value).filter(|sum| *sum < 1 << 62)
    })
}
