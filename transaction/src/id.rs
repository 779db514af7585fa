//! Identifiers of connections, requests and exchanges: 20 characters, as Qtap's are.

use sha1::Digest as _;

/// An identifier made of `parts`: the first 100 bits of their SHA-1 in lower-case base32hex (RFC 4648
/// section 7), so the same parts always give the same 20 characters.
#[must_use]
pub fn id(parts: &[&[u8]]) -> String {
    let mut hash = sha1::Sha1::new();
    for p in parts {
        hash.update((p.len() as u32).to_le_bytes());
        hash.update(p);
    }
    let sum: [u8; 20] = hash.finalize().into();
    let mut wide = [0u8; 16];
    wide.copy_from_slice(&sum[..16]);
    let bits = u128::from_be_bytes(wide);
    (0..20).map(|i| char::from(b"0123456789abcdefghijklmnopqrstuv"[(bits >> (123 - 5 * i)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn is_twenty_characters_and_depends_on_how_the_parts_are_cut() {
        assert_eq!(id(&[b"ab", b"c"]).len(), 20);
        assert_eq!(id(&[b"ab", b"c"]), id(&[b"ab", b"c"]));
        assert_ne!(id(&[b"ab", b"c"]), id(&[b"a", b"bc"]));
    }
}
