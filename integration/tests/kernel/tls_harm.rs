//! Nobody is harmed: processes that are killed in the middle, a ring that is too small.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content,
    program::{self, Dialogue, Running},
    sys,
    tapstack::{Attached, Tapstack},
    tls::{Server, Site, asked},
    wait,
};

use crate::{
    Test,
    content_checks::body_is,
    tls::{Checks, curl_file},
};

pub(crate) const TESTS: &[Test] = &[
    ("tls_a_client_killed_in_the_middle_harms_nobody", client_killed),
    ("tls_the_agent_killed_in_the_middle_harms_nobody", agent_killed),
    ("tls_a_full_ring_is_a_gap_and_never_a_wrong_body", overrun),
];

fn client_killed() -> Result<()> {
    let site = Site::new()?;
    let server = site.server("threads")?;
    let file = site.file(300, 8_000_000)?;
    let mut checks = Checks::start("/tls/killed/", &[])?;
    let out = site.folder().join("part");
    for n in 0..3 {
        let mut command = site.curl("killed.tls.test", server.port);
        command.args(["--limit-rate", "1M", "-o"]).arg(&out).stdin(Stdio::null());
        let curl = Running::start(command.arg(server.url("killed.tls.test", &format!("/tls-cut/{n}/{file}"))))?;
        wait::until("curl is in the middle", Duration::from_secs(10), || {
            Ok(out.metadata().is_ok_and(|m| m.len() > 100_000).then_some(()))
        })?;
        sys::signal(curl.pid(), libc::SIGKILL)?;
        drop(curl);
        std::fs::remove_file(&out)?;
        // Others go on, also those whose objects now stand where the dead one's were.
        checks.add(curl_file(&site, &server, &format!("/tls/killed/{n}"), 301, 40_000, &[])?);
    }
    let cut = checks.tapstack.wait_for("/tls-cut/", 6)?;
    for record in &cut {
        let object = checks.tapstack.object(record)?;
        ensure!(!record.complete(), "called complete: {}", object.0["completeness"]);
        let body = object.body("response")?;
        ensure!(content::body(300, 8_000_000).starts_with(&body), "another beginning of {} bytes", body.len());
    }
    checks.done()
}

/// Clients of four kinds that ask without end for 300 KB each; what they get is checked. Calls `f` meanwhile.
fn under_load<T>(
    site: &Site,
    server: &Server,
    path: &str,
    f: impl FnOnce(&dyn Fn(usize) -> Result<()>) -> Result<T>,
) -> Result<T> {
    const LEN: usize = 300_000;
    let file = site.file(310, LEN)?;
    let commands = [
        site.python("session", "load.tls.test", server.port, &[]),
        site.python("asyncio", "load.tls.test", server.port, &[]),
        site.node("fetch", "load.tls.test", server.port),
        site.c("partial", "load.tls.test", server.port)?,
    ];
    let clients = commands.into_iter().map(|mut c| Dialogue::start(&mut c)).collect::<Result<Vec<_>>>()?;
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let body = content::body(310, LEN);
    thread::scope(|scope| {
        let each: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let (over, done, body, file) = (&over, &done, &body, &file);
                let path = format!("{path}{}", client.pid());
                scope.spawn(move || -> Result<()> {
                    for n in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        asked(&mut client, &format!("GET {path}-{n}/{file}"), 200, body)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        // Waits for so many further exchanges.
        let more = |count: usize| {
            let goal = done.load(Ordering::Relaxed) + count;
            wait::until("the transfers go on", Duration::from_secs(20), || {
                Ok((done.load(Ordering::Relaxed) >= goal).then_some(()))
            })
        };
        let result = f(&more);
        over.store(true, Ordering::Relaxed);
        for client in each {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?.context("a client was harmed")?;
        }
        result
    })
}

fn agent_killed() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let before = Attached::now()?;
    under_load(&site, &server, "/tls-load/", |more| {
        for _ in 0..2 {
            let mut tapstack = Tapstack::start()?;
            tapstack.wait_for("/tls-load/", 20)?;
            more(4)?;
            tapstack.stop(libc::SIGKILL)?;
            more(8)?;
            before.nothing_left()?;
        }
        // The next one reads the same connections.
        let mut tapstack = Tapstack::start()?;
        more(8)?;
        let found = tapstack.wait("/tls-load/", |all| {
            let whole: Vec<_> = all.iter().filter(|r| r.complete()).cloned().collect();
            (whole.len() >= 16).then_some(whole)
        })?;
        for record in &found {
            let object = tapstack.object(record)?;
            ensure!(object.body("response")? == content::body(310, 300_000), "complete, and another body");
        }
        Ok(())
    })
}

fn overrun() -> Result<()> {
    const LEN: usize = 1_000_000;
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let mut checks = Checks::start("/tls/after/", &["--ring", "1M"])?;
    let names = (0..4).map(|n| site.file(320 + n, LEN)).collect::<Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let each: Vec<_> = (0..4_usize)
            .map(|c| {
                let (site, server, names) = (&site, &server, &names);
                scope.spawn(move || -> Result<()> {
                    let url = server.url("o.tls.test", &format!("/tls-over/{c}-[1-40]/{}", names[c]));
                    program::output(site.curl("o.tls.test", server.port).args(["-o", "/dev/null", &url])).map(drop)
                })
            })
            .collect();
        each.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    // Soon honest exchanges are captured whole again, and then everything before is in the archive.
    let mut tries = 0;
    wait::until("an exchange is captured whole", Duration::from_secs(25), || {
        tries += 1;
        let wanted = curl_file(&site, &server, &format!("/tls-try/{tries}"), 330, 5000, &[])?;
        let whole = |found: &[integration::tapstack::Record]| {
            (found.iter().filter(|r| r.complete()).count() == 2).then_some(())
        };
        Ok(checks.tapstack.wait_within(Duration::from_secs(2), &wanted.path, whole).ok())
    })?;
    checks.add(curl_file(&site, &server, "/tls/after", 331, 5000, &[])?);
    let lost =
        checks.tapstack.rises("kernel_ring_full_records", 1).context("the test could not provoke a full ring")?;
    let found = checks.tapstack.find("/tls-over/")?;
    let mut complete = 0;
    for record in found.iter().filter(|r| r.complete()) {
        let seed = record.path().rsplit('-').nth(1).unwrap_or_default().parse()?;
        body_is(&mut checks.tapstack, record, "response", &content::body(seed, LEN))?;
        complete += 1;
    }
    let mut by_ring = 0;
    for record in found.iter().filter(|r| !r.complete()) {
        let object = checks.tapstack.object(record)?;
        let gaps: Vec<_> = ["request", "response"]
            .iter()
            .flat_map(|m| object.0["completeness"][m]["gaps"].as_array().cloned().unwrap_or_default())
            .collect();
        let unseen = object.0["request"].is_null() || object.0["response"].is_null();
        ensure!(!gaps.is_empty() || unseen, "not complete, and no gap: {}", object.0["completeness"]);
        for gap in &gaps {
            ensure!(gap["cause"] == "ring", "the cause of {gap} is the ring: {}", object.0["completeness"]);
        }
        by_ring += usize::from(!gaps.is_empty());
    }
    println!("{lost} records lost; {complete} transactions complete, {by_ring} with gaps, of {}", 4 * 40 * 2);
    ensure!(by_ring > 0, "no transaction says that bytes are missing");
    ensure!(checks.tapstack.metric("panics")? == 0, "a parser panicked");
    checks.done()
}
