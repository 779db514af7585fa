//! The body of a message as it is kept: decoded, redacted, and with every missing part said.

use std::borrow::Cow;

use transaction::{
    Level,
    object::{Body, Gap, Seen},
};

use super::{
    decode::{self, Coding},
    head::text,
    outcome,
    redact::{Redactor, Tally, shape},
};
use crate::http::Message;

/// What stands in the object of this message's body, and its `completeness`.
pub(super) fn keep<'a>(
    message: &'a Message,
    side: &'static str,
    level: Level,
    redactor: &Redactor,
    tally: &mut Tally,
) -> (Body<Cow<'a, [u8]>>, Seen<Cow<'a, str>>) {
    let gaps = message.gaps.iter().map(|&(offset, bytes, cause)| Gap { offset, bytes, cause: cause.as_str().into() });
    let mut seen = Seen {
        head_bytes: message.head_bytes,
        body_bytes: message.body_bytes,
        end: outcome::end(message).into(),
        gaps: gaps.collect(),
        ..Seen::default()
    };
    let mut body = Cow::Borrowed(&[][..]);
    if level >= Level::Full {
        let media = text(message.head.get("content-type").unwrap_or_default());
        let (bytes, cut) = plain(message, &media, &mut seen);
        body = redactor.body(bytes, &media, cut, side, tally);
    } else if message.body_bytes > 0 {
        say(&mut seen, "level");
    }
    seen.kept_bytes = body.len() as u64;
    (Body(body), seen)
}

fn say(seen: &mut Seen<Cow<'_, str>>, why: &'static str) {
    if !seen.truncated.iter().any(|word| word == why) {
        seen.truncated.push(why.into());
    }
}

/// The body without codings, as far as what is secret in it can be found, and whether its end is missing.
fn plain<'a>(message: &'a Message, media: &str, seen: &mut Seen<Cow<'_, str>>) -> (Cow<'a, [u8]>, bool) {
    let first_gap = message.gaps.iter().map(|gap| gap.0 as usize).min();
    for (missing, why) in [(message.cut, "limit"), (message.starved, "memory"), (first_gap.is_some(), "gap")] {
        if missing {
            say(seen, why);
        }
    }
    let cut = message.cut || message.starved || !message.ended;
    if message.body.is_empty() {
        return (Cow::Borrowed(&[]), cut);
    }
    // Chunks were undone by the parser; RFC 9112 section 7.2 has compressions as transfer codings too. They
    // were applied last.
    let transfer = message.head.all("transfer-encoding").flat_map(|value| value.split(|&b| b == b','));
    let transfer = transfer.map(<[u8]>::trim_ascii).filter(|coding| !coding.eq_ignore_ascii_case(b"chunked"));
    let Some(mut codings) = decode::codings(message.head.all("content-encoding").chain(transfer)) else {
        say(seen, "undecodable");
        return (Cow::Borrowed(&[]), true);
    };
    let body = &message.body[..];
    let before_gap = &body[..first_gap.unwrap_or(body.len()).min(body.len())];
    let declared = !codings.is_empty();
    if !declared && !shape::is_text(body) && shape::may_be_text(media) {
        // Said to be text, or nothing at all, and it is none: perhaps compressed without saying so.
        codings.extend(decode::by_magic(body));
        if codings.is_empty() && shape::is_text_type(media) {
            say(seen, "undecodable");
            return (Cow::Borrowed(&[]), true);
        }
    }
    if codings.is_empty() {
        // Past a gap in a text nobody can say which key a value belongs to: the rest of it is not kept.
        return match first_gap {
            Some(_) if shape::is_text(body) || shape::is_text_type(media) => (Cow::Borrowed(before_gap), true),
            Some(_) => (Cow::Borrowed(body), true),
            None => (Cow::Borrowed(body), cut),
        };
    }
    seen.encoding = codings.iter().map(|coding| coding.as_str()).collect::<Vec<_>>().join(", ").into();
    let decoded = decode::decode(&codings, before_gap);
    if decoded.limited {
        say(seen, "limit");
    } else if !decoded.whole && !cut && first_gap.is_none() {
        // The stream itself is broken; what came before the fault is kept.
        say(seen, "undecodable");
    }
    let cut = cut || first_gap.is_some() || !decoded.whole;
    (Cow::Owned(decoded.bytes), cut)
}

impl Coding {
    /// The word in `completeness`.
    fn as_str(self) -> &'static str {
        match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }
}
