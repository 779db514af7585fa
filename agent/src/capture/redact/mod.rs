//! Replaces what is secret by `[redacted]`, before anything is stored.
//!
//! In: the texts of an exchange (header fields, addresses, decoded bodies) and of its process (arguments).
//! Out: the same texts with secrets masked, and a count by place ([`Tally`]). What is secret is told by the
//! name that a value goes by ([`names`]: headers, queries, forms, JSON, multipart, `name=value` in any text)
//! or by the value's own form ([`pattern`]: JWT, PEM keys, known tokens, `Bearer`, `Basic`). The bias is to
//! mask too much rather than too little; all bytes outside of a masked value stay as they are. Called by
//! `capture`. Bounded: linear in the length of the text, whatever stands in it.

mod arguments;
mod edit;
mod field;
mod harmless;
mod json;
mod multipart;
mod names;
mod pass;
mod pattern;
pub(crate) mod shape;
mod tally;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub(crate) use self::tally::{MOST_PLACES, Tally};
use self::{pass::Pass, shape::Shape, tally::Place};

/// Nobody's own text needs a third look; the bound is for texts made to need many.
const MOST_ROUNDS: usize = 4;

/// Redaction with the default lists.
#[derive(Clone, Debug)]
pub(crate) struct Redactor {
    on: bool,
}

impl Redactor {
    pub(crate) fn new() -> Self {
        Redactor { on: true }
    }

    /// Leaves everything as it is: so a test can show that it would have found what redaction hides.
    #[cfg(test)]
    pub(crate) fn off() -> Self {
        Redactor { on: false }
    }

    /// Runs `walk` over a text, and gives back what became of it.
    fn over<'a>(
        &self,
        text: Cow<'a, str>,
        place: Place<'_>,
        tally: &mut Tally,
        walk: impl Fn(&mut Pass<'_, '_>),
    ) -> Cow<'a, str> {
        if !self.on || text.is_empty() {
            return text;
        }
        let mut once = |text: &[u8]| {
            let mut pass = Pass::new(text, place, tally, false);
            walk(&mut pass);
            pass.edit.finish()
        };
        match once(text.as_bytes()) {
            Some(changed) => Cow::Owned(string(settle(changed, once))),
            None => text,
        }
    }

    /// The value of the header field `name`.
    pub(crate) fn header<'a>(&self, name: &str, value: Cow<'a, str>, side: &str, tally: &mut Tally) -> Cow<'a, str> {
        let place = Place { side, part: "header", name };
        if !self.on {
            return value;
        }
        let mut redacted = None;
        let harmless = harmless::field(name.as_bytes(), value.as_bytes(), || {
            let text = self.over(Cow::Borrowed(&*value), place, tally, |pass| field::value(pass, name));
            match text {
                Cow::Borrowed(_) => true,
                Cow::Owned(text) => {
                    redacted = Some(text);
                    false
                }
            }
        });
        match redacted {
            Some(text) if !harmless => Cow::Owned(text),
            _ => value,
        }
    }

    /// A request's target: path, query, userinfo.
    pub(crate) fn url<'a>(&self, target: Cow<'a, str>, side: &str, tally: &mut Tally) -> Cow<'a, str> {
        let place = Place { side, part: "url", name: "" };
        self.over(target, place, tally, |pass| pass.address(0..pass.src.len()))
    }

    /// An authority: userinfo has no place there, but some send it.
    pub(crate) fn authority<'a>(&self, authority: Cow<'a, str>, side: &str, tally: &mut Tally) -> Cow<'a, str> {
        let place = Place { side, part: "url", name: "" };
        self.over(authority, place, tally, |pass| pass.authority(0..pass.src.len()))
    }

    /// Any short text, such as a reason phrase.
    pub(crate) fn text<'a>(&self, text: Cow<'a, str>, side: &str, part: &str, tally: &mut Tally) -> Cow<'a, str> {
        self.over(text, Place { side, part, name: "" }, tally, |pass| pass.text(0..pass.src.len()))
    }

    /// A process's arguments, in place.
    pub(crate) fn arguments(&self, arguments: &mut [String], tally: &mut Tally) {
        if self.on {
            arguments::redact(arguments, tally);
        }
    }

    /// A body without content codings. `media` is its `Content-Type`, `cut` says that its end is missing.
    pub(crate) fn body<'a>(
        &self,
        body: Cow<'a, [u8]>,
        media: &str,
        cut: bool,
        side: &str,
        tally: &mut Tally,
    ) -> Cow<'a, [u8]> {
        let place = Place { side, part: "body", name: "" };
        if !self.on {
            return body;
        }
        let mut once = |body: &[u8]| walk(body, media, place, tally, cut, 0);
        match once(&body) {
            Some(changed) => Cow::Owned(settle(changed, once)),
            None => body,
        }
    }
}

/// What was masked may have stood between two halves of something else: once more, until nothing is found.
fn settle(mut text: Vec<u8>, mut once: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    for _ in 0..MOST_ROUNDS {
        match once(&text) {
            Some(changed) => text = changed,
            None => break,
        }
    }
    text
}

/// Masks begin and end at ASCII characters, so text stays UTF-8; if it did not, no other byte would be lost.
fn string(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// A body, or a part of one, by its shape; `None` when nothing was masked.
fn walk(body: &[u8], media: &str, place: Place<'_>, tally: &mut Tally, cut: bool, depth: u8) -> Option<Vec<u8>> {
    let mut pass = Pass { depth, ..Pass::new(body, place, tally, cut) };
    match shape::of(body, media) {
        Shape::Json => {
            json::walk(&mut pass);
            let structured = pass.edit.finish();
            let text = structured.as_deref().unwrap_or(body);
            let mut pass = Pass { depth, json: true, ..Pass::new(text, place, tally, cut) };
            pass.text(0..text.len());
            pass.edit.finish().or(structured)
        }
        Shape::Form => {
            pass.query(0..body.len());
            pass.edit.finish()
        }
        Shape::Multipart(boundary) => {
            multipart::parts(&mut pass, boundary);
            pass.edit.finish()
        }
        Shape::Wide(big) => wide(body, big, media, place, tally, cut, depth),
        Shape::Other => {
            pass.text(0..body.len());
            pass.edit.finish()
        }
    }
}

/// UTF-16 text is looked at as UTF-8, and written back in its own form when something was masked.
fn wide(
    body: &[u8],
    big: bool,
    media: &str,
    place: Place<'_>,
    tally: &mut Tally,
    cut: bool,
    depth: u8,
) -> Option<Vec<u8>> {
    let marked = matches!(body, [0xfe, 0xff, ..] | [0xff, 0xfe, ..]);
    let units = body[if marked { 2 } else { 0 }..]
        .chunks_exact(2)
        .map(|pair| if big { u16::from_be_bytes([pair[0], pair[1]]) } else { u16::from_le_bytes([pair[0], pair[1]]) });
    let text: String = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    if depth > 3 {
        return None;
    }
    let redacted = walk(text.as_bytes(), media, place, tally, cut, depth + 1)?;
    let mut out = if marked { body[..2].to_vec() } else { Vec::new() };
    for unit in String::from_utf8_lossy(&redacted).encode_utf16() {
        out.extend_from_slice(&if big { unit.to_be_bytes() } else { unit.to_le_bytes() });
    }
    Some(out)
}
