//! `tapstack explain`: which TLS libraries a running agent reads, and why the HTTPS of a process is read or not.
//!
//! In: the agent's `/libraries` ([`Report`], which [`super::capture`] renders there), and `/proc/PID` of the process.
//! Out: plain words, or JSON.

mod judgement;
mod report;
mod text;

use std::{net::SocketAddr, process::ExitCode};

use agent::library::Uses;
use clap::{Args, value_parser};
use serde::Serialize;

use super::format::{Look, escaped_json, print};
use judgement::{Judgement, Verdict};
pub(crate) use report::Report;

/// The process has TLS that is not read.
const NOT_READ: u8 = 2;

/// Say which TLS libraries are read, or why the HTTPS of a process is or is not.
#[derive(Args)]
#[command(after_help = "It asks the agent that runs on this host. A process of another user takes sudo.

Exit code with PID: 0 when its HTTPS is read or there is nothing to read, 2 when it has TLS that is not read. \
1 when no agent answers, or there is no such process, or it may not be looked at (a wrong use of the options is 2, too).

Examples:
  tapstack explain
  tapstack explain --verbose            also where each probe is, and why there
  sudo tapstack explain $(pidof -s nginx)
  tapstack explain --json | jq '.libraries[] | select(.state == \"failed\")'")]
pub(crate) struct Explain {
    /// A process; without one, all libraries
    #[arg(value_parser = value_parser!(u32).range(1..))]
    pid: Option<u32>,
    /// Also where each probe is, and why there
    #[arg(short, long)]
    verbose: bool,
    /// JSON instead of words
    #[arg(long)]
    json: bool,
    /// Where the agent listens: its --status-listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3905")]
    status: SocketAddr,
}

impl Explain {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let look = Look::of_stdout();
        let uses = self.pid.map(Uses::of).transpose()?;
        let report = Report::fetch(self.status)?;
        let Some((pid, uses)) = self.pid.zip(uses) else {
            print(if self.json { json(&report, look)? } else { text::libraries(&report, self.verbose) })?;
            return Ok(ExitCode::SUCCESS);
        };
        let judgement = Judgement::new(pid, &uses, &report);
        print(if self.json { json(&judgement, look)? } else { text::process(&judgement, self.verbose) })?;
        Ok(if judgement.verdict == Verdict::NotRead { ExitCode::from(NOT_READ) } else { ExitCode::SUCCESS })
    }
}

fn json(value: &impl Serialize, look: Look) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    Ok(if look.columns.is_some() { escaped_json(&text) } else { text })
}
