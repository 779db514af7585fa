//! `GET /`: the newest transactions, narrowed by the query string, as a page or as JSON (the
//! `artifact_record` events, newest first).

use std::{sync::Arc, time::SystemTime};

use archive::Row;
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};

use crate::{answer, negotiate::wants_json, object::failed, page, query::Typed, server::Shared, store::Failure};

/// See the module.
pub(crate) async fn list(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response {
    let typed = Typed::parse(uri.query().unwrap_or_default());
    let as_json = typed.json || wants_json(&headers);
    let filter = typed.filter(SystemTime::now());
    let (status, filter, wrong) = match filter {
        Ok(filter) => (StatusCode::OK, Some(filter), None),
        Err(wrong) if as_json => return answer::line(StatusCode::BAD_REQUEST, wrong),
        Err(wrong) => (StatusCode::BAD_REQUEST, None, Some(wrong)),
    };
    let context = Arc::clone(&shared);
    let made = shared
        .pool
        .ask(move |archive| {
            let mut found = Vec::new();
            let mut older = None;
            if let Some(mut filter) = filter {
                // One more than shown tells whether there is a next page.
                let limit = filter.limit;
                filter.limit += 1;
                found = archive.find(&filter)?;
                if found.len() > limit {
                    found.truncate(limit);
                    older = found.last().map(|f| f.position);
                }
            }
            let body = if as_json {
                events(&context, &found)?
            } else {
                page::list(&found, older, &typed, wrong.as_deref(), &context.bucket)
                    .map_err(Failure::Unmade)?
                    .into_bytes()
            };
            Ok((older.map(|before| typed.link(Some(before))), body))
        })
        .await;
    let (older, bytes) = match made {
        Ok(made) => made,
        Err(failure) => return failed(&failure, &shared.counters),
    };
    let mut response = if as_json {
        answer::with(StatusCode::OK, HeaderValue::from_static("application/json"), answer::NO_STORE, bytes)
    } else {
        answer::page(bytes)
    };
    *response.status_mut() = status;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    // RFC 8288: how a program pages on.
    if let Some(link) = older.filter(|_| as_json)
        && let Ok(link) = HeaderValue::from_str(&format!("</?{link}&format=json>; rel=\"next\""))
    {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// A JSON array of events.
fn events(shared: &Shared, found: &[Row]) -> Result<Vec<u8>, Failure> {
    let urls: Vec<String> = found.iter().map(|f| shared.access_url.of(&f.record.digest)).collect();
    let events: Vec<_> = found.iter().zip(&urls).map(|(f, url)| f.record.to_event(url, &shared.host_name)).collect();
    serde_json::to_vec(&events).map_err(|e| Failure::Unmade(e.to_string()))
}
