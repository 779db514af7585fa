//! TLS libraries in the processes of this host: found, taken apart to see where their plaintext passes, and
//! probed there.
//!
//! In: the host's mappings and folders. Out: probes attached to the kernel programs `tls_call`, `tls_result`,
//! `tls_mark`, `tls_descriptor` and `tls_free`, and for each file a [`Plan`] that says where and why.

mod discover;
mod file;
mod guard;
mod lease;
mod mappings;
mod overlay;
mod plan;
mod registry;
mod roots;
mod search;
mod sideband;
mod status;
mod uses;
mod watch;

pub use discover::{Libraries, Planner, Settings};
#[doc(hidden)]
pub use plan::fuzz as plan_fuzz;
pub use plan::{ElfError, Error, Options, Plan, Point, Program, plan, plan_bytes};
pub use status::{Found, State, Status};
pub use uses::{Mapped, NotSeen, Uses};
