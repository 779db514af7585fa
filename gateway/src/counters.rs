//! The gateway's own counters, rendered as Prometheus text. Counted by `server`, `guard` and `object`; read
//! by whoever serves `/metrics`.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Counts since start; one for each gateway.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted and served.
    pub(crate) connections: AtomicU64,
    /// Connections dropped because too many were open.
    pub(crate) connections_dropped: AtomicU64,
    /// Requests answered with a status below 400.
    pub(crate) answered: AtomicU64,
    /// Requests refused because of the user behind them.
    pub(crate) refused: AtomicU64,
    /// Requests refused because of the host name asked for.
    pub(crate) misdirected: AtomicU64,
    /// Requests answered with any other status of 400 or more.
    pub(crate) failed: AtomicU64,
    /// Reads that found the archive damaged.
    pub(crate) damaged: AtomicU64,
    /// Views and downloads of objects with headers or bodies.
    pub(crate) sensitive_views: AtomicU64,
}

impl Counters {
    /// Prometheus text format 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(1024);
        for (name, help, value) in [
            ("connections", "Connections accepted and served.", &self.connections),
            ("connections_dropped", "Connections dropped at the limit of open ones.", &self.connections_dropped),
            ("requests_answered", "Requests answered with a status below 400.", &self.answered),
            ("requests_refused", "Requests refused because of the user behind them.", &self.refused),
            ("requests_misdirected", "Requests for a host name that is not answered.", &self.misdirected),
            ("requests_failed", "Requests answered with another status of 400 or more.", &self.failed),
            ("reads_damaged", "Reads that found the archive damaged.", &self.damaged),
            ("sensitive_views", "Views of objects with headers or bodies.", &self.sensitive_views),
        ] {
            let value = value.load(Relaxed);
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "# HELP tapstack_gateway_{name}_total {help}\n# TYPE tapstack_gateway_{name}_total counter\ntapstack_gateway_{name}_total {value}\n"
            );
        }
        text
    }
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
