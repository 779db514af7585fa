//! Comparing what was captured with what was sent.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use integration::{
    content,
    http::Client,
    program::Peer,
    tapstack::{Object, Record, Tapstack},
    wait,
};

use crate::PEER;

/// The body of one message of a captured transaction is this one, and is called complete.
pub(crate) fn body_is(tapstack: &mut Tapstack, record: &Record, message: &str, expected: &[u8]) -> Result<Object> {
    let what = || format!("{message} of {} at the {} end", record.path(), record.end());
    let object = tapstack.object(record).with_context(what)?;
    if let Some(difference) = content::difference(expected, &object.body(message)?) {
        bail!("{}: {difference}; completeness {}", what(), object.0["completeness"]);
    }
    ensure!(record.complete(), "{}: not complete: {}", what(), object.0["completeness"]);
    Ok(object)
}

/// The response bodies of `…/bytes/SEED/LENGTH` are right wherever the record says that they are complete;
/// returns how many are.
pub(crate) fn complete_ones_are_right(tapstack: &mut Tapstack, records: &[Record]) -> Result<usize> {
    let mut complete = 0;
    for record in records.iter().filter(|r| r.complete()) {
        let mut parts = record.path().rsplit('/');
        let (len, seed) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        body_is(tapstack, record, "response", &content::body(seed.parse()?, len.parse()?))?;
        complete += 1;
    }
    Ok(complete)
}

/// No exchange is there twice at one end; paths name exchanges.
pub(crate) fn once_each(records: &[Record]) -> Result<()> {
    let mut seen = BTreeMap::new();
    for record in records {
        if let Some(other) = seen.insert((record.path(), record.end()), record) {
            bail!("twice: {}\n{}", other.0, record.0);
        }
    }
    Ok(())
}

/// After hard times: soon an honest exchange is captured whole at both ends again, one that is made while the
/// agent still works through what came before may lack bytes.
pub(crate) fn recovers(tapstack: &mut Tapstack, name: &str) -> Result<()> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "", None)?;
    let mut tries = 0;
    let look = || -> Result<Option<()>> {
        ensure!(tapstack.alive()?, "it ended:\n{}", tapstack.log());
        tries += 1;
        let path = format!("/honest/{name}/{tries}/bytes/{tries}/5000");
        Client::open(server.address)?.ask("GET", &path, "Connection: close\r\n", None)?;
        let Ok(found) =
            tapstack.wait_within(Duration::from_secs(3), &path, |found| (found.len() == 2).then(|| found.to_vec()))
        else {
            return Ok(None);
        };
        Ok((complete_ones_are_right(tapstack, &found)? == 2).then_some(()))
    };
    let result = wait::until("an honest exchange is captured whole", Duration::from_secs(25), look);
    result.with_context(|| format!("{tries} tries; counters: {}", tapstack.counters()))
}

/// Stops `up`, and checks that exactly so many records under `prefix` are in its archive: none came twice, and
/// none late.
pub(crate) fn exactly(tapstack: &mut Tapstack, prefix: &str, count: usize) -> Result<()> {
    tapstack.stop(libc::SIGTERM)?;
    let found = tapstack.find(prefix)?.len();
    ensure!(found == count, "{found} records under {prefix} after the stop, not {count}");
    Ok(())
}
