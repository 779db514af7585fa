//! Objects come back from stores that others can write to: whatever they hold, reading them and exporting
//! them must neither fail hard nor run as a command.
#![allow(missing_docs)]

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use proptest::prelude::*;
use transaction::{
    Transaction, curl, har,
    object::{Body, Redaction, Request},
    seal,
};

const OBJECT: &[u8] = include_bytes!("golden/object.json");

/// Reads an object and does everything with it that the product does.
fn use_it(bytes: &[u8]) {
    if let Ok(transaction) = serde_json::from_slice::<Transaction>(bytes) {
        let _ = har([&transaction]);
        let _ = curl(&transaction);
        let sealed = seal(&transaction, u64::MAX);
        let again: Transaction = serde_json::from_slice(&sealed.bytes).unwrap();
        assert_eq!(again.request, transaction.request);
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        "\\PC{0,20}".prop_map(Into::into),
        Just("9999-99-99T99:99:99Z".into()),
        Just("-9999-01-01T00:00:00Z".into()),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::vec((member(), inner), 0..6).prop_map(|list| list.into_iter().collect()),
        ]
    })
}

fn member() -> impl Strategy<Value = String> {
    let names = [
        "metadata",
        "request",
        "response",
        "timing",
        "completeness",
        "headers",
        "header_list",
        "body",
        "url",
        "method",
        "status",
        "transaction_time",
        "total_ns",
        "request_ns",
        "ttfb_ns",
        "connection",
        "remote",
        "redactions",
        "where",
        "end",
    ];
    prop::sample::select(names.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(value in json()) {
        use_it(value.to_string().as_bytes());
    }

    #[test]
    fn a_changed_object_is_read_or_refused(changes in prop::collection::vec((0..OBJECT.len(), any::<u8>()), 1..8), end in 0..OBJECT.len()) {
        let mut bytes = OBJECT.to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        use_it(&bytes);
        use_it(&bytes[..end]);
    }
}

#[test]
fn deep_and_large_objects_are_bounded_by_their_text() {
    let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    use_it(deep.as_bytes());
    let deep = format!("{{\"request\":{{\"headers\":{}{}}}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(serde_json::from_str::<Transaction>(&deep).is_err());
    let body = format!(r#"{{"response":{{"status":200,"body":"{}"}}}}"#, "QUFB".repeat(100_000));
    assert_eq!(serde_json::from_str::<Transaction>(&body).unwrap().response.unwrap().body.0.len(), 300_000);
    assert!(serde_json::from_str::<Transaction>(r#"{"request":{"body":"no base64!"}}"#).is_err());
}

/// What a shell makes of the command: curl's arguments, and what it is given to read.
fn arguments(command: &str) -> Vec<Vec<u8>> {
    let script = format!("curl() {{ for word; do printf '%s\\0' \"$word\"; done; cat; }}\n{command}");
    // A file, because an argument of the shell would have a limit that the command itself must not have.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(script.as_bytes()).unwrap();
    let out = Command::new("sh").arg(file.path()).stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{command}");
    out.stdout.split(|&b| b == 0).map(<[u8]>::to_vec).collect()
}

fn transaction(value: &str, body: &[u8]) -> Transaction {
    Transaction {
        request: Some(Request {
            method: "PUT".into(),
            url: format!("http://h/{value}"),
            path: "/".into(),
            authority: "h".into(),
            version: "HTTP/1.1".into(),
            header_list: vec![
                ("Host".into(), "h".into()),
                ("X-Value".into(), value.into()),
                ("@file".into(), value.into()),
            ],
            body: Body(body.to_vec()),
            ..Request::default()
        }),
        redactions: vec![Redaction { place: format!("request.{value}"), ..Redaction::default() }],
        ..Transaction::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_captured_never_runs(value in "[a-z'\"$`\\\\;&|<>(){}#!\n\r\t ~*?\u{1b}é-]{1,24}", body in prop_oneof![
        "[a-z'\"$`\\\\;&|<>(){}#!\n @-]{0,40}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..60),
    ]) {
        let words = arguments(&curl(&transaction(&value, &body)));
        let texts: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let after = |option: &str| texts.iter().position(|word| word == option).map(|at| words[at + 1].clone());
        prop_assert_eq!(&texts[..2], &["--request", "PUT"], "{:?}", texts);
        let header = format!("X-Value: {value}");
        let plain = !value.chars().any(|c| c.is_control() && c != '\t');
        prop_assert_eq!(texts.contains(&header), plain);
        let url: String = format!("http://h/{value}").chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
        prop_assert_eq!(after("--url").unwrap(), url.into_bytes());
        match after("--data-raw") {
            Some(text) => prop_assert_eq!(text, body),
            None if body.is_empty() => prop_assert!(after("--data-binary").is_none()),
            None => {
                prop_assert_eq!(after("--data-binary").unwrap(), b"@-");
                // What curl reads comes after the last word's NUL.
                let all = words.join(&0);
                prop_assert!(all.ends_with(&body));
            }
        }
    }
}

#[test]
fn a_long_body_goes_through_a_pipe() {
    let body = "it's long ".repeat(20_000);
    let words = arguments(&curl(&transaction("v", body.as_bytes())));
    assert!(words.last().is_some_and(|read| read == body.as_bytes()));
}
