//! Keeps probes out of files that change: they are taken away before the first byte is written.
//!
//! In: probes, and the files they are in. Out: those that were lost. Used by `registry`; has a thread of its own,
//! because a writer waits for it and discovery may be waiting for a file system.
//!
//! The kernel keeps a probe as an inode and an offset. Written over in place (`cp new libssl.so.3`; a package
//! manager renames), the file has other instructions there, and the kernel would put its breakpoint into the
//! middle of one, in whatever program maps the new content: a crash, or worse. So each probed file has
//! - a [`Lease`], which makes the writer wait until its probes are gone: some 0.1 s for each; or
//! - where there are no leases (NFS and other network file systems; not our file and no `CAP_LEASE`), a watch:
//!   probes are taken away at the first write, and programs that map the file in that second may still be harmed.
//!   A change on another host is not told by either.
//!
//! A lease is not asked for what others may do; it tells of an open for writing, written or not. What changes
//! through a mapping is covered by that, because whoever makes the mapping has opened the file. An overlay that
//! cannot be seen through has leases and watches of its own, which do not tell of writes to its layers.
//!
//! What is not covered: a writer whose patience ends first (`/proc/sys/fs/lease-break-time`), and the time that
//! the kernel takes to clear away after an agent that was killed, some 0.1 s for each probe of all files. It lets
//! go of the descriptors of a process first, leases among them, and of what stood behind those, the probes, after
//! (`task_work_run`).
//! An agent that stops gives up its leases when its probes are left to a child, which takes as long.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use super::discover::{event, signal};
use super::file::{FileId, Place, Stamp};
use super::lease::{self, Lease, Refused};
use super::watch::{self, next_event};
use crate::probe::uprobe::Attached;

/// How a file is kept from changing under its probes.
#[derive(Debug)]
pub(super) enum Cover {
    Lease(Lease),
    /// Second best.
    Watch(Watched),
}

/// An inotify watch. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Watched {
    number: i32,
    inotify: Arc<OwnedFd>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: numbers only; one that is gone by itself is an error without effect.
        unsafe { libc::inotify_rm_watch(self.inotify.as_raw_fd(), self.number) };
    }
}

/// What to do about a file that has no cover.
#[derive(Debug, thiserror::Error)]
pub(super) enum Bare {
    #[error("it is being written: somebody has it open for that")]
    Busy,
    #[error("it cannot be kept from changing under its probes: {0}")]
    Never(io::Error),
}

/// Probes of one file with its cover. Dropped in this order.
#[derive(Debug)]
pub(super) struct Held {
    probes: Vec<Attached>,
    cover: Option<Cover>,
    file: FileId,
    /// For the log.
    name: String,
}

impl Held {
    pub(super) fn new(probes: Vec<Attached>, cover: Cover, file: FileId, name: String) -> Self {
        Self { probes, cover: Some(cover), file, name }
    }

    /// Ends a watch, whose number is its file's: a later one of the same file must not be ended with it.
    pub(super) fn unwatched(mut self) -> Self {
        if matches!(self.cover, Some(Cover::Watch(_))) {
            self.cover = None;
        }
        self
    }
}

/// What is left at the end: leases are to be dropped after the probes.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) probes: Vec<Attached>,
    pub(super) leases: Vec<OwnedFd>,
}

/// A file whose probes were taken away because it changes.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) file: FileId,
    /// What [`Guard::hold`] returned.
    pub(super) ticket: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Guard {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
    /// The thread's number.
    told: libc::pid_t,
    lost: mpsc::Receiver<Lost>,
    next: u64,
}

#[derive(Debug)]
struct Inner {
    held: Mutex<HashMap<u64, Held>>,
    inotify: io::Result<Arc<OwnedFd>>,
    wake: OwnedFd,
    end: AtomicBool,
    tell: mpsc::Sender<Lost>,
    /// Can be read when something was told.
    bell: OwnedFd,
}

impl Guard {
    pub(super) fn start() -> io::Result<Self> {
        let (tell, lost) = mpsc::channel();
        let inner = Arc::new(Inner {
            held: Mutex::default(),
            inotify: watch::inotify().map(Arc::new),
            wake: event()?,
            end: AtomicBool::new(false),
            tell,
            bell: event()?,
        });
        let (ready, readied) = mpsc::channel();
        let its = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("guard".into()).stack_size(256 << 10).spawn(move || {
            // SAFETY: a number, of this thread.
            let number = unsafe { libc::gettid() };
            let signals = lease::signals();
            let (answer, signals) = match signals {
                Ok(signals) => (Ok(number), Some(signals)),
                Err(error) => (Err(error), None),
            };
            let _ = ready.send(answer);
            if let Some(signals) = signals {
                its.run(&signals);
            }
        })?;
        let told = readied.recv().map_err(|_| io::Error::other("the thread ended at once"))??;
        Ok(Self { inner, thread: Some(thread), told, lost, next: 0 })
    }

    /// Can be read when there is something to [`Self::lost`].
    pub(super) fn bell(&self) -> RawFd {
        self.inner.bell.as_raw_fd()
    }

    /// Covers a file that is about to be looked into and probed.
    pub(super) fn cover(&self, place: &Place) -> Result<Cover, Bare> {
        let file = match place.read() {
            Ok(file) => file,
            // Somebody else's lease, on writing.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Bare::Busy),
            Err(error) => return Err(Bare::Never(error)),
        };
        match Lease::take(file, self.told) {
            Ok(lease) => Ok(Cover::Lease(lease)),
            Err(Refused::Busy) => Err(Bare::Busy),
            Err(Refused::Never(error)) => {
                tracing::debug!("{}: no lease: {error}.", place.path().display());
                self.watch(place).map(Cover::Watch).map_err(Bare::Never)
            }
        }
    }

    fn watch(&self, place: &Place) -> io::Result<Watched> {
        let inotify = self.inner.inotify.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        let path = CString::new(format!("/proc/self/fd/{}", place.as_fd().as_raw_fd()))?;
        // Not IN_ATTRIB: it tells of files that are deleted, too, which those who have them mapped go on using.
        // Closed after writing stands for what was written through a mapping, which nothing else tells of.
        let events = libc::IN_MODIFY | libc::IN_CLOSE_WRITE;
        // SAFETY: open inotify, NUL-ended path.
        let number = unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), path.as_ptr(), events) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Watched { number, inotify: Arc::clone(inotify) })
    }

    /// Keeps probes until they are taken back, or lost. `stamp` is the file as it was planned, after it was covered.
    pub(super) fn hold(&mut self, held: Held, place: &Place, stamp: Stamp) -> u64 {
        self.next += 1;
        let ticket = self.next;
        self.inner.held().insert(ticket, held);
        // What happened before it was listed is nobody's to tell.
        let broken = match self.inner.held().get(&ticket).map(|held| &held.cover) {
            Some(Some(Cover::Lease(lease))) => lease.is_broken(),
            _ => place.anew().is_ok_and(|now| now.stamp() != stamp),
        };
        if broken {
            self.inner.lose(ticket);
        }
        ticket
    }

    /// Gives probes back, unless they are lost. It takes long to drop them.
    pub(super) fn take(&mut self, ticket: u64) -> Option<Held> {
        self.inner.held().remove(&ticket).map(Held::unwatched)
    }

    /// What was lost since the last time.
    pub(super) fn lost(&mut self) -> Vec<Lost> {
        let mut count = [0u8; 8];
        // SAFETY: eight bytes, as eventfd(2) wants them; it does not block.
        unsafe { libc::read(self.inner.bell.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        self.lost.try_iter().collect()
    }

    /// Ends the thread, when it has done what it is at, and hands out all that is held.
    pub(super) fn end(&mut self) -> Left {
        self.inner.end.store(true, Ordering::Release);
        signal(&self.inner.wake);
        if let Some(thread) = self.thread.take() {
            // It has told all it had to tell.
            let _ = thread.join();
        }
        let mut left = Left::default();
        for held in std::mem::take(&mut *self.inner.held()).into_values() {
            left.probes.extend(held.probes);
            if let Some(Cover::Lease(lease)) = held.cover {
                left.leases.push(lease.into());
            }
        }
        left
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end();
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, HashMap<u64, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, signals: &OwnedFd) {
        let inotify = self.inotify.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        while !self.end.load(Ordering::Acquire) {
            // A negative descriptor is passed over.
            let mut polled = [signals.as_raw_fd(), self.wake.as_raw_fd(), inotify].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            // SAFETY: valid entries and their number. An interrupted wait is a short one.
            unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
            // First taken, then looked at: what comes meanwhile is looked at again.
            lease::drain(signals.as_raw_fd());
            let written = written(inotify);
            let broken = |held: &Held| match &held.cover {
                Some(Cover::Lease(lease)) => lease.is_broken(),
                Some(Cover::Watch(watch)) => written.as_ref().is_none_or(|all| all.contains(&watch.number)),
                None => false,
            };
            let lost: Vec<u64> =
                self.held().iter().filter(|(_, held)| broken(held)).map(|(ticket, _)| *ticket).collect();
            for ticket in lost {
                self.lose(ticket);
            }
        }
    }

    /// Takes probes away, and only then lets whoever waits write.
    fn lose(&self, ticket: u64) {
        let Some(held) = self.held().remove(&ticket).map(Held::unwatched) else { return };
        let begun = Instant::now();
        let Held { probes, cover, file, name } = held;
        let count = probes.len();
        drop(probes);
        let took = begun.elapsed();
        if let Some(Cover::Lease(lease)) = cover {
            lease.give_up();
            tracing::info!(
                "{name} is opened for writing. Its {count} probes were taken away first, because they would damage \
                 programs that map its new content; whoever opened it waited {took:?} for that. It is looked at \
                 again once it is closed."
            );
        } else {
            tracing::info!(
                "{name} is written. Its {count} probes were taken away in {took:?}; there is no lease on it that would \
                 have kept the writer from doing so before. It is looked at again once it is left alone."
            );
        }
        // Nobody listens at the end.
        let _ = self.tell.send(Lost { file, ticket });
        signal(&self.bell);
    }
}

/// Numbers of the watches that told something; `None` when that is not known and it may be any.
fn written(inotify: RawFd) -> Option<Vec<i32>> {
    let mut numbers = Some(Vec::new());
    let mut buffer = [0u8; 16 << 10];
    loop {
        // SAFETY: a buffer of our own and its size; the descriptor does not block, and -1 is an error.
        let read = unsafe { libc::read(inotify, buffer.as_mut_ptr().cast(), buffer.len()) };
        let Some(read) = usize::try_from(read).ok().filter(|read| *read > 0) else { return numbers };
        let mut rest = &buffer[..read];
        while let Some((event, _, after)) = next_event(rest) {
            rest = after;
            if event.mask & libc::IN_Q_OVERFLOW != 0 {
                numbers = None;
            } else if event.mask & libc::IN_IGNORED == 0
                && let Some(numbers) = &mut numbers
            {
                numbers.push(event.number);
            }
        }
    }
}
