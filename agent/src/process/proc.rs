//! Files of `/proc/PID`, read whole, bounded, and parsed without trust.

use std::fs::File;
use std::io::{self, Read};

/// What `/proc/PID/stat` says about identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 4.
    pub(crate) parent: u32,
    /// Field 22: start in clock ticks since boot.
    pub(crate) start_ticks: u64,
}

/// Reads at most `limit` bytes of `/proc/PID/NAME`.
pub(crate) fn read(pid: u32, name: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{name}"))?.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Identity of a live process; `None` when there is none of that pid.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&read(pid, "stat", 4096).ok()?)
}

/// The name in field 2 is in parentheses and may itself hold parentheses, spaces and line feeds: the fields
/// after it begin behind the last `)` (`proc_pid_stat(5)`).
pub(crate) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(bytes.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, start_ticks })
}

/// Effective user id from `/proc/PID/status`. The kernel escapes line feeds in `Name:`, so no process can
/// write a line of its own there.
pub(crate) fn parse_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Path of the executable, without the mark of a file that was deleted since. `None` for kernel threads and
/// for processes that may not be looked at.
pub(crate) fn exe(pid: u32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let path = path.to_string_lossy();
    Some(path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned())
}

/// All process ids, in no order.
pub(crate) fn pids() -> io::Result<impl Iterator<Item = u32>> {
    Ok(std::fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str) -> String {
        format!("42 ({name}) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1000 200 18446744073709551615")
    }

    #[test]
    fn names_cannot_shift_the_fields() {
        for name in ["cat", "a b", "a) S 1 2 3", "(((", ")))", "x\ny", "", "é"] {
            let expected = Some(Stat { parent: 7, start_ticks: 123_456 });
            assert_eq!(parse_stat(line(name).as_bytes()), expected, "{name:?}");
        }
    }

    #[test]
    fn cut_or_foreign_stat_lines_are_none() {
        let whole = line("cat");
        // Shorter than the start time's field.
        for len in 0..whole.find("123456").unwrap() {
            assert_eq!(parse_stat(&whole.as_bytes()[..len]), None, "{len}");
        }
        assert_eq!(parse_stat(b"no parenthesis"), None);
        assert_eq!(parse_stat(b"1 (x) S -5 1"), None);
        assert_eq!(parse_stat(b"1 (x) \xff\xff"), None);
    }

    #[test]
    fn the_effective_user_is_read() {
        assert_eq!(parse_uid(b"Name:\ta\\nUid:\t0\nUmask:\t0022\nUid:\t1000\t1001\t1002\t1003\n"), Some(1001));
        assert_eq!(parse_uid(b"Name:\tx\n"), None);
        assert_eq!(parse_uid(b"Uid:\t1000\tx\n"), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = std::process::id();
        assert!(pids().unwrap().any(|pid| pid == me));
        assert_eq!(stat(me).unwrap().parent, std::os::unix::process::parent_id());
        assert_eq!(exe(me).unwrap(), std::env::current_exe().unwrap().to_str().unwrap());
        assert_eq!(stat(u32::MAX), None);
    }
}
