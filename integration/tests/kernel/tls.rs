//! What every test of HTTPS checks of an exchange: once at each end, bodies byte for byte, who, under which name.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use integration::{
    content,
    program::{self, Dialogue},
    tapstack::{Record, Tapstack},
    tls::{Server, Site, asked},
    wait,
};

use crate::content_checks::exactly;

/// Most exchanges that a failing test names.
const SHOWN: usize = 20;

/// A process: the beginning of its executable's file name (alternatives apart by `|`), and its id where the test
/// knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Owner(pub(crate) &'static str, pub(crate) Option<u32>);

/// An exchange as it must be captured; its path is its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) path: String,
    pub(crate) method: &'static str,
    pub(crate) status: u64,
    pub(crate) sni: String,
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) client: Owner,
    pub(crate) server: Owner,
    /// Version and cipher suite; anything when it is empty.
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
    /// The client's TLS object cannot be tied to its socket: its end has no addresses, and an `exchange_id` of its
    /// own.
    pub(crate) unbound: bool,
    /// Client and server do not talk over one connection: each end has an `exchange_id` of its own.
    pub(crate) apart: bool,
    /// The handshake came before the capture.
    pub(crate) older: bool,
}

impl Wanted {
    /// A GET of [`Site::file`] under this path.
    pub(crate) fn get(path: &str, seed: u64, len: usize) -> Wanted {
        let response = content::body(seed, len);
        Wanted { path: path.to_owned(), method: "GET", status: 200, response, ..Wanted::default() }
    }

    fn owned(&self, record: &Record, says: &str) -> Result<()> {
        let Owner(name, pid) = if record.end() == "client" { self.client } else { self.server };
        let exe = record.text("process_exe");
        let file = exe.rsplit('/').next().unwrap_or_default();
        ensure!(name.split('|').any(|n| !n.is_empty() && file.starts_with(n)), "owner {exe:?}, not {name:?}");
        let found = record.number("process_pid");
        if let Some(pid) = pid {
            ensure!(found == Some(u64::from(pid)), "owner {found:?}, not {pid}");
        }
        if record.end() == "server" && !says.is_empty() {
            ensure!(found == Some(says.parse()?), "owner {found:?}, but {says} answered");
        }
        Ok(())
    }

    /// Compares with what was captured at one end.
    pub(crate) fn end(&self, tapstack: &mut Tapstack, record: &Record) -> Result<()> {
        ensure!(record.text("request_method") == self.method, "method {:?}", record.text("request_method"));
        ensure!(record.text("request_scheme") == "https", "scheme {:?}", record.text("request_scheme"));
        let object = tapstack.object(record)?;
        let status = record.number("response_status");
        ensure!(status == Some(self.status), "status {status:?}; completeness {}", object.0["completeness"]);
        for (message, sent) in [("request", &self.request), ("response", &self.response)] {
            if let Some(difference) = content::difference(sent, &object.body(message)?) {
                bail!("{message}: {difference}; completeness {}", object.0["completeness"]);
            }
        }
        ensure!(record.complete(), "not complete: {}", object.0["completeness"]);
        self.owned(record, object.header("response", "X-Pid"))?;
        let (connection, tls) = (&object.0["connection"], &object.0["tls"]);
        ensure!(connection["source"] == "openssl", "source: {connection}");
        let binding = tls["binding"].as_str().unwrap_or_default();
        if self.unbound && record.end() == "client" {
            ensure!(binding == "none", "bound, but how? {tls}");
            let known = |side: &str| connection[side].as_str().is_some_and(|address| !address.is_empty());
            ensure!(!known("local") && !known("remote"), "addresses of a socket that is not known: {connection}");
            return Ok(());
        }
        ensure!(connection["from_start"] != self.older, "from_start: {connection}");
        ensure!(["handshake", "record", "descriptor"].contains(&binding), "not bound: {tls}");
        for side in ["local", "remote"] {
            ensure!(connection[side].as_str().is_some_and(|at| at.contains("127.0.0.1:")), "addresses: {connection}");
        }
        if self.older {
            ensure!(binding == "record", "no handshake was seen, and yet: {tls}");
            return Ok(());
        }
        ensure!(tls["sni"] == *self.sni, "name {}, not {}", tls["sni"], self.sni);
        ensure!(self.version.is_empty() || tls["version"] == self.version, "not {}: {tls}", self.version);
        ensure!(self.cipher.is_empty() || tls["cipher"] == self.cipher, "not {}: {tls}", self.cipher);
        let named = |value: &serde_json::Value, with: &str| value.as_str().is_some_and(|v| v.starts_with(with));
        ensure!(named(&tls["version"], "TLSv1.") && named(&tls["cipher"], "TLS_"), "version or cipher: {tls}");
        Ok(())
    }

    /// Compares with the records of this path.
    fn check(&self, tapstack: &mut Tapstack, found: &[&Record]) -> Result<()> {
        let mut ends: Vec<&str> = found.iter().map(|r| r.end()).collect();
        ends.sort_unstable();
        for record in found {
            self.end(tapstack, record).with_context(|| format!("at the {} end", record.end()))?;
        }
        ensure!(ends == ["client", "server"], "not once at each end, but at {ends:?}");
        let ids: Vec<&str> = found.iter().map(|r| r.text("exchange_id")).collect();
        ensure!((ids[0] == ids[1]) != (self.unbound || self.apart || self.older), "exchange_id {ids:?}");
        Ok(())
    }
}

/// A capture, and what must be in it under one prefix.
pub(crate) struct Checks {
    prefix: &'static str,
    pub(crate) tapstack: Tapstack,
    wanted: Vec<Wanted>,
}

impl Checks {
    /// Starts `tapstack up` with these options. All paths begin with `prefix`.
    pub(crate) fn start(prefix: &'static str, options: &[&str]) -> Result<Checks> {
        Ok(Checks { prefix, tapstack: Tapstack::start_with(options)?, wanted: Vec::new() })
    }

    /// One more exchange that was made.
    pub(crate) fn add(&mut self, wanted: Wanted) {
        self.wanted.push(wanted);
    }

    /// Asks a client of ours for one of the site's files, and wants that captured.
    pub(crate) fn ask(&mut self, client: &mut Dialogue, seed: u64, len: usize, wanted: Wanted) -> Result<String> {
        let wanted = Wanted { response: content::body(seed, len), method: "GET", status: 200, ..wanted };
        let note = asked(client, &format!("GET {}", wanted.path), 200, &wanted.response)?;
        self.add(wanted);
        Ok(note)
    }

    /// Sends a body: nginx keeps it and answers with nothing, the others send it back.
    pub(crate) fn send(
        &mut self,
        site: &Site,
        client: &mut Dialogue,
        seed: u64,
        len: usize,
        wanted: Wanted,
    ) -> Result<()> {
        let sent = content::body(seed, len);
        let file = site.folder().join(site.file(seed, len)?);
        let stores = wanted.server.0 == "nginx";
        let (method, status) = if stores { ("PUT", 201) } else { ("POST", 200) };
        let response = if stores { Vec::new() } else { sent.clone() };
        asked(client, &format!("{method} {} {}", wanted.path, file.display()), status, &response)?;
        if stores {
            let kept = site.folder().join(wanted.path.rsplit('/').next().unwrap_or_default());
            ensure!(fs::read(&kept)? == sent, "nginx has stored something else");
            fs::remove_file(kept)?;
        }
        self.add(Wanted { method, status: u64::from(status), request: sent, response, ..wanted });
        Ok(())
    }

    /// Waits for all, compares each, stops the capture, and checks that there is nothing else. Says all that is
    /// wrong, not only the first.
    pub(crate) fn done(mut self) -> Result<()> {
        let count = self.wanted.len() * 2;
        ensure!(count > 0, "no exchange was made: no test");
        let waited = self.tapstack.wait_for(self.prefix, count);
        let late = waited.as_ref().err().map(|error| format!("{error:#}"));
        let found = waited.or_else(|_| self.tapstack.find(self.prefix))?;
        let mut by_path: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
        for record in &found {
            by_path.entry(record.path()).or_default().push(record);
        }
        let mut wrong = Vec::new();
        for wanted in &self.wanted {
            let records = by_path.remove(wanted.path.as_str()).unwrap_or_default();
            if let Err(error) = wanted.check(&mut self.tapstack, &records) {
                wrong.push(format!("{} {}: {error:#}", wanted.method, wanted.path));
            }
        }
        wrong.extend(by_path.keys().map(|path| format!("{path}: nobody asked for it")));
        println!("{} exchanges: {} right", self.wanted.len(), self.wanted.len().saturating_sub(wrong.len()));
        if wrong.is_empty() {
            return exactly(&mut self.tapstack, self.prefix, count);
        }
        let (count, shown) = (wrong.len(), wrong.len().min(SHOWN));
        bail!(
            "{count} of {} exchanges are wrong, such as:\n{}\n{}\ncounters: {}",
            self.wanted.len(),
            wrong[..shown].join("\n"),
            late.unwrap_or_default().lines().next().unwrap_or_default(),
            self.tapstack.counters()
        )
    }
}

/// Asks until an exchange is captured at both ends. What is in a folder of the host's loader is probed when the capture
/// is ready; what running programs and containers have is found soon after, and then nothing may be missing. `ask` is
/// given a path to begin with, another one each time.
pub(crate) fn soon(tapstack: &Tapstack, mut ask: impl FnMut(&str) -> Result<()>) -> Result<()> {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    let mut tries = 0;
    wait::until("the library's plaintext is read", Duration::from_secs(15), || {
        tries += 1;
        let path = format!("/tls-try/{}", TRIES.fetch_add(1, Ordering::Relaxed));
        ask(&path)?;
        let prefix = format!("{path}/");
        let seen = tapstack.wait_within(Duration::from_millis(500), &prefix, |found| (found.len() == 2).then_some(()));
        Ok(seen.ok())
    })?;
    println!("captured from exchange {tries} on");
    Ok(())
}

/// One GET by a curl of its own; returns what is to be captured.
pub(crate) fn curl(site: &Site, server: &Server, path: &str, options: &[&str]) -> Result<Wanted> {
    let host = "curl.tls.test";
    let bytes = program::output(site.curl(host, server.port).args(options).arg(server.url(host, path)))?;
    let owner = Owner(server.name, None);
    let wanted = Wanted { sni: host.to_owned(), client: Owner("curl", None), server: owner, ..Wanted::get(path, 0, 0) };
    Ok(Wanted { response: bytes, ..wanted })
}

/// The same, when the answer is [`Site::file`] of this seed and length.
pub(crate) fn curl_file(
    site: &Site,
    server: &Server,
    at: &str,
    seed: u64,
    len: usize,
    options: &[&str],
) -> Result<Wanted> {
    let path = format!("{at}/{}", site.file(seed, len)?);
    let wanted = curl(site, server, &path, options)?;
    let difference = content::difference(&content::body(seed, len), &wanted.response);
    ensure!(difference.is_none(), "curl got something else: {difference:?}");
    Ok(wanted)
}

/// A client of ours with the facts that all its exchanges share.
pub(crate) struct Asking {
    pub(crate) dialogue: Dialogue,
    pub(crate) shared: Wanted,
}

impl Asking {
    /// Starts a client command that was made for this host and server.
    pub(crate) fn start(mut command: std::process::Command, host: &str, server: &Server) -> Result<Asking> {
        let dialogue = Dialogue::start(&mut command)?;
        let name = match command.get_program().to_string_lossy().rsplit('/').next().unwrap_or_default() {
            "python3" => "python3",
            "node" => "node",
            "tls_client" => "tls_client",
            other => bail!("{other} is no client of ours"),
        };
        let (client, server) = (Owner(name, Some(dialogue.pid())), Owner(server.name, None));
        Ok(Asking { dialogue, shared: Wanted { sni: host.to_owned(), client, server, ..Wanted::default() } })
    }

    /// GET of `AT/bytes-SEED-LEN`.
    pub(crate) fn get(&mut self, checks: &mut Checks, site: &Site, at: &str, seed: u64, len: usize) -> Result<String> {
        let wanted = Wanted { path: format!("{at}/{}", site.file(seed, len)?), ..self.shared.clone() };
        checks.ask(&mut self.dialogue, seed, len, wanted).with_context(|| at.to_owned())
    }

    /// Sends a body to `AT/put-SEED-LEN`.
    pub(crate) fn send(&mut self, checks: &mut Checks, site: &Site, at: &str, seed: u64, len: usize) -> Result<()> {
        let wanted = Wanted { path: format!("{at}/put-{seed}-{len}"), ..self.shared.clone() };
        checks.send(site, &mut self.dialogue, seed, len, wanted).with_context(|| at.to_owned())
    }
}
