//! `find`.

use serde_json::Value;

use crate::{output, run, samples::fill};

#[test]
fn finds_by_each_condition() {
    let dir = tempfile::tempdir().expect("a folder");
    let digests = fill(dir.path(), 60);
    let count = |arguments: &[&str]| output(dir.path(), &[&["find", "--json"][..], arguments].concat()).lines().count();
    assert_eq!(count(&[]), 60);
    assert_eq!(count(&["--limit", "7"]), 7);
    assert_eq!(count(&["--host", "API.example"]), 60);
    assert_eq!(count(&["--host", "*.org"]), 0);
    assert_eq!(count(&["--path", "/items/1"]), 11);
    assert_eq!(count(&["--path", "*/5"]), 1);
    assert_eq!(count(&["--method", "post"]), 20);
    assert_eq!(count(&["--status", "5xx"]), 15);
    assert_eq!(count(&["--status", "404,5xx", "--end", "server"]), 15);
    assert_eq!(count(&["--exe", "curl", "--pid", "4321"]), 60);
    assert_eq!(count(&["--pid", "1"]), 0);
    // Numbers 0 and 1 of each five began less than 90 minutes ago.
    assert_eq!(count(&["--since", "90m"]), 24);
    assert_eq!(count(&["--since", "90m", "--until", "30m"]), 12);
    let lines = output(dir.path(), &["find"]);
    assert_eq!(lines.lines().count(), 60);
    let newest = lines.lines().next().expect("a line");
    assert!(newest.contains(&digests[59].to_string()) && newest.ends_with("api.example:8080/items/59"), "{newest}");
    assert!(!lines.contains('\x1b') && !lines.contains('\t'), "no terminal, no colours");
}

#[test]
fn json_lines_are_flat_events_with_an_address() {
    let dir = tempfile::tempdir().expect("a folder");
    let digests = fill(dir.path(), 3);
    for (line, digest) in output(dir.path(), &["find", "--json"]).lines().zip(digests.iter().rev()) {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(event["event.type"], "artifact_record");
        assert_eq!(event["digest"], digest.to_string());
        assert_eq!(event["url"], format!("http://127.0.0.1:3904/qpoint/{digest}"));
        assert_eq!(event["duration_ms"], 12.346);
        assert!(event.as_object().expect("an object").values().all(|v| !v.is_object() && !v.is_array()), "{line}");
    }
}

#[test]
fn nothing_found_is_no_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    fill(dir.path(), 3);
    let output = run(dir.path(), &["find", "--host", "elsewhere.example"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing in "), "{output:?}");
}
