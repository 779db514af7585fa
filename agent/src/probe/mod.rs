//! The kernel side seen from user space: loads and attaches the programs, sets their settings, drains their
//! rings, and reads their counters; records what came, and plays it back.
//!
//! In: nothing but the running kernel (or a recording). Out: [`Record`]s, to `pipeline`.

pub mod btf;
pub mod cgroup;
pub(crate) mod code;
pub mod kernel;
pub(crate) mod multi;
pub(crate) mod perf;
pub mod record;
pub mod recording;
pub mod returns;
pub mod uprobe;

pub use kernel::{Error, Kernel, Options};
pub use record::Record;
