//! Body of the fuzz target `tls_handshake`, also run by the property tests: any operations on a [`Handshake`] from
//! bytes, with the promises that hold for all of them.

use super::{Facts, Handshake, LIMIT};
use crate::http::Side;

/// Reads operations from `input`: a byte that says which, one that says how long, then the bytes.
///
/// # Panics
/// When a promise is broken: portions that matter, memory beyond the limit, texts that are not short and printable,
/// facts that change after the end.
pub fn tls_handshake(input: &[u8]) {
    let (mut in_portions, mut byte_by_byte) = (Handshake::new(), Handshake::new());
    let mut input = input;
    while let [op, len, rest @ ..] = input {
        let side = if op & 1 == 0 { Side::A } else { Side::B };
        let before = in_portions.done().then(|| in_portions.facts().clone());
        // One in sixteen is a gap; otherwise three more bits make the length up to 2047.
        if op >> 4 == 15 {
            in_portions.gap(side);
            byte_by_byte.gap(side);
            input = rest;
        } else {
            let len = (usize::from(*len) | usize::from(op >> 1 & 7) << 8).min(rest.len());
            let (bytes, after) = rest.split_at(len);
            in_portions.bytes(side, bytes);
            for byte in bytes {
                byte_by_byte.bytes(side, std::slice::from_ref(byte));
            }
            input = after;
        }
        check(&in_portions);
        check(&byte_by_byte);
        assert_eq!(in_portions.facts(), byte_by_byte.facts(), "portions matter");
        assert_eq!(in_portions.done(), byte_by_byte.done(), "portions matter");
        if let Some(before) = before {
            assert_eq!(in_portions.facts(), &before, "something changed after the end");
        }
    }
    in_portions.gap(Side::A);
    in_portions.gap(Side::B);
    check(&in_portions);
    assert!(in_portions.done(), "a gap in both directions is not the end");
}

fn check(handshake: &Handshake) {
    let held = handshake.held();
    assert!(held <= 2 * LIMIT, "{held} bytes held");
    assert!(!handshake.done() || held == 0, "{held} bytes held after the end");
    let Facts { sni, alpn_offered, version_offered, alpn, version, cipher, error, .. } = handshake.facts();
    assert!(alpn_offered.len() <= 16);
    let numbers = [version_offered, version, cipher, error];
    let names = alpn_offered.iter().chain([sni, alpn]);
    for (text, most) in numbers.into_iter().map(|text| (text, 64)).chain(names.map(|text| (text, 4 * 255))) {
        assert!(text.len() <= most && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text:?}");
    }
}
