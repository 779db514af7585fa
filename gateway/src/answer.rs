//! The answers that are not objects or pages: one line of text each, with what to do; and the header values
//! that every answer carries. Used by all handlers; `guard` puts [`harden`] on everything.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};

/// What a client keeps of an answer that may show captured bytes.
pub(crate) const NO_STORE: HeaderValue = HeaderValue::from_static("private, no-store");
/// What a client keeps of an answer that can never change and shows nothing sensitive.
pub(crate) const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

/// Pages: nothing but the own style sheet and icon; no script at all.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
/// Everything else: even if a browser were brought to render it, it could do nothing.
const BYTES_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
);

/// A status and one line of plain text.
pub(crate) fn line(status: StatusCode, text: impl Into<String>) -> Response {
    let mut text = text.into();
    text.push('\n');
    with(status, HeaderValue::from_static("text/plain; charset=utf-8"), NO_STORE, text)
}

/// A page.
pub(crate) fn page(html: impl Into<Body>) -> Response {
    with(StatusCode::OK, HeaderValue::from_static("text/html; charset=utf-8"), NO_STORE, html)
}

/// Any body with its type and how long it may be kept.
pub(crate) fn with(status: StatusCode, kind: HeaderValue, keep: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    response
}

/// Puts the security headers on an answer, whoever made it.
pub(crate) fn harden(headers: &mut HeaderMap) {
    let is_page = headers.get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"text/html"));
    let policy = if is_page { PAGE_POLICY } else { BYTES_POLICY };
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ] {
        headers.insert(name, value);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, NO_STORE);
    }
}
