//! Reads a `ServerHello` (RFC 8446 section 4.1.3, RFC 5246 section 7.4.1.3).
//!
//! In: the message's body, or its beginning. Out: version, cipher suite and protocol chosen, in [`Facts`].

use super::{
    Facts, Seen, client,
    cursor::{Cursor, extensions},
    extension, suites, version,
};

/// What stands for the random in a `HelloRetryRequest`: SHA-256 of that word (RFC 8446 section 4.1.3).
pub(super) const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Whether this is a `HelloRetryRequest`: the client sends another hello, and the `ServerHello` comes after that.
pub(super) fn is_retry(body: &[u8]) -> bool {
    body.get(2..34) == Some(&RETRY)
}

/// Reads what there is.
pub(super) fn read(body: &[u8], whole: bool, facts: &mut Facts) {
    facts.server_hello = if whole { Seen::Whole } else { Seen::Part };
    let mut at = Cursor(body);
    let Some((legacy, suite)) = before_extensions(&mut at) else {
        if whole {
            facts.malformed.get_or_insert("a ServerHello that is too short");
        }
        return;
    };
    facts.cipher = suites::text(suite);
    let (mut protocols, mut selected) = (None, None);
    let fit = extensions(at, whole, |kind, data| match kind {
        extension::PROTOCOLS => _ = protocols.get_or_insert(data),
        extension::VERSIONS => _ = selected.get_or_insert(data),
        _ => {}
    });
    if !fit {
        facts.malformed.get_or_insert("extensions that do not fill the ServerHello");
    }
    facts.version = match selected.map(|data| Cursor(data).u16()) {
        Some(Some(number)) => version(number),
        // Before TLS 1.3 there is no such extension. Of a hello that was cut it may have been in the rest.
        None if whole => version(legacy),
        _ => String::new(),
    };
    if let Some(data) = protocols {
        let mut names = client::names(data).into_iter().flatten();
        match (names.next(), names.next()) {
            (Some(name), None) => facts.alpn = name,
            _ => _ = facts.malformed.get_or_insert("a choice of protocol that is none"),
        }
    }
}

/// Version and cipher suite, and `at` behind what comes before the extensions.
fn before_extensions(at: &mut Cursor<'_>) -> Option<(u16, u16)> {
    let legacy = at.u16()?;
    let _random: [u8; 32] = at.array()?;
    let _session = at.vector8()?;
    let suite = at.u16()?;
    let _compression = at.u8()?;
    Some((legacy, suite))
}
