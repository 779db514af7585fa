//! Waiting for something that another process does: bounded, and over as soon as it has happened.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at that nothing announces.
const STEP: Duration = Duration::from_millis(20);

/// Calls `look` until it returns something, for at most `patience`.
///
/// # Errors
/// Those of `look`, or that the time is over; `what` says what was waited for.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            bail!("{what}: not within {patience:?}");
        }
        thread::sleep(STEP);
    }
}
