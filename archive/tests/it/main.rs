//! Tests of the archive as its users see it: through the public interface, with real files and processes.

mod common;
mod limits;
mod opening;
mod round_trip;
mod search;

use std::path::Path;

use archive::{Archive, Entry, Options};
use transaction::Sealed;

/// Opens an archive with the default options.
fn open(dir: &Path) -> Archive {
    Archive::open(dir, Options::default()).expect("the archive opens")
}

/// Appends a transaction.
fn append(archive: &Archive, sealed: &Sealed) {
    archive.append(Entry::Transaction(sealed.clone())).expect("the queue has room");
}
