//! The plain conditions that `find` and `tail` take.

use archive::{Filter, StatusFilter};
use clap::{Args, ValueEnum};
use transaction::object;

/// Conditions on a transaction; all that are given must hold.
#[derive(Args)]
#[command(next_help_heading = "Conditions")]
pub(crate) struct Conditions {
    /// Host, with or without port; `*` stands for any text
    #[arg(long)]
    host: Option<String>,
    /// Beginning of the path; with a `*` (any text) the whole path
    #[arg(long)]
    path: Option<String>,
    /// Method
    #[arg(long)]
    method: Option<String>,
    /// Status: 404, 5xx, 400-499 or none (no response), several with commas
    #[arg(long)]
    status: Option<StatusFilter>,
    /// Executable: its name, the end of its path, or a pattern with `*`
    #[arg(long)]
    exe: Option<String>,
    /// Process id
    #[arg(long)]
    pid: Option<u32>,
    /// Only the end that asked or the one that answered: of an exchange inside this host both are kept
    #[arg(long)]
    end: Option<End>,
    /// Identifier of a connection, as `show` prints it
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// Identifier of an exchange: the same at both of its ends
    #[arg(long, value_name = "ID")]
    exchange: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum End {
    Client,
    Server,
}

impl Conditions {
    /// The archive's filter of these conditions.
    pub(crate) fn into_filter(self) -> Filter {
        Filter {
            host: self.host,
            path: self.path,
            method: self.method,
            status: self.status,
            exe: self.exe,
            pid: self.pid,
            end: self.end.map(|end| match end {
                End::Client => object::End::Client,
                End::Server => object::End::Server,
            }),
            connection_id: self.connection,
            exchange_id: self.exchange,
            ..Filter::default()
        }
    }
}
