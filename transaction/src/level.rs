//! How much of a transaction is kept.

use serde::{Deserialize, Serialize};

/// Capture level of a transaction, from least to most. Names as in `qtap.yaml`; `details` is an old name
/// of `headers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is kept.
    None,
    /// Metadata only: no headers, no bodies.
    #[default]
    Summary,
    /// Metadata and headers.
    #[serde(alias = "details")]
    Headers,
    /// Metadata, headers and bodies.
    Full,
}

impl Level {
    /// The level's name in configuration and objects.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "none",
            Level::Summary => "summary",
            Level::Headers => "headers",
            Level::Full => "full",
        }
    }
}
