//! What is not answered: wrong digests, other buckets, foreign host names, other methods; and the security
//! headers on every answer.

use transaction::Digest;

use crate::{
    client::Answer,
    running::{Gateway, sealed},
    sample::Sample,
};

/// What every answer that a handler or the guard made must carry.
pub(crate) fn assert_hardened(answer: &Answer, what: &str) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{what}: {name}");
    }
    assert!(answer.header("cache-control").is_some(), "{what}: {:?}", answer.headers);
    assert_eq!(answer.header("access-control-allow-origin"), None, "{what}");
    let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{what}: no policy"));
    assert!(policy.starts_with("default-src 'none'"), "{what}: {policy}");
    assert!(!policy.contains("script-src") && !policy.contains("unsafe-inline"), "{what}: {policy}");
    let page = answer.header("content-type").is_some_and(|t| t.starts_with("text/html"));
    assert_eq!(policy.contains("sandbox"), !page, "{what}: {policy}");
}

#[tokio::test]
async fn only_forty_lower_case_hexadecimal_digits_of_this_bucket_name_an_object() {
    let object = sealed(&Sample::default());
    let d = object.record.digest.to_string();
    let gateway = Gateway::with(vec![object]).await;
    assert_eq!(gateway.get(&format!("/qpoint/{d}")).await.status, 200);
    assert!(d.bytes().any(|b| b.is_ascii_lowercase()), "upper case would be the same");
    let bad = [
        d.to_uppercase(),
        d[..39].to_owned(),
        format!("{d}0"),
        format!("{d}/"),
        format!("/{d}"),
        format!("%2e%2e/{d}"),
        format!("../qpoint/{d}"),
        format!("./{d}"),
        format!("{d}%00"),
        format!("{d}.json"),
        format!("{d};x"),
        format!("%{:02x}{}", d.as_bytes()[0], &d[1..]),
        "..%2f..%2fetc%2fpasswd".to_owned(),
        "../../etc/passwd".to_owned(),
        "g".repeat(40),
        "٠".repeat(20),
        String::new(),
    ];
    for digest in bad {
        let answer = gateway.get(&format!("/qpoint/{digest}")).await;
        assert_eq!(answer.status, 400, "{digest}");
        assert!(!answer.text().contains("passwd"), "{digest}");
    }
    for path in [
        format!("/other/{d}"),
        format!("/QPOINT/{d}"),
        format!("/%71point/{d}"),
        format!("//qpoint/{d}"),
        format!("/./qpoint/{d}"),
        format!("/x/../qpoint/{d}"),
        format!("/{d}"),
        "/qpoint".to_owned(),
        "/static/../../etc/passwd".to_owned(),
        "/static/%2e%2e%2fetc%2fpasswd".to_owned(),
        format!("/qpoint/{}", Digest::of(b"absent")),
    ] {
        assert_eq!(gateway.get(&path).await.status, 404, "{path}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_foreign_host_name_is_refused_with_what_to_do() {
    let object = sealed(&Sample::default());
    let target = format!("/qpoint/{}", object.record.digest);
    let gateway = Gateway::with(vec![object]).await;
    let port = gateway.address.port();
    let own = format!("127.0.0.1:{port}");
    for host in ["localhost", "LOCALHOST:1", "[::1]:80", "127.0.0.1", &own, "tap.example", "Tap.Example.:9"] {
        assert_eq!(gateway.ask("GET", &target, &[("Host", host)]).await.status, 200, "{host}");
    }
    for host in
        ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.0", "a@localhost"]
    {
        let answer = gateway.ask("GET", &target, &[("Host", host)]).await;
        assert_eq!(answer.status, 421, "{host}");
        assert!(answer.text().contains("Use localhost") && answer.text().contains("hosts"), "{}", answer.text());
        assert!(!answer.text().contains("evil"), "{}", answer.text());
        assert_hardened(&answer, host);
        assert_eq!(gateway.ask("GET", "/", &[("Host", host)]).await.status, 421, "{host}");
    }
    assert_eq!(gateway.counted("requests_misdirected"), 12);
    // The name in an absolute-form target counts too, whatever Host says.
    let absolute = gateway.ask("GET", &format!("http://evil.example{target}"), &[("Host", "localhost")]).await;
    assert_eq!(absolute.status, 421);
    let absolute = gateway.ask("GET", &format!("http://localhost{target}"), &[("Host", "localhost")]).await;
    assert_eq!(absolute.status, 200);
    for (what, head) in [
        ("none", String::new()),
        ("two", "Host: localhost\r\nHost: localhost\r\n".to_owned()),
        ("one good, one foreign", "Host: localhost\r\nHost: evil.example\r\n".to_owned()),
    ] {
        let answer = gateway.send(format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{head}\r\n").as_bytes()).await;
        assert_eq!(answer.status, 400, "{what}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn only_get_and_head_are_answered() {
    let object = sealed(&Sample::default());
    let target = format!("/qpoint/{}", object.record.digest);
    let gateway = Gateway::with(vec![object]).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "get"] {
        for target in [target.as_str(), "/", "/healthz", "/static/style.css", "/nowhere"] {
            let answer = gateway.ask(method, target, &[]).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method} {target}");
            assert_hardened(&answer, method);
        }
    }
    assert_eq!(gateway.get(&target).await.status, 200);
    gateway.stop().await;
}

#[tokio::test]
async fn every_answer_carries_the_security_headers_also_errors() {
    let object = sealed(&Sample { request_body: b"asked", ..Sample::default() });
    let d = object.record.digest;
    let gateway = Gateway::with(vec![object]).await;
    let html = &[("Accept", "text/html")][..];
    for (target, headers, status) in [
        ("/".to_owned(), html, 200),
        ("/?format=json".to_owned(), &[], 200),
        ("/?status=wrong".to_owned(), html, 400),
        ("/?status=wrong&format=json".to_owned(), &[], 400),
        (format!("/qpoint/{d}"), &[], 200),
        (format!("/qpoint/{d}"), html, 200),
        (format!("/qpoint/{d}?format=json"), &[], 200),
        (format!("/qpoint/{d}?format=har"), &[], 200),
        (format!("/qpoint/{d}?format=curl"), &[], 200),
        (format!("/qpoint/{d}?body=request"), &[], 200),
        (format!("/qpoint/{d}?body=response"), &[], 200),
        (format!("/qpoint/{d}?format=exe"), &[], 400),
        (format!("/qpoint/{d}"), &[("If-None-Match", "*")], 304),
        (format!("/qpoint/{}", Digest::of(b"absent")), html, 404),
        ("/qpoint/x".to_owned(), &[], 400),
        ("/nowhere".to_owned(), html, 404),
        ("/static/style.css".to_owned(), &[], 200),
        ("/static/icon.svg".to_owned(), &[], 200),
        ("/static/nothing.js".to_owned(), &[], 404),
        ("/healthz".to_owned(), &[], 200),
        ("/".to_owned(), &[("Host", "evil.example")], 421),
        (format!("/?host={}", "x".repeat(3000)), &[], 414),
    ] {
        let answer = gateway.ask("GET", &target, headers).await;
        assert_eq!(answer.status, status, "{target}");
        assert_hardened(&answer, &target);
    }
    gateway.stop().await;
}
