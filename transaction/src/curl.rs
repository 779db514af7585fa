//! A shell command that sends a request again: what `show --curl` prints.
//!
//! In: a transaction as stored. Out: lines for a POSIX shell. Every value from the wire stands in single
//! quotes or, when it is no plain text, as base64; comments have no control characters. So nothing that was
//! captured can run as a command. Masked values stay masked, and a comment says which.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{Transaction, object::Request};

/// A longer text body goes through a pipe: a single argument may have 128 KiB (`MAX_ARG_STRLEN` in the
/// kernel's `include/uapi/linux/binfmts.h`).
const LONGEST_ARGUMENT: usize = 64 * 1024;

/// The command, with comments before it and a line feed at its end; only a comment when there is no request
/// that curl can send.
#[must_use]
pub fn curl(t: &Transaction) -> String {
    let mut out = String::new();
    let Some(r) = &t.request else {
        return "# Only a response was seen: there is no request to send again.\n".to_owned();
    };
    if r.method.eq_ignore_ascii_case("CONNECT") {
        return "# CONNECT opens a tunnel; curl does that by itself when it uses a proxy.\n".to_owned();
    }
    if !is_token(&r.method) {
        return "# The request's method is not one that curl can send.\n".to_owned();
    }
    comments(t, r, &mut out);

    let body = r.body.0.as_slice();
    let plain = std::str::from_utf8(body).ok().filter(|text| text.len() <= LONGEST_ARGUMENT && is_plain(text));
    let mut words = Vec::new();
    if !body.is_empty() && plain.is_none() {
        // printf is built into the shell: no limit on the length of its argument.
        let _ = writeln!(out, "printf %s '{}' | base64 -d |", STANDARD.encode(body));
    }
    words.push(method(r, body.is_empty()));
    words.push("--path-as-is --globoff".to_owned());
    match r.version.as_str() {
        "HTTP/1.0" => words.push("--http1.0".to_owned()),
        "HTTP/2" if r.scheme == "http" => words.push("--http2-prior-knowledge".to_owned()),
        "HTTP/2" => words.push("--http2".to_owned()),
        _ => words.push("--http1.1".to_owned()),
    }
    if r.path == "*" {
        words.push("--request-target '*'".to_owned());
    }
    headers(r, body.is_empty(), &mut words);
    match plain {
        Some(text) if !text.is_empty() => words.push(format!("--data-raw {}", quoted(text))),
        None => words.push("--data-binary @-".to_owned()),
        Some(_) => {}
    }
    words.push(format!("--url {}", quoted(&r.url)));
    let _ = writeln!(out, "curl {}", words.join(" \\\n  "));
    out
}

/// What the reader should know before sending it.
fn comments(t: &Transaction, r: &Request, out: &mut String) {
    for redaction in t.redactions.iter().filter(|redaction| redaction.place.starts_with("request.")) {
        let place: String = redaction.place.chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(out, "# Masked when it was captured: {place}");
    }
    if r.header_list.is_empty() && r.headers.is_empty() {
        let _ = writeln!(out, "# The headers were not kept (level {}).", t.level.as_str());
    }
    let seen = &t.completeness.request;
    if seen.body_bytes > 0 && r.body.is_empty() {
        let _ = writeln!(out, "# The body ({} bytes) was not kept.", seen.body_bytes);
    } else if !seen.truncated.is_empty() || !seen.gaps.is_empty() {
        let _ = writeln!(out, "# The body is not whole.");
    }
    if !seen.encoding.is_empty() {
        let _ = writeln!(out, "# The body was compressed on the wire; here it is sent as it was kept.");
    }
}

fn method(r: &Request, no_body: bool) -> String {
    match (r.method.as_str(), no_body) {
        ("GET", true) => "--get".to_owned(),
        ("HEAD", true) => "--head".to_owned(),
        (method, _) => format!("--request {}", quoted(method)),
    }
}

/// The request's fields, and an empty `--header` for those that curl would add by itself.
fn headers(r: &Request, no_body: bool, words: &mut Vec<String>) {
    let joined = if r.header_list.is_empty() { r.headers.0.as_slice() } else { &[] };
    let fields = || r.header_list.iter().chain(joined).filter(|(n, _)| is_token(n));
    for (name, value) in fields() {
        let skipped = match name.to_ascii_lowercase().as_str() {
            // curl makes these itself from the body and the address; the body is kept decoded.
            "content-length" | "transfer-encoding" | "content-encoding" => true,
            "host" => *value == r.authority,
            _ => false,
        };
        // Neither a terminal nor curl takes control characters in a field.
        if skipped || value.chars().any(|c| c.is_control() && c != '\t') {
            continue;
        }
        // `Name;` is curl's way to say a field without a value.
        let line = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        words.push(format!("--header {}", quoted(&line)));
    }
    let has = |wanted: &str| fields().any(|(n, _)| n.eq_ignore_ascii_case(wanted));
    for (name, sent) in [("User-Agent", true), ("Accept", true), ("Content-Type", !no_body), ("Expect", !no_body)] {
        if sent && !has(name) {
            words.push(format!("--header '{name}:'"));
        }
    }
    if has("accept-encoding") {
        words.push("--compressed".to_owned());
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Text that a terminal and a shell take as it is.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// A word of the POSIX shell: in single quotes nothing is special but the single quote.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' => out.push_str(r"'\''"),
            // No program can be given a NUL, and no terminal should be given an escape.
            c if c.is_control() && !matches!(c, '\n' | '\t') => {}
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}
