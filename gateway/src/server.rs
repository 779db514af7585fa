//! The gateway's own listener: who is behind each connection, how many there may be, and the routes.
//!
//! In: a listener and settings. Out: requests for the router, each with its `Caller`. Called by
//! [`crate::serve`].
//!
//! Strangers (users who may not read) get few connections of their own, so that they cannot take those of
//! the others.

use std::{future::Future, sync::Arc};

use axum::{Router, routing::get};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use transaction::AccessUrl;

use crate::{
    Counters, Error, Settings,
    access::{Access, Caller},
    asset,
    connection::{self, Stopping},
    counters::count,
    explorer, guard,
    host::Hosts,
    object,
    peer::{Peer, SockDiag},
    store::Pool,
};

/// Open connections of those who may read.
const CONNECTIONS: usize = 512;
/// Open connections of everybody else, and of those who are not yet told apart.
const STRANGERS: usize = 16;

/// What handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) bucket: String,
    pub(crate) hosts: Hosts,
    pub(crate) host_name: String,
    pub(crate) access_url: AccessUrl,
    pub(crate) counters: Arc<Counters>,
    pub(crate) pool: Arc<Pool>,
}

/// The routes, guarded; a [`Caller`] is expected in each request's extensions.
pub(crate) fn router(settings: &Settings, pool: Arc<Pool>) -> Result<Router, Error> {
    let bucket = &settings.bucket;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
    let taken = ["static", "healthz", ".", ".."].contains(&bucket.as_str());
    if bucket.is_empty() || bucket.len() > 63 || !bucket.bytes().all(plain) || taken {
        return Err(Error::Bucket(bucket.clone()));
    }
    let shared = Arc::new(Shared {
        bucket: bucket.clone(),
        hosts: Hosts::new(settings.listen, &settings.hosts),
        host_name: settings.host_name.clone(),
        access_url: settings.access_url(),
        counters: Arc::clone(&settings.counters),
        pool,
    });
    Ok(Router::new()
        .route("/", get(explorer::list))
        .route(guard::HEALTH, get(guard::healthy))
        .route("/static/{file}", get(asset::file))
        // The bucket and the digest are read from the path as it stands, undecoded.
        .fallback(object::object)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared))
}

/// See [`crate::serve`].
pub(crate) async fn serve(
    listener: TcpListener,
    settings: Settings,
    pool: Arc<Pool>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let local = listener.local_addr().map_err(Error::Listener)?;
    let mut diag = SockDiag::open().map_err(Error::SockDiag)?;
    let door = Door {
        router: router(&settings, pool)?,
        access: Arc::new(settings.access.clone()),
        counters: Arc::clone(&settings.counters),
        friends: Arc::new(Semaphore::new(CONNECTIONS)),
        strangers: Arc::new(Semaphore::new(STRANGERS)),
    };
    tracing::info!(%local, bucket = %settings.bucket, "Gateway listens.");
    connection::accept(listener, shutdown, |stream, peer, stopping| {
        // Asked at once: later the peer may have hung up.
        let peer = stream.local_addr().map_or(Peer::Unknown, |local| diag.peer(peer, local));
        door.clone().connection(stream, peer, stopping)
    })
    .await;
    Ok(())
}

/// Lets connections in.
#[derive(Clone)]
struct Door {
    router: Router,
    access: Arc<Access>,
    counters: Arc<Counters>,
    friends: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Door {
    async fn connection(self, stream: TcpStream, peer: Peer, stopping: Stopping) {
        let Some((caller, _place)) = self.admit(peer).await else {
            count(&self.counters.connections_dropped);
            return;
        };
        count(&self.counters.connections);
        let keep_alive = matches!(caller, Caller::Allowed { .. });
        connection::drive(stream, self.router, keep_alive, stopping, |request| {
            request.extensions_mut().insert(caller.clone());
        })
        .await;
    }

    /// Who it is, and a place among the open connections; none when all are taken.
    async fn admit(&self, peer: Peer) -> Option<(Caller, OwnedSemaphorePermit)> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        if let Some(caller @ Caller::Allowed { .. }) = self.access.at_once(peer) {
            return Some((caller, take(&self.friends)?));
        }
        let stranger = take(&self.strangers)?;
        let access = Arc::clone(&self.access);
        let caller = tokio::task::spawn_blocking(move || access.decide(peer)).await.ok()?;
        let place = if matches!(caller, Caller::Allowed { .. }) { take(&self.friends)? } else { stranger };
        Some((caller, place))
    }
}
