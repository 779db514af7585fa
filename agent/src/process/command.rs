//! Arguments: split, cut, made text.

/// Arguments kept of one process.
const MAX_ARGS: usize = 32;
/// Bytes kept of one argument.
const MAX_ARG: usize = 256;
/// Bytes of `/proc/PID/cmdline` that can matter; an argument longer than this hides the later ones.
pub(super) const MAX_READ: usize = 64 << 10;

/// Splits a NUL-separated argument area. Bytes that are no UTF-8 are replaced. What is cut, be it the end of
/// an argument or the arguments after the last one kept, leaves `…`.
pub(super) fn split(area: &[u8]) -> Vec<String> {
    let area = area.strip_suffix(b"\0").unwrap_or(area);
    // A process may overwrite its area with a title and pad it with NULs (setproctitle).
    let Some(last) = area.iter().rposition(|byte| *byte != 0) else {
        return Vec::new();
    };
    let mut parts = area[..=last].split(|byte| *byte == 0);
    let mut args: Vec<String> = parts.by_ref().take(MAX_ARGS).map(text).collect();
    if parts.next().is_some() {
        args.push("…".to_owned());
    }
    args
}

fn text(arg: &[u8]) -> String {
    if arg.len() <= MAX_ARG {
        return String::from_utf8_lossy(arg).into_owned();
    }
    // Not inside a character: its continuation bytes are 10xxxxxx.
    let mut end = MAX_ARG;
    while end > MAX_ARG - 4 && arg[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    format!("{}…", String::from_utf8_lossy(&arg[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_split_at_nul() {
        assert_eq!(split(b"curl\0-d\0\0http://x/\0"), ["curl", "-d", "", "http://x/"]);
        assert_eq!(split(b"cut off he"), ["cut off he"]);
        assert_eq!(split(b"nginx: worker process\0\0\0\0\0"), ["nginx: worker process"]);
        assert_eq!(split(b"a\nb (c)\0"), ["a\nb (c)"]);
        assert!(split(b"").is_empty());
        assert!(split(b"\0\0\0").is_empty());
    }

    #[test]
    fn long_and_many_arguments_are_cut_and_say_so() {
        let long = "é".repeat(200);
        let args = split(format!("x\0a{long}\0").as_bytes());
        assert_eq!(args[1], format!("a{}…", "é".repeat(127)));
        assert_eq!(split(&[b'x'; MAX_ARG]), ["x".repeat(MAX_ARG)]);

        let args = split("arg\0".repeat(40).as_bytes());
        assert_eq!((args.len(), args[31].as_str(), args[32].as_str()), (33, "arg", "…"));
        assert_eq!(split("arg\0".repeat(32).as_bytes()).len(), 32);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(split(b"\xff\xfe\0ok\0"), ["\u{fffd}\u{fffd}", "ok"]);
        assert_eq!(split(&[0x80; 300])[0].chars().last(), Some('…'));
    }
}
