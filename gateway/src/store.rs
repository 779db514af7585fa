//! Where objects come from: a small pool of the archive's readers.
//!
//! The archive's readers are blocking (`SQLite`), so each question runs on tokio's blocking threads, with at
//! most [`READERS`] at a time, and each takes a reader out of the pool. A reader that fails is thrown away
//! and opened anew, so a gateway that starts before its archive heals by itself.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use archive::Reader;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Readers open at a time: more than the cores of a small host do not make `SQLite` faster.
const READERS: usize = 4;
/// How long a request waits for a reader.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of answers in memory that clients have not yet taken, in KiB; an answer larger than that goes
/// alone.
const ANSWERS_KIB: usize = 64 << 10;

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Every reader, or the memory for answers, is taken.
    Busy,
    /// The archive said so.
    Archive(archive::Error),
    /// The answer could not be made of what the archive has.
    Unmade(String),
}

impl From<archive::Error> for Failure {
    fn from(error: archive::Error) -> Self {
        Failure::Archive(error)
    }
}

/// See the module.
pub(crate) struct Pool {
    dir: PathBuf,
    idle: Mutex<Vec<Reader>>,
    readers: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// Bytes on their way to a client; their share of the memory for answers comes back when the last of them
/// is written.
struct Held {
    bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Pool {
    pub(crate) fn new(dir: PathBuf) -> Arc<Self> {
        Arc::new(Pool {
            dir,
            idle: Mutex::new(Vec::new()),
            readers: Arc::new(Semaphore::new(READERS)),
            answers: Arc::new(Semaphore::new(ANSWERS_KIB)),
        })
    }

    /// Asks `question` of a reader, off the async threads. What it makes of the answer, it should make there:
    /// rendering a page is work too. The bytes it returns are held against the memory for answers.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnOnce(&Reader) -> Result<(T, Vec<u8>), Failure> + Send + 'static,
    ) -> Result<(T, axum::body::Bytes), Failure> {
        let reader = timeout(PATIENCE, Arc::clone(&self.readers).acquire_owned()).await;
        let _reader = reader.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        let pool = Arc::clone(self);
        let (value, bytes) = tokio::task::spawn_blocking(move || pool.run(question))
            .await
            .map_err(|_| Failure::Unmade("the answer could not be made".to_owned()))??;
        // The reader is kept while waiting here, so that no more than READERS answers wait for memory.
        let share = bytes.len().div_ceil(1024).clamp(1, ANSWERS_KIB) as u32;
        let share = timeout(PATIENCE, Arc::clone(&self.answers).acquire_many_owned(share)).await;
        let share = share.map_err(|_| Failure::Busy)?.map_err(|_| Failure::Busy)?;
        Ok((value, axum::body::Bytes::from_owner(Held { bytes, _share: share })))
    }

    fn run<T>(&self, question: impl FnOnce(&Reader) -> Result<T, Failure>) -> Result<T, Failure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = idle.map_or_else(|| Reader::open(&self.dir), Ok)?;
        let answer = question(&reader)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        Ok(answer)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}
