//! What kind of text a body is: by what its sender says, and by how it looks, because either may be wrong.

/// How secrets are looked for in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// JSON, several JSON documents, or something that begins like it.
    Json,
    /// `name=value` pairs joined by `&`.
    Form,
    /// Parts between lines of this boundary.
    Multipart(&'a [u8]),
    /// UTF-16 text; `true` when the high byte comes first.
    Wide(bool),
    /// Anything else, be it text or not: bytes are looked at as they are.
    Other,
}

/// How many bytes of a body are looked at to tell what it is.
const LOOK: usize = 512;

/// The shape of a body with this `Content-Type`.
pub(super) fn of<'a>(body: &'a [u8], media: &'a str) -> Shape<'a> {
    if let Some(big) = wide(body) {
        return Shape::Wide(big);
    }
    let essence = essence(media);
    if let Some(boundary) = boundary(body, media) {
        return Shape::Multipart(boundary);
    }
    if is_json(body) || (is_named_json(essence) && is_text(body)) {
        return Shape::Json;
    }
    let form = essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") || is_form(body);
    if form && is_text(body) { Shape::Form } else { Shape::Other }
}

fn essence(media: &str) -> &str {
    media.split(';').next().unwrap_or_default().trim()
}

fn is_named_json(essence: &str) -> bool {
    let lower = essence.to_ascii_lowercase();
    lower.contains("json")
}

/// A type that is text, or a form that can be read as such.
pub(crate) fn is_text_type(media: &str) -> bool {
    let essence = essence(media).to_ascii_lowercase();
    essence.starts_with("text/")
        || ["json", "xml", "javascript", "yaml", "x-www-form-urlencoded", "graphql", "csv"]
            .iter()
            .any(|word| essence.contains(word))
            && !essence.contains("openxml")
}

/// A text type, or none that says what the body is.
pub(crate) fn may_be_text(media: &str) -> bool {
    essence(media).is_empty() || is_text_type(media)
}

/// Looks like text in UTF-8 or an 8-bit encoding: no NUL, few control characters.
pub(crate) fn is_text(body: &[u8]) -> bool {
    let start = &body[..body.len().min(LOOK)];
    if wide(start).is_some() {
        return true;
    }
    if is_plain(start) {
        return true;
    }
    let controls =
        start.iter().filter(|&&b| b < b' ' && !matches!(b, b'\t' | b'\n' | b'\r' | 0x0c | 0x1b) || b == 0x7f).count();
    if start.contains(&0) {
        return false;
    }
    match std::str::from_utf8(start) {
        Ok(_) => controls * 10 <= start.len(),
        // A character cut by the end of the look is no fault.
        Err(error) if error.error_len().is_none() => controls * 10 <= start.len(),
        // An 8-bit encoding has next to no control characters; compressed bytes have one in nine.
        Err(_) => controls * 50 <= start.len(),
    }
}

/// ASCII without control characters but tabs and line ends, as most text is. Without an early end the compiler
/// makes vector instructions of the loop.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator is an early end")]
fn is_plain(text: &[u8]) -> bool {
    let odd = |b: u8| (b >= 0x7f) | (b < b' ') & (b != b'\n') & (b != b'\r') & (b != b'\t');
    !text.iter().fold(false, |any, &b| any | odd(b))
}

/// UTF-16 by its mark, or by zeros in every other byte.
fn wide(body: &[u8]) -> Option<bool> {
    match body {
        [0xfe, 0xff, ..] => return Some(true),
        [0xff, 0xfe, ..] => return Some(false),
        _ => {}
    }
    let start = &body[..body.len().min(64) & !1];
    if start.len() < 4 {
        return None;
    }
    let zeros = |odd: usize| start.iter().skip(odd).step_by(2).filter(|&&b| b == 0).count();
    let (even, odd, pairs) = (zeros(0), zeros(1), start.len() / 2);
    match () {
        () if even * 4 >= pairs * 3 && odd == 0 => Some(true),
        () if odd * 4 >= pairs * 3 && even == 0 => Some(false),
        () => None,
    }
}

/// Begins like a JSON object or array: after a byte order mark, white space and the guard `)]}',` of some
/// servers.
pub(super) fn is_json(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let body =
        body.strip_prefix(b")]}'").map_or(body, |rest| rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start());
    let next = |rest: &[u8]| rest.trim_ascii_start().first().copied();
    match body {
        [b'{', rest @ ..] => matches!(next(rest), Some(b'"' | b'}') | None),
        [b'[', rest @ ..] => {
            matches!(next(rest), Some(b'"' | b'{' | b'[' | b']' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') | None)
        }
        _ => false,
    }
}

/// Looks like `name=value&name=value`: one line, no spaces, a name of plain characters first.
fn is_form(body: &[u8]) -> bool {
    let start = &body[..body.len().min(LOOK)];
    let Some(equals) = start.iter().position(|&b| b == b'=') else { return false };
    equals > 0
        && start[..equals].iter().all(|b| b.is_ascii_alphanumeric() || b"_-.%+[]~*:$".contains(b))
        && !start.trim_ascii_end().iter().any(|b| b.is_ascii_whitespace() || b"<>\"{}".contains(b))
}

/// The boundary of a multipart body (RFC 2046 section 5.1): as said, or as its first line shows.
fn boundary<'a>(body: &'a [u8], media: &'a str) -> Option<&'a [u8]> {
    if essence(media).get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
        let said = media.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').as_bytes())
        });
        if said.is_some_and(|said| !said.is_empty() && memchr::memmem::find(body, said).is_some()) {
            return said;
        }
    }
    let line = body.strip_prefix(b"--")?;
    let line = &line[..line.iter().take(80).position(|&b| b == b'\n')?];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let after = &body[line.len() + 2..];
    let head = after[..after.len().min(200)].to_ascii_lowercase();
    (!line.is_empty() && memchr::memmem::find(&head, b"content-disposition").is_some()).then_some(line)
}
