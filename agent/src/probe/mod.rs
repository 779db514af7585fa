//! Being written.

pub mod btf;
pub mod cgroup;
