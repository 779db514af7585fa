//! Log lines of the commands that run long: to standard error, coloured on a terminal only.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging. `TAPSTACK_LOG` sets what is shown, in the syntax of tracing's filters (`debug`,
/// `agent=trace`, …); `info` without it.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("TAPSTACK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // Fails only when a subscriber is set already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .try_init();
}
