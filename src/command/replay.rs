//! `tapstack replay FILE`: everything after the kernel, on a recording.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent::pipeline::{Settings, Sink, replay::replay};
use anyhow::Result;
use archive::{Archive, Entry};
use transaction::{AccessUrl, ConnectionEvent, Sealed};

/// Run everything after the kernel on a recording of `tapstack agent --record`; needs no root
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tapstack replay trouble.tap\n  tapstack replay trouble.tap --objects | jq .request.url\n  \
tapstack replay trouble.tap --into ./kept && tapstack find --data-dir ./kept --status 5xx"
)]
pub(crate) struct Replay {
    /// The recording
    file: PathBuf,
    /// Print the objects, one a line, instead of the `artifact_record` events
    #[arg(long, conflicts_with = "into")]
    objects: bool,
    /// Print connection events too
    #[arg(long, conflicts_with = "into")]
    connections: bool,
    /// Put everything into the archive in this folder instead
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

/// Prints one line each.
struct Printed {
    out: Mutex<std::io::Result<std::io::Stdout>>,
    objects: bool,
    connections: bool,
    url: AccessUrl,
    host: String,
}

impl Printed {
    fn line(&self, json: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(stdout) = &mut *out {
            let mut stdout = stdout.lock();
            if let Err(error) = stdout.write_all(json).and_then(|()| stdout.write_all(b"\n")) {
                *out = Err(error);
            }
        }
    }
}

impl Sink for Printed {
    fn transaction(&self, sealed: Sealed) {
        if self.objects {
            return self.line(&sealed.bytes);
        }
        let url = self.url.of(&sealed.record.digest);
        self.line(&serde_json::to_vec(&sealed.record.to_event(&url, &self.host)).unwrap_or_default());
    }

    fn connection(&self, event: ConnectionEvent) {
        if self.connections {
            self.line(&serde_json::to_vec(&event.to_event()).unwrap_or_default());
        }
    }
}

/// Puts everything into an archive.
struct Kept {
    archive: Archive,
    since_flush: AtomicUsize,
}

/// Bytes after which a replay waits for the archive: a quarter of what its queue holds. A recording is read
/// far faster than it was made.
const FLUSH: usize = 4 << 20;

impl Sink for Kept {
    fn transaction(&self, sealed: Sealed) {
        self.append(sealed.bytes.len(), Entry::Transaction(sealed));
    }

    fn connection(&self, event: ConnectionEvent) {
        self.append(0, Entry::Connection(event));
    }
}

impl Kept {
    fn append(&self, bytes: usize, entry: Entry) {
        if self.since_flush.fetch_add(bytes + 1024, Ordering::Relaxed) > FLUSH {
            self.since_flush.store(0, Ordering::Relaxed);
            if !self.archive.flush(Duration::from_secs(30)) {
                tracing::warn!("The archive is slow; transactions of the recording may not be kept.");
            }
        }
        if let Err(error) = self.archive.append(entry) {
            tracing::error!(%error, "A transaction of the recording was not kept.");
        }
    }
}

impl Replay {
    pub(crate) fn run(&self) -> Result<()> {
        super::logging::start();
        let settings = Settings::default();
        if let Some(folder) = &self.into {
            let archive = Archive::open(folder, archive::Options::default())?;
            let kept = Arc::new(Kept { archive, since_flush: AtomicUsize::new(0) });
            let counters = replay(&self.file, &settings, Arc::clone(&kept) as Arc<dyn Sink>)?;
            let transactions = counters.transactions.load(Ordering::Relaxed);
            if let Some(kept) = Arc::into_inner(kept) {
                kept.archive.close()?;
            }
            eprintln!("{transactions} transactions; look at them with: tapstack find --data-dir {}", folder.display());
            return Ok(());
        }
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 3904));
        let sink = Arc::new(Printed {
            out: Mutex::new(Ok(std::io::stdout())),
            objects: self.objects,
            connections: self.connections,
            url: AccessUrl::gateway(&listen, "qpoint"),
            host: agent::probe::recording::Player::open(&self.file)?.about().host_name.clone(),
        });
        replay(&self.file, &settings, Arc::clone(&sink) as Arc<dyn Sink>)?;
        let out = sink.out.lock().unwrap_or_else(PoisonError::into_inner);
        match &*out {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(anyhow::anyhow!("standard output: {error}"))
            }
            _ => Ok(()),
        }
    }
}
