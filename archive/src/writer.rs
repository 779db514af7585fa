//! The writer's thread: takes what waits, and commits it in blocks.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use rusqlite::{CachedStatement, Connection, Transaction as Tx, TransactionBehavior, params};
use transaction::{ConnectionEvent, Sealed};

use crate::{
    Entry, Error, Options,
    block::{self, Compressor},
    checkpoint::{self, Checkpointer},
    folder,
    profile::Profiles,
    queue::{Queue, Turn},
    retention,
    row::Identifier,
    schema::{self, GENERATION, Numbers, SEGMENT},
    stats::Counters,
};

/// Longest time that an entry waits for others to share its commit.
const PATIENCE: Duration = Duration::from_millis(200);
/// Longest wait between two tries after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the end of the program waits for a disk that fails.
const LAST_TRIES: Duration = Duration::from_secs(1);

/// Kind of an `event` row: a [`ConnectionEvent`].
pub(crate) const KIND_CONNECTION: i64 = 1;

const INSERT_RECORD: &str = "\
    INSERT INTO record (position, block, start, size, time, profile, status, pid, path, duration, ttfb, sent, received, \
    digest, request_id, connection_id, exchange_id) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)";

/// See the module.
pub(crate) struct Writer {
    connection: Connection,
    options: Options,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    checkpointer: Arc<Checkpointer>,
    compressor: Compressor,
    open: block::Open,
    profiles: Profiles,
    next: Next,
    /// Length of the log in pages after the last commit, as SQLite says.
    log_pages: Arc<AtomicU64>,
    /// When retention last looked for what is too old.
    aged: Option<Instant>,
    /// The archive's folder.
    dir: PathBuf,
    /// The file was found damaged, and no new one could be begun yet.
    damage: Option<rusqlite::Error>,
}

/// What the next entry and block are called.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    pub(crate) position: i64,
    pub(crate) block: i64,
}

/// What a commit has written.
#[derive(Default)]
struct Written {
    blocks: u64,
    bytes: u64,
    stored: u64,
}

impl Writer {
    pub(crate) fn new(
        dir: PathBuf,
        (mut connection, numbers): (Connection, Numbers),
        options: Options,
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        checkpointer: Arc<Checkpointer>,
    ) -> Result<Writer, Error> {
        let log_pages = Arc::new(AtomicU64::new(0));
        prepare(&mut connection, &options, log_pages.clone())?;
        let compressor = Compressor::new().map_err(|e| Error::Damaged(format!("zstd does not start: {e}")))?;
        Ok(Writer {
            connection,
            options,
            queue,
            counters,
            checkpointer,
            compressor,
            open: block::Open::default(),
            profiles: Profiles::new(numbers.profile),
            next: Next { position: numbers.position, block: numbers.block },
            dir,
            damage: None,
            log_pages,
            aged: None,
        })
    }

    /// Thread's body: until the queue is closed and everything in it is written.
    pub(crate) fn run(&mut self) {
        let idle = (self.options.max_age / 10).clamp(Duration::from_millis(50), Duration::from_mins(1));
        let most = (self.options.max_bytes / 64).clamp(block::MOST as u64, 4 << 20) as usize;
        loop {
            let batch = match self.queue.next(PATIENCE, idle, most) {
                Turn::Closed => return,
                Turn::Idle => {
                    self.retain(idle, true);
                    continue;
                }
                Turn::Batch(batch) => batch,
            };
            let written = self.commit_or_wait(&batch);
            self.queue.written(&batch);
            if !written {
                return;
            }
            self.retain(idle, false);
        }
    }

    /// Commits a batch, again and again while the disk refuses it. Gives up only when the archive is being
    /// closed; returns whether the batch is in the database.
    fn commit_or_wait(&mut self, batch: &[Entry]) -> bool {
        let mut pause = PATIENCE;
        let mut closing: Option<Instant> = None;
        loop {
            let before = self.next;
            let profile = self.profiles.next();
            match self.commit(batch) {
                Ok(written) => {
                    self.count(batch.len() as u64, &written);
                    return true;
                }
                Err(error) => {
                    // What the failed commit has handed out, the next one hands out again.
                    self.next = before;
                    self.profiles.restart(profile);
                    self.open.clear();
                    if self.counters.read(0).last_error.is_none() {
                        tracing::error!(
                            "The archive cannot be written: {error}. Trying again; what does not fit the queue is lost."
                        );
                    }
                    self.counters.failed(error.to_string());
                    if let Error::Database(error) = error
                        && schema::is_damage(&error)
                    {
                        self.damage = Some(error);
                    }
                }
            }
            if self.queue.pause(pause) {
                let since = *closing.get_or_insert_with(Instant::now);
                if since.elapsed() >= LAST_TRIES {
                    return false;
                }
                // A closed queue no longer makes this thread wait.
                std::thread::sleep(Duration::from_millis(100));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn count(&self, entries: u64, written: &Written) {
        let c = &self.counters;
        c.committed.fetch_add(entries, Relaxed);
        c.commits.fetch_add(1, Relaxed);
        c.blocks.fetch_add(written.blocks, Relaxed);
        c.bytes.fetch_add(written.bytes, Relaxed);
        c.stored_bytes.fetch_add(written.stored, Relaxed);
        c.recovered();
        self.checkpointer.committed(self.log_pages.load(Relaxed) * checkpoint::PAGE);
    }

    /// Sets the damaged file aside and goes on with a new one; the numbers go on, too.
    fn replace_file(&mut self, damage: &rusqlite::Error) -> Result<(), Error> {
        // Both connections are closed before the file is renamed.
        self.connection = Connection::open_in_memory()?;
        self.checkpointer.replace(Connection::open_in_memory()?);
        let (mut connection, _) = schema::replace_damaged(&self.dir, damage)?;
        prepare(&mut connection, &self.options, self.log_pages.clone())?;
        let numbers = params![self.next.position, self.next.block, self.profiles.next()];
        connection.execute("UPDATE state SET position = ?1, block = ?2, profile = ?3", numbers)?;
        self.checkpointer.replace(schema::open_for_checkpoints(&folder::file(&self.dir))?);
        self.connection = connection;
        Ok(())
    }

    fn commit(&mut self, batch: &[Entry]) -> Result<Written, Error> {
        if let Some(damage) = self.damage.take()
            && let Err(error) = self.replace_file(&damage)
        {
            self.damage = Some(damage);
            return Err(error);
        }
        if !self.checkpointer.make_room()? {
            return Err(Error::LogHeld);
        }
        let tx = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut filling = Filling {
            tx: &tx,
            insert_record: tx.prepare_cached(INSERT_RECORD)?,
            insert_digest: tx.prepare_cached("INSERT INTO digest VALUES (?1, ?2, ?3)")?,
            compressor: &mut self.compressor,
            open: &mut self.open,
            profiles: &mut self.profiles,
            next: &mut self.next,
            written: Written::default(),
        };
        for entry in batch {
            match entry {
                Entry::Transaction(sealed) => filling.transaction(sealed)?,
                Entry::Connection(event) => filling.connection(event)?,
            }
        }
        filling.store()?;
        let written = std::mem::take(&mut filling.written);
        drop(filling);
        tx.commit()?;
        Ok(written)
    }

    /// Deletes what is too old or too much, step by step, while no commit is due.
    fn retain(&mut self, idle: Duration, is_idle: bool) {
        let look_at_age = self.aged.is_none_or(|t| t.elapsed() >= idle);
        if look_at_age {
            self.aged = Some(Instant::now());
        }
        loop {
            let plan = retention::Plan {
                max_bytes: self.options.max_bytes,
                max_age: look_at_age.then_some(self.options.max_age),
                give_back_all: is_idle,
            };
            match retention::step(&mut self.connection, &plan, self.next, &self.profiles, &self.counters) {
                Ok(step) => {
                    if step.wrote {
                        self.checkpointer.committed(self.log_pages.load(Relaxed) * checkpoint::PAGE);
                    }
                    // Far above the limit, deleting goes first: the queue waits or refuses.
                    if !step.more || (self.queue.is_due(PATIENCE) && !step.pressing) {
                        return;
                    }
                }
                Err(error) => {
                    self.counters.failed(format!("retention: {error}"));
                    if schema::is_damage(&error) {
                        self.damage = Some(error);
                    }
                    return;
                }
            }
            match self.checkpointer.make_room() {
                Ok(true) => {}
                _ => return,
            }
        }
    }
}

/// Gives a connection what only the writer's has.
fn prepare(connection: &mut Connection, options: &Options, log_pages: Arc<AtomicU64>) -> rusqlite::Result<()> {
    // The length of the log from SQLite itself: no system call.
    connection.wal_hook(Some(move |_: &mut _, n: i32| {
        log_pages.store(u64::try_from(n).unwrap_or(0), Relaxed);
        Ok(())
    }))?;
    // When the log begins anew, its file is cut back to this.
    connection.pragma_update(None, "journal_size_limit", checkpoint::target(options) as i64)
}

/// One commit in the making.
struct Filling<'a> {
    tx: &'a Tx<'a>,
    insert_record: CachedStatement<'a>,
    insert_digest: CachedStatement<'a>,
    compressor: &'a mut Compressor,
    open: &'a mut block::Open,
    profiles: &'a mut Profiles,
    next: &'a mut Next,
    written: Written,
}

impl Filling<'_> {
    fn transaction(&mut self, sealed: &Sealed) -> Result<(), Error> {
        let r = &sealed.record;
        let (position, start) = self.place(r.time_unix_ns, &sealed.bytes, true)?;
        let profile = self.profiles.number(self.tx, r)?;
        self.insert_record.execute(params![
            position,
            self.next.block,
            start,
            sealed.bytes.len() as i64,
            r.time_unix_ns as i64,
            profile,
            r.response_status,
            r.process_pid,
            r.request_path,
            r.duration_ns as i64,
            r.ttfb_ns.map(|n| n as i64),
            r.bytes_sent as i64,
            r.bytes_received as i64,
            r.digest.0.as_slice(),
            Identifier::of(&r.request_id),
            Identifier::of(&r.connection_id),
            Identifier::of(&r.exchange_id),
        ])?;
        self.insert_digest.execute(params![position >> SEGMENT, r.digest.prefix64() as i64, position])?;
        Ok(())
    }

    fn connection(&mut self, event: &ConnectionEvent) -> Result<(), Error> {
        let bytes = serde_json::to_vec(event).map_err(|e| Error::Damaged(format!("an event is not JSON: {e}")))?;
        let (position, start) = self.place(event.time_unix_ns, &bytes, false)?;
        self.tx
            .prepare_cached(
                "INSERT INTO event (position, kind, block, start, size, time, connection_id) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                position,
                KIND_CONNECTION,
                self.next.block,
                start,
                bytes.len() as i64,
                event.time_unix_ns as i64,
                Identifier::of(&event.connection_id),
            ])?;
        Ok(())
    }

    /// Gives an entry its position and its place in a block; stores the block before it when that is full.
    fn place(&mut self, time: u64, bytes: &[u8], is_record: bool) -> Result<(i64, i64), Error> {
        if self.open.is_full_for(bytes.len()) {
            self.store()?;
        }
        let position = self.next.position;
        // The block before this one may use the generation's numbers, this one must not.
        if position & ((1 << GENERATION) - 1) == 0 {
            self.store()?;
            self.profiles.begin_generation();
        }
        let start = self.open.add(position, time, bytes, is_record);
        self.next.position += 1;
        Ok((position, start))
    }

    /// Stores the open block, if there is anything in it.
    fn store(&mut self) -> Result<(), Error> {
        let Some(first) = self.open.first else { return Ok(()) };
        let stored = self
            .compressor
            .compress(&self.open.plain)
            .map_err(|e| Error::Damaged(format!("zstd cannot compress: {e}")))?;
        let (plain, size) = (self.open.plain.len(), stored.len());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.tx.prepare_cached("INSERT INTO bytes VALUES (?1, ?2)")?.execute(params![self.next.block, stored])?;
        self.tx.prepare_cached("INSERT INTO block VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(
            params![
                self.next.block,
                first,
                self.open.last,
                self.open.records,
                now.as_nanos() as i64,
                self.open.oldest,
                self.open.newest,
                self.profiles.first(),
                plain as i64,
                size as i64,
            ],
        )?;
        self.next.block += 1;
        self.written.blocks += 1;
        self.written.bytes += plain as u64;
        self.written.stored += size as u64;
        self.open.clear();
        Ok(())
    }
}
