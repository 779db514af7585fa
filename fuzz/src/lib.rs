//! The rooms under test, taken by their path: `agent` as a whole brings SQLite and the kernel side's build,
//! which neither need a sanitizer nor should be built with its flags. These rooms are pure.

#[path = "../../agent/src/flow/mod.rs"]
pub mod flow;
#[path = "../../agent/src/http/mod.rs"]
pub mod http;
#[path = "../../agent/src/connection/tls/mod.rs"]
pub mod tls;
#[path = "../../agent/src/library/plan/mod.rs"]
pub mod plan;
