//! What is probed in one file, and why there.
//!
//! In: a file of a process, of which nothing is known. Out: `None` when it has no TLS library in it (nearly always,
//! and fast), else a [`Plan`]. Called by discovery for each new file. Nothing is known of single versions: the
//! symbols say where the exported functions are, a decoder where their arguments and results pass.
//!
//! 32-bit programs and those for another machine have no plan. On x86-64 places are chosen by `place`; on aarch64
//! the exported functions are probed at their entries and their results are read by return probes.

mod arguments;
mod decode;
mod elf;
mod openssl;
mod place;

#[doc(hidden)]
pub mod fuzz;

use std::fmt;
use std::fs::File;

pub use elf::Error as ElfError;

/// What may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Return probes are safe here: the self-test said so.
    pub return_probes: bool,
}

/// Why there is no plan for a file that needs one, or may need one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read, or its tables are damaged.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// It has the functions, but no place was found where a call and its result can be read.
    #[error(
        "SSL_read and SSL_write are defined, but no place was found where both their arguments and their results can \
         be read (fewer are left where return probes are not safe): its TLS plaintext is not captured"
    )]
    NoPlace,
}

/// What is to be probed in `file`; `None` when no TLS library is in it. Reads what it needs, never maps.
pub fn plan(file: &File, options: Options) -> Result<Option<Plan>, Error> {
    openssl::plan(file, options)
}

/// The same for a file in memory.
pub fn plan_bytes(file: &[u8], options: Options) -> Result<Option<Plan>, Error> {
    openssl::plan(file, options)
}

/// A kernel program that a probe runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Program {
    /// A call begins: object, buffer and length are arguments 0, 1 and 2. The cookie says the operation, `INT` and
    /// `OUT` ([`agent_ebpf::role`]).
    Call,
    /// It ends: the result is in the return register. The cookie says the operation and `COUNT`.
    Result,
    /// A handshake goes on: the object is argument 0. No cookie.
    Mark,
    /// The object (argument 0) is given a descriptor (argument 1). No cookie.
    Descriptor,
    /// The object (argument 0) is gone. No cookie.
    Free,
}

impl Program {
    /// Name of the program in the eBPF object.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Program::Call => "tls_call",
            Program::Result => "tls_result",
            Program::Mark => "tls_mark",
            Program::Descriptor => "tls_descriptor",
            Program::Free => "tls_free",
        }
    }
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// What runs there.
    pub program: Program,
    /// Offset in the file.
    pub offset: u64,
    /// At the return of the function that `offset` is in: at its beginning, before the stack pointer has moved.
    pub on_return: bool,
    /// Handed to the program.
    pub cookie: u64,
    /// The exported function that it stands for.
    pub symbol: &'static str,
    /// Where in it and why there, for people.
    pub why: String,
}

/// What is probed in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// `openssl`.
    pub library: &'static str,
    /// What the file says of itself, e.g. `OpenSSL 3.0.19`; empty when it says nothing.
    pub version: String,
    /// The probes, in the order in which they should be attached.
    pub points: Vec<Point>,
}

impl fmt::Display for Plan {
    /// One line a probe.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.points {
            let place = if p.on_return { "return of " } else { "" };
            writeln!(f, "{:<14} {place}{:#x}  {}: {}", p.program.name(), p.offset, p.symbol, p.why)?;
        }
        Ok(())
    }
}
