//! A captured JSON text as HTML that folds without a script: each object and array is a `<details>`.
//!
//! Numbers and strings stand as they were sent, and members in the order and number they were sent: a parser
//! that rounds 0.1 or drops a repeated key would show something else than the wire had. So the text is only
//! re-indented. In: bytes. Out: HTML, escaped. Bounds: values, and depth, because both what follows and the
//! browser recurse.

use std::fmt;

use serde::de::IgnoredAny;

use super::html::escape;

/// Values shown; past that the text is shown as text.
const VALUES: usize = 20_000;
/// Containers in containers; deeper text is shown as text.
const DEPTH: usize = 128;
/// Containers below this depth are folded at first.
const OPEN_DEPTH: usize = 4;
/// Containers with more members are folded at first, unless outermost.
const OPEN_MEMBERS: usize = 50;

/// The HTML, or none when `text` is not one JSON value, a bare scalar, or too large to fold.
pub(crate) fn fold(text: &str) -> Option<String> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if !text.starts_with(['{', '[']) {
        return None;
    }
    // Ignored values are passed over without recursion, so this takes any depth: `tokens` bounds it.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let tokens = tokens(text)?;
    let mut html = String::with_capacity(text.len() * 3);
    let mut rest = tokens.as_slice();
    value(&mut rest, 0, "", false, &mut html);
    Some(html)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// `{` or `[`, with the number of members.
    Open(char, usize),
    Close(char),
    Colon,
    Comma,
    Text(&'a str),
    /// A number, true, false or null.
    Word(&'a str),
}

/// The tokens of a valid JSON text; none when there are too many, or too deep.
fn tokens(text: &str) -> Option<Vec<Token<'_>>> {
    let mut list = Vec::new();
    let mut open = Vec::new();
    let mut values = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        at += 1;
        let token = match bytes[start] {
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            c @ (b'{' | b'[') => {
                if open.len() == DEPTH {
                    return None;
                }
                open.push((list.len(), 0));
                Token::Open(char::from(c), 0)
            }
            c @ (b'}' | b']') => {
                let (index, commas) = open.pop()?;
                let members = if index + 1 == list.len() { 0 } else { commas + 1 };
                if let Some(Token::Open(_, count)) = list.get_mut(index) {
                    *count = members;
                }
                Token::Close(char::from(c))
            }
            b':' => Token::Colon,
            b',' => {
                open.last_mut()?.1 += 1;
                Token::Comma
            }
            b'"' => {
                while bytes.get(at).is_some_and(|b| *b != b'"') {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                Token::Text(text.get(start..at)?)
            }
            _ => {
                while bytes
                    .get(at)
                    .is_some_and(|b| !matches!(b, b',' | b':' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n'))
                {
                    at += 1;
                }
                Token::Word(text.get(start..at)?)
            }
        };
        values += usize::from(matches!(token, Token::Open(..) | Token::Text(_) | Token::Word(_)));
        if values > VALUES {
            return None;
        }
        list.push(token);
    }
    Some(list)
}

/// Takes one value off `rest` and writes it, with `key` (HTML) before it.
fn value(rest: &mut &[Token<'_>], depth: usize, key: &str, comma: bool, html: &mut String) {
    let Some((first, tail)) = rest.split_first() else { return };
    *rest = tail;
    let end = |rest: &[Token<'_>]| if comma || rest.first() == Some(&Token::Comma) { "," } else { "" };
    match first {
        Token::Open(open, members) => {
            let close = if *open == '{' { '}' } else { ']' };
            if *members == 0 {
                *rest = rest.split_first().map_or(&[], |(_, tail)| tail);
                put(html, format_args!("<div class=\"v\">{key}{open}{close}{}</div>", end(rest)));
                return;
            }
            let unfolded = depth < OPEN_DEPTH && (depth == 0 || *members <= OPEN_MEMBERS);
            let (shown, what) = (if unfolded { " open" } else { "" }, if *open == '{' { "member" } else { "item" });
            let plural = if *members == 1 { "" } else { "s" };
            put(
                html,
                format_args!(
                    "<details{shown}><summary>{key}{open}<span class=\"folded\"> {members} {what}{plural} {close}</span></summary><div class=\"in\">"
                ),
            );
            while !matches!(rest.first(), None | Some(Token::Close(_))) {
                let mut key = String::new();
                if let [Token::Text(name), Token::Colon, tail @ ..] = rest {
                    key = format!("<span class=\"k\">{}</span>: ", escape(name));
                    *rest = tail;
                }
                value(rest, depth + 1, &key, false, html);
                if let [Token::Comma, tail @ ..] = rest {
                    *rest = tail;
                }
            }
            *rest = rest.split_first().map_or(&[], |(_, tail)| tail);
            put(html, format_args!("</div><div class=\"v\">{close}{}</div></details>", end(rest)));
        }
        Token::Text(text) => {
            put(
                html,
                format_args!("<div class=\"v\">{key}<span class=\"s\">{}</span>{}</div>", escape(text), end(rest)),
            );
        }
        Token::Word(word) => {
            put(
                html,
                format_args!("<div class=\"v\">{key}<span class=\"n\">{}</span>{}</div>", escape(word), end(rest)),
            );
        }
        Token::Close(_) | Token::Colon | Token::Comma => {}
    }
}

fn put(html: &mut String, what: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = fmt::Write::write_fmt(html, what);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees: the HTML without tags, spaces and fold hints.
    fn seen(html: &str) -> String {
        let mut text = String::new();
        for (i, part) in html.split("<span class=\"folded\">").enumerate() {
            let part = if i == 0 { part } else { part.split_once("</span>").unwrap().1 };
            for piece in part.split('<') {
                text.push_str(piece.split_once('>').map_or(piece, |(_, after)| after));
            }
        }
        text.replace("&#34;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace(": ", ":")
    }

    #[test]
    fn shows_every_token_as_it_was_sent() {
        for text in [
            r#"{"b":1,"a":[1.10,1e400,-0,true,null,"x\"]}"],"b":2,"e":{},"f":[]}"#,
            r"[]",
            r"{}",
            r#"[{"a":{"b":{"c":{"d":{"e":[[[[1]]]]}}}}}]"#,
            r#"{"ü":"\u0000\\","":"  two  spaces  "}"#,
        ] {
            assert_eq!(seen(&fold(text).unwrap()), text, "{text}");
        }
        assert_eq!(seen(&fold(" { \"a\" : [ 1 ,\n 2 ] } ").unwrap()), r#"{"a":[1,2]}"#);
    }

    #[test]
    fn markup_in_keys_and_values_is_escaped() {
        let html = fold(r#"{"<script>":"</span><img src=x onerror=alert(1)>&'"}"#).unwrap();
        assert!(!html.contains("<script") && !html.contains("<img") && html.contains("&lt;script&gt;"), "{html}");
    }

    #[test]
    fn what_is_no_json_or_too_much_is_left_alone() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(fold(&nested(DEPTH)).is_some());
        let (deep, bottomless) = (nested(DEPTH + 1), nested(200_000));
        let many = format!("[{}1]", "1,".repeat(VALUES));
        for text in ["", "1", "\"a\"", "{", "{\"a\":}", "[1,]", "{} {}", "[1] x", "{'a':1}", &deep, &bottomless, &many]
        {
            assert!(fold(text).is_none(), "{}", &text[..text.len().min(20)]);
        }
    }
}
