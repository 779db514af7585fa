//! The list of transactions as a page: one line for each exchange, with a link for each of its local ends.

use std::collections::HashMap;

use archive::Row;
use askama::Template;
use transaction::{ArtifactRecord, object::End};

use super::{
    base,
    words::{self, When},
};
use crate::{asset, query::Typed};

#[derive(Template)]
#[template(path = "list.html")]
struct List<'a> {
    version: &'static str,
    typed: &'a Typed,
    wrong: Option<&'a str>,
    lines: Vec<Line<'a>>,
    zone: String,
    bucket: &'a str,
    /// Query string of the next page.
    older: Option<String>,
    /// Query string of the first page.
    newest: Option<String>,
}

/// One exchange.
struct Line<'a> {
    when: When,
    record: &'a ArtifactRecord,
    status: String,
    class: &'static str,
    duration: String,
    asked: String,
    answered: String,
    ends: Vec<Side<'a>>,
}

/// One end of it.
struct Side<'a> {
    digest: String,
    end: &'static str,
    program: &'a str,
    exe: &'a str,
    pid: u32,
    level: &'static str,
    flaw: Option<&'static str>,
}

/// The page; `older` is where the next one begins, `wrong` what was wrong with the query.
pub(crate) fn list(
    found: &[Row],
    older: Option<u64>,
    typed: &Typed,
    wrong: Option<&str>,
    bucket: &str,
) -> Result<String, String> {
    let mut lines: Vec<Line<'_>> = Vec::with_capacity(found.len());
    let mut known: HashMap<&str, usize> = HashMap::new();
    for Row { record, .. } in found {
        let exchange = record.exchange_id.as_str();
        let seen = known.get(exchange).copied().filter(|_| !exchange.is_empty());
        if let Some(line) =
            seen.and_then(|i| lines.get_mut(i)).filter(|l| l.record.end != record.end && l.ends.len() == 1)
        {
            // The client's end is what the line tells of, and stands first.
            if record.end == End::Client {
                let mut whole = self::line(record);
                whole.ends.append(&mut line.ends);
                *line = whole;
            } else {
                line.ends.push(side(record));
            }
            continue;
        }
        known.insert(exchange, lines.len());
        lines.push(line(record));
    }
    let page = List {
        version: asset::version(),
        typed,
        wrong,
        zone: lines.first().map(|l| l.when.zone.clone()).unwrap_or_default(),
        lines,
        bucket,
        older: older.map(|before| typed.link(Some(before))),
        newest: (!typed.before.is_empty()).then(|| typed.link(None)),
    };
    page.render().map_err(|e| e.to_string())
}

fn line(r: &ArtifactRecord) -> Line<'_> {
    let (asked, answered) = match r.end {
        End::Client => (r.bytes_sent, r.bytes_received),
        End::Server => (r.bytes_received, r.bytes_sent),
    };
    Line {
        when: words::when(r.time_unix_ns),
        record: r,
        status: r.response_status.map_or_else(|| "none".to_owned(), |s| s.to_string()),
        class: words::status_class(r.response_status),
        duration: words::duration(r.duration_ns),
        asked: words::size(asked),
        answered: words::size(answered),
        ends: vec![side(r)],
    }
}

fn side(r: &ArtifactRecord) -> Side<'_> {
    let flaw = if r.error_type.is_some() {
        Some("no whole exchange")
    } else if r.complete {
        None
    } else {
        Some("not complete")
    };
    Side {
        digest: r.digest.to_string(),
        end: r.end.as_str(),
        program: if r.process_exe.is_empty() { "unknown" } else { base(&r.process_exe) },
        exe: &r.process_exe,
        pid: r.process_pid,
        level: r.level.as_str(),
        flaw,
    }
}
