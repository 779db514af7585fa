//! Accepting connections and driving HTTP/1 on them, within limits of time and size; ends them all soon
//! after it is told to. Used by `server` (objects and pages) and `ready` (probes and metrics).

use std::{convert::Infallible, future::Future, net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_service::Service as _;

use crate::slow::Impatient;

/// How long a request's head may take, and how long a connection may idle.
pub(crate) const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take no bytes.
const WRITE_PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a request's head: line and fields.
const HEAD_BYTES: usize = 16 << 10;
/// Fields of a request.
const HEAD_FIELDS: usize = 64;
/// What open requests get when the listener stops.
const GRACE: Duration = Duration::from_millis(400);

/// Turns true when connections should end.
pub(crate) type Stopping = watch::Receiver<bool>;

/// Accepts until `shutdown` is ready; each connection is what `begin` makes of it. Returns at most [`GRACE`]
/// later, with every connection ended.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    mut begin: impl FnMut(TcpStream, SocketAddr, Stopping) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(begin(stream, peer, stopping.clone()));
            }
            Err(error) => {
                // Out of descriptors, or the peer gave up before it was accepted: neither ends the listener.
                tracing::warn!(%error, "Could not accept a connection.");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, all).await.is_err() {
        connections.shutdown().await;
    }
}

/// Drives HTTP/1 on `stream` until its end, or until `stopping`; `prepare` sees each request first.
pub(crate) async fn drive(
    stream: TcpStream,
    router: Router,
    keep_alive: bool,
    mut stopping: Stopping,
    prepare: impl Fn(&mut Request),
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        prepare(&mut request);
        let mut router = router.clone();
        async move { router.call(request).await.map_err(|never: Infallible| never) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .keep_alive(keep_alive);
    // The guard that wait_for returns must not be held while the connection is served on.
    let told = async {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    let mut serving = pin!(http.serve_connection(TokioIo::new(Impatient::new(stream, WRITE_PATIENCE)), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = told => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "A connection ended early.");
    }
}
