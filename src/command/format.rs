//! Values as a person reads them at a terminal: durations, sizes, times, colours, and captured text made
//! harmless.

use std::{
    fmt::{self, Write as _},
    io::{IsTerminal as _, Write},
};

use jiff::{Timestamp, tz::TimeZone};

/// Captured text for a terminal: control characters, which could move the cursor, change the title or answer
/// in the user's name, and the characters that turn the direction of writing, are shown as `\u{1b}`.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_harmful(c) { write!(f, "{}", c.escape_unicode())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Whether a terminal would act on a character instead of showing it: C0, DEL and C1 controls; line and
/// paragraph separator; the bidirectional controls of Unicode's UAX 9.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON for a terminal: what is harmful outside of ASCII is written as JSON's own escape, which means the same.
pub(crate) fn escaped_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // The line feeds between members are the layout; JSON has none inside of its strings.
        if is_harmful(c) && c != '\n' {
            // All harmful characters are in the first plane: four digits. Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// Nanoseconds as `850µs`, `12.3ms`, `4.56s`, `2m05s`.
pub(crate) fn duration(ns: u64) -> String {
    let (us, ms) = (ns as f64 / 1e3, ns as f64 / 1e6);
    match ns {
        0..999_500 => format!("{us:.0}µs"),
        999_500..9_995_000 => format!("{ms:.2}ms"),
        9_995_000..99_950_000 => format!("{ms:.1}ms"),
        99_950_000..999_500_000 => format!("{ms:.0}ms"),
        999_500_000..59_995_000_000 => format!("{:.2}s", ms / 1e3),
        _ => {
            let seconds = (ns + 500_000_000) / 1_000_000_000;
            format!("{}m{:02}s", seconds / 60, seconds % 60)
        }
    }
}

/// Bytes as `512B`, `1.5kB`, `23MB` (powers of 1,000).
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if value < 999.5 || unit == "TB" {
            let decimals = usize::from(unit != "B" && value < 9.95);
            return format!("{value:.decimals$}{unit}");
        }
        value /= 1000.0;
    }
    format!("{bytes}B")
}

/// Nanoseconds since 1970 in this host's zone, in 12 columns: `12:03:45.123` today, `01-31 12:03` on another day.
pub(crate) fn clock(unix_ns: u64) -> String {
    if is_today(unix_ns) { zoned(unix_ns, "%H:%M:%S%.3f") } else { zoned(unix_ns, "%m-%d %H:%M ") }
}

/// The same in 8 columns: `12:03:45` today, `01-31` on another day.
pub(crate) fn time_of_day(unix_ns: u64) -> String {
    if is_today(unix_ns) { zoned(unix_ns, "%H:%M:%S") } else { zoned(unix_ns, "%m-%d   ") }
}

fn is_today(unix_ns: u64) -> bool {
    let now = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(0);
    zoned(unix_ns, "%F") == zoned(now, "%F")
}

/// Nanoseconds since 1970 as date and time in this host's zone: `2026-01-31 12:03:45.123 +01:00`.
pub(crate) fn date_and_clock(unix_ns: u64) -> String {
    zoned(unix_ns, "%F %H:%M:%S%.3f %:z")
}

fn zoned(unix_ns: u64, format: &str) -> String {
    let at = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    at.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// What the output can show.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    /// Colours are wanted.
    pub(crate) colours: bool,
    /// A person looks at a terminal with so many columns; `None`: another program reads.
    pub(crate) columns: Option<usize>,
}

impl Look {
    /// Of standard output. `NO_COLOR` with any text takes the colours away (<https://no-color.org>).
    pub(crate) fn of_stdout() -> Look {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return Look { colours: false, columns: None };
        }
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        let columns = terminal_size::terminal_size_of(&stdout).map_or(80, |(width, _)| usize::from(width.0));
        Look { colours: !no_colour && !dumb, columns: Some(columns) }
    }

    /// A text in a colour, when there are colours.
    pub(crate) fn paint(self, colour: Colour, text: &str) -> String {
        if self.colours && !text.is_empty() { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}

/// Colours as SGR parameters (ECMA-48 8.3.117): the terminal's own palette, so that they fit its background.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Colour {
    Bold = 1,
    Faint = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
    Magenta = 35,
    Cyan = 36,
}

/// The colour of a status by its class; none at all is the one to look at.
pub(crate) fn of_status(status: Option<u16>) -> Colour {
    match status.map(|s| s / 100) {
        Some(1 | 2) => Colour::Green,
        Some(3) => Colour::Cyan,
        Some(4) => Colour::Yellow,
        Some(_) => Colour::Red,
        None => Colour::Magenta,
    }
}

/// Writes a text to standard output in one piece, so that lines do not mix with those of others.
pub(crate) fn print(text: impl AsRef<[u8]>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// Says something beside the output, in one line on standard error. Where that is gone nobody is left to tell.
pub(crate) fn say(text: impl fmt::Display) {
    let line = format!("tapstack: {}\n", Escaped(&text.to_string()));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_acts_on_comes_through() {
        let hostile = "a\x1b]0;title\x07b\u{9b}31m\r\n\t\x7f\u{202e}c";
        let text = Escaped(hostile).to_string();
        assert_eq!(text, "a\\u{1b}]0;title\\u{7}b\\u{9b}31m\\u{d}\\u{a}\\u{9}\\u{7f}\\u{202e}c");
        assert_eq!(Escaped("/straße?q=日本").to_string(), "/straße?q=日本");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let value = serde_json::json!({"a": "\u{9b}31m\x7f\u{202e}\x1b\n"});
        let text = escaped_json(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert!(text.chars().all(|c| c == '\n' || !is_harmful(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn durations_and_sizes_have_three_digits() {
        for (ns, text) in [
            (0, "0µs"),
            (850_400, "850µs"),
            (999_999, "1.00ms"),
            (12_345_678, "12.3ms"),
            (999_499_999, "999ms"),
            (999_600_000, "1.00s"),
            (59_999_000_000, "1m00s"),
            (125_000_000_000, "2m05s"),
        ] {
            assert_eq!(duration(ns), text);
        }
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.0kB"),
            (1499, "1.5kB"),
            (23_400, "23kB"),
            (999_999, "1.0MB"),
            (u64::MAX, "18446744TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
