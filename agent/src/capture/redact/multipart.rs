//! Multipart bodies (RFC 2046, RFC 7578): the contents of a part with a secret's name are masked, those of any
//! other part are treated as a body of their own.

use super::{
    names::{self, Kind},
    pass::Pass,
    walk,
};

/// Masks what is secret in the parts between lines of `boundary`.
pub(super) fn parts(pass: &mut Pass<'_, '_>, boundary: &[u8]) {
    let src = pass.src;
    let line = [b"--", boundary].concat();
    let finder = memchr::memmem::Finder::new(&line);
    let mut from = 0;
    loop {
        let to = finder.find(&src[from..]).map_or(src.len(), |at| from + at);
        part(pass, from, to);
        if to == src.len() {
            return;
        }
        from = to + line.len();
    }
}

/// One part: its head, an empty line, its contents up to the line feed before the next boundary.
fn part(pass: &mut Pass<'_, '_>, from: usize, to: usize) {
    let src = pass.src;
    let all = &src[from..to];
    let (head_end, contents) = match (memchr::memmem::find(all, b"\r\n\r\n"), memchr::memmem::find(all, b"\n\n")) {
        (Some(long), short) if short.is_none_or(|short| long < short) => (from + long, from + long + 4),
        (_, Some(short)) => (from + short, from + short + 2),
        _ => (to, to),
    };
    pass.text(from..head_end);
    if contents >= to {
        return;
    }
    let last = to == src.len();
    let end = match &src[contents..to] {
        [.., b'\r', b'\n'] if !last => to - 2,
        [.., b'\n'] if !last => to - 1,
        _ => to,
    };
    let head = &src[from..head_end];
    if let Some(word) = name(head).and_then(|name| names::secret(&name, Kind::Query)) {
        pass.mask(contents..end, "form", word);
        return;
    }
    let media = field(head, "content-type").map(String::from_utf8_lossy).unwrap_or_default();
    let cut = pass.cut && last;
    let inner = &src[contents..end];
    if pass.depth < 3 {
        if let Some(redacted) = walk(inner, &media, pass.place, pass.tally, cut, pass.depth + 1) {
            pass.edit.replace(contents..end, &redacted);
        }
    } else {
        pass.text(contents..end);
    }
}

/// The value of a field of a part's head.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&b| b == b'\n').find_map(|line| {
        let colon = line.iter().position(|&b| b == b':')?;
        line[..colon].trim_ascii().eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

/// The part's `name` (RFC 7578 section 4.2), in quotes or not.
fn name(head: &[u8]) -> Option<Vec<u8>> {
    let disposition = field(head, "content-disposition")?;
    disposition.split(|&b| b == b';').find_map(|parameter| {
        let parameter = parameter.trim_ascii();
        let equals = parameter.iter().position(|&b| b == b'=')?;
        let label = parameter[..equals].trim_ascii();
        if !(label.eq_ignore_ascii_case(b"name") || label.eq_ignore_ascii_case(b"name*")) {
            return None;
        }
        let value = parameter[equals + 1..].trim_ascii();
        Some(super::pass::percent_decoded(
            value.strip_prefix(b"\"").map_or(value, |rest| rest.strip_suffix(b"\"").unwrap_or(rest)),
        ))
    })
}
