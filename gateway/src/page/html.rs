//! Escaping for the HTML that is not made by a template.

use std::borrow::Cow;

/// `text` with `& < > " '` as character references, and control characters made visible: they could not be
/// seen otherwise, and NUL is not allowed in HTML.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| matches!(b, b'&' | b'<' | b'>' | b'"' | b'\'' | 0..=8 | 11..=31 | 127)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            // The Unicode block Control Pictures has a sign for each.
            '\0'..='\x1f' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
            '\x7f' => out.push('\u{2421}'),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn nothing_stays_that_html_could_read() {
        assert_eq!(escape("a<b>&\"'\0\r\n\x1b[31m"), "a&lt;b&gt;&amp;&#34;&#39;\u{2400}\u{240d}\n\u{241b}[31m");
        assert_eq!(escape("plain ü"), "plain ü");
    }
}
