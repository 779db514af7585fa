//! Why the gateway could not start or go on. What a client may see is in `answer`, not here.

use std::io;

/// Why [`serve`](crate::serve) or [`serve_ready`](crate::serve_ready) ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener that was handed in has no address.
    #[error("the gateway's listener has no address: {0}. Bind it to an address such as 127.0.0.1:3904")]
    Listener(#[source] io::Error),
    /// The bucket's name cannot stand in an address.
    #[error(
        "{0:?} is no bucket name: 1 to 63 lower-case letters, digits, dots and hyphens, not one of static, healthz"
    )]
    Bucket(String),
    /// The kernel gives no socket to look up users with.
    #[error(
        "cannot look up the users behind connections (NETLINK_SOCK_DIAG): {0}. Allow AF_NETLINK in the unit's RestrictAddressFamilies"
    )]
    SockDiag(#[source] io::Error),
}
