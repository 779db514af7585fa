//! The list of transactions: filters, and paging to the end without a gap or a repeat.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use transaction::{ArtifactRecord, Sealed, object::End};

use crate::{client::Answer, running::Gateway, sample};

fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn digests(answer: &Answer) -> Vec<String> {
    events(answer).iter().map(|e| e["digest"].as_str().unwrap().to_owned()).collect()
}

fn day() -> Vec<Sealed> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    sample::day(now)
}

#[tokio::test]
async fn each_filter_lists_exactly_the_transactions_it_names_newest_first() {
    type Holds = fn(&ArtifactRecord) -> bool;
    let day = day();
    let records: Vec<ArtifactRecord> = day.iter().rev().map(|s| s.record.clone()).collect();
    let gateway = Gateway::with(day).await;
    let cases: &[(&str, Holds)] = &[
        ("", |_| true),
        ("host=shop.internal", |r| r.request_host.starts_with("shop.internal")),
        ("host=*.example.org", |r| r.request_host.ends_with(".example.org")),
        ("path=/v1/orders/ord_7", |r| r.request_path.starts_with("/v1/orders/ord_7")),
        ("path=*InRelease", |r| r.request_path.ends_with("InRelease")),
        ("method=post", |r| r.request_method == "POST"),
        ("status=404", |r| r.response_status == Some(404)),
        ("status=5xx", |r| r.response_status.is_some_and(|s| s >= 500)),
        ("status=none", |r| r.response_status.is_none()),
        ("exe=nginx", |r| r.process_exe == "/usr/sbin/nginx"),
        ("exe=python*", |r| r.process_exe.contains("python")),
        ("end=server", |r| r.end == End::Server),
        ("method=GET&status=200,404&end=client&host=shop.internal:8080", |r| {
            r.request_method == "GET"
                && matches!(r.response_status, Some(200 | 404))
                && r.end == End::Client
                && r.request_host == "shop.internal:8080"
        }),
        ("host=nobody.example", |_| false),
    ];
    for (query, holds) in cases {
        let expected: Vec<String> = records.iter().filter(|r| holds(r)).map(|r| r.digest.to_string()).collect();
        assert!(*query == "host=nobody.example" || !expected.is_empty(), "{query} tries nothing");
        assert_eq!(digests(&gateway.get(&format!("/?{query}&limit=1000&format=json")).await), expected, "{query}");
        let page = gateway.ask("GET", &format!("/?{query}&limit=1000"), &[("Accept", "text/html")]).await;
        assert_eq!(page.status, 200, "{query}");
        for digest in records.iter().map(|r| r.digest.to_string()) {
            let link = format!("href=\"/qpoint/{digest}\"");
            assert_eq!(page.text().contains(&link), expected.contains(&digest), "{query}: {digest}");
        }
    }
    // Begun in the last five minutes: of a quarter of an hour, some and not all.
    let recent = digests(&gateway.get("/?since=5m&limit=1000&format=json").await);
    assert!(!recent.is_empty() && recent.len() < records.len(), "{}", recent.len());
    let newest: Vec<String> = records.iter().take(recent.len()).map(|r| r.digest.to_string()).collect();
    assert_eq!(recent, newest);
    gateway.stop().await;
}

#[tokio::test]
async fn an_event_of_the_list_links_to_its_object() {
    let day = day();
    let gateway = Gateway::with(day).await;
    let listed = events(&gateway.get("/?limit=3&format=json").await);
    assert_eq!(listed.len(), 3);
    for event in listed {
        let url = event["url"].as_str().unwrap();
        let target = url.strip_prefix(&format!("http://{}", gateway.address)).unwrap_or_else(|| panic!("{url}"));
        let object = gateway.get(target).await;
        assert_eq!(object.status, 200, "{url}");
        let object: Value = serde_json::from_slice(&object.body).unwrap();
        assert_eq!(object["exchange_id"], event["exchange_id"], "{url}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn paging_reaches_every_transaction_once_by_the_link_of_json_and_of_the_page() {
    let day = day();
    let expected: Vec<String> = day.iter().rev().map(|s| s.record.digest.to_string()).collect();
    let gateway = Gateway::with(day).await;
    let (mut found, mut next) = (Vec::new(), Some("/?limit=7&format=json".to_owned()));
    while let Some(target) = next {
        let answer = gateway.get(&target).await;
        found.extend(digests(&answer));
        assert!(found.len() <= expected.len(), "paging goes round");
        next = answer.header("link").map(|link| {
            link.strip_prefix('<')
                .and_then(|l| l.strip_suffix(">; rel=\"next\""))
                .unwrap_or_else(|| panic!("{link}"))
                .to_owned()
        });
    }
    assert_eq!(found, expected);

    let (mut seen, mut next) = (std::collections::BTreeSet::new(), Some("/?limit=7&status=2xx".to_owned()));
    let mut pages = 0;
    while let Some(target) = next {
        let answer = gateway.get(&target).await;
        assert_eq!(answer.status, 200, "{target}");
        let links = answer.text().split("href=\"/qpoint/").skip(1);
        seen.extend(links.map(|l| l[..40].to_owned()));
        let older = answer.text().split("<a rel=\"next\" href=\"").nth(1);
        next = older.map(|o| o.split('"').next().unwrap().replace("&amp;", "&").replace("&#38;", "&"));
        assert!(next.as_ref().is_none_or(|n| n.contains("status=2xx") && n.contains("limit=7")), "{next:?}");
        pages += 1;
        assert!(pages <= expected.len(), "paging goes round");
    }
    let filtered = digests(&gateway.get("/?status=2xx&limit=1000&format=json").await);
    assert!(pages > 2 && filtered.len() > 14);
    assert_eq!(seen, filtered.into_iter().collect());
    gateway.stop().await;
}

#[tokio::test]
async fn a_wrong_filter_is_an_error_that_names_it_and_what_was_expected() {
    let gateway = Gateway::with(Vec::new()).await;
    for (query, expected) in [
        ("status=4x", "status"),
        ("since=1y", "since must be like 90s, 15m, 1h or 2d"),
        ("end=both", "end must be client or server"),
        ("limit=many", "limit must be a number"),
        ("before=-1", "before must be a number"),
    ] {
        for format in ["", "&format=json"] {
            let answer = gateway.get(&format!("/?{query}{format}")).await;
            assert_eq!(answer.status, 400, "{query}{format}");
            assert!(answer.text().contains(expected), "{query}{format}: {}", answer.text());
        }
    }
    assert_eq!(gateway.get("/?utm_source=dashboard").await.status, 200);
    gateway.stop().await;
}
