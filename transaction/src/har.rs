//! HAR 1.2 of transactions: what `show --har` prints and the explorer offers for download.
//!
//! In: transactions as stored. Out: one JSON document that the browsers' network panels and other HAR readers
//! take. What HAR cannot say stands in members that begin with an underscore, as the format allows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    Transaction,
    object::{End, Headers, Request, Response, Seen},
    query,
};

/// The HAR document of these transactions, in their order.
#[must_use]
pub fn har<'a>(transactions: impl IntoIterator<Item = &'a Transaction>) -> Value {
    json!({"log": {
        "version": "1.2",
        "creator": {"name": "tapstack", "version": env!("CARGO_PKG_VERSION")},
        "entries": transactions.into_iter().map(entry).collect::<Vec<_>>(),
    }})
}

fn entry(t: &Transaction) -> Value {
    let timing = timings(t);
    let time = ["send", "wait", "receive"].iter().filter_map(|k| timing[*k].as_f64()).sum::<f64>();
    let mut entry = json!({
        "startedDateTime": started(&t.transaction_time),
        "time": (time * 1000.0).round() / 1000.0,
        "request": request(t),
        "response": response(t),
        "cache": {},
        "timings": timing,
    });
    let Value::Object(members) = &mut entry else { return entry };
    let server = match t.end {
        End::Client => &t.connection.remote,
        End::Server => &t.connection.local,
    };
    if let Ok(address) = server.parse::<std::net::SocketAddr>() {
        members.insert("serverIPAddress".into(), address.ip().to_string().into());
    }
    set(members, "connection", &t.metadata.connection_id);
    set(members, "_process", &t.process.exe);
    set(members, "_exchange_id", &t.exchange_id);
    members.insert("_complete".into(), t.completeness.complete.into());
    let error = match (&t.error_type, &t.response) {
        (Some(word), _) => word,
        (None, None) => "no_response",
        (None, Some(_)) => "",
    };
    set(members, "_error", error);
    entry
}

fn set(members: &mut Map<String, Value>, name: &str, text: &str) {
    if !text.is_empty() {
        members.insert(name.into(), text.into());
    }
}

/// ISO 8601 with milliseconds, as most readers expect it; a time that is not understood stays as it is.
fn started(time: &str) -> String {
    match crate::time::unix_ns(time) {
        Some(ns) => format!("{}Z", &crate::time::rfc3339(ns)[..23]),
        None => time.to_owned(),
    }
}

/// HAR wants numbers that are not negative and add up to `time`: what was not seen counts as waiting.
fn timings(t: &Transaction) -> Value {
    let total = t.timing.total_ns;
    let send = t.timing.request_ns.unwrap_or(0).min(total);
    let first = t.timing.ttfb_ns.unwrap_or(total).clamp(send, total);
    let ms = crate::time::millis;
    json!({"send": ms(send), "wait": ms(first - send), "receive": ms(total - first)})
}

fn size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(-1)
}

/// Bytes of a head: HAR's word for "not known" is -1.
fn head_size(seen: &Seen) -> i64 {
    if seen.head_bytes == 0 { -1 } else { size(seen.head_bytes) }
}

/// The fields as sent, or, in an object that lacks the list, the joined ones without the pseudo headers.
fn fields<'a>(list: &'a [(String, String)], joined: &'a Headers) -> impl Iterator<Item = (&'a str, &'a str)> + Clone {
    let joined = if list.is_empty() { joined.0.as_slice() } else { &[] };
    list.iter().chain(joined).filter(|(n, _)| !n.starts_with(':')).map(|(n, v)| (n.as_str(), v.as_str()))
}

fn headers<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Value> {
    fields.map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn request(t: &Transaction) -> Value {
    let empty = Request::default();
    let r = t.request.as_ref().unwrap_or(&empty);
    let seen = &t.completeness.request;
    let fields = fields(&r.header_list, &r.headers);
    let cookies = fields
        .clone()
        .filter(|(n, _)| n.eq_ignore_ascii_case("cookie"))
        .flat_map(|(_, v)| v.split(';'))
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let (name, value) = pair.trim().split_once('=').unwrap_or(("", pair.trim()));
            json!({"name": name, "value": value})
        });
    let mut out = json!({
        "method": r.method,
        "url": r.url,
        "httpVersion": r.version,
        "cookies": cookies.collect::<Vec<_>>(),
        "headers": headers(fields),
        "queryString": query::pairs(&r.url).map(|(n, v)| json!({"name": n, "value": v})).collect::<Vec<_>>(),
        "headersSize": head_size(seen),
        "bodySize": if t.request.is_some() { size(seen.body_bytes) } else { -1 },
    });
    if !r.body.is_empty() {
        let (text, encoding) = text(&r.body.0);
        out["postData"] = json!({"mimeType": r.content_type, "text": text});
        if let Some(encoding) = encoding {
            // HAR 1.2 has no word for a binary request body; this member is the one that others use.
            out["postData"]["_encoding"] = encoding.into();
        }
    }
    out
}

fn response(t: &Transaction) -> Value {
    let empty = Response::default();
    let r = t.response.as_ref().unwrap_or(&empty);
    let seen = &t.completeness.response;
    let fields = fields(&r.header_list, &r.headers);
    let location = fields.clone().find(|(n, _)| n.eq_ignore_ascii_case("location")).map_or("", |(_, v)| v);
    let mut content = json!({
        "size": size(if r.body.is_empty() { seen.body_bytes } else { r.body.0.len() as u64 }),
        "mimeType": if r.content_type.is_empty() { "x-unknown" } else { &r.content_type },
    });
    if !r.body.is_empty() {
        let (text, encoding) = text(&r.body.0);
        content["text"] = text.into();
        if let Some(encoding) = encoding {
            content["encoding"] = encoding.into();
        }
        if !seen.encoding.is_empty() && seen.truncated.is_empty() {
            content["compression"] = (size(r.body.0.len() as u64) - size(seen.body_bytes)).into();
        }
    }
    json!({
        "status": r.status,
        "statusText": r.reason,
        "httpVersion": r.version,
        "cookies": fields.clone().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie")).map(|(_, v)| set_cookie(v)).collect::<Vec<_>>(),
        "headers": headers(fields),
        "content": content,
        "redirectURL": location,
        "headersSize": head_size(seen),
        "bodySize": if t.response.is_some() { size(seen.body_bytes) } else { -1 },
    })
}

/// A body as text, or as base64 with the name of that encoding.
fn text(body: &[u8]) -> (String, Option<&'static str>) {
    match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (STANDARD.encode(body), Some("base64")),
    }
}

/// RFC 6265 section 4.1.1: the pair, then attributes.
fn set_cookie(value: &str) -> Value {
    let mut parts = value.split(';').map(str::trim);
    let pair = parts.next().unwrap_or_default();
    let (name, value) = pair.split_once('=').unwrap_or(("", pair));
    let mut cookie = json!({"name": name, "value": value});
    for attribute in parts {
        let (name, value) = attribute.split_once('=').unwrap_or((attribute, ""));
        match name.to_ascii_lowercase().as_str() {
            "path" => cookie["path"] = value.into(),
            "domain" => cookie["domain"] = value.into(),
            "httponly" => cookie["httpOnly"] = true.into(),
            "secure" => cookie["secure"] = true.into(),
            _ => {}
        }
    }
    cookie
}
