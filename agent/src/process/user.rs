//! User names from `/etc/passwd`, read again when it changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

/// How long an answer may be old.
const FRESH: Duration = Duration::from_secs(10);
/// More of the file is not read.
const MAX_BYTES: u64 = 4 << 20;

/// The host's users. Only the file: asking the C library could go to a directory server and block.
#[derive(Debug)]
pub(super) struct Users {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    names: HashMap<u32, String>,
    /// Time of the file's last change when it was read.
    changed: Option<SystemTime>,
    checked: Option<Instant>,
}

impl Users {
    pub(super) fn new(path: PathBuf) -> Self {
        Users { path, state: Mutex::default() }
    }

    /// The name, or the number as text where the file has none.
    pub(super) fn name(&self, uid: u32) -> String {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.checked.is_none_or(|checked| checked.elapsed() >= FRESH) {
            state.checked = Some(Instant::now());
            self.refresh(&mut state);
        }
        state.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }

    /// A file that cannot be read leaves the names that are known.
    fn refresh(&self, state: &mut State) {
        let Ok(file) = File::open(&self.path) else { return };
        let changed = file.metadata().and_then(|about| about.modified()).ok();
        if changed.is_some() && changed == state.changed {
            return;
        }
        let mut bytes = Vec::new();
        if file.take(MAX_BYTES).read_to_end(&mut bytes).is_ok() {
            state.names = parse(&bytes);
            state.changed = changed;
        }
    }
}

/// `name:password:uid:…` a line (`passwd(5)`). The first name of a number counts, as in the C library.
fn parse(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        let uid = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok());
        if let (false, Some(uid)) = (name.is_empty(), uid) {
            names.entry(uid).or_insert_with(|| String::from_utf8_lossy(name).into_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_users_are_passed_over() {
        let names = parse(
            b"root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n# comment\n:x:5:\nx:x:notanumber:1\n\nal:x:1000:1:\n",
        );
        assert_eq!(names.len(), 2);
        assert_eq!((names[&0].as_str(), names[&1000].as_str()), ("root", "al"));
    }

    #[test]
    fn a_number_without_a_name_stays_a_number() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "www-data:x:33:33::/:\n").unwrap();
        let users = Users::new(file.path().to_owned());
        assert_eq!(users.name(33), "www-data");
        assert_eq!(users.name(34), "34");
        assert_eq!(Users::new("/nonexistent/passwd".into()).name(0), "0");
    }
}
