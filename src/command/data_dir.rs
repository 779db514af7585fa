//! Where the archive is: the same folder for every command, so that `tapstack tail` finds what `tapstack up`
//! writes without being told.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::Args;
use transaction::AccessUrl;

/// Where root keeps the archive.
const OF_ROOT: &str = "/var/lib/tapstack";
/// File in the folder that says where objects can be opened.
const ACCESS_URL: &str = "access_url";
/// Where they can be opened when nobody has said otherwise: the gateway's default address and bucket.
const DEFAULT_ACCESS_URL: &str = "http://127.0.0.1:3904/qpoint/{{DIGEST}}";

/// The option that all commands share.
#[derive(Args, Debug)]
pub(crate) struct DataDir {
    /// Folder of the archive [default: /var/lib/tapstack for root, else ~/.local/state/tapstack]
    #[arg(long, value_name = "DIR", env = "TAPSTACK_DATA_DIR", hide_env_values = true)]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    /// The folder that this user's `up` and `agent` write to.
    pub(crate) fn for_writing(&self) -> anyhow::Result<PathBuf> {
        self.data_dir.clone().map_or_else(own, Ok)
    }

    /// The folder to read: the user's own archive, or root's when there is only that one.
    pub(crate) fn for_reading(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.data_dir {
            return Ok(dir.clone());
        }
        let own = own()?;
        let root = Path::new(OF_ROOT);
        // A folder that may not be looked into is named all the same: opening it then says how to get access.
        let forbidden = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        let there = |dir: &Path| fs::metadata(dir.join("archive.db")).map_or_else(|e| forbidden(&e), |_| true);
        Ok(if !there(&own) && there(root) { root.to_owned() } else { own })
    }
}

/// The folder of the user who runs this.
fn own() -> anyhow::Result<PathBuf> {
    // The owner of /proc/self is the effective user (proc(5)).
    if fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0) {
        return Ok(PathBuf::from(OF_ROOT));
    }
    let variable = |name: &str| std::env::var_os(name).filter(|v| Path::new(v).is_absolute()).map(PathBuf::from);
    // The XDG base directory specification: what is no absolute path is to be ignored.
    variable("XDG_STATE_HOME")
        .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("tapstack"))
        .context("HOME is not set, so there is no default folder for the archive: name one with --data-dir")
}

/// Where the objects of the archive in `dir` can be opened: what its writer has left there, or the default.
pub(crate) fn access_url(dir: &Path) -> AccessUrl {
    let template = fs::read_to_string(dir.join(ACCESS_URL)).unwrap_or_default();
    let template = template.trim();
    AccessUrl::new(if template.is_empty() { DEFAULT_ACCESS_URL } else { template }, "", "", "")
}

/// Leaves for the other commands where the objects of the archive in `dir` can be opened; `template` as for
/// [`AccessUrl`], with everything but `{{DIGEST}}` filled in. Called by `up` when its gateway listens.
pub(crate) fn leave_access_url(dir: &Path, template: &str) -> io::Result<()> {
    fs::write(dir.join(ACCESS_URL), format!("{template}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_that_was_named_is_used() {
        let named = DataDir { data_dir: Some(PathBuf::from("/x/y")) };
        assert_eq!(named.for_reading().expect("a folder"), Path::new("/x/y"));
        assert_eq!(named.for_writing().expect("a folder"), Path::new("/x/y"));
    }

    #[test]
    fn other_commands_learn_where_objects_can_be_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        let digest = transaction::Digest::of(b"");
        assert_eq!(access_url(dir.path()).of(&digest), format!("http://127.0.0.1:3904/qpoint/{digest}"));
        leave_access_url(dir.path(), "http://[::1]:9/b/{{DIGEST}}").expect("it is written");
        assert_eq!(access_url(dir.path()).of(&digest), format!("http://[::1]:9/b/{digest}"));
    }
}
