//! Writes objects as JSON: the same bytes as `serde_json::to_vec` gives, for less.
//!
//! In: what this crate serialises. Out: bytes at the end of a buffer. Called by [`crate::seal`]. Two things
//! are quicker than there: a body goes into the buffer as base64 at once, without a text in between and
//! without a search for characters to escape, which base64 has none of; and text that needs no escapes is
//! copied as it stands. Everything else is `serde_json`'s. What has been written already is taken over as it
//! is ([`Part`]).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{
    Serialize, Serializer,
    ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple},
};
use serde_json::Error;

/// The name by which [`Writer`] knows a [`Part`].
const PART: &str = "transaction::write::Part";

/// JSON that was written before, by [`append`]. Only [`append`] can write it.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a>(pub(crate) &'a [u8]);

impl Serialize for Part<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        struct Bytes<'a>(&'a [u8]);
        impl Serialize for Bytes<'_> {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_bytes(self.0)
            }
        }
        s.serialize_newtype_struct(PART, &Bytes(self.0))
    }
}

/// Appends the JSON of `value`. Fails where `serde_json` would, and for what no object has (maps whose keys
/// are no texts, enums with values); then part of it may stand in `out`.
pub(crate) fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Error> {
    value.serialize(&mut Writer { out, verbatim: false })
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// The next bytes are a [`Part`].
    verbatim: bool,
}

impl Writer<'_> {
    fn base64(&mut self, bytes: &[u8]) {
        let Some(size) = base64::encoded_len(bytes.len(), true) else { return };
        self.out.push(b'"');
        let start = self.out.len();
        self.out.resize(start + size, b'=');
        // The slice is as long as the crate says that it must be.
        let written = STANDARD.encode_slice(bytes, &mut self.out[start..]).unwrap_or(0);
        self.out.truncate(start + written);
        self.out.push(b'"');
    }
}

/// RFC 8259 section 7: these alone must be escaped, and `serde_json` escapes no others. Eight bytes at a time,
/// the last eight once more, because most texts are short.
#[inline]
fn needs_escape(text: &[u8]) -> bool {
    match text.last_chunk::<8>() {
        Some(last) => {
            let words = text.as_chunks::<8>().0.iter().chain([last]);
            words.fold(0, |found, word| found | escapes(u64::from_ne_bytes(*word))) != 0
        }
        None => text.iter().any(|&b| b < b' ' || b == b'"' || b == b'\\'),
    }
}

/// Not zero when one of eight bytes is a control character, a quote or a backslash: a byte below `n` is one that
/// gets its high bit from the subtraction of `n` and had none before.
fn escapes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let below = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\')) & (ONES << 7)
}

macro_rules! as_serde_json {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, v: $type) -> Result<(), Error> {
            serde_json::to_writer(&mut *self.out, &v)
        }
    )*};
}

impl<'w, 'a> Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Members<'w, 'a>;
    type SerializeTuple = Members<'w, 'a>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Members<'w, 'a>;
    type SerializeStruct = Members<'w, 'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    as_serde_json!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char
    );

    #[inline]
    fn serialize_str(self, v: &str) -> Result<(), Error> {
        if needs_escape(v.as_bytes()) {
            return serde_json::to_writer(&mut *self.out, v);
        }
        self.out.reserve(v.len() + 2);
        self.out.push(b'"');
        self.out.extend_from_slice(v.as_bytes());
        self.out.push(b'"');
        Ok(())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), Error> {
        if std::mem::take(&mut self.verbatim) {
            self.out.extend_from_slice(v);
        } else {
            self.base64(v);
        }
        Ok(())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, name: &'static str, value: &T) -> Result<(), Error> {
        self.verbatim = name == PART;
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        Err(no_object_has(name))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Members<'w, 'a>, Error> {
        Ok(Members::new(self, b'[', b']'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Members<'w, 'a>, Error> {
        Ok(Members::new(self, b'[', b']'))
    }

    fn serialize_tuple_struct(self, name: &'static str, _: usize) -> Result<Impossible<(), Error>, Error> {
        Err(no_object_has(name))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        Err(no_object_has(name))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'w, 'a>, Error> {
        Ok(Members::new(self, b'{', b'}'))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'w, 'a>, Error> {
        Ok(Members::new(self, b'{', b'}'))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        Err(no_object_has(name))
    }

    /// So that a body gives its bytes.
    fn is_human_readable(&self) -> bool {
        false
    }
}

fn no_object_has(name: &str) -> Error {
    Error::custom(format_args!("{name} is of a kind that no object has"))
}

/// An object or an array on the way.
struct Members<'w, 'a> {
    to: &'w mut Writer<'a>,
    first: bool,
    close: u8,
}

impl<'w, 'a> Members<'w, 'a> {
    #[inline]
    fn new(to: &'w mut Writer<'a>, open: u8, close: u8) -> Self {
        to.out.push(open);
        Members { to, first: true, close }
    }

    #[inline]
    fn next(&mut self) -> &mut Writer<'a> {
        if !std::mem::take(&mut self.first) {
            self.to.out.push(b',');
        }
        self.to
    }

    #[inline]
    fn close(self) {
        self.to.out.push(self.close);
    }
}

impl SerializeSeq for Members<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(self.next())
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl SerializeTuple for Members<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(self.next())
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl SerializeMap for Members<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Result<(), Error> {
        let writer = self.next();
        let start = writer.out.len();
        key.serialize(&mut *writer)?;
        if writer.out.get(start) == Some(&b'"') { Ok(()) } else { Err(no_object_has("a key that is no text")) }
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        self.to.out.push(b':');
        value.serialize(&mut *self.to)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

impl SerializeStruct for Members<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: ?Sized + Serialize>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        let before: &[u8] = if std::mem::take(&mut self.first) { b"\"" } else { b",\"" };
        let out = &mut *self.to.out;
        out.reserve(name.len() + 64);
        // Members' names are this crate's own: none needs an escape.
        out.extend_from_slice(before);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        value.serialize(&mut *self.to)
    }

    fn end(self) -> Result<(), Error> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_seen() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=255 {
                    let mut text = vec![b'a'; length];
                    text[at] = byte;
                    let expected = byte < b' ' || byte == b'"' || byte == b'\\';
                    assert_eq!(needs_escape(&text), expected, "{byte} at {at} of {length}");
                    // Neighbours that borrow from each other.
                    text[(at + 1) % length] = 0x80;
                    assert_eq!(needs_escape(&text), expected && length > 1, "{byte} at {at} of {length} beside 0x80");
                }
            }
        }
    }
}
