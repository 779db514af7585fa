//! Each feature of HTTP/1 on its own, through the public interface of `agent::http`.

use std::sync::Arc;

use agent::flow::Budget;
use agent::http::{Connection, Exchange, Framing, GapCause, Limits, Message, Note, Output, Side};

/// One thing that happens to a connection; A is the client.
enum Step<'a> {
    Ask(&'a [u8]),
    Tell(&'a [u8]),
    AskGap(u64),
    TellGap(u64),
    TellCap(u64),
    AskEnd,
    TellEnd,
}
use Step::{Ask, AskEnd, AskGap, Tell, TellCap, TellEnd, TellGap};

fn limits() -> Limits {
    Limits::default()
}

/// Runs the steps one millisecond apart (the first at 1 ms) and closes.
fn run_with(mut connection: Connection, steps: &[Step<'_>]) -> Vec<Output> {
    let mut out = Vec::new();
    let mut at = [0u64; 2];
    let mut ns = 0;
    for step in steps {
        ns += 1_000_000;
        match step {
            Ask(bytes) => {
                connection.data(Side::A, at[0], bytes, ns, &mut out);
                at[0] += bytes.len() as u64;
            }
            Tell(bytes) => {
                connection.data(Side::B, at[1], bytes, ns, &mut out);
                at[1] += bytes.len() as u64;
            }
            AskGap(len) => {
                connection.gap(Side::A, at[0], *len, GapCause::Ring, &mut out);
                at[0] += len;
            }
            TellGap(len) => {
                connection.gap(Side::B, at[1], *len, GapCause::Ring, &mut out);
                at[1] += len;
            }
            TellCap(len) => {
                connection.gap(Side::B, at[1], *len, GapCause::Cap, &mut out);
                at[1] += len;
            }
            AskEnd => connection.end(Side::A, ns, &mut out),
            TellEnd => connection.end(Side::B, ns, &mut out),
        }
    }
    connection.close(ns + 1_000_000, &mut out);
    out
}

fn outputs(steps: &[Step<'_>]) -> Vec<Output> {
    run_with(Connection::new(limits(), Budget::new(Budget::DEFAULT)), steps)
}

fn only_exchanges(outputs: Vec<Output>) -> Vec<Exchange> {
    outputs
        .into_iter()
        .map(|output| match output {
            Output::Exchange(exchange) => *exchange,
            other => panic!("not an exchange: {other:?}"),
        })
        .collect()
}

fn exchanges(steps: &[Step<'_>]) -> Vec<Exchange> {
    only_exchanges(outputs(steps))
}

fn exchange(steps: &[Step<'_>]) -> Exchange {
    let mut all = exchanges(steps);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn request(exchange: &Exchange) -> &Message {
    exchange.request.as_ref().expect("a request")
}

fn response(exchange: &Exchange) -> &Message {
    exchange.response.as_ref().expect("a response")
}

/// Target and status of each exchange, `-` and 0 where absent.
fn pairs(exchanges: &[Exchange]) -> Vec<(String, u16)> {
    exchanges
        .iter()
        .map(|e| {
            let target =
                e.request.as_ref().map_or("-".into(), |m| String::from_utf8_lossy(&m.head.target).into_owned());
            (target, e.response.as_ref().map_or(0, |m| m.head.status))
        })
        .collect()
}

fn pair(target: &str, status: u16) -> (String, u16) {
    (target.to_owned(), status)
}

#[test]
fn a_request_and_its_response() {
    let ask = b"POST /a?b=c HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX: \t a b \t\r\nx:\r\n\r\nabc";
    let tell = b"HTTP/1.1 201 Made it\r\nContent-Length: 2\r\n\r\nok";
    let e = exchange(&[Ask(ask), Tell(tell)]);
    let (q, r) = (request(&e), response(&e));
    assert_eq!(
        (q.head.method.as_slice(), q.head.target.as_slice(), q.head.version),
        (&b"POST"[..], &b"/a?b=c"[..], 11)
    );
    let fields: [(&[u8], &[u8]); 4] = [(b"Host", b"h"), (b"Content-Length", b"3"), (b"X", b"a b"), (b"x", b"")];
    assert_eq!(q.head.fields, fields.map(|(n, v)| (n.to_vec(), v.to_vec())));
    assert_eq!((q.body.as_slice(), q.framing, q.ended), (&b"abc"[..], Framing::Length, true));
    assert_eq!((q.head_bytes, q.body_bytes, q.wire_bytes, q.offset), (ask.len() as u64 - 3, 3, ask.len() as u64, 0));
    assert_eq!((q.first_ns, q.last_ns, r.first_ns, r.last_ns), (1_000_000, 1_000_000, 2_000_000, 2_000_000));
    assert_eq!((r.head.status, r.head.target.as_slice(), r.body.as_slice()), (201, &b"Made it"[..], &b"ok"[..]));
    assert_eq!((e.number, e.client, e.notes.as_slice()), (0, Some(Side::A), &[][..]));
    assert!(!q.cut && !q.starved && q.gaps.is_empty() && q.trailers.is_empty());
}

#[test]
fn the_side_that_carries_requests_is_found() {
    let mut connection = Connection::new(limits(), Budget::new(1 << 20));
    let mut out = Vec::new();
    connection.data(Side::B, 0, b"GET / HTTP/1.0\r\n\r\n", 1, &mut out);
    connection.data(Side::A, 0, b"HTTP/1.0 200 OK\r\n\r\nbody", 2, &mut out);
    connection.close(3, &mut out);
    let e = only_exchanges(out).remove(0);
    assert_eq!((e.client, response(&e).body.as_slice()), (Some(Side::B), &b"body"[..]));
}

#[test]
fn times_span_a_message_over_several_segments() {
    let e = exchange(&[
        Ask(b"POST / HTTP/1.1\r\n"),
        Ask(b"Content-Length: 4\r\n\r\nab"),
        Ask(b"cd"),
        Tell(b"HTTP/1.1 200"),
        Tell(b" OK\r\nContent-Length: 1\r\n\r\n"),
        Tell(b"x"),
    ]);
    assert_eq!((request(&e).first_ns, request(&e).last_ns), (1_000_000, 3_000_000));
    assert_eq!((response(&e).first_ns, response(&e).last_ns), (4_000_000, 6_000_000));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\n\r\nHEAD /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 201 a\r\nContent-Length: 1\r\n\r\n1HTTP/1.1 202 b\r\nContent-Length: 9\r\n\r\n"),
        Tell(b"HTTP/1.1 203 c\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 201), pair("/2", 202), pair("/3", 203)]);
    assert_eq!(all.iter().map(|e| e.number).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((response(&all[1]).framing, response(&all[1]).body.len()), (Framing::None, 0));
}

#[test]
fn chunked_with_extensions_and_trailers() {
    let tell = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n\
        5;name=\"va;lue\"\r\nhello\r\n00006 ; x\r\n world\r\n0;last\r\nDigest: abc\r\nX: 1\r\n\r\n";
    let e = exchange(&[Ask(b"GET / HTTP/1.1\r\n\r\n"), Tell(tell)]);
    let r = response(&e);
    assert_eq!(
        (r.body.as_slice(), r.body_bytes, r.framing, r.ended),
        (&b"hello world"[..], 11, Framing::Chunked, true)
    );
    assert_eq!(r.trailers, [(b"Digest".to_vec(), b"abc".to_vec()), (b"X".to_vec(), b"1".to_vec())]);
    assert_eq!(r.wire_bytes, tell.len() as u64);
    assert_eq!(e.notes, []);
}

#[test]
fn interim_responses_are_kept_apart() {
    let e = exchange(&[
        Ask(b"PUT / HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"),
        Tell(b"HTTP/1.1 100 Continue\r\n\r\n"),
        Ask(b"ab"),
        Tell(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(e.interim.iter().map(|head| head.status).collect::<Vec<_>>(), [100, 103]);
    assert_eq!(e.interim[1].get("link"), Some(&b"</a>"[..]));
    assert_eq!((request(&e).body.as_slice(), response(&e).head.status), (&b"ab"[..], 200));
}

#[test]
fn responses_without_a_body_whatever_they_say() {
    for (method, status) in [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404)] {
        let ask = format!("{method} /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        let tell =
            format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz");
        let all = exchanges(&[Ask(ask.as_bytes()), Tell(tell.as_bytes())]);
        assert_eq!(pairs(&all), [pair("/1", status), pair("/2", 200)]);
        let r = response(&all[0]);
        assert_eq!((r.body.len(), r.framing, r.ended), (0, Framing::None, true), "{method} {status}");
    }
}

#[test]
fn a_body_that_lasts_until_the_close() {
    let steps = [Ask(b"GET / HTTP/1.0\r\n\r\n"), Tell(b"HTTP/1.0 200 OK\r\n\r\npart"), Tell(b" two"), TellEnd];
    let e = exchange(&steps);
    let r = response(&e);
    assert_eq!((r.body.as_slice(), r.framing, r.ended), (&b"part two"[..], Framing::Close, true));
}

#[test]
fn upgrade_hands_the_connection_over() {
    let out = outputs(&[
        Ask(b"GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        Ask(b"\x81\x05hello"),
        Tell(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\r\n\x81\x00"),
        Tell(b"GET / HTTP/1.1\r\n\r\n"),
    ]);
    assert_eq!(out.len(), 2, "{out:#?}");
    assert!(matches!(&out[0], Output::Exchange(e) if response(e).head.status == 101 && e.interim.is_empty()));
    assert_eq!(out[1], Output::Handover { protocol: "websocket".into() });
}

#[test]
fn a_request_that_an_unexpected_upgrade_cuts_short_is_handed_on() {
    let ask = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc";
    let out = outputs(&[Ask(ask), Tell(b"HTTP/1.1 101 x\r\nUpgrade: a, b\r\n\r\n")]);
    let Output::Exchange(e) = &out[0] else { panic!("{out:?}") };
    assert_eq!((request(e).ended, request(e).body.as_slice(), response(e).head.status), (false, &b"abc"[..], 101));
    assert_eq!(request(e).wire_bytes, ask.len() as u64);
    assert_eq!(out[1], Output::Handover { protocol: "a".into() });
}

#[test]
fn connect_hands_over_only_when_it_is_granted() {
    let ask: &[u8] = b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n";
    let out = outputs(&[Ask(ask), Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), Ask(b"\x16\x03\x01")]);
    assert_eq!(out[1], Output::Handover { protocol: "connect".into() });
    let refused = exchanges(&[
        Ask(ask),
        Ask(b"GET /next HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 407 No\r\nContent-Length: 1\r\n\r\nx"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&refused), [pair("h:443", 407), pair("/next", 200)]);
}

#[test]
fn a_declined_upgrade_goes_on_as_http() {
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\nUpgrade: h2c\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"),
        Tell(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 200), pair("/2", 404)]);
}

#[test]
fn a_proxy_protocol_head_is_skipped_and_noted() {
    let v1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n";
    let v2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x03\xe8\0P";
    for head in [v1, v2] {
        let ask = [head, b"GET / HTTP/1.1\r\n\r\n"].concat();
        for split in [ask.len(), 1, 13, head.len(), head.len() + 1] {
            let (one, two) = ask.split_at(split);
            let e = exchange(&[Ask(one), Ask(two), Tell(b"HTTP/1.1 204 x\r\n\r\n")]);
            assert_eq!(e.notes, [Note::ProxyProtocol]);
            assert_eq!((request(&e).offset, request(&e).wire_bytes), (head.len() as u64, 18), "split at {split}");
        }
    }
}

#[test]
fn any_method_token() {
    for method in ["M-SEARCH", "QUERY", "get", "!#$%&'*+-.^_`|~09az", "PROXY", "VERSION-CONTROL"] {
        let e = exchange(&[Ask(format!("{method} /x HTTP/1.1\r\n\r\n").as_bytes()), Tell(b"HTTP/1.1 204 x\r\n\r\n")]);
        assert_eq!((request(&e).head.method.as_slice(), response(&e).head.status), (method.as_bytes(), 204));
    }
}

#[test]
fn a_long_head_is_read_to_its_end_and_kept_in_part() {
    let field = format!("X-Filler: {}\r\n", "y".repeat(990));
    let ask = format!("POST / HTTP/1.1\r\n{}Content-Length: 4\r\n\r\nbodyGET /2 HTTP/1.1\r\n\r\n", field.repeat(500));
    for piece in [ask.len(), 1400] {
        let mut steps: Vec<Step<'_>> = ask.as_bytes().chunks(piece).map(Ask).collect();
        steps.push(Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 204 x\r\n\r\n"));
        let all = exchanges(&steps);
        assert_eq!(pairs(&all), [pair("/", 200), pair("/2", 204)]);
        let q = request(&all[0]);
        let kept: usize = q.head.fields.iter().map(|(n, v)| n.len() + v.len()).sum();
        assert!((50_000..=64 << 10).contains(&kept), "{kept}");
        assert_eq!((q.body.as_slice(), q.head_bytes), (&b"body"[..], ask.len() as u64 - 4 - 19));
        assert_eq!(all[0].notes, [Note::HeadTooLong]);
    }
}

#[test]
fn more_fields_than_the_limit_are_read_past() {
    let ask = format!("POST / HTTP/1.1\r\n{}Content-Length: 2\r\n\r\nhi", "a: b\r\n".repeat(2000));
    let e = exchange(&[Ask(ask.as_bytes()), Tell(b"HTTP/1.1 204 x\r\n\r\n")]);
    assert_eq!((request(&e).head.fields.len(), request(&e).body.as_slice()), (512, &b"hi"[..]));
    assert_eq!(e.notes, [Note::HeadTooLong]);
}

#[test]
fn bare_line_feeds_are_taken_and_noted() {
    let e = exchange(&[
        Ask(b"POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n"),
        Tell(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok"),
    ]);
    assert_eq!((request(&e).body.as_slice(), response(&e).body.as_slice()), (&b"abc"[..], &b"ok"[..]));
    assert!(request(&e).ended);
    assert_eq!(e.notes, [Note::BareLineFeed]);
}

#[test]
fn empty_lines_before_a_message_are_ignored() {
    let all = exchanges(&[
        Ask(b"\r\n\r\nPOST /1 HTTP/1.1\r\nContent-Length: 1\r\n\r\nx\r\nGET /2 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 204 a\r\n\r\nHTTP/1.1 205 b\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 204), pair("/2", 205)]);
    assert_eq!(request(&all[0]).offset, 4);
    assert!(all.iter().all(|e| e.notes.is_empty()));
}

#[test]
fn folded_fields_are_joined_and_noted() {
    let e = exchange(&[
        Ask(b"GET / HTTP/1.1\r\nX: one\r\n two\r\n\t three \r\nContent-Length:\r\n 2\r\n\r\nok"),
        Tell(b"HTTP/1.1 204 x\r\n\r\n"),
    ]);
    assert_eq!(request(&e).head.get("x"), Some(&b"one two three"[..]));
    assert_eq!(request(&e).body, b"ok");
    assert_eq!(e.notes, [Note::ObsoleteFolding]);
}

#[test]
fn conflicting_framing_is_marked() {
    // A transfer coding wins over a length, the first of differing lengths over the others.
    let cases: [(&str, &[u8]); 5] = [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nab\r\n0\r\n\r\n", b"ab"),
        ("Content-Length: 2\r\nContent-Length: 30\r\n\r\nab", b"ab"),
        ("Content-Length: 2, 7\r\n\r\nab", b"ab"),
        ("Content-Length: x\r\nContent-Length: 2\r\n\r\nab", b"ab"),
    ];
    for (rest, body) in cases {
        let ask = format!("POST /1 HTTP/1.1\r\n{rest}GET /2 HTTP/1.1\r\n\r\n");
        let tell = b"HTTP/1.1 204 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n";
        let all = exchanges(&[Ask(ask.as_bytes()), Tell(tell)]);
        assert_eq!(pairs(&all), [pair("/1", 204), pair("/2", 204)], "{rest}");
        assert_eq!(
            (request(&all[0]).body.as_slice(), all[0].notes.as_slice()),
            (body, &[Note::ConflictingFraming][..])
        );
    }
    let same = b"POST / HTTP/1.1\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nab";
    assert_eq!(exchange(&[Ask(same)]).notes, []);
}

#[test]
fn a_coding_that_does_not_end_in_chunked_lasts_until_the_close() {
    let e = exchange(&[
        Ask(b"GET / HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nraw"),
        TellEnd,
    ]);
    assert_eq!((response(&e).body.as_slice(), response(&e).framing), (&b"raw"[..], Framing::Close));
    let e = exchange(&[Ask(b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nraw"), AskEnd]);
    assert_eq!((request(&e).body.as_slice(), e.notes.as_slice()), (&b"raw"[..], &[Note::ConflictingFraming][..]));
}

#[test]
fn odd_bytes_in_a_head_are_kept_as_they_are() {
    let ask = b"GET /\xff\0 HTTP/1.1\r\nA: x\0y\xfe\r\nno colon\r\nB : 1\r\n: empty\r\nC: \xc3\xa9\r\n\r\n";
    let e = exchange(&[Ask(ask), Tell(b"HTTP/1.1 204 \xff\0\r\n\r\n")]);
    let q = request(&e);
    assert_eq!(q.head.target, b"/\xff\0");
    let fields: [(&[u8], &[u8]); 5] =
        [(b"A", b"x\0y\xfe"), (b"", b"no colon"), (b"", b"B : 1"), (b"", b": empty"), (b"C", b"\xc3\xa9")];
    assert_eq!(q.head.fields, fields.map(|(n, v)| (n.to_vec(), v.to_vec())));
    assert_eq!(e.notes, [Note::MalformedField]);
    assert_eq!(response(&e).head.target, b"\xff\0");
}

#[test]
fn an_early_response_waits_for_the_end_of_its_request() {
    let all = exchanges(&[
        Ask(b"POST /1 HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc"),
        Tell(b"HTTP/1.1 413 Too big\r\nContent-Length: 0\r\n\r\n"),
        Ask(b"def"),
        Ask(b"GET /2 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 413), pair("/2", 200)]);
    assert_eq!((request(&all[0]).body.as_slice(), request(&all[0]).ended), (&b"abcdef"[..], true));
    let cut = exchange(&[
        Ask(b"POST /1 HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc"),
        Tell(b"HTTP/1.1 413 Too big\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!((response(&cut).head.status, request(&cut).ended, request(&cut).body_bytes), (413, false, 3));
}

#[test]
fn unanswered_and_unasked_messages_are_kept() {
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 200), pair("/2", 0)]);
    assert_eq!((response(&all[0]).ended, response(&all[0]).body_bytes), (false, 4));
    // A server that gives up on an idle client.
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Tell(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"),
        TellEnd,
    ]);
    assert_eq!(pairs(&all), [pair("/1", 200), pair("-", 408)]);
    assert_eq!(all[1].client, Some(Side::A));
    // The same, and a request that began later and is not its.
    let all = exchanges(&[
        Tell(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n"),
        Ask(b"GET /1 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("-", 408), pair("/1", 200)]);
}

#[test]
fn a_response_that_comes_before_its_request_waits_for_it() {
    let mut connection = Connection::new(limits(), Budget::new(1 << 20));
    let mut out = Vec::new();
    let tell = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno";
    connection.data(Side::B, 0, &tell[..50], 9, &mut out);
    connection.data(Side::B, 50, &tell[50..], 9, &mut out);
    assert_eq!(out, []);
    connection.data(Side::A, 0, b"HEAD /1 HTTP/1.1\r\n\r\nGET /2 HT", 5, &mut out);
    connection.data(Side::A, 29, b"TP/1.1\r\n\r\n", 6, &mut out);
    let all = only_exchanges(out);
    assert_eq!(pairs(&all), [pair("/1", 200), pair("/2", 404)]);
    assert_eq!(response(&all[1]).body, b"no");
}

#[test]
fn what_is_not_http_is_said_once() {
    let out = outputs(&[Tell(b"SSH-2.0-OpenSSH_9.2\r\n"), Ask(b"SSH-2.0-x\r\n"), Ask(b"GET / HTTP/1.1\r\n\r\n")]);
    assert_eq!(out, [Output::NotHttp]);
    let out = outputs(&[Ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Tell(b"\0\0\x0c\x04\0\0\0\0\0"), Tell(b"more")]);
    assert_eq!(out, [Output::NotHttp]);
    let out = outputs(&[Ask(b"\x16\x03\x01\x02"), Tell(b"\x16\x03\x03")]);
    assert_eq!(out, [Output::NotHttp]);
}

#[test]
fn a_gap_inside_a_body_of_known_length_only_leaves_a_mark() {
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab"),
        TellGap(3),
        Tell(b"fg"),
        TellGap(3),
        Ask(b"GET /2 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 204 x\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 200), pair("/2", 204)]);
    let r = response(&all[0]);
    assert_eq!((r.body.as_slice(), r.body_bytes, r.ended), (&b"abfg"[..], 10, true));
    assert_eq!(r.gaps, [(2, 3, GapCause::Ring), (7, 3, GapCause::Ring)]);
}

#[test]
fn a_gap_inside_one_chunk_only_leaves_a_mark() {
    let e = exchange(&[
        Ask(b"GET / HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na"),
        TellGap(5),
        Tell(b"\r\n1\r\nz\r\n0\r\n\r\n"),
    ]);
    let r = response(&e);
    assert_eq!((r.body.as_slice(), r.body_bytes, r.ended), (&b"az"[..], 7, true));
    assert_eq!(r.gaps, [(1, 5, GapCause::Ring)]);
}

#[test]
fn a_gap_in_chunk_framing_ends_the_message_and_the_next_is_found() {
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\na"),
        TellGap(9),
        Tell(b"rest of something\r\n0\r\n\r\n"),
        Ask(b"GET /2 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 202 x\r\nContent-Length: 0\r\n\r\n"),
        Ask(b"GET /3 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 203 x\r\nContent-Length: 0\r\n\r\n"),
    ]);
    // Whether 202 answers /2 cannot be told; from /3 on nothing can be outstanding.
    assert_eq!(pairs(&all), [pair("/1", 200), pair("/2", 0), pair("-", 202), pair("/3", 203)]);
    assert_eq!((response(&all[0]).ended, response(&all[0]).gaps.as_slice()), (false, &[(1, 9, GapCause::Ring)][..]));
    assert_eq!(all[2].notes, [Note::Resynchronised]);
}

#[test]
fn a_gap_between_messages_is_never_bridged() {
    let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\n\r\n"),
        TellGap(38),
        Ask(b"GET /2 HTTP/1.1\r\n\r\n"),
        Tell(head),
        Ask(b"GET /3 HTTP/1.1\r\n\r\n"),
        Tell(head),
    ]);
    // Had /1 been answered in the gap or not: /2's answer cannot be told from /1's.
    assert_eq!(pairs(&all)[..3], [pair("/1", 0), pair("/2", 0), pair("-", 200)]);
    assert!(!pairs(&all).contains(&pair("/2", 200)));
}

#[test]
fn a_client_that_was_seen_to_wait_is_paired_again_after_a_gap() {
    let tell: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let ask: Vec<Vec<u8>> = (0..7).map(|n| format!("GET /{n} HTTP/1.1\r\n\r\n").into_bytes()).collect();
    let mut steps = Vec::new();
    for (n, ask) in ask.iter().enumerate() {
        steps.push(Ask(ask));
        steps.push(if n == 4 { TellGap(tell.len() as u64) } else { Tell(tell) });
    }
    let all = exchanges(&steps);
    let expected: Vec<_> = [(0, 200), (1, 200), (2, 200), (3, 200), (4, 0), (5, 0)]
        .map(|(n, status)| pair(&format!("/{n}"), status))
        .into_iter()
        .chain([pair("-", 200), pair("/6", 200)])
        .collect();
    assert_eq!(pairs(&all), expected);
}

#[test]
fn after_a_capped_response_a_client_that_waits_is_paired_at_once() {
    let tell: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let ask: Vec<Vec<u8>> = (0..6).map(|n| format!("GET /{n} HTTP/1.1\r\n\r\n").into_bytes()).collect();
    let mut steps = Vec::new();
    for (n, ask) in ask.iter().enumerate() {
        steps.push(Ask(ask));
        match n {
            3 => steps.push(Tell(b"HTTP/1.1 206 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab")),
            4 => steps.extend([TellCap(5000), Tell(tell)]),
            _ => steps.push(Tell(tell)),
        }
    }
    let all = exchanges(&steps);
    let expected: Vec<_> =
        [200, 200, 200, 206, 200, 200].iter().enumerate().map(|(n, status)| pair(&format!("/{n}"), *status)).collect();
    assert_eq!(pairs(&all), expected);
    assert_eq!((response(&all[3]).ended, response(&all[3]).body.as_slice()), (false, &b"ab"[..]));
}

#[test]
fn a_request_cut_by_a_gap_still_has_its_response() {
    let all = exchanges(&[
        Ask(b"POST /1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        AskGap(100),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        Ask(b"GET /2 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 200), pair("/2", 0), pair("-", 404)]);
    assert_eq!((request(&all[0]).ended, request(&all[0]).body.as_slice()), (false, &b"ab"[..]));
}

#[test]
fn a_head_cut_by_a_gap_is_kept_as_far_as_it_came() {
    let all = exchanges(&[Ask(b"GET /1 HTTP/1.1\r\nHost: h\r\nCook"), AskGap(9), Ask(b"ie: x\r\n\r\n")]);
    assert_eq!(pairs(&all), [pair("/1", 0)]);
    assert_eq!(request(&all[0]).head.fields, [(b"Host".to_vec(), b"h".to_vec())]);
    assert!(!request(&all[0]).ended);
    assert_eq!(request(&all[0]).gaps, [(0, 9, GapCause::Ring)]);
}

#[test]
fn a_message_that_begins_a_line_is_found_inside_a_segment() {
    let all = exchanges(&[
        AskGap(10),
        Ask(b"left over\r\nmore\r\nGET /2 HTTP/1.1\r\nHost: h\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/2", 0), pair("-", 200)]);
    assert_eq!(all[0].notes, [Note::Resynchronised]);
    assert_eq!(request(&all[0]).offset, 10 + 17);
}

#[test]
fn text_about_http_is_not_taken_for_it() {
    let all = exchanges(&[
        Ask(b"GET /1 HTTP/1.1\r\n\r\n"),
        Tell(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n"),
        TellGap(300),
        Tell(b"log line\nHTTP/1.1 200 OK\nthis is no field\n\nmore\n"),
    ]);
    assert_eq!(pairs(&all), [pair("/1", 200)]);
}

#[test]
fn a_connection_older_than_the_capture_begins_at_its_next_message() {
    let mut connection = Connection::midway(limits(), Budget::new(1 << 20));
    assert!(!connection.fresh());
    let mut out = Vec::new();
    connection.data(Side::B, 70_000, b"middle of a body", 1, &mut out);
    connection.data(Side::B, 70_016, b" and its end", 2, &mut out);
    for n in 0..3u64 {
        connection.data(Side::A, 500 + n * 19, format!("GET /{n} HTTP/1.1\r\n\r\n").as_bytes(), 10 * n + 10, &mut out);
        connection.data(Side::B, 70_028 + n * 21, b"HTTP/1.1 204 Fine\r\n\r\n", 10 * n + 15, &mut out);
    }
    connection.close(99, &mut out);
    let all = only_exchanges(out);
    assert_eq!(pairs(&all), [pair("/0", 0), pair("-", 204), pair("/1", 204), pair("/2", 204)]);
    // An idle one loses nothing.
    let mut connection = Connection::midway(limits(), Budget::new(1 << 20));
    let mut out = Vec::new();
    connection.data(Side::A, 500, b"GET /1 HTTP/1.1\r\n\r\n", 1, &mut out);
    connection.data(Side::B, 900, b"HTTP/1.1 204 x\r\n\r\n", 2, &mut out);
    assert_eq!(pairs(&only_exchanges(out)), [pair("/1", 204)]);
}

#[test]
fn bodies_beyond_the_limit_are_counted_and_cut() {
    let connection = Connection::new(Limits { body: 10, ..limits() }, Budget::new(1 << 20));
    let out = run_with(
        connection,
        &[
            Ask(b"GET / HTTP/1.1\r\n\r\n"),
            Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n01234567"),
            Tell(b"89abcdef"),
            Ask(b"GET /2 HTTP/1.1\r\n\r\n"),
            Tell(b"HTTP/1.1 204 x\r\n\r\n"),
        ],
    );
    let all = only_exchanges(out);
    let r = response(&all[0]);
    assert_eq!(
        (r.body.as_slice(), r.body_bytes, r.cut, r.starved, r.ended),
        (&b"0123456789"[..], 16, true, false, true)
    );
    assert_eq!(pairs(&all)[1], pair("/2", 204));
}

#[test]
fn past_the_budget_bodies_are_cut_and_all_memory_comes_back() {
    let budget = Budget::new(4096);
    let connection = Connection::new(limits(), Arc::clone(&budget));
    let body = [b'x'; 3000];
    let out = run_with(
        connection,
        &[
            Ask(b"GET / HTTP/1.1\r\n\r\n"),
            Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 6000\r\n\r\n"),
            Tell(&body),
            Tell(&body),
            Ask(b"GET /2 HTTP/1.1\r\n\r\n"),
            Tell(b"HTTP/1.1 200 OK\r\nContent-Length: 3000\r\n\r\n"),
            Tell(&body),
        ],
    );
    let all = only_exchanges(out);
    let r = response(&all[0]);
    assert_eq!((r.body.len(), r.body_bytes, r.starved, r.cut, r.ended), (3000, 6000, true, false, true));
    assert_eq!((response(&all[1]).body.len(), response(&all[1]).starved), (3000, false));
    assert!(budget.refused() > 0);
    assert_eq!(budget.used(), 0);
}

#[test]
fn broken_chunking_is_marked_and_ends_the_message() {
    for chunks in ["xyz\r\n", "-5\r\nabc", "5\r\nhelloX\r\n", "11111111111111111\r\n", "\r\n", "5 5\r\nhello"] {
        let tell = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n{chunks}");
        let e = exchange(&[Ask(b"GET / HTTP/1.1\r\n\r\n"), Tell(tell.as_bytes())]);
        assert_eq!(e.notes, [Note::BrokenChunking], "{chunks:?}");
        assert!(!response(&e).ended && response(&e).body.starts_with(b"ab"));
    }
}

#[test]
fn lengths_that_are_no_numbers_are_not_believed() {
    for length in
        ["-1", "+5", "0x10", "18446744073709551616", "99999999999999999999999", "", "1 2", "4611686018427387904"]
    {
        let ask = format!("POST /1 HTTP/1.1\r\nContent-Length: {length}\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        let all = exchanges(&[Ask(ask.as_bytes())]);
        assert_eq!(pairs(&all), [pair("/1", 0), pair("/2", 0)], "{length}");
        assert_eq!(all[0].notes, [Note::ConflictingFraming], "{length}");
    }
}

#[test]
fn a_note_of_flow_reaches_the_message_that_is_read() {
    let mut connection = Connection::new(limits(), Budget::new(1 << 20));
    let mut out = Vec::new();
    connection.data(Side::A, 0, b"GET / HTTP/1.1\r\n\r\n", 1, &mut out);
    connection.data(Side::B, 0, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", 2, &mut out);
    connection.note(Side::B, Note::RetransmissionDiffers);
    connection.data(Side::B, 39, b"b", 3, &mut out);
    assert_eq!(only_exchanges(out)[0].notes, [Note::RetransmissionDiffers]);
}

#[test]
fn too_many_unanswered_requests_are_handed_on() {
    let connection = Connection::new(Limits { pending: 4, ..limits() }, Budget::new(1 << 20));
    let asked: Vec<Vec<u8>> = (0..6).map(|n| format!("GET /{n} HTTP/1.1\r\n\r\n").into_bytes()).collect();
    let steps: Vec<Step<'_>> = asked.iter().map(|ask| Ask(ask)).collect();
    let all = only_exchanges(run_with(connection, &steps));
    assert_eq!(all.len(), 6);
    assert!(all.iter().all(|e| e.response.is_none()));
}
