//! `tapstack tail`: what is captured, as it comes.

use std::{io, path::Path, time::Duration};

use anyhow::Context as _;
use archive::{Error, Filter, Reader, Row};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use transaction::{AccessUrl, Flat as _};

use super::{
    conditions::Conditions,
    data_dir::{DataDir, access_url},
    format::{Look, escaped_json, print, say},
    line,
};

/// How often the archive is asked; it commits every 200 ms.
const BEAT: Duration = Duration::from_millis(100);
/// Rows taken at once, so that Ctrl-C is heard in a flood.
const AT_ONCE: usize = 500;

/// Show transactions as they are captured, one line each.
///
/// Of an exchange inside this host both ends are captured: two lines, marked client and server.
#[derive(Args)]
#[command(after_help = "Examples:
  tapstack tail
  tapstack tail -n 0 --status 4xx,5xx --end server
  tapstack tail --json | jq -r 'select(.duration_ms > 500) | .url'")]
pub(crate) struct Tail {
    #[command(flatten)]
    conditions: Conditions,
    /// Begin with so many of the newest
    #[arg(short = 'n', value_name = "N", default_value_t = 10)]
    lines: usize,
    /// One JSON object a line: the transaction's event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Tail {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let dir = self.data_dir.for_reading()?;
        let filter = Filter { limit: self.lines, ..self.conditions.into_filter() };
        let out = Output { look: Look::of_stdout(), json: self.json, url: access_url(&dir), host: host_name() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(follow(&dir, &filter, out))
    }
}

/// Until a signal, or until nobody reads the output any more.
async fn follow(dir: &Path, filter: &Filter, mut out: Output) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut place: Option<(Reader, u64)> = None;
    let mut waiting = false;
    loop {
        tokio::select! {
            _ = beat.tick() => {}
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        if nobody_reads() {
            return Ok(());
        }
        let Some((reader, position)) = &mut place else {
            match Reader::open(dir) {
                Ok(reader) => {
                    out.url = access_url(dir);
                    // The position first: what comes in between is shown twice by neither.
                    let newest = reader.newest()?;
                    let before = Some(newest.saturating_add(1));
                    let rows = reader.find(&Filter { before, ..filter.clone() })?;
                    // The archive came while this waited: all that is in it is news.
                    let rows = if waiting { Vec::new() } else { rows };
                    out.print(rows.iter().rev())?;
                    place = Some((reader, if waiting { 0 } else { newest }));
                }
                Err(error @ Error::Missing { .. }) => {
                    if !waiting {
                        waiting = true;
                        say(format!("{error} (waiting for it)"));
                    }
                }
                Err(error) => return Err(error.into()),
            }
            continue;
        };
        let rows = match reader.after(*position, AT_ONCE) {
            Ok(rows) => rows,
            // The folder was taken away: its next archive is awaited.
            Err(Error::Missing { .. }) => {
                place = None;
                waiting = true;
                continue;
            }
            Err(error) => return Err(error).context("cannot follow the archive"),
        };
        let Some(last) = rows.last() else {
            // An archive that was begun anew counts from 1 again.
            if reader.newest().is_ok_and(|newest| newest < *position) {
                *position = 0;
            }
            continue;
        };
        *position = last.position;
        out.print(rows.iter().filter(|row| filter.matches(&row.record)))?;
        if rows.len() == AT_ONCE {
            beat.reset_immediately();
        }
    }
}

/// How rows are printed.
struct Output {
    look: Look,
    json: bool,
    url: AccessUrl,
    host: String,
}

impl Output {
    fn print<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> io::Result<()> {
        let mut text = String::new();
        for row in rows {
            if self.json {
                let event = row.record.to_event(&self.url.of(&row.record.digest), &self.host).to_json();
                let event = String::from_utf8_lossy(&event);
                text += &if self.look.columns.is_some() { escaped_json(&event) } else { event.into_owned() };
            } else {
                text += &line::line(&row.record, self.look);
            }
            text.push('\n');
        }
        print(text)
    }
}

/// Whether the other end of standard output's pipe was closed: noticed also while there is nothing to print.
fn nobody_reads() -> bool {
    let mut stdout = libc::pollfd { fd: libc::STDOUT_FILENO, events: 0, revents: 0 };
    // SAFETY: one descriptor is described, and the kernel writes only its `revents`.
    let ready = unsafe { libc::poll(&raw mut stdout, 1, 0) };
    ready > 0 && stdout.revents & libc::POLLERR != 0
}

/// This host's name: the archive holds what this host has captured.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
