//! Objects come back as they were stored, and clients keep them as long as they may.

use transaction::{Digest, Level, Sealed};

use crate::{
    running::{Gateway, sealed},
    sample::Sample,
};

fn of_each_level() -> Vec<(Level, Sealed)> {
    [Level::Summary, Level::Headers, Level::Full]
        .into_iter()
        .map(|level| (level, sealed(&Sample { level, ..Sample::default() })))
        .collect()
}

#[tokio::test]
async fn an_object_is_served_byte_for_byte_under_the_sha1_of_its_bytes() {
    let binary: Vec<u8> = (0..=255).cycle().take(700_000).collect();
    let large = sealed(&Sample { response_body: &binary, ..Sample::default() });
    let mut objects: Vec<Sealed> = of_each_level().into_iter().map(|(_, s)| s).collect();
    objects.push(large);
    let expected: Vec<(Digest, Vec<u8>)> = objects.iter().map(|o| (o.record.digest, o.bytes.clone())).collect();
    let gateway = Gateway::with(objects).await;
    for (digest, bytes) in &expected {
        for query in ["", "?raw", "?raw=1", "?utm_source=dashboard"] {
            let answer = gateway.get(&format!("/qpoint/{digest}{query}")).await;
            assert_eq!(answer.status, 200);
            assert!(answer.body == *bytes, "{digest}{query}: {} of {} bytes", answer.body.len(), bytes.len());
            assert_eq!(Digest::of(&answer.body), *digest);
            assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()));
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()));
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let object = sealed(&Sample::default());
    let digest = object.record.digest;
    let gateway = Gateway::with(vec![object]).await;
    for target in [format!("/qpoint/{digest}"), format!("/qpoint/{digest}?format=har"), "/".to_owned()] {
        let get = gateway.get(&target).await;
        let head = gateway.ask("HEAD", &target, &[]).await;
        let undated = |a: &crate::client::Answer| {
            let mut list = a.headers.clone();
            list.retain(|(n, _)| n != "date");
            list.sort();
            list
        };
        assert_eq!((get.status, head.status), (200, 200), "{target}");
        assert!(!get.body.is_empty() && head.body.is_empty(), "{target}");
        assert_eq!(undated(&get), undated(&head), "{target}");
        assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()), "{target}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_has_the_object_is_told_so_and_gets_no_bytes() {
    let object = sealed(&Sample::default());
    let (digest, size) = (object.record.digest, object.bytes.len());
    let gateway = Gateway::with(vec![object]).await;
    let target = format!("/qpoint/{digest}");
    for tag in [format!("\"{digest}\""), format!("W/\"{digest}\""), format!("\"x\", \"{digest}\""), "*".to_owned()] {
        let answer = gateway.ask("GET", &target, &[("If-None-Match", &tag)]).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{tag}");
        assert_eq!(answer.header("etag"), Some(format!("\"{digest}\"").as_str()), "{tag}");
        assert_eq!(answer.header("cache-control"), Some("private, no-store"), "{tag}");
    }
    for tag in ["\"0000000000000000000000000000000000000000\"", "nonsense"] {
        let answer = gateway.ask("GET", &target, &[("If-None-Match", tag)]).await;
        assert_eq!((answer.status, answer.body.len()), (200, size), "{tag}");
    }
    // A tag never makes an object exist.
    let absent = gateway.ask("GET", &format!("/qpoint/{}", Digest::of(b"x")), &[("If-None-Match", "*")]).await;
    assert_eq!(absent.status, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn only_a_summary_may_be_kept_and_views_of_more_are_counted() {
    let levels = of_each_level();
    let digests: Vec<(Level, Digest)> = levels.iter().map(|(l, s)| (*l, s.record.digest)).collect();
    let gateway = Gateway::with(levels.into_iter().map(|(_, s)| s).collect()).await;
    for (level, digest) in digests {
        let before = gateway.counted("sensitive_views");
        let raw = gateway.get(&format!("/qpoint/{digest}")).await;
        let keep = if level == Level::Summary { "private, max-age=31536000, immutable" } else { "private, no-store" };
        assert_eq!((raw.status, raw.header("cache-control")), (200, Some(keep)), "{level:?}");
        assert_eq!(raw.header("vary"), Some("Accept"), "{level:?}");
        let page = gateway.ask("GET", &format!("/qpoint/{digest}"), &[("Accept", "text/html")]).await;
        assert_eq!((page.status, page.header("cache-control")), (200, Some("private, no-store")), "{level:?}");
        assert_eq!((page.header("etag"), page.header("vary")), (None, Some("Accept")), "{level:?}");
        let views = gateway.counted("sensitive_views") - before;
        assert_eq!(views, if level == Level::Summary { 0 } else { 2 }, "{level:?}");
    }
    gateway.stop().await;
}
