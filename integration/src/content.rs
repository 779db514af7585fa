//! Bodies that both ends and the test can make from a seed: no two stretches of them are alike, so bytes in
//! the wrong place are seen as wrong.

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

/// `len` bytes that follow from `seed` (xorshift64*).
#[must_use]
pub fn body(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random(&mut state).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// `len` bytes of numbered lines, for what must be text.
#[must_use]
pub fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut text = String::with_capacity(len + 32);
    for n in 0.. {
        if text.len() >= len {
            break;
        }
        let _ = writeln!(text, "line {n} of {seed}");
    }
    text.truncate(len);
    text.into_bytes()
}

/// The next number of a xorshift64* sequence; `state` is never zero.
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// SHA-1 in hexadecimal.
#[must_use]
pub fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().fold(String::with_capacity(40), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Names the difference of two bodies for a failing test; `None` when they are equal.
#[must_use]
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected.iter().zip(found).position(|(a, b)| a != b).unwrap_or(expected.len().min(found.len()));
    Some(format!(
        "{} bytes expected (sha1 {}), {} found (sha1 {}), first difference at {at}",
        expected.len(),
        sha1(expected),
        found.len(),
        sha1(found)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_follows_from_its_seed() {
        assert_eq!(body(7, 1000), body(7, 1000));
        assert_eq!(body(7, 13), body(7, 1000)[..13]);
        assert_ne!(body(7, 64), body(8, 64));
        assert_eq!(sha1(b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(difference(b"abcd", b"abxd").is_some_and(|d| d.ends_with("at 2")));
        assert!(difference(b"abcd", b"abc").is_some_and(|d| d.ends_with("at 3")));
    }
}
