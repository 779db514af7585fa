//! The readiness listener: `/readyz`, `/healthz`, `/metrics` and `/libraries` on an address of their own, for
//! probes, Prometheus and `tapstack explain`. Nothing captured is served here, only facts about this host's
//! programs and libraries (their paths among them), so anybody who can connect may read it.
//!
//! In: a [`Ready`] that the owner of the process sets. Out: plain text, and JSON of the libraries. Called by
//! `tapstack up` and `tapstack agent`.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode},
    middleware::Next,
    response::Response,
    routing::get,
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{Error, answer, connection};

/// Open connections; more are dropped.
const PROBES: usize = 32;

/// Renders an answer; must not block for long.
type Render = Arc<dyn Fn() -> String + Send + Sync>;

/// What is told about readiness and metrics; clones share it.
#[derive(Clone)]
pub struct Ready {
    /// Why it is not ready; none when it is.
    reason: Arc<Mutex<Option<String>>>,
    metrics: Render,
    libraries: Option<Render>,
}

impl Ready {
    /// Not ready, for `reason`; `metrics` renders Prometheus text, and must not block for long.
    #[must_use]
    pub fn new(reason: &str, metrics: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Ready { reason: Arc::new(Mutex::new(Some(reason.to_owned()))), metrics, libraries: None }
    }

    /// Also answers `/libraries`; `libraries` renders JSON, and must not block for long.
    #[must_use]
    pub fn with_libraries(self, libraries: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Ready { libraries: Some(libraries), ..self }
    }

    /// From now on ready (`None`), or not, for a reason in one line.
    pub fn set(&self, reason: Option<&str>) {
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason.map(str::to_owned);
    }

    fn reason(&self) -> Option<String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ready").field("reason", &self.reason()).finish_non_exhaustive()
    }
}

/// Serves until `shutdown` is ready.
pub async fn serve_ready(listener: TcpListener, ready: Ready, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let local = listener.local_addr().map_err(Error::Listener)?;
    tracing::info!(%local, "Readiness and metrics listen.");
    let router = router(ready);
    let places = Arc::new(Semaphore::new(PROBES));
    connection::accept(listener, shutdown, |stream, _, stopping| {
        let (router, place) = (router.clone(), Arc::clone(&places).try_acquire_owned());
        async move {
            if place.is_ok() {
                connection::drive(stream, router, true, stopping, |_| {}).await;
            }
        }
    })
    .await;
    Ok(())
}

fn router(ready: Ready) -> Router {
    Router::new()
        .route("/healthz", get(crate::guard::healthy))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/libraries", get(libraries))
        .fallback(nothing)
        .layer(axum::middleware::from_fn(|request: Request, next: Next| async {
            let mut response = next.run(request).await;
            answer::harden(response.headers_mut());
            response
        }))
        .with_state(ready)
}

async fn readyz(State(ready): State<Ready>) -> Response {
    match ready.reason() {
        None => answer::line(StatusCode::OK, "ready"),
        Some(reason) => answer::line(StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}

async fn metrics(State(ready): State<Ready>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer::with(StatusCode::OK, kind, answer::NO_STORE, (ready.metrics)())
}

async fn libraries(State(ready): State<Ready>) -> Response {
    let Some(render) = &ready.libraries else { return nothing().await };
    answer::with(StatusCode::OK, HeaderValue::from_static("application/json"), answer::NO_STORE, render())
}

async fn nothing() -> Response {
    answer::line(StatusCode::NOT_FOUND, "Here are /readyz, /healthz, /metrics and /libraries.")
}
