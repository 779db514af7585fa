//! `tapstack agent`: capture into the archive, without a gateway.

use std::path::PathBuf;

use anyhow::Result;
use gateway::Ready;

use super::capture::{self, Running};

/// Capture this host's HTTP traffic into the archive, without a gateway
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo tapstack agent\n  sudo tapstack agent --record /root/trouble.tap --record-limit 100M"
)]
pub(crate) struct Agent {
    /// Also keep the kernel's records in FILE (plaintext of all traffic, not redacted; mode 600; must not exist)
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Most space that the recording takes
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = capture::size, requires = "record")]
    record_limit: u64,
    #[command(flatten)]
    options: capture::Options,
}

impl Agent {
    pub(crate) fn run(&self) -> Result<()> {
        super::logging::start();
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.serve())
    }

    async fn serve(&self) -> Result<()> {
        let stopped = capture::stopped()?;
        let status = capture::listen(self.options.status_listen, "--status-listen").await?;
        let status_address = status.local_addr()?;
        let record = self.record.clone().map(|path| (path, self.record_limit));
        if let Some(path) = &self.record {
            eprintln!(
                "Warning: {} will hold everything that is captured as it was sent, passwords and all. Delete it \
                 when it has served its purpose.",
                path.display()
            );
        }
        let running = Running::start(&self.options, record)?;
        let ready = Ready::new("starting", running.metrics()).with_libraries(running.libraries());
        let (stop, mut stopping) = tokio::sync::watch::channel(false);
        let state = tokio::spawn(gateway::serve_ready(status, ready.clone(), async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }));
        ready.set(None);
        println!(
            "tapstack {} captures the HTTP traffic of this host into {} (ready in {} ms; http://{status_address}/readyz)",
            env!("CARGO_PKG_VERSION"),
            running.folder.display(),
            running.took().as_millis()
        );
        stopped.await;
        ready.set(Some("stopping"));
        let _ = stop.send(true);
        let result = tokio::task::spawn_blocking(move || running.stop()).await?;
        state.await??;
        result
    }
}
