//! A captured body for the page: JSON folded, form fields as a table, text as text, anything else as a hex
//! dump. Chosen by what the bytes are, with the content type as a hint; never rendered as its own type.

use std::fmt::Write as _;

use super::{html::escape, json, words};

/// Bytes of text or JSON shown; the rest is for download.
const SHOWN: usize = 512 << 10;
/// Bytes of a hex dump.
const DUMPED: usize = 4 << 10;
/// Form fields shown.
const FIELDS: usize = 500;

/// A body as a page shows it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    /// What it was taken for: `JSON`, `form`, `text`, `binary`.
    pub(crate) kind: &'static str,
    /// Its size for people.
    pub(crate) size: String,
    /// Escaped HTML.
    pub(crate) html: String,
    /// Bytes that are not shown.
    pub(crate) more: Option<String>,
}

/// How to show `bytes`, or none when there are none.
pub(crate) fn body(bytes: &[u8], content_type: &str) -> Option<Body> {
    if bytes.is_empty() {
        return None;
    }
    let size = words::size(bytes.len() as u64);
    let more = |shown: usize| (bytes.len() > shown).then(|| words::size((bytes.len() - shown) as u64));
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if let Some((text, shown)) = text(bytes) {
        if shown == bytes.len() {
            if let Some(html) = json::fold(text) {
                return Some(Body {
                    kind: "JSON",
                    size,
                    html: format!("<div class=\"json\">{html}</div>"),
                    more: None,
                });
            }
            if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
                return Some(Body { kind: "form", size, html: form(text), more: None });
            }
        }
        let html = format!("<pre>{}</pre>", escape(text));
        return Some(Body { kind: "text", size, html, more: more(shown) });
    }
    let shown = bytes.len().min(DUMPED);
    Some(Body {
        kind: "binary",
        size,
        html: format!("<pre class=\"hex\">{}</pre>", dump(&bytes[..shown])),
        more: more(shown),
    })
}

/// The leading text of at most [`SHOWN`] bytes and its length, when the bytes are UTF-8 without NULs.
fn text(bytes: &[u8]) -> Option<(&str, usize)> {
    let head = &bytes[..bytes.len().min(SHOWN)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut at the end, by us or by the capture's limit.
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    (!text.contains('\0')).then_some((text, text.len()))
}

fn form(text: &str) -> String {
    let mut html = String::from("<table class=\"fields\"><tbody>");
    for (name, value) in form_urlencoded::parse(text.as_bytes()).take(FIELDS) {
        // Writing to a String cannot fail.
        let _ = write!(html, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(&name), escape(&value));
    }
    html.push_str("</tbody></table>");
    html
}

/// Offset, sixteen bytes, and the same as ASCII, escaped.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 5);
    for (row, chunk) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "{:08x} ", row * 16);
        for i in 0..16 {
            let gap = if i == 8 { "  " } else { " " };
            let _ = match chunk.get(i) {
                Some(byte) => write!(text, "{gap}{byte:02x}"),
                None => write!(text, "{gap}  "),
            };
        }
        text.push_str("  ");
        let ascii: String = chunk.iter().map(|b| if (32..127).contains(b) { char::from(*b) } else { '.' }).collect();
        text.push_str(&escape(&ascii));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_told_apart_by_what_they_are() {
        for (bytes, kind, expected) in [
            (&b"{\"a\":1}"[..], "text/html", "JSON"),
            (b"a=1&b=%3Cb%3E", "application/x-www-form-urlencoded; charset=utf-8", "form"),
            (b"<html><script>alert(1)</script>", "text/html", "text"),
            (b"{broken", "application/json", "text"),
            (b"\x89PNG\r\n\x1a\n\0\0", "image/png", "binary"),
            (b"text with \0 in it", "text/plain", "binary"),
            (b"\xff\xfe<script>", "text/html", "binary"),
        ] {
            let body = body(bytes, kind).unwrap();
            assert_eq!(body.kind, expected);
            assert!(!body.html.contains("<script") && !body.html.contains("<b>"), "{}", body.html);
        }
        assert_eq!(body(b"", "text/plain"), None);
    }

    #[test]
    fn a_dump_has_offsets_bytes_and_signs() {
        assert_eq!(
            dump(b"\x00\x01<>abcdefghijklmn"),
            "00000000  00 01 3c 3e 61 62 63 64  65 66 67 68 69 6a 6b 6c  ..&lt;&gt;abcdefghijkl\n\
             00000010  6d 6e                                             mn\n"
        );
    }

    #[test]
    fn long_bodies_are_cut_and_it_is_said() {
        let long = "ä".repeat(SHOWN);
        let shown = body(long.as_bytes(), "text/plain").unwrap();
        assert_eq!((shown.kind, shown.more.as_deref()), ("text", Some("512 KiB")));
        let binary = body(&[0; 5000], "").unwrap();
        assert_eq!((binary.kind, binary.more.as_deref()), ("binary", Some("904 B")));
        assert_eq!(body("cut ä".as_bytes().split_last().unwrap().1, "").unwrap().kind, "text");
    }
}
