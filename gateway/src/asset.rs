//! The style sheet and the icon, built into the program. Pages ask for them with their hash, so a browser
//! may keep them for good.

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, Uri},
    response::Response,
};
use transaction::Digest;

use crate::answer;

const STYLE: &str = include_str!("../static/style.css");
const ICON: &str = include_str!("../static/icon.svg");

/// Twelve digits of the hash of both, for the addresses in pages.
pub(crate) fn version() -> &'static str {
    static VERSION: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        let mut hash = Digest::of([STYLE, ICON].concat().as_bytes()).to_string();
        hash.truncate(12);
        hash
    });
    &VERSION
}

/// `GET /static/{file}`.
pub(crate) async fn file(Path(name): Path<String>, uri: Uri) -> Response {
    let (kind, body) = match name.as_str() {
        "style.css" => ("text/css; charset=utf-8", STYLE),
        "icon.svg" => ("image/svg+xml", ICON),
        _ => return answer::line(StatusCode::NOT_FOUND, "There is no such file."),
    };
    let current = uri.query().is_some_and(|q| q.strip_prefix("v=") == Some(version()));
    let keep = if current { answer::IMMUTABLE } else { HeaderValue::from_static("no-cache") };
    answer::with(StatusCode::OK, HeaderValue::from_static(kind), keep, body)
}
