//! What `up` and `agent` have in common: archive, capture and status in one process, from start to a clean
//! stop.

use std::{
    fmt::Write as _,
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use agent::pipeline::{Pipeline, Settings, Sink};
use anyhow::{Context as _, Result};
use archive::{Archive, Entry};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use transaction::{ConnectionEvent, Sealed};

use super::explain::Report;

/// Options that both commands take.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) data_dir: super::data_dir::DataDir,
    /// Address of the status listener: /readyz, /healthz, /metrics, and /libraries for `tapstack explain`
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3905")]
    pub(crate) status_listen: SocketAddr,
    /// Most space that the archive takes, e.g. 500M or 2G; the oldest transactions go first
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = size)]
    pub(crate) max_size: u64,
    /// How long transactions are kept, e.g. 90m, 24h or 7d
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub(crate) max_age: Duration,
    /// Most bytes kept of one body; what is beyond it is cut, and marked
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = size)]
    pub(crate) max_body: u64,
    /// Size of the ring between kernel and agent; a full ring loses bytes, counted and marked
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = size)]
    pub(crate) ring: u64,
}

/// A size in bytes: a number, or one with K, M or G (powers of 1024).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("a size is a number with K, M or G behind it, e.g. 500M".into()),
    };
    let n: u64 = digits.parse().map_err(|_| "a size is a number with K, M or G behind it, e.g. 500M".to_owned())?;
    n.checked_mul(1 << shift).filter(|n| *n > 0).ok_or_else(|| "the size is out of range".into())
}

/// A time: a number with s, m, h or d.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a time is a number with s, m, h or d behind it, e.g. 24h".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let n: u64 = number.parse().map_err(|_| wrong())?;
    n.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Puts what was captured into the archive. When that is busy the worker waits: the ring behind it holds what
/// comes, and what is lost there is a counted gap. What the archive refuses after that, it counts.
struct Kept(Arc<Archive>);

/// How long the archive may write after the capture has stopped.
const CLOSE: Duration = Duration::from_millis(250);
/// How long a worker waits for a busy archive.
const PATIENCE: Duration = Duration::from_secs(1);

impl Sink for Kept {
    fn transaction(&self, sealed: Sealed) {
        let _ = self.0.append_within(Entry::Transaction(sealed), PATIENCE);
    }

    fn connection(&self, event: ConnectionEvent) {
        let _ = self.0.append(Entry::Connection(event));
    }
}

/// A capture that runs.
pub(crate) struct Running {
    pub(crate) folder: PathBuf,
    archive: Arc<Archive>,
    pipeline: Pipeline,
    started: Instant,
}

/// Listens, with an error that says what to do.
pub(crate) async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: is another tapstack running here (ss -ltnp 'sport = :{}')? Choose \
             another address with {flag}",
            address.port()
        )
    })
}

impl Running {
    /// Opens the archive and attaches the programs.
    pub(crate) fn start(options: &Options, record: Option<(PathBuf, u64)>) -> Result<Running> {
        let started = Instant::now();
        agent::probe::kernel::lean_memory();
        agent::probe::kernel::privileges()?;
        let folder = options.data_dir.for_writing()?;
        let archive = Archive::open(
            &folder,
            archive::Options { max_bytes: options.max_size, max_age: options.max_age, ..archive::Options::default() },
        )?;
        let archive = Arc::new(archive);
        let mut settings = Settings { record, ..Settings::default() };
        settings.kernel.ring_bytes = u32::try_from(options.ring).unwrap_or(1 << 31).min(1 << 31);
        settings.keep_body(usize::try_from(options.max_body).unwrap_or(usize::MAX).min(1 << 30));
        let pipeline = Pipeline::start(&settings, Arc::new(Kept(Arc::clone(&archive))))?;
        for note in pipeline.notes() {
            tracing::warn!("{note}");
        }
        Ok(Running { folder, archive, pipeline, started })
    }

    /// How long the start took.
    pub(crate) fn took(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counters of capture and archive as Prometheus text.
    pub(crate) fn metrics(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let counters = Arc::clone(self.pipeline.counters());
        let archive = Arc::downgrade(&self.archive);
        Arc::new(move || {
            let mut text = counters.prometheus();
            if let Some(archive) = archive.upgrade() {
                archive_metrics(&archive.stats(), &mut text);
            }
            text
        })
    }

    /// The TLS libraries and how they stand, as JSON for `tapstack explain`.
    pub(crate) fn libraries(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let (status, notes) = (self.pipeline.libraries_reader(), self.pipeline.notes().to_vec());
        Arc::new(move || Report::new(status().as_ref(), &notes).to_json())
    }

    /// Detaches, takes what is under way to its end, writes the archive, and says what was captured.
    pub(crate) fn stop(self) -> Result<()> {
        let counters = Arc::clone(self.pipeline.counters());
        self.archive.hurry();
        self.pipeline.stop();
        let archive = Arc::try_unwrap(self.archive).map_err(|_| {
            anyhow::anyhow!("the archive is still in use at the stop; it is written at the process's end")
        })?;
        let stats = archive.close_within(CLOSE);
        let unwritten = stats.appended.saturating_sub(stats.committed);
        let dropped = counters.dropped_at_stop.load(Ordering::Relaxed);
        if unwritten + dropped > 0 {
            let why = stats.last_error.unwrap_or_else(|| "the stop has to be quick".to_owned());
            tracing::warn!(unwritten, dropped, %why, "What was under way at the stop is not all in the archive.");
        }
        let lost = counters.kernel_count(agent::pipeline::counters::RING_FULL);
        tracing::info!(
            transactions = counters.transactions.load(Ordering::Relaxed),
            refused = stats.refused,
            ring_overruns = lost,
            "Stopped; nothing is attached any more."
        );
        Ok(())
    }
}

fn archive_metrics(s: &archive::Stats, text: &mut String) {
    let counters = [
        ("appended", s.appended),
        ("committed", s.committed),
        ("refused", s.refused),
        ("commits", s.commits),
        ("deleted", s.deleted),
        ("errors", s.errors),
    ];
    for (name, value) in counters {
        let _ = writeln!(text, "# TYPE tapstack_archive_{name}_total counter\ntapstack_archive_{name}_total {value}");
    }
    for (name, value) in [("queued_bytes", s.queued_bytes), ("used_bytes", s.used_bytes), ("wal_bytes", s.wal_bytes)] {
        let _ = writeln!(text, "# TYPE tapstack_archive_{name} gauge\ntapstack_archive_{name} {value}");
    }
}

/// Resolves at SIGINT or SIGTERM.
pub(crate) fn stopped() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_as_people_write_them() {
        assert_eq!(size("512"), Ok(512));
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("500MiB"), Ok(500 << 20));
        assert_eq!(duration("90m"), Ok(Duration::from_mins(90)));
        for bad in ["", "G", "1X", "-1", "99999999999999999999", "0"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["", "h", "1w", "é", "24"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
