//! `tapstack`: the command line. Parses the arguments and hands over to one file a subcommand; an error is one
//! line on standard error that says what to do.

mod command;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let line = command::CommandLine::parse();
    match line.run() {
        Ok(code) => code,
        // Who reads has read enough (`tapstack find | head`): that is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            command::format::say(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is = |e: &std::io::Error| e.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().any(|e| e.downcast_ref::<std::io::Error>().is_some_and(is))
}
