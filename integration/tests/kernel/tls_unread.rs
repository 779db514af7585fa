//! TLS whose plaintext no probe reads: known by its handshake, counted, and never copied.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content, program,
    tapstack::{Tapstack, binary},
    tls::Site,
    wait,
};
use serde_json::Value;

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("tls_unread_connections_are_counted_and_their_ciphertext_is_not_copied", unread)];

const LEN: usize = 10_000_000;
/// Two handshakes in some 4 KB, and what the records of openings and started programs take, also of programs that are
/// none of this test's: far less than one of the 10,000 KB.
const COPIED: u64 = 64 << 10;

fn unread() -> Result<()> {
    let site = Site::new()?;
    let server = site.server("gnutls")?;
    let file = site.file(400, LEN)?;
    let recording = site.folder().join("recording");
    let mut tapstack = Tapstack::record(&recording)?;
    let mut command = program::command("wget");
    command.args(["-q", "-O", "-", "--ca-certificate"]).arg(site.authority());
    let got = program::output(command.arg(server.url("localhost", &format!("/tls/unread/{file}"))))?;
    ensure!(got == content::body(400, LEN), "wget got something else");
    let counter = |program: &str| -> Result<Option<u64>> {
        let text = tapstack.metrics()?;
        let mut lines = text.lines().filter(|l| l.starts_with("tapstack_tls_unread_connections_total{"));
        let line = lines.find(|l| l.contains(program));
        Ok(line.and_then(|l| l.rsplit(' ').next()).and_then(|n| n.parse().ok()))
    };
    wait::until("both programs are counted", Duration::from_secs(10), || {
        let both = (counter("wget")?, counter("python3")?);
        Ok((both == (Some(1), Some(1))).then_some(()))
    })
    .with_context(|| tapstack.counters())?;
    tapstack.stop(libc::SIGTERM)?;
    let recorded = recording.metadata()?.len();
    println!("recorded of {LEN} bytes over TLS, and of all else: {recorded} bytes");
    ensure!(recorded < COPIED, "{recorded} bytes were copied");
    ensure!(tapstack.find("/tls/unread/")?.is_empty(), "an object of what was not read");

    let mut replay = Command::new(binary()?);
    let lines = program::output(replay.arg("replay").arg(&recording).arg("--connections"))?;
    let events = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    let events = events.map(|line| Ok(serde_json::from_slice(line)?)).collect::<Result<Vec<Value>>>()?;
    for exe in ["wget", "python3"] {
        let last = events.iter().rfind(|e| {
            e["event.type"] == "connection"
                && e["destination_port"] == server.port
                && e["process_exe"].as_str().is_some_and(|p| p.contains(exe))
        });
        let event = last.with_context(|| format!("no connection event of {exe}"))?;
        ensure!(event["tls_sni"] == "localhost" && event["l7_protocol"] == "tls", "{event}");
        ensure!(event["tls_version"] == "TLSv1.3", "{event}");
        ensure!(event["tls_cipher"].as_str().is_some_and(|c| c.starts_with("TLS_")), "{event}");
        ensure!(event["tls_plaintext"] == "none" && event["exchanges"] == 0, "{event}");
    }
    Ok(())
}
