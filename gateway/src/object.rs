//! `GET /<bucket>/<digest>`: one object as its exact bytes, as a page, or as an export.
//!
//! The archive's reader checks the bytes against the digest before anything is made of them: what does not
//! hold is answered with 502 and counted. A captured body leaves only as `application/octet-stream` for download.

use std::sync::Arc;

use archive::{Filter, Reader, Row};
use axum::{
    Extension,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use transaction::{ArtifactRecord, Digest, Level, Transaction};

use crate::{
    Counters,
    access::Caller,
    answer,
    counters::count,
    negotiate::{has_it, wants_page},
    page,
    query::{self, Form, Target},
    server::Shared,
    store::Failure,
};

/// Transactions of the same connection that a page links to, before and after its own.
const NEIGHBOURS: usize = 10;
/// How many are looked through for them.
const NEIGHBOURS_SOUGHT: usize = 2000;
/// How far before and after they are sought: the archive is searched by time, and a page should come at once.
const CONNECTION_NS: u64 = 60_000_000_000;
/// The same for the other end of the exchange: both are seen by one kernel, so only its buffers lie between.
const EXCHANGE_NS: u64 = 2_000_000_000;

/// What was made of an object.
enum Made {
    /// There is none.
    Missing,
    /// It has no such part, or is no transaction.
    NoSuchPart(&'static str),
    /// Here it is, kept at this level.
    Done(Level),
}

/// What is made of one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Want {
    Bytes,
    Page,
    Har,
    Curl,
    RequestBody,
    ResponseBody,
    /// Only whether it is there: the client has it already.
    Nothing,
}

/// The handler for everything that has no route of its own.
pub(crate) async fn object(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let digest = match query::target(uri.path(), &shared.bucket) {
        Target::Object(digest) => digest,
        Target::BadDigest => {
            return answer::line(StatusCode::BAD_REQUEST, "A digest is 40 lower-case hexadecimal digits.");
        }
        Target::Unknown => {
            return answer::line(StatusCode::NOT_FOUND, "Nothing is here. Objects are at /bucket/digest.");
        }
    };
    let form = match query::form(uri.query().unwrap_or_default()) {
        Ok(form) => form,
        Err(wrong) => return answer::line(StatusCode::BAD_REQUEST, wrong),
    };
    let name = digest.to_string();
    let want = match form {
        Form::Negotiated if wants_page(&headers) => Want::Page,
        Form::Negotiated | Form::Raw | Form::Json if has_it(&headers, &name) => Want::Nothing,
        Form::Negotiated | Form::Raw | Form::Json => Want::Bytes,
        Form::Har => Want::Har,
        Form::Curl => Want::Curl,
        Form::RequestBody => Want::RequestBody,
        Form::ResponseBody => Want::ResponseBody,
    };
    let bucket = shared.bucket.clone();
    let made = shared.pool.ask(move |archive| make(archive, &digest, want, &bucket)).await;
    let (level, bytes) = match made {
        Ok((Made::Done(level), bytes)) => (level, bytes),
        Ok((Made::Missing, _)) => {
            return answer::line(
                StatusCode::NOT_FOUND,
                "There is no such object. It may be older than the archive keeps.",
            );
        }
        Ok((Made::NoSuchPart(what), _)) => return answer::line(StatusCode::NOT_FOUND, what),
        Err(failure) => return failed(&failure, &shared.counters),
    };
    if level > Level::Summary && want != Want::Nothing {
        count(&shared.counters.sensitive_views);
        if let Caller::Allowed { uid } = caller {
            tracing::info!(uid, %digest, level = level.as_str(), form = ?form, "Object viewed.");
        }
    }
    respond(&name, form, want, level, bytes)
}

/// Runs on a blocking thread.
fn make(archive: &Reader, digest: &Digest, want: Want, bucket: &str) -> Result<(Made, Vec<u8>), Failure> {
    let Some(Row { record, position }) = archive.record(digest)? else { return Ok((Made::Missing, Vec::new())) };
    let done = |bytes| Ok((Made::Done(record.level), bytes));
    if want == Want::Nothing {
        return done(Vec::new());
    }
    // The reader compares the bytes with the digest.
    let Some(bytes) = archive.object(digest)? else { return Ok((Made::Missing, Vec::new())) };
    if want == Want::Bytes {
        return done(bytes);
    }
    let Ok(transaction) = serde_json::from_slice::<Transaction>(&bytes) else {
        return Ok((Made::NoSuchPart("This object is no HTTP transaction; only ?raw shows it."), Vec::new()));
    };
    let part = |body: Option<transaction::object::Body>| match body {
        Some(body) if !body.is_empty() => Ok((Made::Done(record.level), body.0)),
        _ => Ok((Made::NoSuchPart("No body was kept."), Vec::new())),
    };
    match want {
        Want::Har => done(transaction::har([&transaction]).to_string().into_bytes()),
        Want::Curl => done(transaction::curl(&transaction).into_bytes()),
        Want::RequestBody => part(transaction.request.map(|r| r.body)),
        Want::ResponseBody => part(transaction.response.map(|r| r.body)),
        _ => {
            let related = related(archive, &record, position)?;
            let html =
                page::transaction(&transaction, &record, bytes.len(), &related, bucket).map_err(Failure::Unmade)?;
            done(html.into_bytes())
        }
    }
}

/// What a page links to: the same connection's transactions around this one, oldest first, and the other
/// end of the exchange.
#[derive(Debug, Default)]
pub(crate) struct Related {
    pub(crate) connection: Vec<Row>,
    pub(crate) other_end: Option<Row>,
}

fn related(archive: &Reader, record: &ArtifactRecord, position: u64) -> Result<Related, Failure> {
    let around = |ns: u64| Filter {
        since_unix_ns: Some(record.time_unix_ns.saturating_sub(ns)),
        until_unix_ns: Some(record.time_unix_ns.saturating_add(ns).saturating_add(1)),
        ..Filter::default()
    };
    let mut related = Related::default();
    if !record.connection_id.is_empty() {
        let connection_id = Some(record.connection_id.clone());
        let filter = Filter { connection_id, limit: NEIGHBOURS_SOUGHT, ..around(CONNECTION_NS) };
        let mut rows = archive.find(&filter)?;
        rows.sort_by_key(|r| (r.record.time_unix_ns, r.position));
        let here = rows.iter().position(|r| r.position == position).unwrap_or(rows.len());
        let first = here.saturating_sub(NEIGHBOURS);
        related.connection = rows.into_iter().skip(first).take(2 * NEIGHBOURS + 1).collect();
    }
    if !record.exchange_id.is_empty() {
        let filter = Filter { exchange_id: Some(record.exchange_id.clone()), limit: 4, ..around(EXCHANGE_NS) };
        related.other_end = archive.find(&filter)?.into_iter().find(|r| r.record.end != record.end);
    }
    Ok(related)
}

fn respond(name: &str, form: Form, want: Want, level: Level, bytes: Bytes) -> Response {
    let keep = if level <= Level::Summary { answer::IMMUTABLE } else { answer::NO_STORE };
    let json = HeaderValue::from_static("application/json");
    let octets = HeaderValue::from_static("application/octet-stream");
    let short = name.get(..12).unwrap_or(name);
    let (mut response, file) = match want {
        Want::Page => {
            let mut response = answer::page(bytes);
            response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
            return response;
        }
        Want::Nothing => (answer::with(StatusCode::NOT_MODIFIED, json, keep, ""), None),
        Want::Bytes => {
            let file = (form == Form::Json).then(|| format!("{name}.json"));
            (answer::with(StatusCode::OK, json, keep, bytes), file)
        }
        Want::Har => (answer::with(StatusCode::OK, octets, answer::NO_STORE, bytes), Some(format!("{short}.har"))),
        Want::Curl => (answer::with(StatusCode::OK, octets, answer::NO_STORE, bytes), Some(format!("{short}.sh"))),
        Want::RequestBody => {
            (answer::with(StatusCode::OK, octets, answer::NO_STORE, bytes), Some(format!("{short}.request.bin")))
        }
        Want::ResponseBody => {
            (answer::with(StatusCode::OK, octets, answer::NO_STORE, bytes), Some(format!("{short}.response.bin")))
        }
    };
    let headers = response.headers_mut();
    if want == Want::Nothing {
        headers.remove(header::CONTENT_TYPE);
    }
    if matches!(want, Want::Bytes | Want::Nothing) {
        // The digest is hexadecimal digits: always a valid header value.
        if let Ok(tag) = HeaderValue::from_str(&format!("\"{name}\"")) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    }
    if let Some(file) = file.and_then(|f| HeaderValue::from_str(&format!("attachment; filename=\"{f}\"")).ok()) {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    response
}

/// The answer when the archive gives none. What it says may name folders; the client learns only what to do.
pub(crate) fn failed(failure: &Failure, counters: &Counters) -> Response {
    match failure {
        Failure::Busy => {
            let mut response = answer::line(StatusCode::SERVICE_UNAVAILABLE, "Too many requests at once. Try again.");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        Failure::Archive(archive::Error::Missing { .. }) => answer::line(
            StatusCode::SERVICE_UNAVAILABLE,
            "There is no archive yet. Start tapstack up on the same data folder.",
        ),
        Failure::Archive(archive::Error::Damaged(reason)) => {
            count(&counters.damaged);
            tracing::error!(%reason, "The archive is damaged.");
            answer::line(StatusCode::BAD_GATEWAY, "The stored bytes cannot be trusted: the archive is damaged there.")
        }
        Failure::Archive(reason) => {
            tracing::error!(%reason, "The archive could not be read.");
            answer::line(StatusCode::SERVICE_UNAVAILABLE, "The archive cannot be read now; the gateway's log says why.")
        }
        Failure::Unmade(reason) => {
            tracing::error!(%reason, "An answer could not be made.");
            answer::line(StatusCode::INTERNAL_SERVER_ERROR, "The answer could not be made; the gateway's log says why.")
        }
    }
}
