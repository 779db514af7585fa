//! Secret members of JSON, found without parsing it as a whole: the text may be cut anywhere, hold several
//! documents (newline-delimited JSON), or be no valid JSON at all. All other bytes stay exactly as they are.
//!
//! A string followed by a colon is a member's name; what follows the colon is its value, of any type. Where a
//! value's end is missing, it is masked to the end of the text. Strings with escapes are looked at unescaped,
//! so neither `"pass\u0077ord"` nor JSON inside of a JSON string hides anything.

use std::{borrow::Cow, ops::Range};

use super::{
    edit::MASK,
    names::{self, Kind},
    pass::Pass,
};

/// Masks the secret members in all of the text.
pub(super) fn walk(pass: &mut Pass<'_, '_>) {
    let src = pass.src;
    let mut from = 0;
    // `{"name": "DB_PASSWORD", "value": "…"}`: the name that the value beside it goes by.
    let mut said: Option<&'static str> = None;
    // Strings stand close to each other: a plain loop finds the next one sooner than a call of memchr.
    while let Some(open) = src[from..].iter().position(|&b| b == b'"').map(|at| from + at) {
        let Some(close) = string_end(src, open) else {
            from = unterminated(pass, open);
            continue;
        };
        let raw = &src[open + 1..close];
        let after = space(src, close + 1);
        if src.get(after) == Some(&b':') {
            let name = unescaped(raw);
            let start = space(src, after + 1);
            let word = names::secret(&name, Kind::Json).or_else(|| if is_value(&name) { said.take() } else { None });
            if let Some(word) = word {
                let end = value_end(src, start);
                mask(pass, start..end, word);
                from = end.max(after + 1);
                continue;
            }
            if is_name(&name) {
                said = string_at(src, start).and_then(|value| names::secret(&unescaped(value), Kind::Json));
            } else if src.get(start) == Some(&b'{') {
                said = None;
            }
            escaped(pass, open, close);
            from = after + 1;
        } else {
            escaped(pass, open, close);
            from = close + 1;
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
