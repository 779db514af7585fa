//! Retention: whole blocks go, oldest first, by age and by size, and the space is given back.
//!
//! In steps of at most [`STEP`] blocks or pages, so that a commit never waits long behind one. Pages that become
//! free are used again by what comes next; the file is cut only when more are free than that needs.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use crate::{checkpoint::PAGE, profile::Profiles, schema::SEGMENT, stats::Counters, writer::Next};

/// Most blocks deleted, or pages given back, at once: a few milliseconds.
const STEP: usize = 256;
/// What an index row is reckoned at, in bytes, when the size of a block is weighed.
const ROW: i64 = 160;
/// A block from so far in the future was written while the clock was wrong.
const FUTURE: Duration = Duration::from_hours(1);

/// What is to be held.
pub(crate) struct Plan {
    pub(crate) max_bytes: u64,
    /// `None`: age is not looked at this time.
    pub(crate) max_age: Option<Duration>,
    /// Nothing is being written: no free pages need be kept for it.
    pub(crate) give_back_all: bool,
}

/// What a step has done.
pub(crate) struct Step {
    /// There is more to do.
    pub(crate) more: bool,
    /// The file is so far above the limit that deleting goes before writing.
    pub(crate) pressing: bool,
    /// Something was committed.
    pub(crate) wrote: bool,
}

/// One step of retention.
pub(crate) fn step(
    connection: &mut Connection,
    plan: &Plan,
    next: Next,
    profiles: &Profiles,
    counters: &Counters,
) -> rusqlite::Result<Step> {
    let count = |sql: &str| connection.prepare_cached(sql)?.query_row([], |r| r.get::<_, i64>(0));
    let (pages, free) = (count("PRAGMA page_count")? as u64, count("PRAGMA freelist_count")? as u64);
    let used = pages.saturating_sub(free) * PAGE;
    counters.used_bytes.store(used, Relaxed);
    counters.free_bytes.store(free * PAGE, Relaxed);
    // Room is left for what a commit adds before the next step, for free pages and for the log.
    let target = plan.max_bytes - plan.max_bytes / 20;
    let excess = i64::try_from(used.saturating_sub(target)).unwrap_or(i64::MAX);
    let pressing = used > plan.max_bytes;

    if (excess > 0 || plan.max_age.is_some())
        && let Some((block, blocks)) = choose(connection, plan, excess)?
    {
        delete(connection, block, blocks, next, profiles, counters)?;
        return Ok(Step { more: true, pressing, wrote: true });
    }
    let keep = if plan.give_back_all { 0 } else { plan.max_bytes / PAGE / 32 };
    // Each page given back moves another one, which goes through the log.
    let most = (plan.max_bytes / PAGE / 256).clamp(32, STEP as u64);
    let give = free.saturating_sub(keep).min(most);
    if give == 0 {
        return Ok(Step { more: false, pressing: false, wrote: false });
    }
    connection.execute_batch(&format!("PRAGMA incremental_vacuum({give})"))?;
    // Once more in any case: the counters should say what is left.
    Ok(Step { more: true, pressing: false, wrote: true })
}

/// The last block to be deleted now, and how many that are.
fn choose(connection: &Connection, plan: &Plan, mut excess: i64) -> rusqlite::Result<Option<(i64, u64)>> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let bounds = plan.max_age.map(|age| (now.saturating_sub(age).as_nanos() as i64, (now + FUTURE).as_nanos() as i64));
    let mut statement =
        connection.prepare_cached("SELECT id, committed, stored, records FROM block ORDER BY id LIMIT ?1")?;
    let mut rows = statement.query([STEP as i64])?;
    let mut chosen = None;
    while let Some(row) = rows.next()? {
        let committed: i64 = row.get(1)?;
        let is_old = bounds.is_some_and(|(old, future)| committed < old || committed > future);
        if !is_old && excess <= 0 {
            break;
        }
        excess = excess.saturating_sub(row.get::<_, i64>(2)?.saturating_add(row.get::<_, i64>(3)?.saturating_mul(ROW)));
        chosen = Some((row.get(0)?, chosen.map_or(1, |(_, n)| n + 1)));
    }
    Ok(chosen)
}

/// Deletes all blocks up to and with `block`, and what only they needed.
fn delete(
    connection: &mut Connection,
    block: i64,
    blocks: u64,
    next: Next,
    profiles: &Profiles,
    counters: &Counters,
) -> rusqlite::Result<()> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last: i64 = tx.prepare_cached("SELECT last FROM block WHERE id = ?1")?.query_row([block], |r| r.get(0))?;
    let mut entries = 0;
    tx.prepare_cached("DELETE FROM bytes WHERE block <= ?1")?.execute([block])?;
    for sql in ["DELETE FROM record WHERE position <= ?1", "DELETE FROM event WHERE position <= ?1"] {
        entries += tx.prepare_cached(sql)?.execute([last])?;
    }
    tx.prepare_cached("DELETE FROM block WHERE id <= ?1")?.execute([block])?;
    let (first, profile) = tx
        .prepare_cached("SELECT first, profile FROM block ORDER BY id LIMIT 1")?
        .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()?
        .unwrap_or((next.position, profiles.first()));
    tx.prepare_cached("DELETE FROM digest WHERE segment < ?1")?.execute([first >> SEGMENT])?;
    tx.prepare_cached("DELETE FROM profile WHERE id < ?1")?.execute([profile])?;
    tx.prepare_cached("UPDATE state SET position = ?1, block = ?2, profile = ?3")?.execute(params![
        next.position,
        next.block,
        profiles.next()
    ])?;
    tx.commit()?;
    counters.deleted_blocks.fetch_add(blocks, Relaxed);
    counters.deleted.fetch_add(entries as u64, Relaxed);
    Ok(())
}
