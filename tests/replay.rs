//! Recordings of real traffic, replayed by the real program without a kernel: every object stays what it
//! was, byte for byte. A change of an object's shape shows here first.
//!
//! `tests/recordings/*.tap` were made by `integration/kernels/record.sh` (nginx and curl in a guest of
//! their own); `*.jsonl` beside them is what `tapstack replay --objects` gave. `BLESS=1 cargo test --test
//! replay` writes them anew.

use std::{fs, path::Path, process::Command};

fn replay(arguments: &[&str], file: &Path) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_tapstack")).arg("replay").args(arguments).arg(file).output().unwrap();
    assert!(out.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn recordings() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "tap"));
    all.sort();
    assert!(!all.is_empty());
    all
}

#[test]
fn objects_of_recorded_traffic_stay_what_they_were() {
    for file in recordings() {
        let expected = file.with_extension("jsonl");
        let got = replay(&["--objects"], &file);
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &got).unwrap();
        }
        let want = fs::read_to_string(&expected).unwrap();
        for (n, (got, want)) in got.lines().zip(want.lines()).enumerate() {
            assert_eq!(got, want, "{}, object {n}", file.display());
        }
        assert_eq!(got.lines().count(), want.lines().count(), "{}", file.display());
    }
}

#[test]
fn events_of_recorded_traffic_name_the_objects_by_their_digests() {
    for file in recordings() {
        let objects = replay(&["--objects"], &file);
        let events = replay(&[], &file);
        assert_eq!(objects.lines().count(), events.lines().count());
        for (object, event) in objects.lines().zip(events.lines()) {
            let event: serde_json::Value = serde_json::from_str(event).unwrap();
            assert_eq!(event["digest"], transaction::Digest::of(object.as_bytes()).to_string());
        }
    }
}

#[test]
fn a_damaged_recording_is_an_error_that_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(&recordings()[0]).unwrap();
    for (name, bytes, say) in
        [("cut", &whole[..whole.len() - 3], "cut short"), ("other", &b"not a recording at all"[..], "no recording")]
    {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_tapstack")).arg("replay").arg(&path).output().unwrap();
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && error.contains(say), "{name}: {error}");
    }
}
