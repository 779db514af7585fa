//! `show`.

use serde_json::Value;
use transaction::Digest;

use crate::{
    failure, output, run,
    samples::{append, fill, hostile, open},
};

#[test]
fn json_is_the_exact_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    for digest in fill(dir.path(), 5) {
        let bytes = run(dir.path(), &["show", "--json", &digest.to_string()]).stdout;
        assert_eq!(Digest::of(&bytes), digest);
    }
}

#[test]
fn takes_digests_their_beginnings_and_addresses() {
    let dir = tempfile::tempdir().expect("a folder");
    let digest = fill(dir.path(), 5)[2].to_string();
    let whole = output(dir.path(), &["show", &digest]);
    assert!(whole.contains(&digest));
    for other in [
        digest[..6].to_owned(),
        digest[..11].to_uppercase(),
        format!("http://127.0.0.1:3904/qpoint/{digest}"),
        format!("https://s3.example/bucket/{digest}?x=1#y"),
    ] {
        assert_eq!(output(dir.path(), &["show", &other]), whole, "{other}");
    }
    let missing = Digest::of(b"something else").to_string();
    for (wrong, says) in [
        (&digest[..5], "at least 6 digits"),
        (&missing, "no object"),
        ("hello!", "neither a digest"),
        ("http://127.0.0.1/qpoint/abcdef0", "whole digest"),
        ("", "neither a digest"),
    ] {
        let text = failure(dir.path(), &["show", wrong], 1);
        assert!(text.starts_with("tapstack: ") && text.contains(says), "{wrong}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn text_has_both_messages_and_the_facts() {
    let dir = tempfile::tempdir().expect("a folder");
    let digest = fill(dir.path(), 1)[0].to_string();
    let text = output(dir.path(), &["show", &digest]);
    for part in [
        "POST http://api.example:8080/items/0?q=0\n200 OK\n",
        "POST /items/0?q=0 HTTP/1.1\nHost: api.example:8080\n",
        "HTTP/1.1 200 OK\nContent-Type: application/json\n\n{\n  \"id\": 0,\n  \"name\": \"item 0\"\n}\n",
        "/usr/bin/curl (pid 4321), user ann",
        "127.0.0.1:40000 → 127.0.0.1:8080 (client, egress-internal)",
        "request.header.Authorization (mask)",
        "12.3ms (first byte after 9.00ms)",
        &format!("http://127.0.0.1:3904/qpoint/{digest}"),
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn what_a_terminal_acts_on_is_escaped_everywhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = open(dir.path());
    let digest = append(&archive, hostile()).to_string();
    archive.close().expect("all is written");
    let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    for arguments in [&["show", &digest][..], &["find"], &["show", "--curl", &digest], &["find", "--json"]] {
        let text = output(dir.path(), arguments);
        // JSON for another program escapes what JSON must: C0.
        let found = text.chars().any(|c| if arguments.contains(&"--json") { c < ' ' && c != '\n' } else { harmful(c) });
        assert!(!found, "{arguments:?}: {text:?}");
    }
    let text = output(dir.path(), &["show", &digest]);
    assert!(text.contains("300B missing at 600 (ring)") && text.contains("its end was not seen"), "{text}");
    assert!(text.contains("00000000  ff 00 1b 5b 32 4a") && text.contains("bytes more"), "{text}");
    assert_eq!(output(dir.path(), &["find"]).lines().count(), 1);
    // A mistake in the arguments, too, comes back harmless.
    assert!(!failure(dir.path(), &["show", "\x1b[2J"], 1).contains('\x1b'));
}

#[test]
fn har_curl_and_raw_bodies() {
    let dir = tempfile::tempdir().expect("a folder");
    let digest = fill(dir.path(), 1)[0].to_string();
    let har: Value = serde_json::from_str(&output(dir.path(), &["show", "--har", &digest])).expect("JSON");
    assert_eq!(har["log"]["entries"][0]["response"]["status"], 200);
    let curl = output(dir.path(), &["show", "--curl", &digest]);
    assert!(curl.contains("curl ") && curl.contains("http://api.example:8080/items/0?q=0"), "{curl}");
    assert_eq!(output(dir.path(), &["show", "--raw", &digest]), r#"{"id":0,"name":"item 0"}"#);
    assert_eq!(output(dir.path(), &["show", "--raw", "--request", &digest]), "");
}
