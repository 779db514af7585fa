//! The gateway: serves objects by their digest, exact to the byte, and the explorer's pages.
//!
//! In: a listener, an archive's folder. Out: HTTP. Called by `tapstack up` in the agent's own process, and by
//! `tapstack gateway`.
//!
//! A request goes `server` (limits, the user behind the connection) → `guard` (access, host name, method,
//! security headers) → `object` or `explorer` → `store` (readers of the archive on blocking threads) →
//! `page` (HTML of what was captured, escaped). What is served was written by strangers: nothing captured is
//! ever served as its own type, and no page has a script.

mod access;
mod answer;
mod asset;
mod connection;
mod counters;
mod error;
mod explorer;
mod guard;
mod host;
mod negotiate;
mod object;
mod page;
mod peer;
mod query;
mod ready;
mod server;
mod slow;
mod sockets;
mod store;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use transaction::AccessUrl;

pub use access::{Access, GROUP};
pub use counters::Counters;
pub use error::Error;
pub use ready::{Ready, serve_ready};

/// How a gateway is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address that people use; the listener's own unless it listens on every address.
    pub listen: SocketAddr,
    /// The only bucket that is answered.
    pub bucket: String,
    /// The archive's folder.
    pub data_dir: PathBuf,
    /// Host names that are answered beside localhost and the listening address.
    pub hosts: Vec<String>,
    /// Who may read.
    pub access: Access,
    /// Name of this host in the events of the list as JSON.
    pub host_name: String,
    /// Counts what the gateway does; share it with whoever renders metrics.
    pub counters: Arc<Counters>,
}

impl Settings {
    /// The defaults: bucket `qpoint`, access by the environment, this host's name.
    #[must_use]
    pub fn new(listen: SocketAddr, data_dir: PathBuf) -> Self {
        let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Settings {
            listen,
            bucket: "qpoint".to_owned(),
            data_dir,
            hosts: Vec::new(),
            access: Access::from_environment(),
            host_name: host_name.trim().to_owned(),
            counters: Arc::default(),
        }
    }

    /// Where an object can be opened.
    #[must_use]
    pub fn access_url(&self) -> AccessUrl {
        AccessUrl::gateway(&self.listen, &self.bucket)
    }
}

/// Serves until `shutdown` is ready, and then ends within half a second, whatever clients do. Open requests
/// get that half second.
pub async fn serve(
    listener: tokio::net::TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let pool = store::Pool::new(settings.data_dir.clone());
    server::serve(listener, settings, pool, shutdown).await
}
