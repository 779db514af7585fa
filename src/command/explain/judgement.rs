//! Whether the HTTPS of a process is read: what it has mapped ([`Uses`]) against what the agent has probed
//! ([`Report`]). Pure.

use std::path::Path;

use agent::library::{Mapped, Uses};
use serde::Serialize;

use super::report::{Library, Report, Standing};

/// File names of TLS libraries begin so; what is no target of the agent's is not read.
const NAMES: [(&str, &str); 10] = [
    ("libssl.so", "OpenSSL"),
    // Python's wheels put their own name into it.
    ("libssl-", "OpenSSL"),
    ("libgnutls.so", "GnuTLS"),
    // NSS has its TLS in libssl3 (Firefox: in libnss3); libnspr4 is what both stand on, and comes with them.
    ("libssl3.so", "NSS"),
    ("libnss3.so", "NSS"),
    ("libmbedtls.so", "Mbed TLS"),
    ("libwolfssl.so", "wolfSSL"),
    ("libs2n.so", "s2n-tls"),
    ("libboringssl.so", "BoringSSL"),
    ("libjvm.so", "Java's own TLS"),
];

/// The answer in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It is the agent, whose traffic is never captured.
    Agent,
    /// A library of its is read.
    Read,
    /// It has TLS, and none of it is read.
    NotRead,
    /// It has no TLS that can be told.
    Nothing,
}

/// The answer. Its fields are those of `explain PID --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Judgement {
    pub(super) pid: u32,
    /// None of a kernel thread.
    pub(super) exe: Option<String>,
    /// `host`, `container 0123456789ab`, or another root.
    pub(super) root: String,
    pub(super) verdict: Verdict,
    /// What it has of TLS; what is read first.
    pub(super) libraries: Vec<Has>,
}

/// Some TLS that a process has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Has {
    /// As the process sees it.
    pub(super) path: String,
    /// It is the program itself, not a library of its.
    pub(super) built_in: bool,
    /// `OpenSSL 3.0.19`, `GnuTLS`, …
    pub(super) title: String,
    pub(super) read: bool,
    pub(super) probes: u64,
    /// Where each probe is and why there.
    pub(super) plan: Vec<String>,
    /// Why it is not read, where that is not because Tapstack cannot read its kind yet.
    pub(super) error: Option<String>,
}

impl Judgement {
    pub(super) fn new(pid: u32, uses: &Uses, report: &Report) -> Judgement {
        let exe = uses.exe.as_deref();
        let mut libraries: Vec<Has> = uses.files.iter().filter_map(|file| Has::of(file, uses, report)).collect();
        if let (true, Some(exe)) = (uses.go_tls, exe) {
            libraries.push(Has::unread(exe, true, "Go's own TLS", None));
        }
        // One kind of TLS may be made of several libraries; the first stands for all.
        let mut kinds = std::collections::HashSet::new();
        libraries.retain(|has| has.read || has.error.is_some() || kinds.insert(has.title.clone()));
        libraries.sort_by_key(|has| !has.read);
        let is_agent = (report.agent.pid, report.agent.start_ticks) == (pid, uses.start_ticks);
        let verdict = match libraries.first() {
            _ if is_agent => Verdict::Agent,
            None => Verdict::Nothing,
            Some(first) if first.read => Verdict::Read,
            Some(_) => Verdict::NotRead,
        };
        Judgement { pid, exe: exe.map(text), root: uses.root.clone(), verdict, libraries }
    }
}

impl Has {
    /// What a file has of TLS, if anything.
    fn of(file: &Mapped, uses: &Uses, report: &Report) -> Option<Has> {
        let built_in = uses.exe.as_ref() == Some(&file.path);
        if let Some(target) = target(file, &uses.root, report) {
            let read = target.state == Standing::Attached;
            let unknown = || "the agent does not say why".to_owned();
            return Some(Has {
                path: text(&file.path),
                built_in,
                title: target.title().to_owned(),
                read,
                probes: target.probes,
                plan: target.plan.clone(),
                error: (!read).then(|| target.error.clone().unwrap_or_else(unknown)),
            });
        }
        let name = file.path.file_name()?.to_string_lossy();
        let (_, title) = NAMES.iter().find(|(start, _)| name.starts_with(start))?;
        let error = if report.supported {
            "the agent has found nothing in it that it can read"
        } else {
            "this kernel does not take the programs that read TLS libraries"
        };
        let error = (*title == "OpenSSL").then_some(error);
        Some(Has::unread(&file.path, built_in, title, error))
    }

    fn unread(path: &Path, built_in: bool, title: &str, error: Option<&str>) -> Has {
        let (title, error) = (title.to_owned(), error.map(str::to_owned));
        Has { path: text(path), built_in, title, read: false, probes: 0, plan: Vec::new(), error }
    }

    /// Name of the file.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// The target that a file is: by what `stat(2)` says, else, where it could not be opened, by its path in the same
/// root.
fn target<'a>(file: &Mapped, root: &str, report: &'a Report) -> Option<&'a Library> {
    let is = |library: &&Library| {
        if file.ids.is_empty() {
            library.root == root && Path::new(&library.path) == file.path
        } else {
            file.ids.contains(&(library.device, library.inode))
        }
    };
    report.libraries.iter().find(is)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::command::explain::report::Agent;

    /// Device 1, inode 3 is a libssl that is read; inode 4 one that is not; inode 5 node.
    pub(in super::super) fn report() -> Report {
        let library = |path: &str, inode, version: &str| Library {
            path: path.to_owned(),
            root: "host".to_owned(),
            device: 1,
            inode,
            source: "openssl".to_owned(),
            version: version.to_owned(),
            state: Standing::Attached,
            probes: 14,
            plan: vec!["tls_call       0x10  SSL_read: at its beginning".to_owned()],
            ..Library::default()
        };
        let broken = Library {
            state: Standing::Failed,
            probes: 0,
            plan: Vec::new(),
            error: Some("the result cannot be found".to_owned()),
            ..library("/old/libssl.so.1.1", 4, "")
        };
        Report {
            agent: Agent { version: "1".to_owned(), pid: 77, start_ticks: 700 },
            supported: true,
            libraries: vec![
                library("/usr/lib/libssl.so.3", 3, "OpenSSL 3.0.3 or later"),
                broken,
                library("/usr/bin/node", 5, "OpenSSL 3.0.19"),
            ],
            ..Report::default()
        }
    }

    pub(in super::super) fn uses(exe: &str, files: &[(&str, u64)]) -> Uses {
        let mapped = |&(path, inode): &(&str, u64)| Mapped { path: path.into(), ids: vec![(1, inode)] };
        Uses {
            exe: Some(exe.into()),
            start_ticks: 1,
            root: "host".to_owned(),
            files: files.iter().map(mapped).collect(),
            go_tls: false,
        }
    }

    fn verdict(uses: &Uses) -> Verdict {
        Judgement::new(1234, uses, &report()).verdict
    }

    #[test]
    fn a_file_is_known_by_its_inode_whatever_its_path() {
        assert_eq!(verdict(&uses("/x", &[("/x", 9), ("/somewhere/else", 3)])), Verdict::Read);
        // Another file of that path: replaced, or in another container.
        assert_eq!(verdict(&uses("/x", &[("/usr/lib/libssl.so.3", 9)])), Verdict::NotRead);
        let mut overlay = uses("/x", &[("/lib/libssl.so.3", 9)]);
        overlay.files[0].ids.push((1, 3));
        assert_eq!(verdict(&overlay), Verdict::Read);
        overlay.files[0].ids = vec![(2, 3)];
        assert_eq!(verdict(&overlay), Verdict::NotRead);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_known_by_its_path_in_its_root() {
        let mut uses = uses("/x", &[("/usr/lib/libssl.so.3", 3)]);
        uses.files[0].ids.clear();
        assert_eq!(verdict(&uses), Verdict::Read);
        uses.root = "container 0123456789ab".to_owned();
        assert_eq!(verdict(&uses), Verdict::NotRead);
    }

    #[test]
    fn what_is_read_decides_and_comes_first() {
        let judgement = Judgement::new(
            1234,
            &uses("/x", &[("/a/libgnutls.so.30", 8), ("/a/libssl.so.3", 3), ("/a/libnss3.so", 7)]),
            &report(),
        );
        assert_eq!(judgement.verdict, Verdict::Read);
        let titles: Vec<_> = judgement.libraries.iter().map(|has| has.title.as_str()).collect();
        assert_eq!(titles, ["OpenSSL 3.0.3 or later", "GnuTLS", "NSS"]);
    }

    #[test]
    fn kinds_of_tls_are_told_by_file_names_and_one_kind_counts_once() {
        for (name, title) in [
            ("libgnutls.so.30.34.3", "GnuTLS"),
            ("libnss3.so", "NSS"),
            ("libssl3.so", "NSS"),
            ("libmbedtls.so.14", "Mbed TLS"),
            ("libwolfssl.so.35", "wolfSSL"),
            ("libjvm.so", "Java's own TLS"),
            ("libssl-81ffa89e.so.1.1", "OpenSSL"),
        ] {
            let path = format!("/a/{name}");
            let judgement = Judgement::new(1234, &uses("/x", &[("/x", 9), (&path, 8)]), &report());
            assert_eq!((judgement.verdict, judgement.libraries[0].title.as_str()), (Verdict::NotRead, title));
        }
        let both = Judgement::new(1234, &uses("/x", &[("/a/libnss3.so", 8), ("/a/libssl3.so", 9)]), &report());
        assert_eq!(both.libraries.len(), 1);
        for name in ["libc.so.6", "libcrypto.so.3", "libgnutlsxx.so.30", "libnss_files.so.2", "libnspr4.so"] {
            let path = format!("/a/{name}");
            assert_eq!(verdict(&uses("/x", &[("/x", 9), (&path, 8)])), Verdict::Nothing, "{name}");
        }
    }

    #[test]
    fn go_and_the_agent_itself_are_told() {
        let mut go = uses("/x", &[("/x", 9)]);
        go.go_tls = true;
        assert_eq!(verdict(&go), Verdict::NotRead);
        let agent = Uses { start_ticks: 700, ..uses("/usr/bin/tapstack", &[("/usr/bin/tapstack", 9)]) };
        assert_eq!(Judgement::new(77, &agent, &report()).verdict, Verdict::Agent);
        // Another process of that number, in another namespace.
        assert_eq!(Judgement::new(77, &uses("/x", &[]), &report()).verdict, Verdict::Nothing);
    }
}
