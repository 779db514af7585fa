//! Hellos made here, and hostile bytes. Real handshakes are in `recorded`.

use proptest::prelude::*;

use super::*;

mod recorded;

/// A record of one type around `payload`.
fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, length[0], length[1]], payload].concat()
}

fn alert(level: u8, code: u8) -> Vec<u8> {
    record(21, &[level, code])
}

/// A vector behind its length in one byte.
fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// A vector behind its length in two bytes.
fn long(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, a, b, c], body].concat()
}

fn extensions(list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    long(&list.iter().flat_map(|(kind, data)| [kind.to_be_bytes().to_vec(), long(data)].concat()).collect::<Vec<_>>())
}

/// The body of a `ClientHello`.
fn client_hello(version: u16, list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let version = version.to_be_bytes().to_vec();
    let (suites, compressions) = (long(&[0x1a, 0x1a, 0x13, 0x01]), short(&[0]));
    [version, vec![7; 32], short(&[9; 32]), suites, compressions, extensions(list)].concat()
}

/// The body of a `ServerHello`.
fn server_hello(version: u16, suite: u16, list: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let (version, suite) = (version.to_be_bytes().to_vec(), suite.to_be_bytes().to_vec());
    [version, vec![8; 32], short(&[9; 32]), suite, vec![0], extensions(list)].concat()
}

fn name(host: &[u8]) -> (u16, Vec<u8>) {
    (0, long(&[vec![0], long(host)].concat()))
}

fn protocols(names: &[&[u8]]) -> (u16, Vec<u8>) {
    (16, long(&names.iter().flat_map(|name| short(name)).collect::<Vec<_>>()))
}

fn versions(list: &[u16]) -> (u16, Vec<u8>) {
    (43, short(&list.iter().flat_map(|version| version.to_be_bytes()).collect::<Vec<_>>()))
}

fn chosen_version(number: u16) -> (u16, Vec<u8>) {
    (43, number.to_be_bytes().to_vec())
}

/// The facts of both directions' bytes, the client's from side A.
fn facts(client: &[u8], server: &[u8]) -> Facts {
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, client);
    handshake.bytes(Side::B, server);
    handshake.into_facts()
}

fn client_facts(list: &[(u16, Vec<u8>)]) -> Facts {
    facts(&record(22, &message(1, &client_hello(0x0303, list))), &[])
}

fn usual_client() -> Vec<u8> {
    let list = [
        (0x3a3a, vec![]),
        (51, vec![5; 1216]),
        protocols(&[b"\x2a\x2a", b"h2", b"http/1.1"]),
        versions(&[0x7a7a, 0x0304, 0x0303]),
        name(b"api.example.com"),
    ];
    record(22, &message(1, &client_hello(0x0303, &list)))
}

fn usual_server() -> Vec<u8> {
    record(22, &message(2, &server_hello(0x0303, 0x1301, &[(51, vec![5; 36]), chosen_version(0x0304)])))
}

#[test]
fn both_hellos_give_all_facts() {
    let facts = facts(&usual_client(), &usual_server());
    let expected = Facts {
        client: Some(Side::A),
        client_hello: Seen::Whole,
        server_hello: Seen::Whole,
        sni: "api.example.com".into(),
        alpn_offered: vec!["h2".into(), "http/1.1".into()],
        version_offered: "TLSv1.3".into(),
        version: "TLSv1.3".into(),
        cipher: "TLS_AES_128_GCM_SHA256".into(),
        ..Facts::default()
    };
    assert_eq!(facts, expected);
}

#[test]
fn the_client_is_who_sends_the_client_hello() {
    let mut handshake = Handshake::new();
    handshake.bytes(Side::B, &usual_client());
    assert!(!handshake.done());
    handshake.bytes(Side::A, &usual_server());
    assert!(handshake.done());
    assert_eq!(handshake.facts().client, Some(Side::B));
    // The server's bytes may be read first.
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, &usual_server());
    assert_eq!(handshake.facts().client, Some(Side::B));
    handshake.bytes(Side::B, &usual_client());
    assert!(handshake.done());
    assert_eq!(handshake.facts().sni, "api.example.com");
}

#[test]
fn versions_up_to_1_2_are_the_hello_s_own() {
    for (number, text) in [(0x0300, "SSLv3"), (0x0301, "TLSv1.0"), (0x0302, "TLSv1.1"), (0x0303, "TLSv1.2")] {
        let client = record(22, &message(1, &client_hello(number, &[])));
        let server = record(22, &message(2, &server_hello(number, 0xc02f, &[])));
        let facts = facts(&client, &server);
        assert_eq!((facts.version.as_str(), facts.version_offered.as_str()), (text, text));
        assert_eq!(facts.cipher, "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
    }
}

#[test]
fn a_hello_without_extensions_is_whole() {
    let mut body = client_hello(0x0301, &[]);
    body.truncate(body.len() - 2);
    let facts = facts(&record(22, &message(1, &body)), &[]);
    assert_eq!((facts.client_hello, facts.malformed), (Seen::Whole, None));
    assert_eq!(facts.version_offered, "TLSv1.0");
}

#[test]
fn the_protocol_chosen_is_the_server_s_word_or_the_plaintext_s() {
    let client = usual_client();
    let server = |list: &[_]| record(22, &message(2, &server_hello(0x0303, 0xc02f, list)));
    let named = facts(&client, &server(&[protocols(&[b"h2"])]));
    assert_eq!((named.alpn.as_str(), named.chosen(Some("http/1.1")).as_str()), ("h2", "h2"));
    // A whole ServerHello of TLS 1.2 that names none: none was chosen, whatever is spoken.
    assert_eq!(facts(&client, &server(&[])).chosen(Some("http/1.1")), "");
    let encrypted = facts(&client, &usual_server());
    assert_eq!(encrypted.chosen(None), "");
    assert_eq!(encrypted.chosen(Some("http/1.1")), "http/1.1");
    assert_eq!(encrypted.chosen(Some("http/1.0")), "");
    // The ServerHello was not seen.
    assert_eq!(facts(&client, &[]).chosen(Some("h2")), "h2");
    // Two protocols are no choice.
    let two = facts(&client, &server(&[protocols(&[b"h2", b"h3"])]));
    assert_eq!((two.alpn.as_str(), two.malformed), ("", Some("a choice of protocol that is none")));
}

#[test]
fn a_hello_retry_request_is_not_the_server_hello() {
    let mut retry = server_hello(0x0303, 0x1302, &[chosen_version(0x0304)]);
    retry[2..34].copy_from_slice(&server::RETRY);
    let retry = [record(22, &message(2, &retry)), record(20, &[1])].concat();
    let second = record(22, &message(1, &client_hello(0x0303, &[name(b"other.example")])));
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, &usual_client());
    handshake.bytes(Side::B, &retry);
    assert!(!handshake.done());
    assert_eq!(handshake.facts().server_hello, Seen::No);
    handshake.bytes(Side::A, &[record(20, &[1]), second].concat());
    handshake.bytes(Side::B, &usual_server());
    assert!(handshake.done());
    assert_eq!(handshake.facts(), &facts(&usual_client(), &usual_server()));
    // Cut behind the retry: nothing of it counts.
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, &usual_client());
    handshake.bytes(Side::B, &retry[..60]);
    handshake.gap(Side::B);
    assert!(handshake.done());
    assert_eq!((handshake.facts().server_hello, handshake.facts().cipher.as_str()), (Seen::No, ""));
}

#[test]
fn messages_may_be_fragmented_over_records_and_share_one() {
    let hello = message(2, &server_hello(0x0303, 0x1301, &[chosen_version(0x0304)]));
    let fragmented: Vec<u8> = hello.chunks(3).flat_map(|part| record(22, part)).collect();
    let shared = record(22, &[message(0, &[]), hello, message(11, &[1; 700])].concat());
    let expected = facts(&usual_client(), &usual_server());
    assert_eq!(facts(&usual_client(), &fragmented), expected);
    assert_eq!(facts(&usual_client(), &shared), expected);
}

#[test]
fn a_hello_beyond_the_limit_is_read_as_far_as_it_goes() {
    let before = [name(b"big.example"), protocols(&[b"h2"]), (51, vec![5; 5000]), versions(&[0x0304])];
    let after = [(51, vec![5; 5000]), name(b"big.example")];
    let read = client_facts(&before);
    assert_eq!((read.client_hello, read.malformed), (Seen::Part, None));
    assert_eq!((read.sni.as_str(), read.version_offered.as_str()), ("big.example", ""));
    assert_eq!(read.alpn_offered, ["h2"]);
    let missed = client_facts(&after);
    assert_eq!((missed.client_hello, missed.sni.as_str()), (Seen::Part, ""));
}

#[test]
fn a_gap_gives_what_was_read_of_a_hello_and_no_part_of_a_name() {
    let client = usual_client();
    for cut in 0..client.len() {
        let mut handshake = Handshake::new();
        handshake.bytes(Side::A, &client[..cut]);
        handshake.gap(Side::A);
        handshake.bytes(Side::A, &client[cut..]);
        let facts = handshake.facts();
        assert!(facts.sni.is_empty() || facts.sni == "api.example.com", "{cut}: {}", facts.sni);
        assert!(facts.alpn_offered.is_empty() || facts.alpn_offered == ["h2", "http/1.1"]);
        assert_eq!(facts.client_hello, if cut > 9 { Seen::Part } else { Seen::No }, "{cut}");
        assert_eq!(facts.malformed, None);
    }
}

#[test]
fn names_are_made_printable_and_bounded() {
    assert_eq!(client_facts(&[name(b"a b\n\xc3\xa9")]).sni, "a\\x20b\\x0A\\xC3\\xA9");
    let longest = client_facts(&[name(&[b'a'; 255])]);
    assert_eq!((longest.sni.len(), longest.malformed), (255, None));
    for refused in [name(&[b'a'; 256]), name(b""), (0, vec![]), (0, vec![0, 9, 0, 0, 9, b'a'])] {
        let facts = client_facts(&[refused]);
        assert_eq!((facts.sni.as_str(), facts.malformed), ("", Some("a server name that is none")));
    }
    assert_eq!(
        client_facts(&[protocols(&[b"a,b", b"\\", b"\x00\xff"])]).alpn_offered,
        ["a\\x2Cb", "\\x5C", "\\x00\\xFF"]
    );
    let many: Vec<&[u8]> = vec![b"x"; 40];
    assert_eq!(client_facts(&[protocols(&many)]).alpn_offered.len(), 16);
    let broken = client_facts(&[(16, vec![0, 3, 5, b'h', b'2'])]);
    assert_eq!((broken.alpn_offered.len(), broken.malformed), (0, Some("a list of protocols that is none")));
}

#[test]
fn what_clients_send_for_nothing_is_left_out() {
    for byte in (0x0a..=0xfa).step_by(16) {
        let reserved = u16::from_be_bytes([byte, byte]);
        let facts = client_facts(&[versions(&[reserved, 0x0303]), protocols(&[&[byte, byte], b"h2"])]);
        assert_eq!((facts.version_offered.as_str(), facts.alpn_offered.len()), ("TLSv1.2", 1));
        // Two reserved bytes are a reserved name; more are a name.
        assert_eq!(client_facts(&[protocols(&[&[byte, byte, b'x']])]).alpn_offered.len(), 1);
    }
}

#[test]
fn an_alert_before_the_server_hello_says_why() {
    let failed = facts(&usual_client(), &alert(2, 40));
    assert_eq!(failed.error, "alert handshake_failure (40)");
    assert_eq!(facts(&usual_client(), &alert(2, 77)).error, "alert 77");
    assert_eq!(facts(&[usual_client(), alert(2, 80)].concat(), &[]).error, "alert internal_error (80)");
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, &usual_client());
    handshake.bytes(Side::B, &alert(2, 70));
    assert!(handshake.done());
    // A warning is no failure when the handshake goes on; it is all that is known when it does not.
    let warning = alert(1, 112);
    assert_eq!(facts(&usual_client(), &warning).error, "alert unrecognized_name (112)");
    let went_on = facts(&usual_client(), &[warning, usual_server()].concat());
    assert_eq!((went_on.error.as_str(), went_on.version.as_str()), ("", "TLSv1.3"));
}

#[test]
fn close_notify_ends_a_direction_though_it_is_a_warning() {
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, &usual_client());
    handshake.bytes(Side::B, &alert(1, 0));
    assert!(handshake.done());
    assert_eq!(handshake.facts().error, "alert close_notify (0)");
}

#[test]
fn an_encrypted_alert_is_not_read() {
    // Up to TLS 1.2 its type stands in the clear, and its first bytes are no level and code.
    let facts = facts(&usual_client(), &record(21, &[2; 26]));
    assert_eq!((facts.error.as_str(), facts.malformed), ("", Some("an encrypted alert before the hello")));
}

#[test]
fn an_alert_beside_a_server_hello_is_no_failed_handshake() {
    for order in [[Side::A, Side::B], [Side::B, Side::A]] {
        let mut handshake = Handshake::new();
        for side in order {
            let bytes = if side == Side::A { alert(2, 48) } else { usual_server() };
            handshake.bytes(side, &bytes);
        }
        assert_eq!((handshake.facts().error.as_str(), handshake.facts().version.as_str()), ("", "TLSv1.3"));
    }
}

#[test]
fn extensions_that_do_not_fill_a_hello_are_said_and_read() {
    let body = client_hello(0x0303, &[name(b"api.example.com")]);
    let longer = [body.clone(), vec![0; 3]].concat();
    // The last extension is one byte longer than the hello.
    let mut shorter = body.clone();
    shorter.extend([0, 5, 0, 2, 9]);
    let at = body.len() - extensions(&[name(b"api.example.com")]).len();
    shorter[at + 1] += 6;
    for body in [longer, shorter] {
        let facts = facts(&record(22, &message(1, &body)), &[]);
        let fault = Some("extensions that do not fill the ClientHello");
        assert_eq!((facts.sni.as_str(), facts.malformed), ("api.example.com", fault));
    }
    let short = facts(&record(22, &message(1, &body[..20])), &record(22, &message(2, &[3, 3, 0])));
    assert_eq!((short.client_hello, short.malformed), (Seen::Whole, Some("a ClientHello that is too short")));
}

#[test]
fn an_answer_in_cleartext_is_said() {
    let facts = facts(&usual_client(), b"HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_eq!(facts.error, "answer is not TLS");
    assert_eq!(facts.sni, "api.example.com");
}

#[test]
fn a_connection_older_than_the_agent_is_given_up_at_once() {
    let mut handshake = Handshake::new();
    handshake.bytes(Side::B, &record(23, &[1; 40]));
    assert!(handshake.done());
    handshake.bytes(Side::A, &usual_client());
    assert_eq!(handshake.facts(), &Facts::default());
    // Early data behind the ClientHello is no sign of age.
    let facts = facts(&[usual_client(), record(23, &[1; 40])].concat(), &usual_server());
    assert_eq!((facts.version.as_str(), facts.malformed), ("TLSv1.3", None));
}

#[test]
fn hellos_from_the_wrong_side_are_refused() {
    let twice = facts(&usual_client(), &usual_client());
    assert_eq!((twice.client, twice.malformed), (Some(Side::A), Some("both sides sent a ClientHello")));
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, &usual_server());
    handshake.bytes(Side::B, &usual_server());
    assert!(handshake.done());
    assert_eq!(handshake.facts().malformed, Some("a client sent a ServerHello"));
}

#[test]
fn sslv2_framing_is_not_understood() {
    let mut handshake = Handshake::new();
    handshake.bytes(Side::A, &[0x80, 0x2e, 1, 3, 1, 0, 15, 0, 0, 0, 16]);
    assert_eq!(handshake.facts().malformed, Some("no TLS record"));
    handshake.bytes(Side::B, &usual_server());
    assert!(handshake.done());
    assert_eq!(handshake.facts().version, "TLSv1.3");
}

/// Feeds both directions in portions of the given sizes, now from one, now from the other.
fn in_portions(client: &[u8], server: &[u8], sizes: &[(bool, usize)]) -> Handshake {
    let (mut handshake, mut client, mut server) = (Handshake::new(), client, server);
    let mut sizes = sizes.iter().cycle();
    while !client.is_empty() || !server.is_empty() {
        let Some(&(first, size)) = sizes.next() else { break };
        let (side, bytes) = if first && !client.is_empty() || server.is_empty() {
            (Side::A, &mut client)
        } else {
            (Side::B, &mut server)
        };
        let (now, later) = bytes.split_at(size.min(bytes.len()));
        *bytes = later;
        handshake.bytes(side, now);
    }
    handshake
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn portions_do_not_matter(sizes in prop::collection::vec((any::<bool>(), 1usize..300), 1..40)) {
        let handshake = in_portions(&usual_client(), &usual_server(), &sizes);
        prop_assert!(handshake.done());
        prop_assert_eq!(handshake.facts(), &facts(&usual_client(), &usual_server()));
    }

    #[test]
    fn any_bytes_keep_the_promises(input in prop::collection::vec(any::<u8>(), 0..2000)) {
        fuzz::tls_handshake(&input);
    }

    #[test]
    fn damaged_hellos_keep_the_promises(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        sizes in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        // As operations of the fuzz target: the client's bytes, then the server's.
        let mut bytes = [usual_client(), usual_server()];
        for (at, value) in damage {
            let side = usize::from(value & 1);
            let at = at.index(bytes[side].len());
            bytes[side][at] = value;
        }
        let mut input = Vec::new();
        for (op, bytes) in bytes.iter().enumerate() {
            let mut rest = bytes.as_slice();
            for size in sizes.iter().cycle() {
                let (now, later) = rest.split_at(usize::from(*size).clamp(1, rest.len()));
                input.extend([op as u8, now.len() as u8]);
                input.extend(now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
        }
        fuzz::tls_handshake(&input);
    }
}
