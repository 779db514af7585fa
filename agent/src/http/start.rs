//! Shapes that begin a message: request line, status line (RFC 9112 sections 3 and 4), PROXY protocol head.

use memchr::{memchr, memrchr};

/// Longest method token taken for one; RFC 9110 sets no limit, the longest registered has 16 bytes.
const METHOD: usize = 64;

/// What a line that begins a message says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Response,
}

/// A start line, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start<'a> {
    Request { method: &'a [u8], target: &'a [u8], version: u8 },
    Response { version: u8, status: u16, reason: &'a [u8] },
}

impl Start<'_> {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Start::Request { .. } => Kind::Request,
            Start::Response { .. } => Kind::Response,
        }
    }
}

/// Bytes of a token (RFC 9110 section 5.6.2).
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
            );
        byte += 1;
    }
    table
};

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| TOKEN[usize::from(*b)])
}

/// The line without its end: LF, or CR LF.
pub(super) fn chomp(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Takes a whole start line apart; None if it is none of HTTP/1.
pub(super) fn start_line(line: &[u8]) -> Option<Start<'_>> {
    let line = chomp(line);
    if let Some(rest) = line.strip_prefix(b"HTTP/1.") {
        let (minor, rest) = rest.split_first()?;
        let code = rest.strip_prefix(b" ")?;
        if !minor.is_ascii_digit() || code.len() < 3 || !code[..3].iter().all(u8::is_ascii_digit) {
            return None;
        }
        let status = code[..3].iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        let reason = match code.get(3) {
            None => &code[3..],
            Some(b' ') => &code[4..],
            Some(_) => return None,
        };
        return (status >= 100).then_some(Start::Response { version: 10 + (minor - b'0'), status, reason });
    }
    let space = memchr(b' ', &line[..line.len().min(METHOD + 1)])?;
    let method = &line[..space];
    let last = memrchr(b' ', line)?;
    let minor = line[last + 1..].strip_prefix(b"HTTP/1.")?;
    // Targets with spaces in them are seen in the wild and kept as they are.
    let target = line.get(space + 1..last)?;
    if minor.len() != 1 || !minor[0].is_ascii_digit() || target.is_empty() || !is_token(method) {
        return None;
    }
    Some(Start::Request { method, target, version: 10 + (minor[0] - b'0') })
}

/// Whether a line whose end has not come yet can begin a message.
pub(super) fn may_begin(line: &[u8]) -> bool {
    if status_prefix(line) {
        return true;
    }
    let method = &line[..line.len().min(METHOD + 1)];
    match memchr(b' ', method) {
        Some(space) => is_token(&method[..space]),
        None => line.len() <= METHOD && method.iter().all(|b| TOKEN[usize::from(*b)]),
    }
}

/// Methods with a specification (the IANA registry, those of caches and device discovery): after a loss only these begin a request.
const METHODS: [&[u8]; 46] = [
    b"ACL",
    b"BASELINE-CONTROL",
    b"BIND",
    b"CHECKIN",
    b"CHECKOUT",
    b"CONNECT",
    b"COPY",
    b"DELETE",
    b"GET",
    b"HEAD",
    b"LABEL",
    b"LINK",
    b"LOCK",
    b"M-SEARCH",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MKREDIRECTREF",
    b"MKWORKSPACE",
    b"MOVE",
    b"NOTIFY",
    b"OPTIONS",
    b"ORDERPATCH",
    b"PATCH",
    b"POST",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"PUT",
    b"QUERY",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"TRACE",
    b"UNBIND",
    b"UNCHECKOUT",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
    b"UPDATE",
    b"UPDATEREDIRECTREF",
    b"VERSION-CONTROL",
    b"BAN",
];

/// Whether a start line that was searched for is one beyond doubt. Where the end of an unseen body and the
/// next request share a line, that line is `ending-of-the-bodyPOST /x HTTP/1.1`, a request by its shape.
pub(super) fn is_plain(start: &Start<'_>) -> bool {
    match start {
        Start::Request { method, target, .. } => METHODS.contains(method) && target.iter().all(|b| *b > b' '),
        Start::Response { .. } => true,
    }
}

/// Length of what [`status_prefix`] can judge.
pub(super) const STATUS_PREFIX: usize = 12;

/// Whether the bytes can begin a status line: `HTTP/1.x NNN`, or a part of that.
pub(super) fn status_prefix(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"HTTP/1.0 000").all(|(byte, model)| match model {
        b'0' => byte.is_ascii_digit(),
        _ => byte == model,
    })
}

/// What the first bytes of a connection say about a PROXY protocol head (haproxy's proxy-protocol.txt, 2.1
/// and 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    /// So many bytes belong to it.
    Head(usize),
    None,
    /// Too few bytes to say.
    Open,
}

/// Longest version 1 head, bytes.
const PROXY_V1: usize = 107;

pub(super) fn proxy(bytes: &[u8]) -> Proxy {
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    const V1: &[u8] = b"PROXY ";
    let same = |model: &[u8]| bytes.iter().zip(model).all(|(a, b)| a == b);
    if same(V2) {
        return match bytes.get(14..16) {
            Some(_) if bytes[12] >> 4 != 2 => Proxy::None,
            Some(len) => Proxy::Head(16 + usize::from(u16::from_be_bytes([len[0], len[1]]))),
            None => Proxy::Open,
        };
    }
    if !same(V1) {
        return Proxy::None;
    }
    match memchr(b'\n', &bytes[..bytes.len().min(PROXY_V1)]) {
        Some(end) => {
            let line = &bytes[..=end];
            let family = [&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"];
            // `PROXY /path HTTP/1.1` would be a request with that method.
            let head = start_line(line).is_none() && family.iter().any(|f| line[V1.len()..].starts_with(f));
            if head { Proxy::Head(end + 1) } else { Proxy::None }
        }
        None if bytes.len() < PROXY_V1 => Proxy::Open,
        None => Proxy::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines() {
        type Line<'a> = (&'a [u8], &'a [u8], &'a [u8], u8);
        let good: [Line<'_>; 5] = [
            (b"GET / HTTP/1.1\r\n", b"GET", b"/", 11),
            (b"M-SEARCH * HTTP/1.0", b"M-SEARCH", b"*", 10),
            (b"x!#$%&'*+-.^_`|~9 http://h/ HTTP/1.1\n", b"x!#$%&'*+-.^_`|~9", b"http://h/", 11),
            (b"GET /a b c HTTP/1.1", b"GET", b"/a b c", 11),
            (b"PROXY /x HTTP/1.1", b"PROXY", b"/x", 11),
        ];
        for (line, method, target, version) in good {
            assert_eq!(start_line(line), Some(Start::Request { method, target, version }));
        }
        let bad: [&[u8]; 9] = [
            b"",
            b"GET",
            b"GET /",
            b"GET HTTP/1.1",
            b"GET  HTTP/1.1",
            b"G@T / HTTP/1.1",
            b" / HTTP/1.1",
            b"PRI * HTTP/2.0",
            b"GET / HTTP/1.12",
        ];
        for line in bad {
            assert_eq!(start_line(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn status_lines() {
        let good: [(&[u8], u8, u16, &[u8]); 4] = [
            (b"HTTP/1.1 200 OK\r\n", 11, 200, b"OK"),
            (b"HTTP/1.0 404", 10, 404, b""),
            (b"HTTP/1.1 999 \xff\0", 11, 999, b"\xff\0"),
            (b"HTTP/1.1 103 Early Hints", 11, 103, b"Early Hints"),
        ];
        for (line, version, status, reason) in good {
            assert_eq!(start_line(line), Some(Start::Response { version, status, reason }));
        }
        for line in [&b"HTTP/1.1 20"[..], b"HTTP/1.1 2000", b"HTTP/1.1  200", b"HTTP/2.0 200 OK", b"HTTP/1.1 099 x"] {
            assert_eq!(start_line(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn every_prefix_of_a_start_line_may_begin_one() {
        for line in [&b"GET /a?b HTTP/1.1\r\n"[..], b"HTTP/1.1 200 OK\r\n"] {
            for end in 1..line.len() {
                assert!(may_begin(&line[..end]), "{}", line[..end].escape_ascii());
            }
        }
        assert!(!may_begin(b"\x16\x03\x01"));
        assert!(!may_begin(&[b'a'; METHOD + 1]));
    }

    #[test]
    fn proxy_heads() {
        let v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
        assert_eq!(proxy(v1), Proxy::Head(v1.len()));
        assert_eq!(proxy(b"PROXY UNKNOWN\r\nGET"), Proxy::Head(15));
        assert_eq!(proxy(b"PROXY /x HTTP/1.1\r\n"), Proxy::None);
        assert_eq!(proxy(b"PRO"), Proxy::Open);
        assert_eq!(proxy(b"PUT"), Proxy::None);
        let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c............GET";
        assert_eq!(proxy(v2), Proxy::Head(28));
        assert_eq!(proxy(&v2[..15]), Proxy::Open);
        assert_eq!(proxy(b"\r\n\r\nGET / HTTP/1.1\r\n"), Proxy::None);
    }
}
