//! Undoes content codings (RFC 9110 section 8.4), so that what is secret can be found in what was compressed.
//!
//! In: the codings in the order in which they were applied, and the bytes. Out: as much as could be decoded.
//! Hostile input is bounded by [`OUTPUT_LIMIT`] at each step and [`MOST_CODINGS`] steps, whatever the ratio.

use std::io::Read;

/// No step yields more bytes than this.
pub(super) const OUTPUT_LIMIT: usize = 4 * 1024 * 1024;

/// A longer stack of codings is taken as undecodable: nobody sends one in good faith.
const MOST_CODINGS: usize = 4;

/// RFC 9659 section 3: a decoder of `zstd` need not take windows over 8 MiB.
const ZSTD_WINDOW_LOG: u32 = 23;

/// A content coding that can be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The codings named in `values` (of Content-Encoding fields, in order), `identity` left out; `None` when
/// one is not known or there are too many.
pub(super) fn codings<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Coding>> {
    let mut list = Vec::new();
    for word in values.flat_map(|value| value.split(|&b| b == b',')).map(<[u8]>::trim_ascii) {
        list.push(match word.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => continue,
            b"gzip" | b"x-gzip" => Coding::Gzip,
            b"deflate" => Coding::Deflate,
            b"br" => Coding::Brotli,
            b"zstd" => Coding::Zstd,
            _ => return None,
        });
    }
    (list.len() <= MOST_CODINGS).then_some(list)
}

/// The coding that the first bytes show, for bodies whose sender did not say it.
pub(super) fn by_magic(bytes: &[u8]) -> Option<Coding> {
    match bytes {
        [0x1f, 0x8b, 8, ..] => Some(Coding::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Coding::Zstd),
        _ => None,
    }
}

/// What decoding gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// As much as could be decoded.
    pub(super) bytes: Vec<u8>,
    /// Every stream was decoded to its end.
    pub(super) whole: bool,
    /// The output was cut at [`OUTPUT_LIMIT`].
    pub(super) limited: bool,
}

/// Undoes `codings`, the last one first. A broken or cut stream gives what came before the fault.
pub(super) fn decode(codings: &[Coding], bytes: &[u8]) -> Decoded {
    let mut out = Decoded { whole: true, ..Decoded::default() };
    for (step, coding) in codings.iter().rev().enumerate() {
        let input = if step == 0 { bytes } else { &std::mem::take(&mut out.bytes) };
        let (decoded, whole, limited) = one(*coding, input);
        out = Decoded { bytes: decoded, whole: out.whole && whole, limited: out.limited || limited };
    }
    out
}

fn one(coding: Coding, input: &[u8]) -> (Vec<u8>, bool, bool) {
    match coding {
        Coding::Gzip => drain(flate2::bufread::MultiGzDecoder::new(input), input.len()),
        // RFC 9110 section 8.4.1.2: `deflate` is zlib's format; some senders leave its two bytes out.
        Coding::Deflate if is_zlib(input) => drain(flate2::bufread::ZlibDecoder::new(input), input.len()),
        Coding::Deflate => drain(flate2::bufread::DeflateDecoder::new(input), input.len()),
        Coding::Brotli => drain(brotli_decompressor::Decompressor::new(input, 4096), input.len()),
        Coding::Zstd => match zstd::stream::read::Decoder::with_buffer(input) {
            Ok(mut decoder) => {
                // Cannot fail: the value is inside of the library's bounds.
                let _ = decoder.window_log_max(ZSTD_WINDOW_LOG);
                drain(decoder, input.len())
            }
            Err(_) => (Vec::new(), false, false),
        },
    }
}

/// RFC 1950 section 2.2: method 8, and the two bytes are a multiple of 31.
fn is_zlib(input: &[u8]) -> bool {
    matches!(input, [cmf, flags, ..] if cmf & 15 == 8 && (u16::from(*cmf) << 8 | u16::from(*flags)) % 31 == 0)
}

/// Reads to the end, to the limit or to the first fault.
fn drain(mut from: impl Read, input: usize) -> (Vec<u8>, bool, bool) {
    let mut out = Vec::with_capacity(input.saturating_mul(4).min(64 * 1024));
    let mut piece = [0; 8192];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return (out, true, false),
            Ok(n) => {
                let room = OUTPUT_LIMIT - out.len();
                out.extend_from_slice(&piece[..n.min(room)]);
                if n > room {
                    return (out, false, true);
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return (out, false, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut to = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        to.write_all(bytes).unwrap();
        to.finish().unwrap()
    }

    fn deflate(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        zlib.write_all(bytes).unwrap();
        let mut raw = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        raw.write_all(bytes).unwrap();
        (zlib.finish().unwrap(), raw.finish().unwrap())
    }

    /// "the same sentence again and again " forty times, by the reference encoder at quality 5.
    const BROTLI: &[u8] = include_bytes!("../../tests/data/sentences.br");

    fn sentences() -> Vec<u8> {
        b"the same sentence again and again ".repeat(40)
    }

    #[test]
    fn undoes_each_coding_and_a_stack_of_them() {
        let text = sentences();
        let (zlib, raw) = deflate(&text);
        let zstd = zstd::encode_all(&*text, 3).unwrap();
        for (coding, coded) in [
            (Coding::Gzip, gzip(&text)),
            (Coding::Deflate, zlib),
            (Coding::Deflate, raw),
            (Coding::Zstd, zstd.clone()),
            (Coding::Brotli, BROTLI.to_vec()),
        ] {
            assert_eq!(
                decode(&[coding], &coded),
                Decoded { bytes: text.clone(), whole: true, limited: false },
                "{coding:?}"
            );
        }
        assert_eq!(decode(&[Coding::Zstd, Coding::Gzip], &gzip(&zstd)).bytes, text);
        let members = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decode(&[Coding::Gzip], &members).bytes, b"one two");
    }

    #[test]
    fn a_cut_or_broken_stream_gives_its_beginning() {
        let text: Vec<u8> =
            (0..20_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 7).to_string().into_bytes()).collect();
        let (zlib, _) = deflate(&text);
        for (coding, coded) in
            [(Coding::Gzip, gzip(&text)), (Coding::Deflate, zlib), (Coding::Zstd, zstd::encode_all(&*text, 3).unwrap())]
        {
            let cut = decode(&[coding], &coded[..coded.len() * 9 / 10]);
            assert!(!cut.whole && !cut.bytes.is_empty() && text.starts_with(&cut.bytes), "{coding:?}");
            let broken = decode(&[coding], b"this was never compressed at all");
            assert!(!broken.whole, "{coding:?}");
        }
    }

    #[test]
    fn a_bomb_is_cut_at_the_limit() {
        let zeros = vec![0; 64 * 1024 * 1024];
        for (coding, coded) in [(Coding::Gzip, gzip(&zeros)), (Coding::Zstd, zstd::encode_all(&*zeros, 3).unwrap())] {
            let out = decode(&[coding], &coded);
            assert_eq!((out.bytes.len(), out.whole, out.limited), (OUTPUT_LIMIT, false, true), "{coding:?}");
        }
    }

    #[test]
    fn unknown_codings_and_tall_stacks_are_refused() {
        let list = |text: &str| codings([text.as_bytes()].into_iter());
        assert_eq!(list(" GZIP , identity,br"), Some(vec![Coding::Gzip, Coding::Brotli]));
        assert_eq!(list("compress"), None);
        assert_eq!(list("gzip,gzip,gzip,gzip,gzip"), None);
        assert_eq!(list(""), Some(vec![]));
    }
}
