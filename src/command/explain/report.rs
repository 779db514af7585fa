//! What the status listener answers on `/libraries`: made by the agent, read by `explain`. The names of the fields
//! are stable; docs/explain.md describes them.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use agent::{
    library::{Found, State, Status},
    process,
};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// More than the agent's largest answer: some thousand libraries with their probes.
const LIMIT: u64 = 32 << 20;
/// How long the agent may take to answer: it is on this host, or should be.
const PATIENCE: Duration = Duration::from_secs(5);
/// What to do when nobody answers, or the wrong one.
const ADVICE: &str =
    "start one with sudo tapstack up, or say with --status where the running one listens (its --status-listen)";

/// All libraries, and how they stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Who answers.
    pub(crate) agent: Agent,
    /// Whether this kernel takes the programs that read TLS libraries at all.
    pub(crate) supported: bool,
    /// By path.
    pub(crate) libraries: Vec<Library>,
    /// What does not work on this host, and what is done instead.
    pub(crate) notes: Vec<String>,
    /// Files that were looked into since the start.
    pub(crate) inspected: u64,
    /// Libraries that were let go since the start.
    pub(crate) let_go: u64,
    /// Times that all processes were read since the start.
    pub(crate) scans: u64,
    /// The last of these.
    pub(crate) last_scan: Scan,
}

/// The agent that answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// In clock ticks since boot: a pid alone may be another process's in another namespace.
    pub(crate) start_ticks: u64,
}

/// A reading of all processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scan {
    pub(crate) processes: u64,
    pub(crate) seconds: f64,
}

/// A file with a TLS library.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Library {
    /// As its first process sees it.
    pub(crate) path: String,
    /// `host`, `container 0123456789ab`, or another root.
    pub(crate) root: String,
    /// The real file, where `path` is seen through an overlay.
    pub(crate) real_path: Option<String>,
    /// The real file's, as `stat(2)` has it.
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// As in objects: `openssl`.
    pub(crate) source: String,
    /// What the file says of itself; may be empty.
    pub(crate) version: String,
    pub(crate) state: Standing,
    /// Probes in place.
    pub(crate) probes: u64,
    /// Where each is and why there, a line each.
    pub(crate) plan: Vec<String>,
    /// Why it is not read.
    pub(crate) error: Option<String>,
    /// What else should be known.
    pub(crate) note: Option<String>,
}

/// Whether a library is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// All its probes are in place.
    Attached,
    /// None is.
    #[default]
    Failed,
}

impl Report {
    /// Of the process that this runs in. Without a status the kernel refuses the programs; `notes` say what else
    /// it lacks.
    pub(crate) fn new(status: Option<&Status>, notes: &[String]) -> Report {
        let pid = std::process::id();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let agent = Agent { version, pid, start_ticks: process::start_ticks(pid).unwrap_or(0) };
        let mut report = Report { agent, notes: notes.to_vec(), ..Report::default() };
        let Some(status) = status else { return report };
        report.supported = true;
        report.libraries = status.targets.iter().map(Library::new).collect();
        for note in &status.notes {
            if !report.notes.contains(note) {
                report.notes.push(note.clone());
            }
        }
        (report.inspected, report.let_go, report.scans) = (status.inspected, status.let_go, status.scans);
        let (processes, took) = status.last_scan;
        report.last_scan = Scan { processes: processes as u64, seconds: took.as_secs_f64() };
        report
    }

    /// In one line.
    pub(crate) fn to_json(&self) -> String {
        // Texts and numbers only: nothing in it can fail to be JSON.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Asks the agent that listens there.
    pub(crate) fn fetch(address: SocketAddr) -> anyhow::Result<Report> {
        let answer = ask(address).with_context(|| format!("no agent answers on {address}: {ADVICE}"))?;
        let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, body) = end.map_or((&answer[..], &[][..]), |end| (&answer[..end], &answer[end + 4..]));
        let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default());
        let mut parts = line.split(' ');
        if !parts.next().is_some_and(|version| version.starts_with("HTTP/1.")) || parts.next() != Some("200") {
            let said: String = line.chars().take(60).collect();
            bail!("what answers on {address} is no agent of this version (it says {said:?}): {ADVICE}");
        }
        serde_json::from_slice(body)
            .with_context(|| format!("what answers on {address} is no agent of this version: {ADVICE}"))
    }
}

impl Library {
    fn new(found: &Found) -> Library {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        Library {
            path: text(&found.path),
            root: found.root.clone(),
            real_path: found.real.as_deref().map(text),
            device: found.device,
            inode: found.inode,
            source: found.library.to_owned(),
            version: found.version.clone(),
            state: match found.state {
                State::Attached => Standing::Attached,
                State::Failed => Standing::Failed,
            },
            probes: found.probes as u64,
            plan: found.plan.lines().map(|line| line.trim_end().to_owned()).collect(),
            error: found.error.clone(),
            note: found.note.clone(),
        }
    }

    /// What people call it.
    pub(crate) fn title(&self) -> &str {
        match (self.version.as_str(), self.source.as_str()) {
            ("", "openssl") => "OpenSSL",
            ("", other) => other,
            (version, _) => version,
        }
    }
}

/// The whole answer. As HTTP/1.0, so that it ends with the connection and is in one piece.
fn ask(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let agent = concat!("tapstack/", env!("CARGO_PKG_VERSION"));
    write!(stream, "GET /libraries HTTP/1.0\r\nHost: {address}\r\nUser-Agent: {agent}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LIMIT).read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_json_with_stable_names_and_comes_back() {
        let found = Found {
            path: "/usr/lib/libssl.so.3".into(),
            root: "host".into(),
            real: Some("/layer/libssl.so.3".into()),
            device: 64_769,
            inode: 7,
            library: "openssl",
            version: "OpenSSL 3.0.19".into(),
            plan: "tls_call  0x10  SSL_read: why\ntls_free  0x20  SSL_free: why\n".into(),
            probes: 2,
            state: State::Attached,
            error: None,
            note: Some("a note".into()),
        };
        let status = Status {
            targets: vec![found],
            notes: vec!["one".into(), "two".into()],
            inspected: 3,
            let_go: 4,
            scans: 5,
            last_scan: (6, Duration::from_millis(7)),
        };
        let report = Report::new(Some(&status), &["two".into(), "three".into()]);
        let json = report.to_json();
        let pid = std::process::id();
        let start = process::start_ticks(pid).expect("it runs");
        let expected = serde_json::json!({
            "agent": {"version": env!("CARGO_PKG_VERSION"), "pid": pid, "start_ticks": start},
            "supported": true,
            "libraries": [{
                "path": "/usr/lib/libssl.so.3", "root": "host", "real_path": "/layer/libssl.so.3",
                "device": 64_769, "inode": 7, "source": "openssl", "version": "OpenSSL 3.0.19",
                "state": "attached", "probes": 2,
                "plan": ["tls_call  0x10  SSL_read: why", "tls_free  0x20  SSL_free: why"],
                "error": null, "note": "a note",
            }],
            "notes": ["two", "three", "one"],
            "inspected": 3, "let_go": 4, "scans": 5, "last_scan": {"processes": 6, "seconds": 0.007},
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).expect("JSON"), expected);
        assert_eq!(serde_json::from_str::<Report>(&json).expect("a report"), report);
    }

    #[test]
    fn without_a_status_nothing_is_supported() {
        let report = Report::new(None, &["no programs".into()]);
        assert!(!report.supported && report.libraries.is_empty());
        assert_eq!(report.notes, ["no programs"]);
    }
}
