//! How discovery stands: what is probed, what is not and why.
//!
//! In: changes, from `registry`, `search`, and `discover`. Out: [`Status`] for `explain` and the log. It may be read
//! from any thread.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Error, Plan};

/// Looking at one file for so long is worth a note.
const HANGS: Duration = Duration::from_secs(5);

/// How a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All its probes are in place.
    Attached,
    /// None is; the error says why.
    Failed,
}

/// A file with a TLS library.
#[derive(Clone, Debug)]
pub struct Found {
    /// As its first process sees it.
    pub path: PathBuf,
    /// Where that was: `host`, `container 0123456789ab`, or another root.
    pub root: String,
    /// The real file, where `path` is seen through an overlay.
    pub real: Option<PathBuf>,
    /// The real file's device, as `stat(2)` has it.
    pub device: u64,
    /// The real file's inode.
    pub inode: u64,
    /// `openssl`.
    pub library: &'static str,
    /// What the file says of itself.
    pub version: String,
    /// Where each probe is and why, one line each.
    pub plan: String,
    /// Probes in place.
    pub probes: usize,
    /// How it stands.
    pub state: State,
    /// Why it is not probed.
    pub error: Option<String>,
    /// What else should be known, e.g. that an overlay could not be seen through.
    pub note: Option<String>,
}

impl Found {
    /// Takes in what looking into it gave.
    pub(super) fn planned(&mut self, plan: Result<Plan, Error>) -> Option<Plan> {
        match plan {
            Ok(plan) => {
                (self.library, self.version, self.plan) = (plan.library, plan.version.clone(), plan.to_string());
                Some(plan)
            }
            Err(error) => {
                (self.library, self.version, self.plan) = ("openssl", String::new(), String::new());
                self.error = Some(error.to_string());
                None
            }
        }
    }
}

/// What discovery has done.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The targets, by path.
    pub targets: Vec<Found>,
    /// What does not work on this host, and what is done instead.
    pub notes: Vec<String>,
    /// Files that were looked into since the start.
    pub inspected: u64,
    /// Targets that were let go since the start.
    pub let_go: u64,
    /// Times that all processes were read since the start.
    pub scans: u64,
    /// Processes that the last of these met, and how long it took.
    pub last_scan: (usize, Duration),
}

/// Status, shared with whoever asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    status: Arc<Mutex<Status>>,
    /// What is being looked at, and since when: a foreign file system may not answer.
    at: Arc<Mutex<Option<(Instant, PathBuf)>>>,
}

/// While it lives, its path is being looked at.
pub(super) struct Looking(Shared);

impl Drop for Looking {
    fn drop(&mut self) {
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Shared {
    pub(super) fn get(&self) -> Status {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, path)) = at.as_ref()
            && since.elapsed() > HANGS
        {
            let (path, since) = (path.display(), since.elapsed().as_secs());
            status
                .notes
                .push(format!("The search has waited for {path} for {since} s: its file system does not answer."));
        }
        status
    }

    pub(super) fn scans(&self) -> u64 {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).scans
    }

    pub(super) fn looking(&self, path: &Path) -> Looking {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), path.to_owned()));
        Looking(self.clone())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds a note, once.
    pub(super) fn note(&self, text: String) {
        self.change(|status| {
            if !status.notes.contains(&text) {
                tracing::warn!("{text}");
                status.notes.push(text);
            }
        });
    }
}
