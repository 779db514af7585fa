//! `tapstack explain` beside an agent that the test plays: what it asks, what it says, how it ends.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread::JoinHandle,
};

use serde_json::{Value, json};

use crate::{failure, output, run};

/// Answers one request like this, and returns its head.
fn agent(answer: String) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
        let head: Vec<String> = lines.map(|line| line.expect("text")).take_while(|line| !line.is_empty()).collect();
        stream.write_all(answer.as_bytes()).expect("it reads");
        head.join("\n")
    });
    (address, served)
}

/// An agent that reads this file, or not.
fn reading(file: &Path, state: &str, error: Option<&str>) -> String {
    let facts = file.metadata().expect("a file");
    let report = json!({
        "agent": {"version": "0.1.0", "pid": 1, "start_ticks": 0}, "supported": true,
        "libraries": [{
            "path": "/usr/lib/libssl.so.3", "root": "host", "real_path": null, "device": facts.dev(),
            "inode": facts.ino(), "source": "openssl", "version": "OpenSSL 3.0.3 or later", "state": state,
            "probes": 14, "plan": ["tls_call  0x10  SSL_read: why there"], "error": error, "note": null,
            "a_field_of_a_later_release": true,
        }],
        "notes": ["something does not work"],
        "inspected": 1, "let_go": 0, "scans": 1, "last_scan": {"processes": 100, "seconds": 0.01},
    });
    format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{report}\n")
}

const NOWHERE: &str = "/nonexistent";

fn explain(answer: String, arguments: &[&str]) -> (String, Option<i32>) {
    let (address, served) = agent(answer);
    let address = address.to_string();
    let output = run(Path::new(NOWHERE), &[&["explain", "--status", &address], arguments].concat());
    let asked = served.join().expect("the agent's side");
    assert!(asked.starts_with("GET /libraries HTTP/1.0\n") && asked.contains("\nUser-Agent: tapstack/"), "{asked}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8(output.stdout).expect("text"), output.status.code())
}

#[test]
fn libraries_are_listed_with_their_probes_and_what_does_not_work() {
    let exe = std::env::current_exe().expect("a path");
    let (text, code) = explain(reading(&exe, "attached", None), &[]);
    assert_eq!(code, Some(0));
    assert_eq!(
        text,
        "/usr/lib/libssl.so.3 (host)\n  OpenSSL 3.0.3 or later: read, 14 probes\n\n\
         What does not work on this host:\n- something does not work\n"
    );
    let (text, _) = explain(reading(&exe, "attached", None), &["--verbose"]);
    assert!(text.contains("\n    tls_call  0x10  SSL_read: why there\n"), "{text}");
    let (text, _) = explain(reading(&exe, "attached", None), &["--json"]);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(value["libraries"][0]["version"], "OpenSSL 3.0.3 or later");
}

/// The test's own process maps its own program: what the agent says of that file is what decides.
#[test]
fn the_exit_code_says_whether_a_process_is_read() {
    let exe = std::env::current_exe().expect("a path");
    let pid = std::process::id().to_string();
    let (text, code) = explain(reading(&exe, "attached", None), &[&pid]);
    assert!(text.starts_with(&format!("PID {pid} (")) && code == Some(0), "{code:?} {text}");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.ends_with("has OpenSSL 3.0.3 or later built in: its HTTPS is read; 14 probes."), "{text}");

    let (text, code) = explain(reading(&exe, "failed", Some("a reason")), &[&pid]);
    assert!(text.contains("not read: a reason;") && code == Some(2), "{code:?} {text}");
    let (text, code) = explain(reading(&exe, "failed", Some("a reason")), &[&pid, "--json"]);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&value["verdict"], &value["libraries"][0]["read"], code), (&"not_read".into(), &false.into(), Some(2)));

    let other = tempfile::NamedTempFile::new().expect("a file");
    let (text, code) = explain(reading(other.path(), "attached", None), &[&pid]);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("has no TLS library: there is nothing to read") && code == Some(0), "{code:?} {text}");
}

#[test]
fn an_error_is_one_line_that_says_what_to_do() {
    // Nobody listens on the port of the discard protocol.
    let text = failure(Path::new(NOWHERE), &["explain", "--status", "127.0.0.1:9"], 1);
    assert!(text.contains("no agent answers on 127.0.0.1:") && text.contains("sudo tapstack up"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");

    for answer in ["HTTP/1.0 404 Not Found\r\n\r\nno\n", "HTTP/1.0 200 OK\r\n\r\n{}", "SSH-2.0-x\r\n", ""] {
        let (address, served) = agent(answer.to_owned());
        let text = failure(Path::new(NOWHERE), &["explain", "--status", &address.to_string()], 1);
        served.join().expect("the agent's side");
        assert!(text.contains("is no agent of this version") && text.contains("--status"), "{answer:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    // Beyond PID_MAX_LIMIT.
    let text = failure(Path::new(NOWHERE), &["explain", "4294967295"], 1);
    assert_eq!(text, "tapstack: there is no process 4294967295\n");
}

#[test]
fn help_says_what_the_exit_code_means() {
    let text = output(Path::new(NOWHERE), &["explain", "--help"]);
    assert!(text.contains("Exit code with PID: 0 when its HTTPS is read"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}
