//! Real handshakes: what the libraries of today say, byte for byte.
//!
//! Each file in `recorded/` has the commands of its two ends, and the first bytes that each sent, as a relay between
//! them on loopback saw them: `client`, up to 4096, and `server`, up to 320. OpenSSL 3.0.19, Go 1.26.8, Node 20.20.2
//! (OpenSSL 3 of its own), curl 7.88.1. Certificates were made for it with `openssl req -x509`. Where a session is
//! resumed, the connection that it comes from went before.

use proptest::prelude::*;

use super::{in_portions, *};

/// What is expected of a file: its name and contents, and the facts as texts.
struct Case {
    name: &'static str,
    text: &'static str,
    sni: &'static str,
    offered: &'static str,
    highest: &'static str,
    version: &'static str,
    cipher: &'static str,
    alpn: &'static str,
    error: &'static str,
}

macro_rules! case {
    ($name:literal, $sni:literal, $offered:literal, $highest:literal => $version:literal, $cipher:literal, $alpn:literal, $error:literal) => {
        Case {
            name: $name,
            text: include_str!(concat!("recorded/", $name, ".hex")),
            sni: $sni,
            offered: $offered,
            highest: $highest,
            version: $version,
            cipher: $cipher,
            alpn: $alpn,
            error: $error,
        }
    };
}

const API: &str = "api.example.com";

#[rustfmt::skip]
const CASES: &[Case] = &[
    case!("openssl-1.3", "api.example.com", "h2,http/1.1", "TLSv1.3" => "TLSv1.3", "TLS_AES_256_GCM_SHA384", "", ""),
    case!("openssl-1.3-bare", "", "", "TLSv1.3" => "TLSv1.3", "TLS_AES_256_GCM_SHA384", "", ""),
    case!("openssl-1.3-chacha", "api.example.com", "", "TLSv1.3" => "TLSv1.3", "TLS_CHACHA20_POLY1305_SHA256", "", ""),
    case!("openssl-1.3-resumed", "api.example.com", "http/1.1", "TLSv1.3" => "TLSv1.3", "TLS_AES_256_GCM_SHA384", "", ""),
    case!("openssl-1.3-early-data", "api.example.com", "", "TLSv1.3" => "TLSv1.3", "TLS_AES_256_GCM_SHA384", "", ""),
    case!("openssl-retry", "api.example.com", "http/1.1", "TLSv1.3" => "TLSv1.3", "TLS_AES_256_GCM_SHA384", "", ""),
    case!("openssl-1.2", "api.example.com", "h2,http/1.1", "TLSv1.3" => "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "http/1.1", ""),
    case!("openssl-1.2-no-choice", "api.example.com", "http/1.1", "TLSv1.3" => "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "", ""),
    case!("openssl-1.2-resumed", "api.example.com", "http/1.1", "TLSv1.3" => "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "http/1.1", ""),
    case!("openssl-1.1", "api.example.com", "", "TLSv1.1" => "TLSv1.1", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "", ""),
    case!("openssl-1.0", "api.example.com", "", "TLSv1.0" => "TLSv1.0", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA", "", ""),
    case!("openssl-no-common-suite", "api.example.com", "", "TLSv1.2" => "", "", "", "alert handshake_failure (40)"),
    case!("openssl-no-common-version", "api.example.com", "", "TLSv1.2" => "", "", "", "alert protocol_version (70)"),
    case!("openssl-unrecognised-name", "api.example.com", "", "TLSv1.3" => "", "", "", "alert unrecognized_name (112)"),
    case!("openssl-cleartext-answer", "api.example.com", "", "TLSv1.3" => "", "", "", "answer is not TLS"),
    case!("go-1.3", "api.example.com", "h2,http/1.1", "TLSv1.3" => "TLSv1.3", "TLS_AES_128_GCM_SHA256", "", ""),
    case!("node-1.3", "api.example.com", "h2,http/1.1", "TLSv1.3" => "TLSv1.3", "TLS_AES_256_GCM_SHA384", "", ""),
    case!("curl-1.2", "api.example.com", "h2,http/1.1", "TLSv1.3" => "TLSv1.2", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", "http/1.1", ""),
];

/// The bytes behind a word in a file.
fn bytes(text: &str, word: &str) -> Vec<u8> {
    let line = text.lines().find_map(|line| line.strip_prefix(word)).unwrap();
    let digits = line.trim().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

impl Case {
    fn client(&self) -> Vec<u8> {
        bytes(self.text, "client ")
    }

    fn server(&self) -> Vec<u8> {
        bytes(self.text, "server ")
    }

    fn expected(&self) -> Facts {
        Facts {
            client: Some(Side::A),
            client_hello: Seen::Whole,
            server_hello: if self.version.is_empty() { Seen::No } else { Seen::Whole },
            sni: self.sni.into(),
            alpn_offered: self.offered.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            version_offered: self.highest.into(),
            alpn: self.alpn.into(),
            version: self.version.into(),
            cipher: self.cipher.into(),
            error: self.error.into(),
            malformed: (self.error == "answer is not TLS").then_some("no TLS record"),
        }
    }
}

#[test]
fn each_recorded_handshake_gives_its_facts() {
    for case in CASES {
        assert_eq!(facts(&case.client(), &case.server()), case.expected(), "{}", case.name);
    }
}

#[test]
fn a_hello_in_small_records_is_put_together() {
    let text = include_str!("recorded/openssl-small-records.hex");
    let client = bytes(text, "client ");
    assert!(client.get(3..5) == Some(&[2, 0]) && client.get(517) == Some(&22), "it comes in records of 512 bytes");
    let facts = facts(&client, &bytes(text, "server "));
    let offered: Vec<String> = (0..16).map(|n| format!("protocol-{n}")).collect();
    assert_eq!((facts.sni.as_str(), facts.alpn_offered), (API, offered));
    assert_eq!((facts.version.as_str(), facts.malformed), ("TLSv1.3", None));
}

#[test]
fn both_hellos_settle_each_recorded_handshake() {
    for case in CASES {
        let mut handshake = Handshake::new();
        handshake.bytes(Side::A, &case.client());
        assert!(!handshake.done(), "{}", case.name);
        handshake.bytes(Side::B, &case.server());
        assert!(handshake.done(), "{}", case.name);
        assert_eq!(handshake.held(), 0, "{}", case.name);
    }
}

#[test]
fn a_recorded_hello_cut_anywhere_gives_true_facts_or_none() {
    for case in CASES {
        let (client, server, expected) = (case.client(), case.server(), case.expected());
        let true_or_none = |text: &str, expected: &str| text.is_empty() || text == expected;
        for cut in 0..client.len().max(server.len()) {
            let mut handshake = Handshake::new();
            for (side, bytes) in [(Side::A, &client), (Side::B, &server)] {
                handshake.bytes(side, bytes.get(..cut).unwrap_or(bytes));
                handshake.gap(side);
            }
            let read = handshake.into_facts();
            for (text, expected) in [
                (&read.sni, &expected.sni),
                (&read.version_offered, &expected.version_offered),
                (&read.alpn, &expected.alpn),
                (&read.version, &expected.version),
                (&read.cipher, &expected.cipher),
                (&read.error, &expected.error),
            ] {
                assert!(true_or_none(text, expected), "{} cut at {cut}: {text} for {expected}", case.name);
            }
            assert!(read.alpn_offered.is_empty() || read.alpn_offered == expected.alpn_offered, "{} {cut}", case.name);
            assert!(read.malformed.is_none() || read.malformed == expected.malformed, "{} cut at {cut}", case.name);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn portions_of_recorded_handshakes_do_not_matter(
        case in prop::sample::select((0..CASES.len()).collect::<Vec<_>>()),
        sizes in prop::collection::vec((any::<bool>(), 1usize..200), 1..40),
    ) {
        let case = &CASES[case];
        let handshake = in_portions(&case.client(), &case.server(), &sizes);
        prop_assert_eq!(handshake.facts(), &case.expected());
    }
}
