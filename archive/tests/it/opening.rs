//! What is found when an archive is opened: another writer, another format, garbage, wrong modes.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::PathBuf,
};

use archive::{Archive, Error, Options, Reader};
use rusqlite::Connection;

use crate::{
    append,
    common::{SOON, sealed},
    open,
};

#[test]
fn a_second_writer_is_told_the_process_of_the_first() {
    let dir = tempfile::tempdir().expect("a folder");
    let first = open(dir.path());
    let Err(error) = Archive::open(dir.path(), Options::default()) else { panic!("two writers") };
    assert!(matches!(error, Error::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("--data-dir"), "{text}");
    first.close().expect("all is written");
    open(dir.path()).close().expect("the lock was given back");
}

#[test]
fn only_owner_and_group_may_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(&dir.path().join("a/b"));
    append(&archive, &sealed(0, 600));
    let mode =
        |path: &str| fs::metadata(dir.path().join(path)).map(|m| m.permissions().mode() & 0o777).expect("a file");
    assert_eq!(mode("a/b"), 0o750);
    for file in ["archive.db", "archive.db-wal", "archive.db-shm", "lock"] {
        assert_eq!(mode(&format!("a/b/{file}")), 0o640, "{file}");
    }
}

/// What stands beside the new archive.
fn set_aside(dir: &std::path::Path, part: &str) -> PathBuf {
    let name = |e: std::io::Result<fs::DirEntry>| e.map(|e| e.path()).expect("an entry");
    let is = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.starts_with(&format!("archive.db.{part}-")) && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    fs::read_dir(dir).expect("a folder").map(name).find(is).unwrap_or_else(|| panic!("no file is set aside as {part}"))
}

#[test]
fn a_newer_format_is_set_aside_and_a_new_archive_begun() {
    let dir = tempfile::tempdir().expect("a folder");
    let newer = Connection::open(dir.path().join("archive.db")).expect("a database");
    newer
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE future (x); INSERT INTO future VALUES (7); PRAGMA user_version = 99")
        .expect("a newer format");
    drop(newer);
    assert!(matches!(Reader::open(dir.path()), Err(Error::Newer { found: 99, known: 1, .. })));
    let archive = open(dir.path());
    let s = sealed(0, 600);
    append(&archive, &s);
    archive.close().expect("all is written");
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    assert_eq!(reader.object(&s.record.digest).expect("a search"), Some(s.bytes));
    let old = Connection::open(set_aside(dir.path(), "format-99")).expect("the old file");
    assert_eq!(old.query_row("SELECT x FROM future", [], |r| r.get::<_, i64>(0)), Ok(7));
}

#[test]
fn garbage_is_set_aside_and_a_new_archive_begun() {
    let dir = tempfile::tempdir().expect("a folder");
    let garbage = b"this is no database at all, and longer than a header of one hundred bytes. ".repeat(100);
    fs::write(dir.path().join("archive.db"), &garbage).expect("a file");
    open(dir.path()).close().expect("a new archive");
    assert_eq!(fs::read(set_aside(dir.path(), "damaged")).expect("the old file"), garbage);
    assert_eq!(Reader::open(dir.path()).and_then(|r| r.newest()).expect("a number"), 0);
}

#[test]
fn damage_inside_is_an_error_and_not_other_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    let s = sealed(0, 600);
    append(&archive, &s);
    archive.close().expect("all is written");
    for sql in [
        "UPDATE record SET start = 1",
        "UPDATE record SET size = 1000000",
        "UPDATE block SET plain = -1",
        "UPDATE bytes SET stored = x'00'",
    ] {
        let db = Connection::open(dir.path().join("archive.db")).expect("the database");
        db.execute(sql, []).expect("a change");
        drop(db);
        let read = Reader::open(dir.path()).and_then(|r| r.object(&s.record.digest));
        assert!(matches!(read, Err(Error::Damaged(_))), "{sql}: {read:?}");
    }
}

#[test]
fn a_reader_finds_the_new_file_when_the_archive_was_begun_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    open(dir.path()).close().expect("an empty archive");
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    assert_eq!(reader.newest().expect("a number"), 0);
    fs::remove_file(dir.path().join("archive.db")).expect("the file goes");
    let archive = open(dir.path());
    append(&archive, &sealed(0, 600));
    archive.close().expect("all is written");
    assert_eq!(reader.newest().expect("a number"), 1);
}

#[test]
fn a_file_damaged_under_the_writer_is_set_aside_and_nothing_new_is_lost() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    append(&archive, &sealed(0, 600));
    assert!(archive.flush(SOON));
    let reader = Reader::open(dir.path()).expect("the archive can be read");
    assert_eq!(reader.newest().expect("a number"), 1);
    // Another connection's commit makes the writer read its pages anew; they are garbage then.
    let other = Connection::open(archive.file()).expect("a second connection");
    other.execute_batch("UPDATE state SET id = id; PRAGMA wal_checkpoint(TRUNCATE);").expect("a change");
    let length = fs::metadata(archive.file()).expect("a file").len() as usize;
    let file = fs::OpenOptions::new().write(true).open(archive.file()).expect("the file");
    file.write_all_at(&vec![0xa5; length - 4096], 4096).expect("garbage");
    let s = sealed(1, 600);
    append(&archive, &s);
    assert!(archive.flush(SOON), "{:?}", archive.stats());
    assert_eq!(reader.object(&s.record.digest).expect("the reader finds the new file"), Some(s.bytes));
    assert_eq!(reader.newest().expect("a number"), 2, "positions go on");
    set_aside(dir.path(), "damaged");
    let stats = archive.close().expect("all is written");
    assert_eq!((stats.committed, stats.last_error), (2, None));
}

#[test]
fn a_folder_that_cannot_be_used_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("file"), "").expect("a file");
    let Err(error) = Archive::open(&dir.path().join("file"), Options::default()) else { panic!("a file is no folder") };
    assert!(error.to_string().contains("--data-dir"), "{error}");
}
