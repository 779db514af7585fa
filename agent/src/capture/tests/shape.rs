//! What stands in the object: addresses, header fields, completeness, times, levels.

use transaction::{
    Level,
    object::{End, Gap},
};

use super::{
    Capture, Observed, Unkept, context, exchange, gzip, keep, message, observed, process, request, response, sealed,
};
use crate::http::{Exchange, Framing, GapCause, Note};

fn address(target: &str, host: Option<&str>, method: &str) -> (String, String, String) {
    let fields: Vec<_> = host.iter().map(|host| ("Host", *host)).collect();
    let t = keep(Level::Headers, &exchange(message(method, target, 0, &fields, b""), response(200, &[], b"")));
    let r = t.request.unwrap();
    (r.url, r.authority, r.path)
}

#[test]
fn the_four_forms_of_a_target() {
    for (method, target, host, url, authority, path) in [
        ("GET", "/a/b?c=d", Some("h:81"), "http://h:81/a/b?c=d", "h:81", "/a/b"),
        ("GET", "http://o/x?y", Some("h"), "http://o/x?y", "o", "/x"),
        ("GET", "http://o?y", Some("h"), "http://o?y", "o", "/"),
        ("CONNECT", "o:443", Some("o:443"), "http://o:443", "o:443", ""),
        ("OPTIONS", "*", Some("h"), "http://h", "h", "*"),
        ("GET", "/a", None, "http://198.51.100.7:8080/a", "198.51.100.7:8080", "/a"),
        ("GET", "/?u=http://o/", Some("h"), "http://h/?u=http://o/", "h", "/"),
    ] {
        let expected = (url.to_owned(), authority.to_owned(), path.to_owned());
        assert_eq!(address(target, host, method), expected, "{method} {target}");
    }
}

#[test]
fn a_request_without_host_is_noted_and_goes_by_the_address() {
    let t = keep(Level::Full, &exchange(request("/", &[], b""), response(200, &[], b"")));
    assert_eq!(t.completeness.notes, ["no-host"]);
    assert_eq!(t.metadata.endpoint_id, "198.51.100.7");
}

#[test]
fn fields_are_kept_as_sent_and_joined_by_canonical_name() {
    let fields =
        [("host", "h"), ("x-A", "1"), ("cookie", "a=1"), ("X-a", "2"), ("Cookie", "b=2"), ("bad name", "\u{e4}")];
    let mut answer = response(200, &[("set-cookie", "a=1; Path=/"), ("Set-Cookie", "b=2, 3")], b"");
    answer.head.fields.push((b"x-latin".to_vec(), b"caf\xe9".to_vec()));
    let t = keep(Level::Headers, &exchange(request("/p?q", &fields, b""), answer));
    let (request, response) = (t.request.unwrap(), t.response.unwrap());
    let joined: Vec<_> = request.headers.0.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let expected = [
        (":authority", "h"),
        (":method", "GET"),
        (":path", "/p?q"),
        (":scheme", "http"),
        ("Host", "h"),
        ("X-A", "1, 2"),
        ("Cookie", "a=[redacted]; b=[redacted]"),
        ("bad name", "ä"),
    ];
    assert_eq!(joined, expected);
    assert_eq!(request.header_list.len(), 6);
    assert_eq!(request.header_list[3], ("X-a".to_owned(), "2".to_owned()));
    assert_eq!(response.headers.get(":status"), Some("200"));
    assert_eq!(response.headers.get("set-cookie"), Some("a=[redacted]; Path=/\nb=[redacted]"));
    assert_eq!(response.headers.get("X-Latin"), Some("café"));
}

#[test]
fn thousands_of_fields_are_joined_like_few() {
    let fields: Vec<_> = (0..5000).map(|n| (format!("x-{}", n % 2500), n.to_string())).collect();
    let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let t = keep(Level::Headers, &exchange(request("/", &fields, b""), response(200, &[], b"")));
    let headers = t.request.unwrap().headers;
    assert_eq!(headers.0.len(), 2504);
    assert_eq!(headers.get("X-7"), Some("7, 2507"));
}

#[test]
fn levels_keep_what_they_say() {
    let whole = exchange(
        request("/", &[("Host", "h"), ("User-Agent", "a")], b"ping"),
        response(200, &[("Content-Type", "text/plain")], b"pong"),
    );
    let full = keep(Level::Full, &whole);
    assert_eq!(full.request.as_ref().unwrap().body.0, b"ping");
    assert_eq!(full.response.as_ref().unwrap().body.0, b"pong");
    assert_eq!((full.completeness.request.kept_bytes, full.completeness.response.kept_bytes), (4, 4));
    let headers = keep(Level::Headers, &whole);
    assert!(headers.request.as_ref().unwrap().body.is_empty());
    assert!(!headers.request.as_ref().unwrap().headers.is_empty());
    assert_eq!(headers.completeness.request.truncated, ["level"]);
    let summary = keep(Level::Summary, &whole);
    let (request, response) = (summary.request.unwrap(), summary.response.unwrap());
    assert!(request.headers.is_empty() && request.header_list.is_empty() && request.body.is_empty());
    assert!(response.headers.is_empty() && response.header_list.is_empty() && response.body.is_empty());
    assert_eq!((request.user_agent.as_str(), response.content_type.as_str()), ("a", "text/plain"));
    for t in [&full.completeness, &headers.completeness, &summary.completeness] {
        assert!(t.complete, "a level is a choice, not a loss");
    }
    assert_eq!(sealed(&Capture::new(Level::None), &whole, &process()).unwrap_err(), Unkept::Level);
}

#[test]
fn own_traffic_is_told_by_its_user_agent() {
    let capture = Capture::new(Level::Full);
    let own = |agent: &str| {
        let exchange = exchange(request("/", &[("user-agent", agent)], b""), response(200, &[], b""));
        matches!(sealed(&capture, &exchange, &process()), Err(Unkept::Own))
    };
    assert!(own("tapstack/0.1.0"));
    assert!(!own("curl/8 tapstack/0.1.0"));
}

#[test]
fn times_are_the_kernels() {
    let t = keep(Level::Summary, &exchange(request("/", &[], b""), response(200, &[], b"")));
    assert_eq!(t.timing.request_ns, Some(500_000));
    assert_eq!(t.timing.ttfb_ns, Some(2_000_000));
    assert_eq!(t.timing.response_ns, Some(250_499));
    assert_eq!(t.timing.total_ns, 2_250_499);
    assert!((t.duration_ms - 2.25).abs() < 1e-9);
    assert_eq!(t.transaction_time, "2026-09-21T14:13:20.001000000Z");
}

#[test]
fn bytes_are_counted_from_the_observed_end() {
    let whole = exchange(request("/", &[], b"12345"), response(200, &[], b"1"));
    let process = process();
    for (end, sent, received) in [(End::Client, 105, 101), (End::Server, 101, 105)] {
        let capture = Capture::new(Level::Full);
        let sealed = capture.prepare(&whole, &context()).unwrap().keep(&Observed { end, ..observed(&process) });
        assert_eq!((sealed.record.bytes_sent, sealed.record.bytes_received), (sent, received));
    }
}

#[test]
fn what_is_not_whole_says_why() {
    let (q, r) = (|| request("/", &[], b""), || response(200, &[], b"body"));
    let cases: [(Exchange, Option<&str>, bool); 7] = [
        (exchange(q(), r()), None, true),
        (Exchange { request: Some(q()), ..Exchange::default() }, Some("no_response"), false),
        (Exchange { response: Some(r()), ..Exchange::default() }, Some("no_request"), false),
        (
            exchange(q(), crate::http::Message { ended: false, framing: Framing::Length, ..r() }),
            Some("connection_closed"),
            false,
        ),
        (
            exchange(q(), crate::http::Message { ended: false, gaps: vec![(0, 9, GapCause::Ring)], ..r() }),
            Some("gap"),
            false,
        ),
        (exchange(q(), crate::http::Message { gaps: vec![(4, 9, GapCause::Cap)], ..r() }), None, false),
        (exchange(q(), crate::http::Message { cut: true, ..r() }), None, false),
    ];
    for (n, (exchange, error, complete)) in cases.into_iter().enumerate() {
        let t = keep(Level::Full, &exchange);
        assert_eq!(t.error_type.as_deref(), error, "{n}");
        assert_eq!(t.completeness.complete, complete, "{n}");
    }
    let t = keep(Level::Full, &Exchange { response: Some(r()), ..Exchange::default() });
    assert_eq!(t.completeness.request.end, "unseen");
    assert!(t.request.is_none());
}

#[test]
fn gaps_limits_and_notes_are_said() {
    let mut answer = response(200, &[("Content-Type", "image/png")], b"\x89PNG\0\0");
    answer.gaps = vec![(3, 10, GapCause::Ring)];
    answer.body_bytes = 16;
    answer.starved = true;
    let mut whole = exchange(request("/", &[("Host", "h")], b""), answer);
    whole.notes = vec![Note::BareLineFeed, Note::ConflictingFraming];
    let t = keep(Level::Full, &whole);
    let seen = &t.completeness.response;
    assert_eq!(seen.gaps, [Gap { offset: 3, bytes: 10, cause: "ring".into() }]);
    assert_eq!(seen.truncated, ["memory", "gap"]);
    assert_eq!((seen.body_bytes, seen.kept_bytes, seen.end.as_str()), (16, 6, "length"));
    assert_eq!(t.completeness.notes, ["bare-line-feed", "conflicting-framing"]);
}

#[test]
fn bodies_are_kept_decoded_and_what_cannot_be_decoded_is_not_kept() {
    let kept = |fields: &[(&str, &str)], body: &[u8]| {
        let t = keep(Level::Full, &exchange(request("/", &[("Host", "h")], b""), response(200, fields, body)));
        (t.response.unwrap().body.0, t.completeness.response.encoding, t.completeness.response.truncated)
    };
    let text = b"some text, some text".to_vec();
    let none: Vec<String> = vec![];
    assert_eq!(kept(&[("Content-Encoding", "gzip")], &gzip(&text)), (text.clone(), "gzip".into(), none.clone()));
    assert_eq!(
        kept(&[("Transfer-Encoding", "gzip, chunked")], &gzip(&text)),
        (text.clone(), "gzip".into(), none.clone())
    );
    assert_eq!(kept(&[("Content-Type", "text/plain")], &gzip(&text)), (text.clone(), "gzip".into(), none.clone()));
    assert_eq!(kept(&[("Content-Type", "application/gzip")], &gzip(&text)), (gzip(&text), String::new(), none.clone()));
    assert_eq!(kept(&[("Content-Encoding", "identity")], &text), (text.clone(), String::new(), none));
    let undecodable = vec!["undecodable".to_owned()];
    assert_eq!(kept(&[("Content-Encoding", "compress")], &text), (vec![], String::new(), undecodable.clone()));
    assert_eq!(kept(&[("Content-Encoding", "gzip")], &text), (vec![], "gzip".into(), undecodable.clone()));
    assert_eq!(
        kept(&[("Content-Type", "application/json")], b"\x8b\x01\x80\xff\x00\xfe"),
        (vec![], String::new(), undecodable.clone())
    );
    let mut wrong_sum = gzip(&text);
    let last = wrong_sum.len() - 5;
    wrong_sum[last] ^= 1;
    let (begun, _, why) = kept(&[("Content-Encoding", "gzip")], &wrong_sum);
    assert_eq!(begun, text);
    assert_eq!(why, undecodable);
}

#[test]
fn the_record_says_what_the_object_says() {
    let process = process();
    let whole = exchange(
        request("/p?token=x", &[("Host", "h"), ("Content-Type", "text/plain")], b"x"),
        response(404, &[("Content-Type", "text/html")], b""),
    );
    let sealed = sealed(&Capture::new(Level::Full), &whole, &process).unwrap();
    assert_eq!(sealed.record.digest, transaction::Digest::of(&sealed.bytes));
    assert_eq!(sealed.record.time_unix_ns, 1_790_000_000_001_000_000);
    assert_eq!((sealed.record.request_host.as_str(), sealed.record.request_path.as_str()), ("h", "/p"));
    assert_eq!((sealed.record.response_status, sealed.record.duration_ns), (Some(404), 2_250_499));
    assert_eq!(sealed.record.request_id.len(), 20);
}
