//! `tapstack completions`: what a shell needs to complete the command line.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

/// Print the completions of a shell.
#[derive(Args)]
#[command(after_help = "Examples:
  tapstack completions bash > /etc/bash_completion.d/tapstack
  tapstack completions zsh > \"${fpath[1]}/_tapstack\"
  tapstack completions fish > ~/.config/fish/completions/tapstack.fish")]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut super::CommandLine::command(), "tapstack", &mut text);
        std::io::stdout().write_all(&text)?;
        Ok(())
    }
}
