//! The subcommands: one file each, and what they share.
//!
//! A subcommand is a struct of its arguments with `run(self) -> anyhow::Result<()>`, or `Result<ExitCode>` where its
//! success says more than one thing. To add one: its file here, a `mod` line, a variant of [`Command`] and its line
//! in [`CommandLine::run`].

pub(crate) mod format;

mod agent;
mod capture;
mod completions;
mod conditions;
mod data_dir;
mod explain;
mod find;
mod line;
mod logging;
mod replay;
mod show;
mod tail;
mod up;
mod when;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Captures the HTTP traffic of this host in the kernel and keeps it inside your own infrastructure.
#[derive(Parser)]
#[command(
    name = "tapstack",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    after_help = "Examples:
  tapstack tail                        what is happening now
  tapstack find --status 5xx --since 1h
  tapstack show 3f9a1c                 one transaction, by the beginning of its digest
  tapstack show --curl 3f9a1c          its request as a shell command
  tapstack explain 1234                why the HTTPS of process 1234 is or is not read"
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Agent(agent::Agent),
    Replay(replay::Replay),
    Tail(tail::Tail),
    Find(find::Find),
    Show(show::Show),
    Explain(explain::Explain),
    Completions(completions::Completions),
}

impl CommandLine {
    /// Runs the command; an error is for standard error and exit code 1.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Up(up) => up.run(),
            Command::Agent(agent) => agent.run(),
            Command::Replay(replay) => replay.run(),
            Command::Tail(tail) => tail.run(),
            Command::Find(find) => find.run(),
            Command::Show(show) => show.run(),
            Command::Explain(explain) => return explain.run(),
            Command::Completions(completions) => completions.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
