//! The writing side: opens the folder, starts the writer, takes entries from any thread.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use transaction::{ConnectionEvent, Sealed};

use crate::{
    Error, Refused, Stats, checkpoint::Checkpointer, folder, folder::Lock, queue::Queue, schema, stats::Counters,
    writer::Writer,
};

/// Longest wait for the last checkpoint when the archive is closed.
const LAST_CHECKPOINT: Duration = Duration::from_millis(300);

/// How much is kept, and how much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The size that retention holds the file to, in bytes; at least 4 MiB. File and write-ahead log together
    /// stay below 1.2 times this.
    pub max_bytes: u64,
    /// What was committed longer ago is deleted.
    pub max_age: Duration,
    /// Most bytes that may wait to be written.
    pub queue_bytes: usize,
}

impl Default for Options {
    /// As `tapstack up` uses it: 1 GiB, 24 hours, 32 MiB waiting.
    fn default() -> Self {
        Options { max_bytes: 1 << 30, max_age: Duration::from_hours(24), queue_bytes: 32 << 20 }
    }
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A transaction: its object's exact bytes and its record.
    Transaction(Sealed),
    /// An event about a connection.
    Connection(ConnectionEvent),
}

/// The one writer of an archive. Dropping it closes it, too, but hides what went wrong.
pub struct Archive {
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
    checkpointer: Arc<Checkpointer>,
    file: PathBuf,
    /// Held until everything is written.
    _lock: Lock,
}

impl Archive {
    /// Opens the archive in `dir` for writing and starts its writer. Makes the folder (mode 0750) and the file
    /// (0640), both of group `tapstack` when that exists. An archive of a newer format, or one that is damaged
    /// beyond reading, is renamed and a new one begun, with a line in the log.
    ///
    /// # Errors
    /// [`Error::InUse`] when another process writes to `dir`; otherwise what the system or SQLite answered.
    pub fn open(dir: &Path, options: Options) -> Result<Archive, Error> {
        folder::create(dir)?;
        let lock = Lock::take(dir)?;
        let file = folder::file(dir);
        let database = schema::open_for_writing(dir)?;
        let counters = Arc::new(Counters::default());
        let queue = Arc::new(Queue::new(options.queue_bytes, crate::block::MOST));
        let checkpointer =
            Arc::new(Checkpointer::new(schema::open_for_checkpoints(&file)?, counters.clone(), &options));
        let mut writer =
            Writer::new(dir.to_owned(), database, options, queue.clone(), counters.clone(), checkpointer.clone())?;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            Builder::new().name(name.to_owned()).spawn(run).map_err(Error::io("cannot start a thread for", &file))
        };
        let mut archive =
            Archive { queue, counters, threads: Vec::new(), checkpointer, file: file.clone(), _lock: lock };
        archive.threads.push(spawn("archive", Box::new(move || writer.run()))?);
        let checkpointer = archive.checkpointer.clone();
        archive.threads.push(spawn("checkpoint", Box::new(move || checkpointer.run()))?);
        Ok(archive)
    }

    /// Takes an entry to be written; it is in the database at most 200 ms later, unless the disk is slow. Never
    /// waits for the disk.
    ///
    /// # Errors
    /// [`Refused`]: the entry is lost, and counted.
    pub fn append(&self, entry: Entry) -> Result<(), Refused> {
        self.append_within(entry, Duration::ZERO)
    }

    /// As [`Archive::append`], but while the queue is full it waits for the writer, at most for `patience`; once in
    /// vain, not again before the writer has got on.
    ///
    /// # Errors
    /// [`Refused`]: the entry is lost, and counted.
    pub fn append_within(&self, entry: Entry, patience: Duration) -> Result<(), Refused> {
        let result = self.queue.push(entry, patience);
        let counter = if result.is_ok() { &self.counters.appended } else { &self.counters.refused };
        counter.fetch_add(1, Relaxed);
        result
    }

    /// The end is near: [`Archive::append_within`] waits no more.
    pub fn hurry(&self) {
        self.queue.hurry();
        self.checkpointer.hurry();
    }

    /// Commits at once what was taken so far, and waits for it, at most for `timeout`; returns whether
    /// everything is in the database.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.queue.flush(timeout)
    }

    /// The counters as they are now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.read(self.queue.bytes())
    }

    /// The database file.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes what waits, moves the write-ahead log into the file unless the disk is too slow for that, and
    /// ends the threads.
    ///
    /// # Errors
    /// [`Error::Unwritten`] when entries could not be written; the text says how many and why.
    pub fn close(mut self) -> Result<Stats, Error> {
        self.end(None);
        let stats = self.stats();
        let lost = stats.appended.saturating_sub(stats.committed);
        if lost > 0 {
            let why = stats.last_error.unwrap_or_else(|| "the writer ended early".to_owned());
            return Err(Error::Unwritten { entries: lost, why });
        }
        Ok(stats)
    }

    /// As [`Archive::close`], but what waits and has no turn within `patience` is let go (it is missing in
    /// [`Stats::committed`]), and the log is left to the next opening.
    #[must_use]
    pub fn close_within(mut self, patience: Duration) -> Stats {
        self.end(Some(patience));
        self.stats()
    }

    fn end(&mut self, patience: Option<Duration>) {
        self.checkpointer.hurry();
        self.queue.close(patience);
        // The writer ends first, so that the last checkpoint has everything.
        let mut threads = self.threads.drain(..);
        if threads.next().is_some_and(|writer| writer.join().is_err()) {
            self.counters.failed("the archive's writer has panicked".to_owned());
        }
        self.checkpointer.close(patience.is_some());
        for thread in threads {
            let begun = Instant::now();
            while !thread.is_finished() && begun.elapsed() < LAST_CHECKPOINT {
                std::thread::sleep(Duration::from_millis(2));
            }
            if !thread.is_finished() {
                // What is committed survives the end of this process; the next one moves the log.
                tracing::info!("The disk is slow: the archive is closed with its log not yet moved into the file.");
            } else if thread.join().is_err() {
                self.counters.failed("the archive's checkpoint thread has panicked".to_owned());
            }
        }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        self.end(None);
    }
}
