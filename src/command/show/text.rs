//! A transaction in plain words and as its two messages.

use std::fmt::Write as _;

use transaction::{
    ArtifactRecord, Transaction,
    object::{Process, Request, Response, Seen},
};

use super::body;
use crate::command::format::{Colour, Escaped, Look, date_and_clock, duration, of_status, size};

/// The whole text, ended by a line feed.
pub(super) fn render(t: &Transaction, record: &ArtifactRecord, url: &str, look: Look) -> String {
    let mut page = Page { out: String::new(), look };
    page.title(t);
    page.field("Digest", &record.digest.to_string());
    page.field("Open at", url);
    page.field("Time", &date_and_clock(record.time_unix_ns));
    page.field("Took", &timing(t));
    page.process(&t.process);
    page.connection(t);
    page.complete(t);
    let rule = t.rule.as_ref().map(|r| format!(", by rule {r}")).unwrap_or_default();
    page.field("Level", &format!("{}{rule}", t.level.as_str()));
    for r in &t.redactions {
        let times = if r.count == 1 { String::new() } else { format!(", {} times", r.count) };
        page.field("Redacted", &format!("{} ({}{times})", r.place, r.action));
    }
    let m = &t.metadata;
    let ids = [("request", &m.request_id), ("exchange", &t.exchange_id), ("connection", &m.connection_id)];
    page.field("Ids", &named(&ids));
    if !m.tags.is_empty() {
        page.field("Tags", &m.tags.join(", "));
    }
    if let Some(request) = &t.request {
        page.request(request, &t.completeness.request);
    }
    if let Some(response) = &t.response {
        page.response(response, &t.completeness.response);
    }
    page.out
}

/// First byte to last, and the parts of it that were seen.
fn timing(t: &Transaction) -> String {
    let t = &t.timing;
    let parts = [("request", t.request_ns), ("first byte after", t.ttfb_ns), ("response", t.response_ns)];
    let parts: Vec<String> = parts.iter().filter_map(|(n, ns)| ns.map(|ns| format!("{n} {}", duration(ns)))).collect();
    let total = duration(t.total_ns);
    if parts.is_empty() { total } else { format!("{total} ({})", parts.join(", ")) }
}

/// `name value, name value`, without those that have none.
fn named(parts: &[(&str, &String)]) -> String {
    let some = parts.iter().filter(|(_, value)| !value.is_empty());
    some.map(|(name, value)| format!("{name} {value}").trim_start().to_owned()).collect::<Vec<_>>().join(", ")
}

/// The text in the making.
struct Page {
    out: String,
    look: Look,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A name and its value, unless that is empty.
    fn field(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let name = self.look.paint(Colour::Faint, &format!("{name:12}"));
            let _ = writeln!(self.out, "{name}{}", Escaped(value));
        }
    }

    fn title(&mut self, t: &Transaction) {
        let what = t.request.as_ref().map_or_else(
            || "response without a request".to_owned(),
            |r| format!("{} {}", Escaped(&r.method), Escaped(&r.url)),
        );
        let status = t.response.as_ref().map(|r| r.status);
        let answer = match (&t.response, &t.error_type) {
            (Some(r), _) => format!("{} {}", r.status, Escaped(&r.reason)).trim_end().to_owned(),
            (None, Some(error)) => format!("no response: {}", Escaped(error)),
            (None, None) => "no response".to_owned(),
        };
        let (what, answer) = (self.look.paint(Colour::Bold, &what), self.look.paint(of_status(status), &answer));
        self.line(&what);
        self.line(&answer);
        self.line("");
    }

    fn process(&mut self, p: &Process) {
        if p.pid == 0 && p.exe.is_empty() {
            self.field("Process", "not known");
            return;
        }
        let mut text = format!("{} (pid {})", if p.exe.is_empty() { "?" } else { &p.exe }, p.pid);
        for (name, value) in
            [("user", &p.user), ("unit", &p.unit), ("container", &p.container_id), ("since", &p.started)]
        {
            if !value.is_empty() {
                let _ = write!(text, ", {name} {value}");
            }
        }
        self.field("Process", &text);
        self.field("Arguments", &p.args.join(" "));
        if let Some(pid) = p.parent_pid {
            self.field("Parent", &format!("{} (pid {pid})", if p.parent_exe.is_empty() { "?" } else { &p.parent_exe }));
        }
    }

    fn connection(&mut self, t: &Transaction) {
        let c = &t.connection;
        let arrow = if t.end.as_str() == "client" { "→" } else { "←" };
        let since = if c.from_start { "" } else { ", older than the capture" };
        self.field(
            "Connection",
            &format!(
                "{} {arrow} {} ({}, {}), exchange {} on it, read at {}{since}",
                c.local,
                c.remote,
                t.end.as_str(),
                t.direction.as_str(),
                c.exchange,
                if c.source.is_empty() { "?" } else { &c.source }
            ),
        );
        if let Some(tls) = &t.tls {
            let parts = [("", &tls.version), ("name", &tls.sni), ("protocol", &tls.alpn), ("cipher", &tls.cipher)];
            self.field("TLS", &named(&parts));
        }
    }

    fn complete(&mut self, t: &Transaction) {
        let c = &t.completeness;
        self.field("Complete", if c.complete { "yes" } else { "no: something of it was not seen or not kept" });
        if t.response.is_some()
            && let Some(error) = &t.error_type
        {
            self.field("Error", error);
        }
        for (side, seen) in [("request", &c.request), ("response", &c.response)] {
            self.field("", &seen_in_words(side, seen));
        }
        if !c.notes.is_empty() {
            self.field("Notes", &c.notes.join(", "));
        }
    }

    fn request(&mut self, r: &Request, seen: &Seen) {
        let after_host = r.url.split_once("://").map_or(r.url.as_str(), |(_, rest)| rest);
        // The target as it was sent; the query string stands in the url only.
        let query = after_host.split_once('?').map(|(_, q)| format!("?{q}")).unwrap_or_default();
        let first = format!("{} {}{query} {}", r.method, r.path, r.version);
        self.message(&first, &r.header_list, &r.body.0, &r.trailer_list, seen);
    }

    fn response(&mut self, r: &Response, seen: &Seen) {
        for interim in &r.interim {
            self.message(
                &format!("{} {}", r.version, interim.status),
                &interim.header_list,
                &[],
                &[],
                &Seen::default(),
            );
        }
        self.message(
            &format!("{} {} {}", r.version, r.status, r.reason),
            &r.header_list,
            &r.body.0,
            &r.trailer_list,
            seen,
        );
    }

    fn message(
        &mut self,
        first: &str,
        headers: &[(String, String)],
        body: &[u8],
        trailers: &[(String, String)],
        seen: &Seen,
    ) {
        self.line("");
        let first = self.look.paint(Colour::Bold, &Escaped(first.trim_end()).to_string());
        self.line(&first);
        self.fields(headers);
        if !body.is_empty() {
            self.out.push('\n');
            self.out.push_str(&body::render(body));
        } else if seen.body_bytes > 0 {
            let text = format!("(body of {} not kept: {})", size(seen.body_bytes), why(seen));
            let text = self.look.paint(Colour::Faint, &Escaped(&text).to_string());
            self.out.push('\n');
            self.line(&text);
        }
        self.fields(trailers);
    }

    fn fields(&mut self, fields: &[(String, String)]) {
        for (name, value) in fields {
            let name = self.look.paint(Colour::Cyan, &Escaped(name).to_string());
            let _ = writeln!(self.out, "{name}: {}", Escaped(value));
        }
    }
}

/// Why less was kept than seen.
fn why(seen: &Seen) -> String {
    if seen.truncated.is_empty() { "level".to_owned() } else { seen.truncated.join(", ") }
}

/// What was seen and kept of one message; empty when there is nothing to say.
fn seen_in_words(side: &str, s: &Seen) -> String {
    if s.head_bytes == 0 && s.body_bytes == 0 && s.gaps.is_empty() {
        return String::new();
    }
    let mut text = format!("{side}: head {}, body {}", size(s.head_bytes), size(s.body_bytes));
    if !s.encoding.is_empty() {
        let _ = write!(text, " as {}", s.encoding);
    }
    if s.body_bytes > 0 || s.kept_bytes > 0 {
        let _ = write!(text, ", kept {}", size(s.kept_bytes));
        if !s.truncated.is_empty() {
            let _ = write!(text, " ({})", s.truncated.join(", "));
        }
    }
    text.push_str(match s.end.as_str() {
        "cut" => "; its end was not seen",
        "close" => "; ended by closing the connection",
        _ => "",
    });
    for gap in s.gaps.iter().take(5) {
        let _ = write!(text, "; {} missing at {} ({})", size(gap.bytes), gap.offset, gap.cause);
    }
    if s.gaps.len() > 5 {
        let _ = write!(text, "; {} gaps more", s.gaps.len() - 5);
    }
    text
}
