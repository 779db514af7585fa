//! One transaction as a page.

use archive::Row;
use askama::Template;
use transaction::{
    ArtifactRecord, Level, Transaction,
    object::{Completeness, End, Interim, Request, Response},
};

use super::{
    base,
    body::{self, Body},
    timing,
    words::{self, When},
};
use crate::{asset, object::Related};

#[derive(Template)]
#[template(path = "transaction.html")]
struct Page<'a> {
    version: &'static str,
    bucket: &'a str,
    digest: String,
    t: &'a Transaction,
    method: &'a str,
    url: &'a str,
    status: String,
    class: &'static str,
    when: When,
    duration: String,
    object_size: String,
    program: &'a str,
    arguments: String,
    missing: Vec<String>,
    parts: Vec<timing::Part>,
    drawing: String,
    request: Option<Message<'a>>,
    response: Option<Message<'a>>,
    interim: &'a [Interim],
    curl: Option<String>,
    other_end: Option<Neighbour<'a>>,
    neighbours: Vec<Neighbour<'a>>,
}

/// A request or a response.
struct Message<'a> {
    name: &'static str,
    line: String,
    size: String,
    headers: Vec<(&'a str, &'a str)>,
    trailers: &'a [(String, String)],
    body: Option<Body>,
    /// Why there is no body to show.
    bodiless: String,
}

/// Another transaction.
struct Neighbour<'a> {
    digest: String,
    here: bool,
    clock: String,
    end: &'static str,
    method: &'a str,
    path: &'a str,
    status: String,
    class: &'static str,
    duration: String,
    program: &'a str,
}

/// The page of the object of `size` bytes that `record` points at.
pub(crate) fn transaction(
    t: &Transaction,
    record: &ArtifactRecord,
    size: usize,
    related: &Related,
    bucket: &str,
) -> Result<String, String> {
    let status = t.response.as_ref().map(|r| r.status);
    let parts = timing::parts(&t.timing);
    let page = Page {
        version: asset::version(),
        bucket,
        digest: record.digest.to_string(),
        t,
        method: t.request.as_ref().map_or("?", |r| &r.method),
        url: t.request.as_ref().map_or("", |r| &r.url),
        status: status.map_or_else(|| "no response".to_owned(), |s| s.to_string()),
        class: words::status_class(status),
        when: words::when(record.time_unix_ns),
        duration: words::duration(t.timing.total_ns),
        object_size: words::size(size as u64),
        program: if t.process.exe.is_empty() { "unknown" } else { base(&t.process.exe) },
        arguments: t.process.args.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "),
        missing: words::missing(t),
        drawing: timing::svg(&parts, t.timing.total_ns),
        parts,
        request: t.request.as_ref().map(|r| request(r, t.level, &t.completeness)),
        response: t.response.as_ref().map(|r| response(r, t.level, &t.completeness)),
        interim: t.response.as_ref().map_or(&[], |r| &r.interim),
        curl: t.request.as_ref().map(|_| transaction::curl(t)),
        other_end: related.other_end.as_ref().map(|row| neighbour(row, record)),
        neighbours: related.connection.iter().map(|row| neighbour(row, record)).collect(),
    };
    page.render().map_err(|e| e.to_string())
}

fn request<'a>(r: &'a Request, level: Level, c: &Completeness) -> Message<'a> {
    let target =
        r.url.find("://").and_then(|i| r.url[i + 3..].find('/').map(|j| &r.url[i + 3 + j..])).unwrap_or(&r.path);
    Message {
        name: "request",
        line: format!("{} {target} {}", r.method, r.version),
        size: words::size(c.request.head_bytes + c.request.body_bytes),
        headers: fields(&r.header_list, &r.headers.0),
        trailers: &r.trailer_list,
        body: body::body(&r.body.0, &r.content_type),
        bodiless: bodiless(level, c.request.body_bytes),
    }
}

fn response<'a>(r: &'a Response, level: Level, c: &Completeness) -> Message<'a> {
    Message {
        name: "response",
        line: format!("{} {} {}", r.version, r.status, r.reason).trim_end().to_owned(),
        size: words::size(c.response.head_bytes + c.response.body_bytes),
        headers: fields(&r.header_list, &r.headers.0),
        trailers: &r.trailer_list,
        body: body::body(&r.body.0, &r.content_type),
        bodiless: bodiless(level, c.response.body_bytes),
    }
}

/// The fields as sent; from the joined form when an object has nothing else.
fn fields<'a>(list: &'a [(String, String)], joined: &'a [(String, String)]) -> Vec<(&'a str, &'a str)> {
    let joined = joined.iter().filter(|(name, _)| list.is_empty() && !name.starts_with(':'));
    list.iter().chain(joined).map(|(n, v)| (n.as_str(), v.as_str())).collect()
}

fn bodiless(level: Level, seen: u64) -> String {
    match (seen, level) {
        (0, _) => "No body.".to_owned(),
        (_, Level::Full) => format!("A body of {} was seen and not kept.", words::size(seen)),
        (_, level) => format!("A body of {} was seen; level {} keeps none.", words::size(seen), level.as_str()),
    }
}

/// An argument as one would type it in a shell.
fn quoted(argument: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&b);
    if !argument.is_empty() && argument.bytes().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

fn neighbour<'a>(row: &'a Row, here: &ArtifactRecord) -> Neighbour<'a> {
    let r = &row.record;
    Neighbour {
        digest: r.digest.to_string(),
        here: r.digest == here.digest,
        clock: words::when(r.time_unix_ns).clock,
        end: r.end.as_str(),
        method: &r.request_method,
        path: &r.request_path,
        status: r.response_status.map_or_else(|| "none".to_owned(), |s| s.to_string()),
        class: words::status_class(r.response_status),
        duration: words::duration(r.duration_ns),
        program: base(&r.process_exe),
    }
}

impl Page<'_> {
    /// Which end was observed, in words.
    fn end_in_words(&self) -> &'static str {
        match self.t.end {
            End::Client => "client: it asked",
            End::Server => "server: it answered",
        }
    }

    /// The direction in words.
    fn direction_in_words(&self) -> &'static str {
        use transaction::object::Direction::{EgressExternal, EgressInternal, Ingress};
        match self.t.direction {
            Ingress => "ingress",
            EgressInternal => "egress, internal",
            EgressExternal => "egress, external",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn arguments_are_quoted_where_a_shell_would_need_it() {
        for (argument, text) in [
            ("-sS", "-sS"),
            ("http://a/b?c=d", "'http://a/b?c=d'"),
            ("", "''"),
            ("it's", r"'it'\''s'"),
            ("a b", "'a b'"),
        ] {
            assert_eq!(quoted(argument), text);
        }
    }
}
