//! `tapstack find`: transactions of the archive by plain conditions, newest first.

use std::fmt::Write as _;

use archive::{Filter, Reader};
use clap::Args;
use transaction::Flat as _;

use super::{
    conditions::Conditions,
    data_dir::{DataDir, access_url},
    format::{Look, escaped_json, print, say},
    line, tail, when,
};

/// Search the archive, newest first.
#[derive(Args)]
#[command(after_help = "Examples:
  tapstack find --status 5xx --since 1h
  tapstack find --host '*.example.com' --path /api/ --method POST
  tapstack find --exe curl --limit 1000 --json | jq .url
  tapstack find --since 2026-01-31T09:00 --until 2026-01-31T10:00

Times of day are those of this host. The digest in the second column is what `show` takes.")]
pub(crate) struct Find {
    #[command(flatten)]
    conditions: Conditions,
    /// Begun at this time or later: 15m, 1h, 2d (so long ago), a date, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = when::parse, help_heading = "Conditions")]
    since: Option<u64>,
    /// Begun before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse, help_heading = "Conditions")]
    until: Option<u64>,
    /// Most transactions to show
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
    /// One JSON object a line: the transaction's event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Find {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let dir = self.data_dir.for_reading()?;
        let reader = Reader::open(&dir)?;
        let filter = Filter {
            since_unix_ns: self.since,
            until_unix_ns: self.until,
            limit: self.limit,
            ..self.conditions.into_filter()
        };
        let rows = reader.find(&filter)?;
        let look = Look::of_stdout();
        if rows.is_empty() {
            say(format!("nothing in {} fits", dir.display()));
            return Ok(());
        }
        let mut text = String::new();
        if self.json {
            let (url, host) = (access_url(&dir), tail::host_name());
            for row in &rows {
                let event = row.record.to_event(&url.of(&row.record.digest), &host).to_json();
                let event = String::from_utf8_lossy(&event);
                text += &if look.columns.is_some() { escaped_json(&event) } else { event.into_owned() };
                text.push('\n');
            }
        } else {
            text = line::heading(look);
            for row in &rows {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "{}", line::line(&row.record, look));
            }
        }
        print(text)?;
        if rows.len() == self.limit && look.columns.is_some() {
            say(format!("the newest {} are shown; --limit shows more", self.limit));
        }
        Ok(())
    }
}
