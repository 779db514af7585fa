//! Retention, and every bound: file, log, queue.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use archive::{Archive, Entry, Filter, Options, Reader, Refused};
use rusqlite::Connection;

use crate::{
    append,
    common::{SOON, sealed, until},
};

/// A limit that a test can fill quickly.
const LIMIT: u64 = 16 << 20;

/// Bytes of the file and its log.
fn on_disk(dir: &Path) -> u64 {
    ["archive.db", "archive.db-wal"].iter().filter_map(|n| fs::metadata(dir.join(n)).ok()).map(|m| m.len()).sum()
}

/// A transaction whose object does not compress.
fn random(n: u64, size: usize) -> transaction::Sealed {
    let mut s = sealed(n, 200);
    let mut seed = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    s.bytes = std::iter::repeat_with(|| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    })
    .take(size / 8)
    .flatten()
    .collect();
    s.record.digest = transaction::Digest::of(&s.bytes);
    s
}

#[test]
fn the_file_stays_below_its_limit_and_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { max_bytes: LIMIT, ..Options::default() };
    let archive = Archive::open(dir.path(), options).expect("the archive opens");
    let count = 3000;
    let mut largest = 0;
    for n in 0..count {
        let s = random(n, 20_000);
        append(&archive, &s);
        // The disk of a busy test machine may be slower than this loop.
        if n % 50 == 0 {
            assert!(archive.flush(SOON));
            largest = largest.max(on_disk(dir.path()));
        }
    }
    assert!(archive.flush(SOON));
    largest = largest.max(on_disk(dir.path()));
    assert!(largest <= LIMIT * 12 / 10, "{largest} bytes on disk, the limit is {LIMIT}");
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    let kept = reader.summary().expect("a summary").transactions;
    // 20,000 bytes each: not far fewer than fit are kept.
    assert!(kept * 20_000 > LIMIT * 8 / 10, "only {kept} transactions are kept");
    let rows = reader.find(&Filter { limit: 10_000, ..Filter::default() }).expect("rows");
    assert_eq!(rows.len() as u64, kept);
    assert_eq!(rows.first().map(|r| r.position), Some(count));
    assert_eq!(rows.last().map(|r| r.position), Some(count - kept + 1), "the kept ones are the newest");
    assert_eq!(reader.object(&random(0, 20_000).record.digest).expect("a search"), None);
    let last = random(count - 1, 20_000);
    assert_eq!(reader.object(&last.record.digest).expect("a search"), Some(last.bytes));
    let stats = archive.close().expect("all is written");
    assert_eq!(stats.deleted, count - kept);
    assert!(stats.deleted_blocks > 0);
}

#[test]
fn what_is_too_old_goes_and_its_space_is_given_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { max_age: Duration::from_millis(400), ..Options::default() };
    let archive = Archive::open(dir.path(), options).expect("the archive opens");
    for n in 0..200 {
        append(&archive, &random(n, 20_000));
    }
    assert!(archive.flush(SOON));
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    until("the end of the last block", || reader.summary().expect("a summary").transactions == 0);
    assert_eq!(reader.newest().expect("a number"), 200, "numbers are not used again");
    assert_eq!(reader.find(&Filter::default()).expect("rows"), []);
    until("the last page that is given back", || {
        let stats = archive.stats();
        stats.used_bytes < 200_000 && stats.free_bytes == 0
    });
    drop(reader);
    archive.close().expect("all is written");
    assert!(on_disk(dir.path()) < 200_000, "{} bytes are left", on_disk(dir.path()));
    let archive = Archive::open(dir.path(), Options::default()).expect("the archive opens");
    append(&archive, &sealed(0, 600));
    archive.close().expect("all is written");
    let rows = Reader::open(dir.path()).and_then(|r| r.after(0, 10)).expect("rows");
    assert_eq!(rows.iter().map(|r| r.position).collect::<Vec<_>>(), [201]);
}

#[test]
fn a_full_queue_refuses_and_counts_and_loses_nothing_that_it_took() {
    let dir = tempfile::tempdir().expect("a folder");
    let queue_bytes = 64 << 10;
    let archive = Archive::open(dir.path(), Options { queue_bytes, ..Options::default() }).expect("the archive opens");
    // The write lock, held by somebody else: the writer waits as it would for a slow disk.
    let other = Connection::open(archive.file()).expect("a second connection");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let mut taken = Vec::new();
    let mut refused = 0;
    for n in 0..1000 {
        let s = sealed(n, 600);
        match archive.append(Entry::Transaction(s.clone())) {
            Ok(()) => taken.push(s),
            Err(e) => {
                assert_eq!(e, Refused::Full);
                refused += 1;
            }
        }
        assert!(archive.stats().queued_bytes <= queue_bytes as u64);
    }
    assert!(refused > 0 && !taken.is_empty());
    assert_eq!((archive.stats().refused, archive.stats().appended), (refused, taken.len() as u64));
    other.execute_batch("ROLLBACK").expect("the lock is given back");
    assert!(archive.flush(SOON));
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    for s in taken {
        assert_eq!(reader.object(&s.record.digest).expect("a search"), Some(s.bytes));
    }
}

#[test]
fn who_may_wait_loses_nothing_while_the_writer_gets_on_and_waits_in_vain_only_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let queue_bytes = 64 << 10;
    let archive = Archive::open(dir.path(), Options { queue_bytes, ..Options::default() }).expect("the archive opens");
    for n in 0..1000 {
        archive.append_within(Entry::Transaction(sealed(n, 600)), SOON).expect("room comes");
    }
    assert!(archive.flush(SOON));
    assert_eq!((archive.stats().committed, archive.stats().refused), (1000, 0));
    // The write lock, held by somebody else.
    let other = Connection::open(archive.file()).expect("a second connection");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let patience = Duration::from_millis(200);
    let begun = Instant::now();
    let mut refused = 0;
    for n in 1000..3000 {
        refused += u32::from(archive.append_within(Entry::Transaction(sealed(n, 600)), patience).is_err());
    }
    assert!(refused > 1000);
    assert!(begun.elapsed() >= patience && begun.elapsed() < SOON, "waited for each: {:?}", begun.elapsed());
    other.execute_batch("ROLLBACK").expect("the lock is given back");
}

#[test]
fn an_entry_larger_than_the_queue_is_taken_when_nothing_waits() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { queue_bytes: 64 << 10, ..Options::default() };
    let archive = Archive::open(dir.path(), options).expect("the archive opens");
    append(&archive, &random(1, 1 << 20));
    assert_eq!(archive.close().expect("all is written").committed, 1);
}

#[test]
fn a_reader_stopped_in_the_middle_of_a_read_cannot_make_the_log_grow_without_end() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { max_bytes: LIMIT, queue_bytes: 1 << 20, ..Options::default() };
    let archive = Archive::open(dir.path(), options).expect("the archive opens");
    append(&archive, &sealed(0, 600));
    assert!(archive.flush(SOON));
    let stopped = Connection::open(archive.file()).expect("a reader");
    stopped.execute_batch("BEGIN; SELECT count(*) FROM record;").expect("a snapshot");
    let mut n = 0;
    until("the refusal", || {
        n += 1;
        archive.append(Entry::Transaction(random(n, 20_000))).is_err() && archive.stats().errors > 0
    });
    let log = fs::metadata(dir.path().join("archive.db-wal")).expect("a log").len();
    assert!(log <= LIMIT / 5, "the log has {log} bytes");
    assert!(archive.stats().last_error.is_some_and(|e| e.contains("stopped in the middle of a read")));
    stopped.execute_batch("ROLLBACK").expect("the snapshot is given back");
    assert!(archive.flush(SOON), "{:?}", archive.stats());
    let stats = archive.close().expect("all is written");
    assert_eq!(stats.last_error, None);
}
