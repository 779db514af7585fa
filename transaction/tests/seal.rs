//! However an object is written, in one go or in parts, its bytes are those of `serde_json`.
#![allow(missing_docs)]

use proptest::{collection::vec, option, prelude::*};
use transaction::{
    Digest, Level, Transaction,
    object::{
        Body, Completeness, Connection, Direction, End, Gap, Headers, Interim, Metadata, Process, Redaction, Request,
        Response, Seen, Timing, Tls,
    },
    seal,
    seal::{Common, Observed, Shared, Written},
};

/// Text with everything that JSON escapes, and without.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z/ ]{0,12}", 1 => any::<String>(), 1 => "[\\x00-\\x7f\u{80}-\u{9f}\u{2028}]{0,40}"]
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((text(), text()), 0..4)
}

fn body() -> impl Strategy<Value = Body> {
    vec(any::<u8>(), 0..200).prop_map(Body)
}

fn request() -> impl Strategy<Value = Request> {
    (vec(text(), 10), pairs(), pairs(), pairs(), body()).prop_map(|(t, headers, header_list, trailer_list, body)| {
        let mut t = t.into_iter();
        let mut next = || t.next().unwrap();
        Request {
            method: next(),
            url: next(),
            scheme: next(),
            path: next(),
            authority: next(),
            protocol: next(),
            version: next(),
            request_id: next(),
            user_agent: next(),
            content_type: next(),
            headers: Headers(headers),
            header_list,
            trailer_list,
            body,
        }
    })
}

fn response() -> impl Strategy<Value = Response> {
    (any::<u16>(), (text(), text(), text()), pairs(), pairs(), pairs(), body()).prop_map(
        |(status, (reason, version, content_type), headers, header_list, trailer_list, body)| Response {
            status,
            reason,
            version,
            content_type,
            headers: Headers(headers),
            interim: vec![Interim { status, header_list: trailer_list.clone() }],
            header_list,
            trailer_list,
            body,
        },
    )
}

fn seen() -> impl Strategy<Value = Seen> {
    (any::<u64>(), text(), text(), vec(text(), 0..3)).prop_map(|(n, end, encoding, truncated)| Seen {
        head_bytes: n,
        body_bytes: n / 2,
        kept_bytes: n / 3,
        gaps: vec![Gap { offset: n, bytes: 1, cause: end.clone() }],
        end,
        encoding,
        truncated,
    })
}

fn process() -> impl Strategy<Value = Process> {
    (any::<u32>(), vec(text(), 6), vec(text(), 0..4), option::of(any::<u32>())).prop_map(|(pid, t, args, uid)| {
        let mut t = t.into_iter();
        let mut next = || t.next().unwrap();
        Process {
            pid,
            started: next(),
            exe: next(),
            args,
            user: next(),
            uid,
            unit: next(),
            container_id: next(),
            parent_pid: uid,
            parent_exe: next(),
        }
    })
}

/// Who was observed, and how: what an end alone knows.
fn end() -> impl Strategy<Value = (Metadata, Direction, End, Process, Connection, Vec<Redaction>)> {
    (vec(text(), 13), vec(text(), 0..3), any::<(u64, u64, bool, u32)>(), process()).prop_map(
        |(t, tags, (sent, received, flag, count), process)| {
            let mut t = t.into_iter();
            let mut next = || t.next().unwrap();
            let metadata = Metadata {
                process_id: next(),
                process_exe: next(),
                container_name: next(),
                container_image: next(),
                pod_name: next(),
                pod_namespace: next(),
                bytes_sent: sent,
                bytes_received: received,
                request_id: next(),
                connection_id: next(),
                endpoint_id: next(),
                tags,
                host_name: next(),
            };
            let connection =
                Connection { local: next(), remote: next(), source: next(), from_start: flag, exchange: sent };
            let redactions =
                (0..count % 3).map(|n| Redaction { place: format!("request.query.{n}"), action: "mask".into(), count });
            let redactions = redactions.collect();
            let (direction, end) = if flag { (Direction::Ingress, End::Server) } else { Default::default() };
            (metadata, direction, end, process, connection, redactions)
        },
    )
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let level = prop::sample::select(vec![Level::Summary, Level::Headers, Level::Full]);
    let messages = (option::of(request()), option::of(response()), seen(), seen(), vec(text(), 0..3));
    let tls = option::of((text(), text(), text(), text(), vec(text(), 0..3), text()));
    let rest = (text(), any::<f64>(), level, option::of(text()), option::of(text()), text(), option::of(any::<u64>()));
    (messages, end(), tls, rest).prop_map(
        |((request, response, asked, answered, notes), end, tls, (time, ms, level, rule, error_type, id, ns))| {
            let (metadata, direction, end, process, connection, redactions) = end;
            Transaction {
                metadata,
                request,
                response,
                transaction_time: time,
                duration_ms: ms,
                direction,
                end,
                level,
                rule,
                exchange_id: id,
                error_type,
                timing: Timing { request_ns: ns, ttfb_ns: None, response_ns: ns, total_ns: ns.unwrap_or(7) },
                completeness: Completeness { complete: ns.is_some(), request: asked, response: answered, notes },
                process,
                connection,
                tls: tls.map(|(version, sni, alpn, cipher, alpn_offered, binding)| Tls {
                    version,
                    sni,
                    alpn,
                    cipher,
                    alpn_offered,
                    binding,
                }),
                redactions,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn an_object_is_written_as_serde_json_writes_it(t in transaction()) {
        let sealed = seal(&t, 5);
        let expected = serde_json::to_vec(&t).unwrap();
        prop_assert_eq!(String::from_utf8_lossy(&sealed.bytes), String::from_utf8_lossy(&expected));
        prop_assert_eq!(sealed.record.digest, Digest::of(&expected));
    }

    #[test]
    fn both_ends_of_one_exchange_are_as_if_each_was_sealed_alone(first in transaction(), other in end()) {
        let (metadata, direction, end, process, connection, redactions) = other;
        let second = Transaction { metadata, direction, end, process, connection, redactions, ..first.clone() };
        let common = Common::new(&Shared {
            time_unix_ns: 9,
            request: first.request.as_ref(),
            response: first.response.as_ref(),
            transaction_time: &first.transaction_time,
            duration_ms: first.duration_ms,
            level: first.level,
            rule: first.rule.as_deref(),
            exchange_id: &first.exchange_id,
            error_type: first.error_type.as_deref(),
            timing: first.timing,
            completeness: &first.completeness,
            tls: first.tls.as_ref(),
        });
        for t in [&first, &second] {
            let together = common.seal(Observed {
                metadata: &t.metadata,
                direction: t.direction,
                end: t.end,
                process: &t.process,
                shown: Written::of(&t.process),
                connection: &t.connection,
                redactions: t.redactions.clone(),
            });
            let alone = seal(t, 9);
            prop_assert_eq!(String::from_utf8_lossy(&together.bytes), String::from_utf8_lossy(&alone.bytes));
            prop_assert_eq!(together.record, alone.record);
        }
    }
}
