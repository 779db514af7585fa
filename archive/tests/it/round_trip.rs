//! What goes in comes out, exactly.

use archive::{Archive, Entry, Error, Filter, Options, Reader};
use proptest::prelude::*;
use transaction::{
    ArtifactRecord, Digest, Level, Sealed,
    object::{Direction, End},
};

use crate::{
    append,
    common::{SOON, event, sealed, until},
    open,
};

#[test]
fn objects_records_and_events_come_back_as_they_went() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    // One larger than a block, among small ones.
    let all: Vec<Sealed> = (0..50).map(|n| sealed(n, if n == 20 { 3 << 20 } else { 700 })).collect();
    for (n, s) in all.iter().enumerate() {
        append(&archive, s);
        if n % 10 == 0 {
            archive.append(Entry::Connection(event(n as u64))).expect("the queue has room");
        }
    }
    assert!(archive.flush(SOON));
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    for s in &all {
        assert_eq!(reader.object(&s.record.digest).expect("it can be read").as_deref(), Some(s.bytes.as_slice()));
        assert_eq!(reader.record(&s.record.digest).expect("it can be read").expect("it is there").record, s.record);
    }
    assert_eq!(reader.object(&Digest::of(b"another")).expect("a search"), None);
    assert_eq!(reader.newest().expect("a number"), 55);
    let parts: Vec<u32> = reader.connections(None, None, 10).expect("events").iter().map(|e| e.event.part).collect();
    assert_eq!(parts, [40, 30, 20, 10, 0]);
    let rows = reader.after(0, 1000).expect("rows");
    assert_eq!(rows.iter().map(|r| &r.record).collect::<Vec<_>>(), all.iter().map(|s| &s.record).collect::<Vec<_>>());
    assert!(rows.is_sorted_by(|a, b| a.position < b.position));
    let newest_first = reader.find(&Filter { limit: 1000, ..Filter::default() }).expect("rows");
    assert_eq!(newest_first.into_iter().rev().collect::<Vec<_>>(), rows);
    let stats = archive.close().expect("all is written");
    assert_eq!((stats.appended, stats.committed, stats.refused, stats.errors), (55, 55, 0, 0));
}

#[test]
fn an_entry_can_be_read_soon_without_a_flush() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    let s = sealed(1, 600);
    append(&archive, &s);
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    until("the commit", || reader.object(&s.record.digest).expect("a search").is_some());
    assert_eq!(archive.stats().committed, 1);
}

#[test]
fn positions_go_on_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    for run in 0..3u64 {
        let archive = open(dir.path());
        append(&archive, &sealed(run, 600));
        archive.close().expect("all is written");
    }
    let rows = Reader::open(dir.path()).and_then(|r| r.after(0, 10)).expect("rows");
    assert_eq!(rows.iter().map(|r| r.position).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_folder_without_an_archive_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    let Err(error @ Error::Missing { .. }) = Reader::open(dir.path()) else { panic!("there is nothing to open") };
    let text = error.to_string();
    assert!(text.contains(&dir.path().display().to_string()) && text.contains("tapstack up"), "{text}");
}

fn record() -> impl Strategy<Value = ArtifactRecord> {
    let text = || prop_oneof!["[a-z/.:0-9]{0,30}", "\\PC{0,40}", Just("0123456789abcdefghij".to_owned())];
    let texts = prop::collection::vec(text(), 14);
    let numbers = prop::collection::vec(any::<u64>(), 5);
    let optional = (any::<Option<u16>>(), any::<Option<u64>>(), prop::option::of(text()), any::<u32>());
    let kinds = (0..3usize, 0..2usize, 0..4usize, any::<bool>());
    (texts, numbers, optional, kinds).prop_map(
        |(t, n, (status, ttfb, error, pid), (direction, end, level, complete))| {
            let mut t = t.into_iter();
            let mut text = || t.next().unwrap_or_default();
            ArtifactRecord {
                time_unix_ns: n[0],
                digest: Digest::of(&n[1].to_le_bytes()),
                request_method: text(),
                request_host: text(),
                request_scheme: text(),
                request_path: text(),
                request_protocol: text(),
                request_content_type: text(),
                response_status: status,
                response_content_type: text(),
                duration_ns: n[2],
                ttfb_ns: ttfb,
                bytes_sent: n[3],
                bytes_received: n[4],
                process_exe: text(),
                process_pid: pid,
                process_unit: text(),
                container_id: text(),
                container_name: text(),
                direction: [Direction::Ingress, Direction::EgressInternal, Direction::EgressExternal][direction],
                end: [End::Client, End::Server][end],
                level: [Level::None, Level::Summary, Level::Headers, Level::Full][level],
                complete,
                error_type: error,
                request_id: text(),
                connection_id: text(),
                exchange_id: text(),
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_field_of_a_record_comes_back(records in prop::collection::vec(record(), 1..40)) {
        let dir = tempfile::tempdir().expect("a folder");
        let archive = Archive::open(dir.path(), Options::default()).expect("the archive opens");
        for record in &records {
            append(&archive, &Sealed { bytes: b"{}".to_vec(), record: record.clone() });
        }
        archive.close().expect("all is written");
        let rows = Reader::open(dir.path()).and_then(|r| r.after(0, 100)).expect("rows");
        prop_assert_eq!(rows.into_iter().map(|r| r.record).collect::<Vec<_>>(), records);
    }
}
