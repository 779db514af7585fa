//! Exports leave as files: never as a type that a browser would render.

use serde_json::Value;
use transaction::{Level, Transaction};

use crate::{
    refusal::assert_hardened,
    running::{Gateway, sealed},
    sample::Sample,
};

const PAGE: &[u8] = b"<!doctype html><script>alert(document.domain)</script>";

#[tokio::test]
async fn exports_are_attachments_of_a_type_that_no_browser_renders() {
    let object = sealed(&Sample {
        method: "POST",
        request_headers: &[("Host", "api.example:8080"), ("Content-Type", "image/svg+xml")],
        request_body: b"<svg onload=alert(1)>",
        response_headers: &[("Content-Type", "text/html")],
        response_body: PAGE,
        ..Sample::default()
    });
    let name = object.record.digest.to_string();
    let gateway = Gateway::with(vec![object]).await;
    let octets = "application/octet-stream";
    for (query, kind, file) in [
        ("raw", "application/json", None),
        ("format=json", "application/json", Some(format!("{name}.json"))),
        ("format=har", octets, Some(format!("{}.har", &name[..12]))),
        ("format=curl", octets, Some(format!("{}.sh", &name[..12]))),
        ("body=request", octets, Some(format!("{}.request.bin", &name[..12]))),
        ("body=response", octets, Some(format!("{}.response.bin", &name[..12]))),
    ] {
        // What a browser would rather have changes nothing.
        let accept = [("Accept", "text/html,image/svg+xml,*/*;q=0.8")];
        let answer = gateway.ask("GET", &format!("/qpoint/{name}?{query}"), &accept).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{query}");
        let disposition = file.map(|f| format!("attachment; filename=\"{f}\""));
        assert_eq!(answer.header("content-disposition"), disposition.as_deref(), "{query}");
        assert_eq!(answer.header("cache-control"), Some("private, no-store"), "{query}");
        assert_hardened(&answer, query);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn exports_hold_what_was_captured() {
    let object = sealed(&Sample {
        method: "POST",
        request_headers: &[("Host", "api.example:8080"), ("Content-Type", "text/plain")],
        request_body: b"it's asked",
        response_body: PAGE,
        ..Sample::default()
    });
    let (name, bytes) = (object.record.digest, object.bytes.clone());
    let gateway = Gateway::with(vec![object]).await;
    let get = async |query: &str| gateway.get(&format!("/qpoint/{name}?{query}")).await;
    assert_eq!(get("format=json").await.body, bytes);
    assert_eq!(get("body=request").await.body, b"it's asked");
    assert_eq!(get("body=response").await.body, PAGE);
    let har: Value = serde_json::from_slice(&get("format=har").await.body).unwrap();
    let kept: Transaction = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(har, transaction::har([&kept]));
    assert_eq!(har["log"]["entries"][0]["request"]["method"], "POST");
    let curl = get("format=curl").await;
    assert_eq!(curl.text(), transaction::curl(&kept));
    assert!(curl.text().contains(r"'it'\''s asked'"), "{}", curl.text());
    gateway.stop().await;
}

#[tokio::test]
async fn a_part_that_was_not_kept_is_not_found() {
    let summary = sealed(&Sample { level: Level::Summary, request_body: b"asked", ..Sample::default() });
    let name = summary.record.digest;
    let gateway = Gateway::with(vec![summary]).await;
    for query in ["body=request", "body=response"] {
        let answer = gateway.get(&format!("/qpoint/{name}?{query}")).await;
        assert_eq!((answer.status, answer.text()), (404, "No body was kept.\n"), "{query}");
    }
    for (query, expected) in [("format=exe", "json, har or curl"), ("body=both", "request or response")] {
        let answer = gateway.get(&format!("/qpoint/{name}?{query}")).await;
        assert!(answer.status == 400 && answer.text().contains(expected), "{query}: {answer:?}");
    }
    gateway.stop().await;
}
