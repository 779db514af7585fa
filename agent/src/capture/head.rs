//! Header fields as text: names and values as sent, and the joined form of Qtap's objects.

use std::{borrow::Cow, collections::HashMap};

use transaction::object::Headers;

use super::redact::{Redactor, Tally};
use crate::http::Head;

/// Bytes of a head as text. UTF-8 is taken as such; anything else is ISO-8859-1, in which every byte is a
/// character (RFC 9110 section 5.5), so no byte is lost.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().map(|&b| char::from(b)).collect()),
    }
}

/// `http1` or `http2`, as Qtap writes it.
pub(super) fn protocol(version: u8) -> &'static str {
    if version >= 20 { "http2" } else { "http1" }
}

/// The version as on the wire.
pub(super) fn version(version: u8) -> &'static str {
    match version {
        10 => "HTTP/1.0",
        20.. => "HTTP/2",
        _ => "HTTP/1.1",
    }
}

/// Names and values.
pub(super) type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// Redacted fields in the order sent.
pub(super) fn list<'a>(
    fields: &'a [(Vec<u8>, Vec<u8>)],
    side: &'static str,
    redactor: &Redactor,
    tally: &mut Tally,
) -> Pairs<'a> {
    let redacted = fields.iter().map(|(name, value)| {
        let name = text(name);
        let value = redactor.header(&name, text(value), side, tally);
        (name, value)
    });
    redacted.collect()
}

/// The redacted fields of one head.
pub(super) struct Fields<'a>(Pairs<'a>);

impl<'a> Fields<'a> {
    pub(super) fn new(head: &'a Head, side: &'static str, redactor: &Redactor, tally: &mut Tally) -> Self {
        Fields(list(&head.fields, side, redactor, tally))
    }

    /// The first value of a field, or an empty text.
    pub(super) fn value(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v)
    }

    /// The fields as sent.
    pub(super) fn list(&self) -> Pairs<'_> {
        self.0.iter().map(|(n, v)| (Cow::Borrowed(&**n), Cow::Borrowed(&**v))).collect()
    }

    /// Pseudo headers first, then each field once under its canonical name. Repeats are joined by `, `
    /// (RFC 9110 section 5.3), `Set-Cookie` by a line feed because a comma may stand inside of it, `Cookie` by
    /// `; ` (RFC 9113 section 8.2.3).
    pub(super) fn joined<'f, const N: usize>(
        &'f self,
        pseudo: [(&'static str, Cow<'f, str>); N],
    ) -> Headers<Cow<'f, str>> {
        let mut out: Pairs<'f> = Vec::with_capacity(N + self.0.len());
        out.extend(pseudo.map(|(n, v)| (Cow::Borrowed(n), v)));
        // Few fields are found faster one by one; the map keeps a head of thousands from costing a square.
        let mut index: HashMap<Cow<'f, str>, usize> = HashMap::new();
        let many = self.0.len() > 32;
        for (name, value) in self.0.iter().filter(|(n, _)| !n.starts_with(':')) {
            let name = canonical(name);
            let known = if many {
                index.get(&name).copied()
            } else {
                out.iter().skip(N).position(|(n, _)| *n == name).map(|at| at + N)
            };
            if let Some(at) = known {
                let joined = out[at].1.to_mut();
                joined.push_str(match &*name {
                    "Set-Cookie" => "\n",
                    "Cookie" => "; ",
                    _ => ", ",
                });
                joined.push_str(value);
            } else {
                if many {
                    index.insert(name.clone(), out.len());
                }
                out.push((name, Cow::Borrowed(&**value)));
            }
        }
        Headers(out)
    }
}

/// `content-type` as `Content-Type`; a name that is no token stays as sent.
pub(super) fn canonical(name: &str) -> Cow<'_, str> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.bytes().all(token) {
        return Cow::Borrowed(name);
    }
    let starts = |at: usize| at == 0 || name.as_bytes()[at - 1] == b'-';
    if name
        .bytes()
        .enumerate()
        .all(|(at, b)| if starts(at) { !b.is_ascii_lowercase() } else { !b.is_ascii_uppercase() })
    {
        return Cow::Borrowed(name);
    }
    let letters = name.char_indices();
    letters.map(|(at, c)| if starts(at) { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
}
