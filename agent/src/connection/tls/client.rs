//! Reads a `ClientHello` (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
//!
//! In: the message's body, or its beginning. Out: server name, protocols and version offered, in [`Facts`].

use super::{
    Facts, Seen,
    cursor::{Cursor, extensions},
    extension, is_grease, printable, version,
};

/// Most names of protocols that are kept; browsers offer two, libraries up to four.
const MOST_NAMES: usize = 16;

/// Longest name of a host (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 255;

/// Reads what there is.
pub(super) fn read(body: &[u8], whole: bool, facts: &mut Facts) {
    facts.client_hello = if whole { Seen::Whole } else { Seen::Part };
    let mut at = Cursor(body);
    let Some(legacy) = before_extensions(&mut at) else {
        if whole {
            facts.malformed.get_or_insert("a ClientHello that is too short");
        }
        return;
    };
    let (mut name, mut protocols, mut versions) = (None, None, None);
    let fit = extensions(at, whole, |kind, data| match kind {
        extension::SERVER_NAME => _ = name.get_or_insert(data),
        extension::PROTOCOLS => _ = protocols.get_or_insert(data),
        extension::VERSIONS => _ = versions.get_or_insert(data),
        _ => {}
    });
    if !fit {
        facts.malformed.get_or_insert("extensions that do not fill the ClientHello");
    }
    if let Some(data) = name {
        match server_name(data) {
            Some(name) => facts.sni = name,
            None => _ = facts.malformed.get_or_insert("a server name that is none"),
        }
    }
    if let Some(data) = protocols {
        match names(data) {
            Some(names) => facts.alpn_offered = names.take(MOST_NAMES).collect(),
            None => _ = facts.malformed.get_or_insert("a list of protocols that is none"),
        }
    }
    facts.version_offered = match versions {
        Some(data) => highest(data),
        // Before TLS 1.3 the one number is the highest. Of a hello that was cut the list may have been in the rest.
        None if whole => version(legacy),
        None => String::new(),
    };
}

/// The version, and `at` behind what comes before the extensions.
fn before_extensions(at: &mut Cursor<'_>) -> Option<u16> {
    let legacy = at.u16()?;
    let _random: [u8; 32] = at.array()?;
    let _session = at.vector8()?;
    let _suites = at.vector16()?;
    let _compressions = at.vector8()?;
    Some(legacy)
}

/// The first host name of the extension (RFC 6066 section 3).
fn server_name(data: &[u8]) -> Option<String> {
    const HOST_NAME: u8 = 0;
    let mut list = Cursor(Cursor(data).vector16()?);
    loop {
        let kind = list.u8()?;
        let name = list.vector16()?;
        if kind == HOST_NAME {
            return (1..=LONGEST_NAME).contains(&name.len()).then(|| printable(name, b""));
        }
    }
}

/// The names of the extension (RFC 7301 section 3.1), without reserved ones.
pub(super) fn names(data: &[u8]) -> Option<impl Iterator<Item = String>> {
    let list = Cursor(Cursor(data).vector16()?);
    let mut check = list;
    while !check.is_empty() {
        check.vector8().filter(|name| !name.is_empty())?;
    }
    let mut list = list;
    let names = std::iter::from_fn(move || list.vector8());
    Some(names.filter(|name| !Cursor(name).u16().is_some_and(|n| name.len() == 2 && is_grease(n))).map(protocol))
}

/// A protocol's name, fit for a list that is joined by commas.
fn protocol(name: &[u8]) -> String {
    printable(name, b",\\")
}

/// The highest of the versions in the extension (RFC 8446 section 4.2.1).
fn highest(data: &[u8]) -> String {
    let list = Cursor(data).vector8().unwrap_or_default();
    let numbers = list.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair));
    numbers.filter(|number| !is_grease(*number)).max().map(version).unwrap_or_default()
}
