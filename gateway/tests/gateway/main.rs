//! The gateway over real TCP, with a real archive in a temporary folder: what a client may rely on, and what a
//! hostile client, page or captured byte cannot do.

mod access;
mod client;
mod export;
mod limits;
mod list;
mod object;
mod page;
mod ready;
mod refusal;
mod running;
#[path = "../common/sample.rs"]
mod sample;
