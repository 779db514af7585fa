//! Header fields that were found to hold nothing secret, and names of JSON members that no secret goes by: clients
//! and servers repeat most of theirs word for word.
//!
//! What is secret in a field is told by its name and value alone, so the answer for equal ones is the same: the
//! lists are constants of the program. Lists that can be configured would make this a part of their `Redactor`.
//! Bounded: [`PLACES`] of both of at most [`LONGEST`] bytes for each thread; nothing secret is ever kept here.

use std::cell::RefCell;

const PLACES: usize = 256;
/// Name and value together. Longer fields are seldom repeated.
const LONGEST: usize = 192;

/// Fields by a number made of their ends and lengths. Of two in one place the later one stays.
struct Harmless(Vec<Field>);

#[derive(Clone, Default)]
struct Field {
    /// Where in `text` the value begins.
    value: usize,
    text: Vec<u8>,
}

thread_local! {
    static KNOWN: RefCell<Harmless> = RefCell::new(Harmless(vec![Field::default(); PLACES]));
}

/// Whether this field is remembered; if not, it is asked of `judge`, and remembered when that says yes.
pub(super) fn field(name: &[u8], value: &[u8], judge: impl FnOnce() -> bool) -> bool {
    // Without a name it is a line that is no field; here that would be a member's name.
    if name.is_empty() { judge() } else { known(name, value, judge) }
}

/// The same for the name of a JSON member, which says nothing about its value.
pub(super) fn member(name: &[u8], judge: impl FnOnce() -> bool) -> bool {
    known(b"", name, judge)
}

fn known(name: &[u8], value: &[u8], judge: impl FnOnce() -> bool) -> bool {
    if value.is_empty() || name.len() + value.len() > LONGEST {
        return judge();
    }
    let place = place(name, value);
    let known = KNOWN.with_borrow(|known| {
        let field = &known.0[place];
        // An empty name is not compared: see `process::same`.
        field.value == name.len()
            && (name.is_empty() || field.text.starts_with(name))
            && &field.text[name.len()..] == value
    });
    if known {
        return true;
    }
    let harmless = judge();
    if harmless {
        KNOWN.with_borrow_mut(|known| {
            let field = &mut known.0[place];
            field.value = name.len();
            field.text.clear();
            field.text.extend_from_slice(name);
            field.text.extend_from_slice(value);
        });
    }
    harmless
}

/// A number below [`PLACES`] in which names differ by length and ends, values by length and ends.
fn place(name: &[u8], value: &[u8]) -> usize {
    let ends = |text: &[u8]| {
        let byte = |b: Option<&u8>| b.map_or(0, |&b| usize::from(b));
        byte(text.first()) + 7 * byte(text.last()) + 31 * text.len()
    };
    (ends(name).wrapping_mul(0x9e37_79b1) ^ ends(value).wrapping_mul(0x85eb_ca6b)) >> 9 & (PLACES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_field_is_known_and_only_when_it_was_harmless() {
        let known = |name: &[u8], value: &[u8], judge: fn() -> bool| field(name, value, judge);
        assert!(!known(b"X-Ab", b"cd", || false));
        assert!(!known(b"X-Ab", b"cd", || false), "what was not harmless is asked again");
        assert!(known(b"X-Ab", b"cd", || true));
        assert!(known(b"X-Ab", b"cd", || panic!("it is known")));
        // The same bytes, cut elsewhere; another value of the same ends and length.
        assert!(!known(b"X-A", b"bcd", || false));
        assert!(known(b"X-Bb", b"cxd", || true));
        assert!(!known(b"X-Bb", b"cyd", || false));
        assert!(!known(b"X-Ab", &[b'x'; LONGEST], || false));
        // A member's name and a field of the same bytes are two things.
        assert!(member(b"X-Abcd", || true) && member(b"X-Abcd", || false));
        assert!(!known(b"", b"X-Abcd", || false), "a line without a name is no member's");
        assert!(!member(b"X-Bbcxd", || false));
    }
}
