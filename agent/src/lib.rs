//! The capture agent: kernel records in, transactions in the archive out.
//!
//! The way of the data, and the only way: `probe → connection/flow → http → capture → archive`. A room knows
//! the one before it by its output type only; `pipeline` alone knows all of them.

pub mod capture;
pub mod connection;
pub mod flow;
pub mod http;
pub mod library;
pub mod pipeline;
pub mod probe;
pub mod process;
