//! What the end-to-end tests are made of: the product as a child process ([`tapstack`]), network namespaces
//! and a relay between them ([`net`], [`relay`]), programs that talk HTTP ([`program`], the binary `peer`),
//! or HTTPS ([`tls`]), and bodies whose every byte can be told from every other ([`content`]).
//!
//! In: the built `tapstack` and `peer`, root, and the Debian packages of README.md. Out: nothing but tests:
//! `tests/kernel` and the benchmarks are the callers.

pub mod content;
pub mod http;
pub mod measure;
pub mod net;
pub mod program;
pub mod relay;
pub mod sys;
pub mod tapstack;
pub mod tls;
pub mod wait;
