//! Files that are damaged, cut, or made to hurt: an answer or an error, never a panic.

use agent::library::plan_fuzz::library as planned;
use proptest::prelude::*;

use super::build::{Function, Shape, at, call, file};

fn library() -> Vec<u8> {
    let caller = |n: u64, to: u64| {
        let mut code = b"\x48\x83\xec\x18\x48\x89\xe1".to_vec();
        code.extend(call(at(n) + 7, at(to)));
        code.extend(b"\x85\xc0\x7e\x03\x8b\x04\x24\x48\x83\xc4\x18\xc3");
        code
    };
    let inner = b"\xf3\x0f\x1e\xfa\x53\x5b\xc3".to_vec();
    let functions: [Function<'_>; 5] = [
        (Some("SSL_read"), caller(0, 4)),
        (Some("SSL_read_ex"), caller(1, 4)),
        (Some("SSL_write"), caller(2, 4)),
        (Some("SSL_free"), inner.clone()),
        (None, inner),
    ];
    file(&Shape::default(), &functions)
}

#[test]
fn cut_anywhere() {
    let whole = library();
    assert!(planned(&whole) > 4);
    // The section headers are at the end: without them there are no symbols.
    let missing = (0..whole.len()).filter(|end| planned(&whole[..*end]) == 0).count();
    assert_eq!(missing, whole.len());
}

#[test]
fn tables_at_the_end_of_numbers() {
    let whole = library();
    // e_phoff, e_shoff, and the offsets and sizes in all headers.
    for at in (32..whole.len() - 8).filter(|at| *at < 256 || *at > whole.len() - 256) {
        for value in [u64::MAX, u64::MAX - 63, 1 << 63, i64::MAX as u64, u64::from(u32::MAX)] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let _ = planned(&bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn damaged(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..64)) {
        let mut bytes = library();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = planned(&bytes);
    }

    #[test]
    fn any_code(codes in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 4..6)) {
        let names = ["SSL_read", "SSL_read_ex", "SSL_write", "SSL_write_ex", "SSL_free"];
        let functions: Vec<Function<'_>> =
            codes.into_iter().enumerate().map(|(n, code)| (names.get(n).copied(), code)).collect();
        let _ = planned(&file(&Shape::default(), &functions));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = planned(&bytes);
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0".to_vec();
        elf.extend(bytes);
        let _ = planned(&elf);
    }
}
