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

/// Redacted fields in the order sent.
pub(super) fn list(
    fields: &[(Vec<u8>, Vec<u8>)],
    side: &'static str,
    redactor: &Redactor,
    tally: &mut Tally,
) -> Vec<(String, String)> {
    let redacted = fields.iter().map(|(name, value)| {
        let name = text(name).into_owned();
        let value = redactor.header(&name, text(value), side, tally);
        (name, value)
    });
    redacted.collect()
}

/// The redacted fields of one head.
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    pub(super) fn new(head: &Head, side: &'static str, redactor: &Redactor, tally: &mut Tally) -> Self {
        Fields(list(&head.fields, side, redactor, tally))
    }

    /// The first value of a field, or an empty text.
    pub(super) fn value(&mut self, name: &str) -> String {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).unwrap_or_default()
    }

    pub(super) fn into_list(self) -> Vec<(String, String)> {
        self.0
    }

    /// Pseudo headers first, then each field once under its canonical name. Repeats are joined by `, `
    /// (RFC 9110 section 5.3), `Set-Cookie` by a line feed because a comma may stand inside of it, `Cookie` by
    /// `; ` (RFC 9113 section 8.2.3).
    pub(super) fn joined<const N: usize>(&self, pseudo: [(&str, &str); N]) -> Headers {
        let mut out: Vec<(String, String)> = Vec::with_capacity(N + self.0.len());
        out.extend(pseudo.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        // Few fields are found faster one by one; the map keeps a head of thousands from costing a square.
        let mut index: HashMap<String, usize> = HashMap::new();
        let many = self.0.len() > 32;
        for (name, value) in self.0.iter().filter(|(n, _)| !n.starts_with(':')) {
            let name = canonical(name);
            let known = if many {
                index.get(&name).copied()
            } else {
                out.iter().skip(N).position(|(n, _)| *n == name).map(|at| at + N)
            };
            if let Some(at) = known {
                let joined = &mut out[at].1;
                joined.push_str(match name.as_str() {
                    "Set-Cookie" => "\n",
                    "Cookie" => "; ",
                    _ => ", ",
                });
                joined.push_str(value);
            } else {
                if many {
                    index.insert(name.clone(), out.len());
                }
                out.push((name, value.clone()));
            }
        }
        Headers(out)
    }
}

/// `content-type` as `Content-Type`; a name that is no token stays as sent.
pub(super) fn canonical(name: &str) -> String {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.bytes().all(token) {
        return name.to_owned();
    }
    let mut start = true;
    name.chars()
        .map(|c| {
            let out = if start { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            start = c == '-';
            out
        })
        .collect()
}
