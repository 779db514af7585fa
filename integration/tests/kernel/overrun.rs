//! The ring between kernel and agent overruns: what is called complete is right, the rest says what is missing
//! and why, and the capture goes on.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use integration::{content, http::Client, program::Peer, tapstack::Tapstack};

use crate::{
    PEER, Test,
    content_checks::{body_is, complete_ones_are_right, exactly, recovers},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_full_ring_is_a_gap_and_never_a_wrong_body", overrun),
    ("a_body_beyond_the_limit_is_cut_and_the_next_exchange_is_whole", beyond_the_limit),
];

const COUNT: usize = 200;

fn overrun() -> Result<()> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let mut tapstack = Tapstack::start_with(&["--ring", "1M"])?;
    let address = server.address;
    thread::scope(|scope| {
        let each: Vec<_> = (0..8)
            .map(|c| {
                scope.spawn(move || -> Result<()> {
                    let mut client = Client::open(address)?;
                    for n in (c..COUNT).step_by(8) {
                        let answer = client.ask("GET", &format!("/overrun/{n}/bytes/{n}/1000000"), "", None)?;
                        ensure!(answer.body.len() == 1_000_000, "TCP delivered something else");
                    }
                    Ok(())
                })
            })
            .collect();
        each.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    // The capture goes on; and then everything before is in the archive.
    recovers(&mut tapstack, "overrun")?;
    let lost = tapstack.rises("kernel_ring_full_records", 1).context("the test could not provoke a full ring")?;
    let found = tapstack.find("/overrun/")?;
    let complete = complete_ones_are_right(&mut tapstack, &found)?;
    let mut by_ring = 0;
    for record in found.iter().filter(|r| !r.complete()) {
        let object = tapstack.object(record)?;
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
    println!("{lost} records lost; {complete} transactions complete, {by_ring} with gaps, of {}", COUNT * 2);
    println!("counters: {}", tapstack.counters());
    ensure!(by_ring > 0, "no transaction says that bytes are missing");
    ensure!(tapstack.metric("panics")? == 0, "a parser panicked");
    tapstack.stop(libc::SIGTERM).map(drop)
}

/// The kernel side stops copying a run at its cap; on loopback, where only the sender's side is copied, too.
fn beyond_the_limit() -> Result<()> {
    const LIMIT: usize = 2 << 20;
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let mut tapstack = Tapstack::start()?;
    let mut client = Client::open(server.address)?;
    let large = "/limit/large/bytes/1/5000000";
    ensure!(client.ask("GET", large, "", None)?.body.len() == 5_000_000, "TCP delivered something else");
    for n in 2..5 {
        client.ask("GET", &format!("/limit/small/bytes/{n}/3000"), "", None)?;
    }
    let (asked, answered) = tapstack.both(large)?;
    for record in [&asked, &answered] {
        let object = tapstack.object(record)?;
        let seen = &object.0["completeness"]["response"];
        ensure!(!record.complete(), "called complete: {seen}");
        ensure!(seen["body_bytes"] == 5_000_000 && seen["kept_bytes"] == LIMIT, "{seen}");
        ensure!(object.body("response")? == content::body(1, 5_000_000)[..LIMIT], "another beginning");
        ensure!(seen["gaps"].as_array().is_some_and(|g| g.iter().all(|gap| gap["cause"] == "cap")), "{seen}");
    }
    for n in 2..5 {
        let (asked, answered) = tapstack.both(&format!("/limit/small/bytes/{n}/3000"))?;
        for record in [&asked, &answered] {
            body_is(&mut tapstack, record, "response", &content::body(n, 3000))?;
            ensure!(record.complete(), "{:?}", record.0);
        }
    }
    exactly(&mut tapstack, "/limit/", 8)
}
