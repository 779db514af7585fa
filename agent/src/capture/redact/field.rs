//! Header fields: credentials keep their scheme, cookies their names.

use super::{
    names::{self, Kind},
    pass::Pass,
};

/// Registered authentication schemes and those in common use: the word that may stay before the credentials.
const SCHEMES: &[&str] = &[
    "basic",
    "bearer",
    "digest",
    "negotiate",
    "ntlm",
    "hoba",
    "mutual",
    "vapid",
    "dpop",
    "gnap",
    "oauth",
    "token",
    "apikey",
    "hawk",
    "aws",
    "aws4-hmac-sha256",
    "scram-sha-1",
    "scram-sha-256",
    "sharedkey",
    "sharedkeylite",
    "ssws",
    "privatetoken",
    "concealed",
    "googlelogin",
    "key",
];

/// Attributes of Set-Cookie (RFC 6265 section 4.1.1 and its successors); anything else is taken as a value.
const ATTRIBUTES: &[&str] =
    &["path", "domain", "expires", "max-age", "secure", "httponly", "samesite", "partitioned", "priority"];

/// Fields whose value is an address without more.
const ADDRESSES: &[&str] = &[
    "referer",
    "location",
    "content-location",
    "origin",
    "x-original-url",
    "x-rewrite-url",
    "x-forwarded-uri",
    ":path",
];

/// Masks what is secret in the value of the field `name`.
pub(super) fn value(pass: &mut Pass<'_, '_>, name: &str) {
    let all = 0..pass.src.len();
    let is = |list: &[&str]| list.iter().any(|known| name.eq_ignore_ascii_case(known));
    if is(&["cookie", "cookie2"]) {
        cookies(pass, false);
    } else if is(&["set-cookie", "set-cookie2"]) {
        cookies(pass, true);
    } else if is(ADDRESSES) {
        pass.address(all);
    } else if is(&["host", ":authority"]) {
        pass.authority(all);
    } else if let Some(word) = names::secret(name.as_bytes(), Kind::Header) {
        credentials(pass, word);
    } else if pass.src.len() > 4 {
        pass.text(all);
    }
}

/// Everything but the scheme.
fn credentials(pass: &mut Pass<'_, '_>, word: &str) {
    let src = pass.src;
    let scheme = src.iter().position(|&b| b == b' ').unwrap_or(src.len());
    let known = SCHEMES.iter().any(|known| src[..scheme].eq_ignore_ascii_case(known.as_bytes()));
    let start = if known { src.len().min(scheme + 1) } else { 0 };
    // `Negotiate` alone asks for nothing to be hidden; a bare `token` might be the secret itself.
    if known && scheme == src.len() && word == "authorization" {
        return;
    }
    let start = if start >= src.len() { 0 } else { start };
    pass.mask(start..src.len(), "", "");
}

/// The values of the pairs; of Set-Cookie only the first pair's, and of attributes that nobody knows.
fn cookies(pass: &mut Pass<'_, '_>, set: bool) {
    let src = pass.src;
    let mut from = 0;
    while from < src.len() {
        let to = memchr::memchr(b';', &src[from..]).map_or(src.len(), |at| from + at);
        let pair = &src[from..to];
        let equals = memchr::memchr(b'=', pair);
        let name = pair[..equals.unwrap_or(pair.len())].trim_ascii();
        let attribute = set && from > 0 && ATTRIBUTES.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        if attribute {
            pass.text(from..to);
        } else {
            let blank = pair.len() - pair.trim_ascii_start().len();
            pass.mask(from + equals.map_or(blank, |at| at + 1)..to, "", "");
        }
        from = to + 1;
    }
}
