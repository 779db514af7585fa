//! The shapes that users build on, byte for byte: object, events, HAR and curl. A difference here breaks a
//! promise: members may be added, none renamed or given another meaning.
//!
//! `TAPSTACK_GOLDEN=write cargo test -p transaction` writes the files anew; look at the difference before you
//! commit it.
#![allow(missing_docs)]

use std::{fs, path::PathBuf};

use serde_json::Value;
use transaction::{
    ArtifactRecord, ConnectionEvent, Flat as _, Level, Transaction, curl, har,
    object::{
        Body, Completeness, Connection, Direction, End, Gap, Headers, Interim, Metadata, Process, Redaction, Request,
        Response, Seen, Timing, Tls,
    },
    seal,
};

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

/// A transaction that has every member there is: written without `..Default::default()`, so that a new member
/// cannot be forgotten here, nor in the schema.
fn every_member() -> Transaction {
    Transaction {
        metadata: Metadata {
            process_id: "4242".into(),
            process_exe: "/usr/bin/curl".into(),
            container_name: "shop".into(),
            container_image: "example/shop:1".into(),
            pod_name: "shop-7d9f".into(),
            pod_namespace: "default".into(),
            bytes_sent: 312,
            bytes_received: 1_290,
            request_id: "0123456789abcdefghij".into(),
            connection_id: "abcdefghij0123456789".into(),
            endpoint_id: "api.example.com".into(),
            tags: vec!["team:shop".into()],
            host_name: "host-1".into(),
        },
        request: Some(Request {
            method: "POST".into(),
            url: "https://api.example.com:8443/v1/orders?page=2&token=[redacted]&q=a+b%26c".into(),
            scheme: "https".into(),
            path: "/v1/orders".into(),
            authority: "api.example.com:8443".into(),
            protocol: "http1".into(),
            version: "HTTP/1.1".into(),
            request_id: "r-1".into(),
            user_agent: "curl/8.14.1".into(),
            content_type: "application/json".into(),
            headers: Headers(pairs(&[
                (":authority", "api.example.com:8443"),
                (":method", "POST"),
                (":path", "/v1/orders?page=2&token=[redacted]&q=a+b%26c"),
                (":scheme", "https"),
                ("Host", "api.example.com:8443"),
                ("User-Agent", "curl/8.14.1"),
                ("Content-Type", "application/json"),
                ("Authorization", "Bearer [redacted]"),
                ("Cookie", "sid=[redacted]; theme=[redacted]"),
                ("X-Request-Id", "r-1"),
                ("X-Note", "it's, two"),
            ])),
            header_list: pairs(&[
                ("Host", "api.example.com:8443"),
                ("User-Agent", "curl/8.14.1"),
                ("content-type", "application/json"),
                ("Authorization", "Bearer [redacted]"),
                ("Cookie", "sid=[redacted]; theme=[redacted]"),
                ("X-Request-Id", "r-1"),
                ("X-Note", "it's"),
                ("x-note", "two"),
            ]),
            trailer_list: pairs(&[("X-Sum", "1")]),
            body: Body(br#"{"item":"o'clock","password":"[redacted]"}"#.to_vec()),
        }),
        response: Some(Response {
            status: 201,
            reason: "Created".into(),
            version: "HTTP/1.1".into(),
            content_type: "text/plain; charset=utf-8".into(),
            headers: Headers(pairs(&[
                (":status", "201"),
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Encoding", "gzip"),
                ("Location", "/v1/orders/7"),
                ("Set-Cookie", "a=[redacted]; Path=/; HttpOnly\nb=[redacted]; Secure"),
            ])),
            header_list: pairs(&[
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Encoding", "gzip"),
                ("Location", "/v1/orders/7"),
                ("Set-Cookie", "a=[redacted]; Path=/; HttpOnly"),
                ("Set-Cookie", "b=[redacted]; Secure"),
            ]),
            trailer_list: pairs(&[("X-Took", "3")]),
            interim: vec![Interim { status: 103, header_list: pairs(&[("Link", "</a.css>; rel=preload")]) }],
            body: Body("fine, thank you ✓\n".into()),
        }),
        transaction_time: "2026-09-21T14:13:20.001000001Z".into(),
        duration_ms: 12.346,
        direction: Direction::EgressExternal,
        end: End::Client,
        level: Level::Full,
        rule: Some("orders".into()),
        exchange_id: "abcdefghijklmnopqrst".into(),
        error_type: Some("gap".into()),
        timing: Timing {
            request_ns: Some(1_500_000),
            ttfb_ns: Some(9_000_000),
            response_ns: Some(3_345_678),
            total_ns: 12_345_678,
        },
        completeness: Completeness {
            complete: false,
            request: Seen {
                head_bytes: 270,
                body_bytes: 42,
                kept_bytes: 42,
                end: "length".into(),
                encoding: String::new(),
                truncated: vec![],
                gaps: vec![],
            },
            response: Seen {
                head_bytes: 190,
                body_bytes: 1_100,
                kept_bytes: 20,
                end: "cut".into(),
                encoding: "gzip".into(),
                truncated: vec!["gap".into()],
                gaps: vec![Gap { offset: 40, bytes: 1_060, cause: "ring".into() }],
            },
            notes: vec!["bare-line-feed".into()],
        },
        process: Process {
            pid: 4242,
            started: "2026-09-21T14:13:19.500000000Z".into(),
            exe: "/usr/bin/curl".into(),
            args: vec!["curl".into(), "-u".into(), "[redacted]".into()],
            user: "ann".into(),
            uid: Some(1000),
            unit: "shop.service".into(),
            container_id: "c".repeat(64),
            parent_pid: Some(4000),
            parent_exe: "/usr/bin/bash".into(),
        },
        connection: Connection {
            local: "192.0.2.1:40000".into(),
            remote: "[2001:db8::7]:8443".into(),
            source: "openssl".into(),
            from_start: true,
            exchange: 3,
        },
        tls: Some(Tls {
            version: "TLSv1.3".into(),
            sni: "api.example.com".into(),
            alpn: "http/1.1".into(),
            cipher: "TLS_AES_128_GCM_SHA256".into(),
            alpn_offered: vec!["h2".into(), "http/1.1".into()],
            binding: "handshake".into(),
        }),
        redactions: vec![
            Redaction { place: "request.header.Authorization".into(), action: "mask".into(), count: 1 },
            Redaction { place: "request.query.token".into(), action: "mask".into(), count: 1 },
        ],
    }
}

/// As little as there can be: a request that nobody answered, at level summary.
fn unanswered() -> Transaction {
    let whole = every_member();
    Transaction {
        metadata: Metadata {
            process_id: "0".into(),
            bytes_sent: 90,
            request_id: "0123456789abcdefghij".into(),
            connection_id: "abcdefghij0123456789".into(),
            endpoint_id: "192.0.2.9".into(),
            host_name: "host-1".into(),
            ..Metadata::default()
        },
        request: Some(Request {
            method: "GET".into(),
            url: "http://192.0.2.9/".into(),
            scheme: "http".into(),
            path: "/".into(),
            authority: "192.0.2.9".into(),
            protocol: "http1".into(),
            version: "HTTP/1.0".into(),
            ..Request::default()
        }),
        transaction_time: whole.transaction_time,
        duration_ms: 1.5,
        level: Level::Summary,
        exchange_id: whole.exchange_id,
        error_type: Some("no_response".into()),
        timing: Timing { request_ns: Some(1_500_000), total_ns: 1_500_000, ..Timing::default() },
        completeness: Completeness {
            request: Seen { head_bytes: 90, end: "none".into(), ..Seen::default() },
            response: Seen { end: "unseen".into(), ..Seen::default() },
            notes: vec!["no-host".into()],
            ..Completeness::default()
        },
        connection: Connection {
            local: "192.0.2.1:40001".into(),
            remote: "192.0.2.9:80".into(),
            source: "edge".into(),
            ..Connection::default()
        },
        ..Transaction::default()
    }
}

fn connection() -> ConnectionEvent {
    ConnectionEvent {
        time_unix_ns: 1_790_000_010_000_000_000,
        connection_id: "abcdefghij0123456789".into(),
        endpoint_id: "api.example.com".into(),
        part: 2,
        finalized: true,
        created_at: "2026-09-21T14:13:20.000000000Z".into(),
        closed_at: "2026-09-21T14:13:29.000000000Z".into(),
        direction: Direction::EgressInternal,
        socket_protocol: "tcp".into(),
        l7_protocol: "http1".into(),
        tls_sni: "api.example.com".into(),
        tls_alpn: "http/1.1".into(),
        tls_version: "TLSv1.3".into(),
        tls_cipher: "TLS_AES_128_GCM_SHA256".into(),
        tls_alpn_offered: "h2,http/1.1".into(),
        tls_plaintext: "openssl".into(),
        tls_error: "alert handshake_failure (40)".into(),
        source_ip: "10.0.0.1".into(),
        source_port: 40000,
        destination_ip: "10.0.0.2".into(),
        destination_port: 8443,
        bytes_sent: 1000,
        bytes_received: 2000,
        exchanges: 4,
        process_exe: "/usr/bin/curl".into(),
        process_pid: 4242,
        process_unit: "shop.service".into(),
        container_id: "c".repeat(64),
        host_name: "host-1".into(),
    }
}

fn record(t: &Transaction) -> ArtifactRecord {
    seal(t, transaction::time::unix_ns(&t.transaction_time).unwrap()).record
}

const URL: &str = "http://localhost:3904/qpoint/0";

/// Name of the golden file, its contents, and the schema that it must fit.
fn all() -> Vec<(&'static str, Vec<u8>, Option<&'static str>)> {
    let (whole, lone) = (every_member(), unanswered());
    let pretty = |bytes: &[u8]| {
        let value: Value = serde_json::from_slice(bytes).unwrap();
        [serde_json::to_vec_pretty(&value).unwrap(), b"\n".to_vec()].concat()
    };
    let mut har = har([&whole, &lone]);
    // A new version of the product is no new shape.
    har["log"]["creator"]["version"] = "0".into();
    vec![
        ("object.json", seal(&whole, 0).bytes, Some("object")),
        ("object-unanswered.json", seal(&lone, 0).bytes, Some("object")),
        ("artifact_record.json", record(&whole).to_event(URL, "host-1").to_json(), Some("artifact_record")),
        ("artifact_record-unanswered.json", record(&lone).to_event("", "host-1").to_json(), Some("artifact_record")),
        ("connection.json", connection().to_json(), Some("connection")),
        (
            "connection-empty.json",
            ConnectionEvent { connection_id: "c".into(), socket_protocol: "tcp".into(), ..ConnectionEvent::default() }
                .to_json(),
            Some("connection"),
        ),
        ("transactions.har", pretty(&serde_json::to_vec(&har).unwrap()), None),
        ("request.sh", curl(&whole).into_bytes(), None),
        ("request-unanswered.sh", curl(&lone).into_bytes(), None),
    ]
}

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn the_shapes_are_as_promised() {
    let write = std::env::var("TAPSTACK_GOLDEN").is_ok_and(|v| v == "write");
    for (name, contents, _) in all() {
        let path = folder("tests/golden").join(name);
        if write {
            fs::write(&path, &contents).unwrap();
        }
        let known = fs::read(&path).unwrap();
        assert_eq!(String::from_utf8_lossy(&contents), String::from_utf8_lossy(&known), "{name}");
    }
}

fn schema(name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder("../docs/schema").join(format!("{name}.json"))).unwrap()).unwrap()
}

/// What is wrong with `value`, in the words of the validator.
fn faults(name: &str, value: &Value) -> Option<String> {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    let address = format!("mem:///{name}.json");
    compiler.enable_content_assertions();
    compiler.add_resource(&address, schema(name)).unwrap();
    let index = compiler.compile(&address, &mut schemas).unwrap();
    schemas.validate(value, index).err().map(|error| error.to_string())
}

#[test]
fn the_golden_files_fit_their_schemas() {
    for (name, contents, schema) in all() {
        let Some(schema) = schema else { continue };
        let value = serde_json::from_slice(&contents).unwrap();
        assert_eq!(faults(schema, &value), None, "{name}");
    }
}

#[test]
fn the_schemas_refuse_what_is_wrong() {
    let mut value = serde_json::to_value(every_member()).unwrap();
    value["response"]["status"] = "201".into();
    assert!(faults("object", &value).is_some());
    let mut value = serde_json::to_value(record(&every_member()).to_event(URL, "h")).unwrap();
    value["duration_ms"] = "12".into();
    assert!(faults("artifact_record", &value).is_some());
}

/// Every member of `value` must be described in the schema.
fn described(value: &Value, part: &Value, whole: &Value, path: &str) {
    let part = match part["$ref"].as_str() {
        Some(reference) => whole.pointer(reference.trim_start_matches('#')).unwrap(),
        None => part,
    };
    match value {
        Value::Object(members) if part.get("additionalProperties").is_none() => {
            for (name, member) in members {
                let known = &part["properties"][name];
                assert!(known.is_object(), "{path}.{name} is not in the schema");
                described(member, known, whole, &format!("{path}.{name}"));
            }
            for name in part["properties"].as_object().unwrap().keys() {
                let seen = path.contains("completeness.request") || members.contains_key(name);
                assert!(seen, "{path}.{name} is in the schema and nobody writes it");
            }
        }
        Value::Array(items) => {
            for item in items {
                described(item, &part["items"], whole, &format!("{path}[]"));
            }
        }
        _ => {}
    }
}

#[test]
fn every_member_that_is_written_is_in_the_schema() {
    for (name, contents, schema_name) in all() {
        let Some(schema_name) = schema_name.filter(|s| name.trim_end_matches(".json") == *s) else { continue };
        let (schema, value) = (schema(schema_name), serde_json::from_slice::<Value>(&contents).unwrap());
        described(&value, &schema, &schema, schema_name);
    }
}

#[test]
fn objects_read_back_as_they_were() {
    for transaction in [every_member(), unanswered(), Transaction::default()] {
        let bytes = seal(&transaction, 0).bytes;
        assert_eq!(serde_json::from_slice::<Transaction>(&bytes).unwrap(), transaction);
    }
}

/// What RFC and the HAR 1.2 description ask of every entry.
#[test]
fn har_entries_have_what_readers_need() {
    let har = har([&every_member(), &unanswered(), &Transaction::default()]);
    assert_eq!(har["log"]["version"], "1.2");
    for entry in har["log"]["entries"].as_array().unwrap() {
        for name in ["startedDateTime", "time", "request", "response", "cache", "timings"] {
            assert!(!entry[name].is_null(), "{name}");
        }
        for name in ["method", "url", "httpVersion", "cookies", "headers", "queryString", "headersSize", "bodySize"] {
            assert!(!entry["request"][name].is_null(), "request.{name}");
        }
        for name in [
            "status",
            "statusText",
            "httpVersion",
            "cookies",
            "headers",
            "content",
            "redirectURL",
            "headersSize",
            "bodySize",
        ] {
            assert!(!entry["response"][name].is_null(), "response.{name}");
        }
        let times = ["send", "wait", "receive"].map(|name| entry["timings"][name].as_f64().unwrap());
        assert!(times.iter().all(|ms| *ms >= 0.0));
        assert!((times.iter().sum::<f64>() - entry["time"].as_f64().unwrap()).abs() < 0.0015);
        assert!(entry["response"]["content"]["size"].is_i64() && entry["response"]["content"]["mimeType"].is_string());
    }
    let lone = &har["log"]["entries"][1];
    assert_eq!((&lone["response"]["status"], &lone["_error"]), (&0.into(), &"no_response".into()));
}
