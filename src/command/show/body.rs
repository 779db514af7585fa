//! A body as a person reads it: JSON indented, text as it is, anything else as its first bytes in hexadecimal.

use std::fmt::Write as _;

use crate::command::format::{Escaped, is_harmful};

/// Longer JSON is shown as it is: a person reads no further, and a hostile body must not cost more than that.
const LONGEST_JSON: usize = 4 << 20;
/// So much of what is no text is shown.
const DUMPED: usize = 256;

/// The lines of a body, each ended by a line feed; nothing in them acts on a terminal.
pub(super) fn render(body: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(body) else { return dump(body) };
    if text.contains('\0') {
        return dump(body);
    }
    let looks_like_json = text.trim_start().starts_with(['{', '[']) && text.len() <= LONGEST_JSON;
    let indented = if looks_like_json && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        Some(indent(text))
    } else {
        None
    };
    let mut out = String::new();
    for line in indented.as_deref().unwrap_or(text).lines() {
        // A tab is harmless and keeps columns.
        for (n, part) in line.split('\t').enumerate() {
            if n > 0 {
                out.push('\t');
            }
            let _ = write!(out, "{}", Escaped(part));
        }
        out.push('\n');
    }
    out
}

/// Valid JSON with a member a line. The text's own numbers, strings and order of members are kept, which
/// reading it into a value and writing that would not.
fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    let mut rest = json.chars().peekable();
    let new_line = |out: &mut String, depth: usize| {
        out.push('\n');
        // Deep nesting would push everything out of sight.
        out.extend(std::iter::repeat_n("  ", depth.min(20)));
    };
    while let Some(c) = rest.next() {
        if in_string {
            out.push(c);
            (in_string, escaped) = (escaped || c != '"', !escaped && c == '\\');
            continue;
        }
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                out.push(c);
                while rest.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = rest.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                in_string = true;
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    out
}

/// The first bytes as hexadecimal and text, sixteen a line.
fn dump(body: &[u8]) -> String {
    let mut out = String::new();
    for (n, line) in body[..body.len().min(DUMPED)].chunks(16).enumerate() {
        let mut hex = String::new();
        for byte in line {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x} ");
        }
        let shown = |b: &u8| if (0x20..0x7f).contains(b) { char::from(*b) } else { '.' };
        let _ = writeln!(out, "{:08x}  {hex:48}  {}", n * 16, line.iter().map(shown).collect::<String>());
    }
    if body.len() > DUMPED {
        let _ = writeln!(out, "… and {} bytes more (`show --raw` has all)", body.len() - DUMPED);
    }
    debug_assert!(out.chars().all(|c| c == '\n' || !is_harmful(c)));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_numbers_and_order() {
        let body = br#"{"z":1.0,"a":[1e400,{},[ ]],"s":"{\"x\": [1,2]}\\","big":12345678901234567890123}"#;
        let shown = render(body);
        assert!(shown.contains("\"z\": 1.0,\n"), "{shown}");
        assert!(shown.contains(r#""s": "{\"x\": [1,2]}\\","#), "{shown}");
        assert!(shown.contains("\"big\": 12345678901234567890123\n}"), "{shown}");
    }

    #[test]
    fn text_cannot_act_on_the_terminal() {
        assert_eq!(render(b"a\tb\x1b[2J\r\nc"), "a\tb\\u{1b}[2J\nc\n");
        assert_eq!(render("{\"a\":\"\u{9b}2J\"}".as_bytes()), "{\n  \"a\": \"\\u{9b}2J\"\n}\n");
    }

    #[test]
    fn what_is_no_text_is_dumped() {
        let shown = render(&[0xff, b'A', 0, 0x1b].repeat(100));
        assert!(shown.starts_with("00000000  ff 41 00 1b ff 41 00 1b"), "{shown}");
        assert!(shown.contains(".A...A..") && shown.contains("and 144 bytes more"), "{shown}");
    }
}
