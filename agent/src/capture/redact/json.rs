//! Secret members of JSON, found without parsing it as a whole: the text may be cut anywhere, hold several
//! documents (newline-delimited JSON), or be no valid JSON at all. All other bytes stay exactly as they are.
//!
//! A string before a colon is a member's name; what follows the colon is its value, of any type. So colons are
//! looked for, and the name read backwards from them: a stray quote somewhere cannot turn strings inside out.
//! Where a value's end is missing, it is masked to the end of the text. Strings with escapes are looked at
//! unescaped, so neither `"pass\u0077ord"` nor JSON inside of a JSON string hides anything.

use std::{borrow::Cow, ops::Range};

use super::{
    edit::MASK,
    harmless,
    names::{self, Kind},
    pass::Pass,
};

/// No name of a member that is of interest is longer, escapes included.
const LONGEST_NAME: usize = 512;

/// Masks the secret members in all of the text.
pub(super) fn walk(pass: &mut Pass<'_, '_>) {
    let src = pass.src;
    let mut names = Known::default();
    // `{"name": "DB_PASSWORD", "value": "…"}`: the name that the value beside it goes by.
    let mut said: Option<&'static str> = None;
    let mut from = 0;
    while let Some(at) = memchr::memchr2(b':', b'\\', &src[from.min(src.len())..]).map(|at| from + at) {
        if src[at] == b':' {
            from = match name_before(src, at) {
                Some(name) if names.plain(name) => at + 1,
                Some(raw) => {
                    if let Some(end) = member(pass, raw, at, &mut said) {
                        end
                    } else {
                        names.add(raw);
                        at + 1
                    }
                }
                None => at + 1,
            };
            continue;
        }
        // The first escape of a string: its opening quote is the last one before.
        let Some(open) = memchr::memrchr(b'"', &src[from..at]).map(|n| from + n) else {
            from = at + 2;
            continue;
        };
        let Some(close) = string_end(src, open) else {
            from = unterminated(pass, open);
            continue;
        };
        let colon = space(src, close + 1);
        let masked = match src.get(colon) {
            Some(b':') => member(pass, &src[open + 1..close], colon, &mut said),
            _ => None,
        };
        from = if let Some(end) = masked {
            end
        } else {
            escaped(pass, open, close);
            close + 1
        };
    }
}

/// The string before the colon at `at`, without its quotes; `None` when there is none, or one with escapes,
/// which is found by them.
fn name_before(src: &[u8], at: usize) -> Option<&[u8]> {
    let mut end = at;
    while let Some(b' ' | b'\t' | b'\r' | b'\n') = end.checked_sub(1).map(|n| src[n]) {
        end -= 1;
    }
    let close = end.checked_sub(1).filter(|&n| src[n] == b'"')?;
    let least = close.saturating_sub(LONGEST_NAME);
    // Names are short: a plain loop is sooner there than a call of memrchr.
    let open = least + src[least..close].iter().rposition(|&b| b == b'"')?;
    Some(&src[open + 1..close])
}

/// A member: answers where its value ends when it was masked.
fn member(pass: &mut Pass<'_, '_>, raw: &[u8], colon: usize, said: &mut Option<&'static str>) -> Option<usize> {
    let src = pass.src;
    let name = unescaped(raw);
    let start = space(src, colon + 1);
    let secret = || names::secret(&name, Kind::Json);
    let word = if harmless::member(&name, || secret().is_none()) { None } else { secret() };
    let word = word.or_else(|| if is_value(&name) { said.take() } else { None });
    if let Some(word) = word {
        let end = value_end(src, start);
        mask(pass, start..end, word);
        return Some(end.max(colon + 1));
    }
    if is_name(&name) {
        *said = string_at(src, start).and_then(|value| names::secret(&unescaped(value), Kind::Json));
    }
    None
}

/// Names that were found harmless in this text: lists of objects repeat theirs.
#[derive(Default)]
struct Known<'a>([&'a [u8]; 32]);

impl<'a> Known<'a> {
    fn slot(name: &[u8]) -> usize {
        let ends = name.first().map_or(0, |&b| usize::from(b)) + 5 * name.last().map_or(0, |&b| usize::from(b));
        (ends + 11 * name.len()) % 32
    }

    fn plain(&self, name: &[u8]) -> bool {
        !name.is_empty() && self.0[Self::slot(name)] == name
    }

    fn add(&mut self, name: &'a [u8]) {
        if !is_name(name) && !is_value(name) {
            self.0[Self::slot(name)] = name;
        }
    }
}

fn is_name(name: &[u8]) -> bool {
    [&b"name"[..], b"key", b"field", b"header", b"parameter"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

fn is_value(name: &[u8]) -> bool {
    [&b"value"[..], b"values"].iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// Puts the mask as a JSON string in the place of a value, whatever its type was.
fn mask(pass: &mut Pass<'_, '_>, range: Range<usize>, word: &str) {
    let value = &pass.src[range.clone()];
    let inside = value.strip_prefix(b"\"").map(|rest| rest.strip_suffix(b"\"").unwrap_or(rest));
    if value.is_empty() || inside == Some(MASK) {
        return;
    }
    pass.edit.replace(range, br#""[redacted]""#);
    pass.tally.add(pass.place, "json", word);
}

/// A string with escapes is judged by what it says; when that has a secret in it, it is written anew.
fn escaped(pass: &mut Pass<'_, '_>, open: usize, close: usize) {
    let raw = &pass.src[open + 1..close];
    if memchr::memchr(b'\\', raw).is_none() {
        return;
    }
    let plain = unescaped(raw);
    if let Some(redacted) = pass.value(&plain) {
        let mut out = Vec::with_capacity(redacted.len() + 16);
        escape(&redacted, &mut out);
        pass.edit.replace(open + 1..close, &out);
    }
}

/// A string without an end: cut there, or no string at all. Answers where the walk goes on.
fn unterminated(pass: &mut Pass<'_, '_>, open: usize) -> usize {
    let src = pass.src;
    let end = src[open + 1..].iter().position(|&b| b < b' ').map_or(src.len(), |at| open + 1 + at);
    escaped(pass, open, end);
    end
}

/// The closing quote of the string that opens at `open`. RFC 8259 section 7: a control character cannot stand
/// in a string, so one that does shows that this was none.
fn string_end(src: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        match *src.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            b'\n' | b'\r' => return None,
            _ => at += 1,
        }
    }
}

/// Past white space.
fn space(src: &[u8], from: usize) -> usize {
    from + src[from.min(src.len())..].iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).count()
}

/// What stands in the string that opens at `at`.
fn string_at(src: &[u8], at: usize) -> Option<&[u8]> {
    if src.get(at) != Some(&b'"') {
        return None;
    }
    Some(&src[at + 1..string_end(src, at)?])
}

/// Where the value that begins at `from` ends: of any type, to the end of the text when its end is missing.
fn value_end(src: &[u8], from: usize) -> usize {
    match src.get(from) {
        Some(b'"') => string_end(src, from).map_or(src.len(), |close| close + 1),
        Some(b'{' | b'[') => {
            let (mut at, mut depth) = (from, 0usize);
            while let Some(byte) = src.get(at) {
                match byte {
                    b'"' => match string_end(src, at) {
                        Some(close) => at = close,
                        None => return src.len(),
                    },
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return at + 1;
                        }
                    }
                    _ => {}
                }
                at += 1;
            }
            src.len()
        }
        _ => {
            let rest = &src[from.min(src.len())..];
            from.min(src.len())
                + rest
                    .iter()
                    .position(|b| matches!(b, b',' | b'}' | b']' | b'\n' | b'\r' | b' ' | b'\t'))
                    .unwrap_or(rest.len())
        }
    }
}

/// The text that a JSON string says. A broken escape stays as it is; an unpaired surrogate is replaced.
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'\\' {
            out.push(raw[at]);
            at += 1;
            continue;
        }
        let plain = match raw.get(at + 1) {
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'r') => b'\r',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'u') => {
                let (character, used) = unicode(&raw[at..]);
                match character {
                    Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                    None => out.push(b'\\'),
                }
                at += used;
                continue;
            }
            Some(&other) => other,
            None => b'\\',
        };
        out.push(plain);
        at += 2;
    }
    Cow::Owned(out)
}

/// The character of `\uXXXX`, or of two of them that are a pair, and how many bytes that is.
fn unicode(raw: &[u8]) -> (Option<char>, usize) {
    let unit = |at: usize| {
        let text = raw.get(at..at + 6)?.strip_prefix(b"\\u")?;
        // `from_str_radix` takes a sign, JSON does not.
        if !text.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(high @ 0xd800..=0xdbff), Some(low @ 0xdc00..=0xdfff)) => {
            (char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)), 12)
        }
        (Some(unit), _) => (Some(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)), 6),
        (None, _) => (None, 1),
    }
}

/// RFC 8259 section 7, the shortest escapes.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
}
