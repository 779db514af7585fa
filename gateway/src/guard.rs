//! What stands before every handler: who may read, which host names and methods are answered, how long an
//! address may be; and the security headers on whatever comes back.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use crate::{access::Caller, answer, counters::count, server::Shared};

/// The only path that needs no access: it says nothing but that the gateway runs.
pub(crate) const HEALTH: &str = "/healthz";
/// Longest request target that is looked at, in bytes.
const TARGET_BYTES: usize = 2048;

/// `GET /healthz`.
pub(crate) async fn healthy() -> Response {
    answer::line(StatusCode::OK, "ok")
}

/// See the module.
pub(crate) async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let mut response = match refusal(&shared, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let counters = &shared.counters;
    count(match response.status() {
        StatusCode::FORBIDDEN => &counters.refused,
        StatusCode::MISDIRECTED_REQUEST => &counters.misdirected,
        s if s.as_u16() >= 400 => &counters.failed,
        _ => &counters.answered,
    });
    answer::harden(response.headers_mut());
    response
}

fn refusal(shared: &Shared, request: &Request) -> Option<Response> {
    let caller = request.extensions().get::<Caller>();
    if request.uri().path() != HEALTH {
        match caller {
            Some(Caller::Allowed { .. }) => {}
            Some(Caller::Refused(why)) => return Some(answer::line(StatusCode::FORBIDDEN, why.as_str())),
            None => {
                return Some(answer::line(StatusCode::FORBIDDEN, "Not allowed: nobody is known behind this request."));
            }
        }
    }
    if let Some(refusal) = misdirected(shared, request) {
        return Some(refusal);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = answer::line(StatusCode::METHOD_NOT_ALLOWED, "Only GET and HEAD are answered.");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    let target = request.uri().path_and_query().map_or(0, |p| p.as_str().len());
    (target > TARGET_BYTES)
        .then(|| answer::line(StatusCode::URI_TOO_LONG, format!("The address is longer than {TARGET_BYTES} bytes.")))
}

/// The host asked for stands in `Host`, and in an absolute-form target too (RFC 9112 section 3.2.2): both
/// must be ours.
fn misdirected(shared: &Shared, request: &Request) -> Option<Response> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let (Some(host), None) = (fields.next(), fields.next()) else {
        return Some(answer::line(StatusCode::BAD_REQUEST, "One Host header is needed."));
    };
    let ours = |name: &str| shared.hosts.allows(name);
    let in_target = request.uri().authority().is_none_or(|a| ours(a.as_str()));
    if host.to_str().is_ok_and(ours) && in_target {
        return None;
    }
    Some(answer::line(
        StatusCode::MISDIRECTED_REQUEST,
        "This host name is not answered (it protects against DNS rebinding). Use localhost or the listening address, or add the name to the gateway's hosts.",
    ))
}
