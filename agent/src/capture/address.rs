//! The address that a request asks for: RFC 9112 section 3.2's four forms of a target.

use std::{borrow::Cow, net::SocketAddr};

use super::{
    head::text,
    redact::{Redactor, Tally},
};
use crate::http::Head;

/// The parts of a request's address, redacted.
#[derive(Debug)]
pub(super) struct Address<'a> {
    /// The request says which host it is for.
    pub(super) named: bool,
    /// Absolute address with the query string.
    pub(super) url: String,
    /// Host and port as asked for; the server's address when the request names none.
    pub(super) authority: Cow<'a, str>,
    /// Path without the query string; empty for CONNECT, `*` for the asterisk form.
    pub(super) path: String,
    /// The target as sent.
    pub(super) target: Cow<'a, str>,
}

/// The host that the request names: in an absolute target, else in `:authority`, else in `Host`.
fn host(head: &Head) -> Option<Cow<'_, str>> {
    let target = text(&head.target);
    if let Some((_, rest)) = absolute(&target) {
        return Some(Cow::Owned(authority(rest).0.to_owned()));
    }
    if head.method == b"CONNECT" && !target.is_empty() {
        return Some(target);
    }
    head.get(":authority").or_else(|| head.get("host")).filter(|host| !host.is_empty()).map(text)
}

/// Splits `scheme://rest`.
fn absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let named = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    named.then_some((scheme, rest))
}

/// Splits what follows `://` into the authority and the rest.
fn authority(rest: &str) -> (&str, &str) {
    rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()))
}

/// The address of a request that arrived at `server`.
pub(super) fn of<'a>(
    head: &'a Head,
    scheme: &str,
    server: SocketAddr,
    redactor: &Redactor,
    tally: &mut Tally,
) -> Address<'a> {
    let host = host(head);
    let named = host.is_some();
    let authority = match host {
        Some(host) => redactor.authority(host, "request", tally),
        None if server.port() == if scheme == "https" { 443 } else { 80 } => match server.ip() {
            std::net::IpAddr::V4(ip) => Cow::Owned(ip.to_string()),
            std::net::IpAddr::V6(ip) => Cow::Owned(format!("[{ip}]")),
        },
        None => Cow::Owned(server.to_string()),
    };
    let raw = text(&head.target);
    if head.method == b"CONNECT" {
        let url = format!("{scheme}://{authority}");
        return Address { named, url, path: String::new(), target: authority.clone(), authority };
    }
    if raw == "*" {
        let url = format!("{scheme}://{authority}");
        return Address { named, url, path: "*".into(), target: "*".into(), authority };
    }
    let target = redactor.url(raw, "request", tally);
    let (url, after) = match absolute(&target) {
        Some((_, rest)) => (target.clone().into_owned(), self::authority(rest).1),
        None => ([scheme, "://", &authority, &target].concat(), &*target),
    };
    let path = &after[..after.find(['?', '#']).unwrap_or(after.len())];
    let path = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    Address { named, url, authority, path, target }
}

/// An address with its port, as `Display` writes it. IPv4 goes without the machinery of formatting, which would
/// cost more than all else about a socket.
pub(super) fn socket(address: SocketAddr) -> String {
    let SocketAddr::V4(v4) = address else { return address.to_string() };
    let mut text = String::with_capacity(21);
    for (n, octet) in v4.ip().octets().into_iter().enumerate() {
        if n > 0 {
            text.push('.');
        }
        digits(&mut text, octet.into());
    }
    text.push(':');
    digits(&mut text, v4.port());
    text
}

fn digits(text: &mut String, n: u16) {
    if n >= 10 {
        digits(text, n / 10);
    }
    text.push(char::from(b'0' + (n % 10) as u8));
}

/// The host of an authority: without port, and without the brackets of IPv6.
pub(super) fn without_port(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split_once(']').map_or(rest, |(host, _)| host);
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.contains(':') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_written_as_display_writes_them() {
        let all =
            ["0.0.0.0:0", "192.0.2.1:65535", "10.200.30.9:80", "255.255.255.255:10", "[::1]:8080", "[2001:db8::7]:1"];
        for text in all {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket(address), address.to_string());
        }
    }
}
