//! `tapstack up`: agent, archive and gateway in one process. No server, no configuration.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use gateway::Ready;

use super::capture::{self, Running};

/// Capture this host's HTTP traffic, keep it, and show it in a browser
#[derive(Debug, clap::Args)]
#[command(after_help = "Every direction is captured, loopback included, at level full; secrets are masked before \
anything is kept.\n\nExamples:\n  sudo tapstack up\n  sudo tapstack up --listen 127.0.0.1:8080 --max-size 5G --max-age 7d")]
pub(crate) struct Up {
    /// Address of the gateway
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3904")]
    listen: SocketAddr,
    #[command(flatten)]
    options: capture::Options,
}

impl Up {
    pub(crate) fn run(&self) -> Result<()> {
        super::logging::start();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("gateway")
            .enable_all()
            .build()?;
        runtime.block_on(self.serve())
    }

    async fn serve(&self) -> Result<()> {
        let stopped = capture::stopped()?;
        let listener = capture::listen(self.listen, "--listen").await?;
        let status = capture::listen(self.options.status_listen, "--status-listen").await?;
        let (address, status_address) = (listener.local_addr()?, status.local_addr()?);
        let running = Running::start(&self.options, None)?;
        let settings = gateway::Settings::new(address, running.folder.clone());
        let (capture, pages) = (running.metrics(), Arc::clone(&settings.counters));
        let ready = Ready::new("starting", Arc::new(move || capture() + &pages.render()));
        let ready = ready.with_libraries(running.libraries());
        let bucket = settings.bucket.clone();
        super::data_dir::leave_access_url(&running.folder, &format!("http://{address}/{bucket}/{{{{DIGEST}}}}"))
            .with_context(|| format!("cannot write to {}", running.folder.display()))?;
        let (stop, stopping) = tokio::sync::watch::channel(false);
        let wait = |mut stopping: tokio::sync::watch::Receiver<bool>| async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        let pages = tokio::spawn(gateway::serve(listener, settings, wait(stopping.clone())));
        let state = tokio::spawn(gateway::serve_ready(status, ready.clone(), wait(stopping)));
        ready.set(None);
        println!(
            "tapstack {} captures the HTTP traffic of this host: all directions, level full, secrets masked (ready in {} ms)\n  \
             explorer  http://{address}/\n  objects   http://{address}/{bucket}/<digest>\n  \
             archive   {} (at most {} MiB, {} h)\n  status    http://{status_address}/readyz, /metrics, /libraries\n  \
             terminal  tapstack tail, tapstack find --help, tapstack explain PID\nCtrl-C stops it.",
            env!("CARGO_PKG_VERSION"),
            running.took().as_millis(),
            running.folder.display(),
            self.options.max_size >> 20,
            self.options.max_age.as_secs() / 3600,
        );
        stopped.await;
        ready.set(Some("stopping"));
        let _ = stop.send(true);
        let result = tokio::task::spawn_blocking(move || running.stop()).await?;
        pages.await??;
        state.await??;
        result
    }
}
