//! Searches against what a plain look at every record says.

use archive::{Filter, Reader};
use transaction::{Sealed, object::End};

use crate::{append, common::sealed, open};

#[test]
fn each_condition_finds_what_it_should() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    // More than one segment of digests and more than two chunks of a search.
    let all: Vec<Sealed> = (0..9000).map(|n| sealed(n, 220)).collect();
    for s in &all {
        append(&archive, s);
    }
    archive.close().expect("all is written");
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    let any = Filter { limit: 100_000, ..Filter::default() };
    let some = |text: &str| Some(text.to_owned());
    for filter in [
        any.clone(),
        Filter { host: some("HOST3.example"), ..any.clone() },
        Filter { host: some("host3.example:80"), ..any.clone() },
        Filter { path: some("/items/89"), ..any.clone() },
        Filter { path: some("/items/*7"), method: some("get"), ..any.clone() },
        Filter { status: "5xx,404".parse().ok(), end: Some(End::Server), ..any.clone() },
        Filter { exe: some("curl"), pid: Some(1003), ..any.clone() },
        Filter { exe: some("wget"), ..any.clone() },
        Filter { connection_id: Some(all[4321].record.connection_id.clone()), ..any.clone() },
        Filter { exchange_id: Some(all[1].record.exchange_id.clone()), ..any.clone() },
        Filter {
            since_unix_ns: Some(all[100].record.time_unix_ns),
            until_unix_ns: Some(all[200].record.time_unix_ns),
            ..any.clone()
        },
    ] {
        let found = reader.find(&filter).expect("a search");
        let expected: Vec<_> = all.iter().rev().map(|s| &s.record).filter(|r| filter.matches(r)).collect();
        assert_eq!(found.iter().map(|r| &r.record).collect::<Vec<_>>(), expected, "{filter:?}");
    }
    for (s, n) in [(&all[0], "oldest"), (&all[8999], "newest")] {
        assert_eq!(reader.object(&s.record.digest).expect("a search").as_ref(), Some(&s.bytes), "{n}");
    }
}

#[test]
fn pages_join_without_overlap() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    for n in 0..250 {
        append(&archive, &sealed(n, 220));
    }
    archive.close().expect("all is written");
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    let mut filter = Filter { path: Some("/items/1".to_owned()), limit: 40, ..Filter::default() };
    let mut positions = Vec::new();
    loop {
        let page = reader.find(&filter).expect("a page");
        let Some(last) = page.last() else { break };
        filter.before = Some(last.position);
        positions.extend(page.iter().map(|r| r.position));
    }
    // 1, 10 to 19, 100 to 199; positions begin at 1.
    let expected: Vec<u64> = (0..250u64).rev().filter(|n| n.to_string().starts_with('1')).map(|n| n + 1).collect();
    assert_eq!(positions, expected);
}

#[test]
fn the_beginning_of_a_digest_is_enough() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    let all: Vec<Sealed> = (0..300).map(|n| sealed(n, 220)).collect();
    for s in &all {
        append(&archive, s);
    }
    archive.close().expect("all is written");
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    for length in [1, 2, 8, 16, 17, 40] {
        for s in &all[..20] {
            let prefix = &s.record.digest.to_string()[..length];
            let found = reader.digests(prefix, 1000).expect("a search");
            let expected = all.iter().rev().map(|s| s.record.digest).filter(|d| d.to_string().starts_with(prefix));
            assert_eq!(found, expected.collect::<Vec<_>>(), "{prefix}");
        }
    }
    assert_eq!(reader.digests("", 10).expect("a search"), []);
    assert_eq!(reader.digests("xyz", 10).expect("a search"), []);
    assert_eq!(reader.digests("0", 3).expect("a search").len(), 3);
}
