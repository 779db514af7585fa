//! Figures and findings in words for people: durations, sizes, times, and what is missing of a message.
//! Pure; used by the pages.

use jiff::{Timestamp, tz::TimeZone};
use transaction::{
    Transaction,
    object::{Completeness, Seen},
};

/// A duration with three figures: `840 ns`, `12.3 µs`, `4.56 ms`, `1.20 s`, `3 min 5 s`.
pub(crate) fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        1_000_000_000..60_000_000_000 => (ns as f64 / 1e9, "s"),
        _ => {
            let seconds = ns / 1_000_000_000;
            return format!("{} min {} s", seconds / 60, seconds % 60);
        }
    };
    format!("{} {unit}", three_figures(value))
}

/// A size: `532 B`, `1.23 KiB`, `4.00 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", three_figures(kib)),
        1_048_576..1_073_741_824 => format!("{} MiB", three_figures(kib / 1024.0)),
        _ => format!("{} GiB", three_figures(kib / 1_048_576.0)),
    }
}

fn three_figures(value: f64) -> String {
    let decimals = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A number with thin groups of three, e.g. `1 234 567` (narrow no-break spaces).
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A time in the gateway's own time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct When {
    /// `2026-11-21`.
    pub(crate) date: String,
    /// `11:24:57.123`.
    pub(crate) clock: String,
    /// `+01:00` or `UTC`.
    pub(crate) zone: String,
    /// RFC 3339, for machines.
    pub(crate) exact: String,
}

/// When `unix_ns` was, in the zone of this machine.
pub(crate) fn when(unix_ns: u64) -> When {
    when_in(unix_ns, &TimeZone::system())
}

fn when_in(unix_ns: u64, zone: &TimeZone) -> When {
    let at = Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let offset = local.strftime("%:z").to_string();
    When {
        date: local.strftime("%Y-%m-%d").to_string(),
        clock: local.strftime("%H:%M:%S.%3f").to_string(),
        zone: if offset == "+00:00" { "UTC".to_owned() } else { offset },
        exact: at.to_string(),
    }
}

/// The class of a status for its colour: `s2` … `s5`, or `s0` when there was none.
pub(crate) fn status_class(status: Option<u16>) -> &'static str {
    match status {
        Some(100..=199) => "s1",
        Some(200..=299) => "s2",
        Some(300..=399) => "s3",
        Some(400..=499) => "s4",
        Some(500..=599) => "s5",
        _ => "s0",
    }
}

/// What is missing, one sentence each; nothing when nothing is.
pub(crate) fn missing(t: &Transaction) -> Vec<String> {
    let c: &Completeness = &t.completeness;
    let mut list = Vec::new();
    if let Some(error) = &t.error_type {
        list.push(format!("There is no whole exchange: {error}."));
    }
    side("request", &c.request, t.request.is_some(), &mut list);
    side("response", &c.response, t.response.is_some(), &mut list);
    list.extend(c.notes.iter().map(|note| format!("Noted: {note}.")));
    if !c.complete && list.is_empty() {
        list.push("Not everything was seen.".to_owned());
    }
    list
}

fn side(name: &str, seen: &Seen, present: bool, list: &mut Vec<String>) {
    if !present {
        list.push(format!("No {name} was seen."));
        return;
    }
    if seen.end == "cut" {
        list.push(format!("The end of the {name} was not seen."));
    }
    for gap in &seen.gaps {
        let cause = match gap.cause.as_str() {
            "ring" => "the kernel's buffer was full",
            "cap" => "over the kernel's copy limit",
            "memory" => "no memory was left for bodies",
            "unseen" => "they never passed the capture point",
            other => other,
        };
        list.push(format!(
            "{} bytes of the {name} are missing from offset {}: {cause}.",
            grouped(gap.bytes),
            grouped(gap.offset)
        ));
    }
    for cause in &seen.truncated {
        let kept =
            format!("{} of {} body bytes of the {name} are kept", grouped(seen.kept_bytes), grouped(seen.body_bytes));
        list.push(match cause.as_str() {
            "limit" => format!("{kept}: the rest is over the limit."),
            "memory" => format!("{kept}: no memory was left for bodies."),
            "level" => format!("The body of the {name} ({}) was not kept at this level.", size(seen.body_bytes)),
            "undecodable" => format!("The body of the {name} was not kept: it could not be decoded, so nor redacted."),
            "gap" => format!("{kept}: the rest lies behind missing bytes."),
            other => format!("{kept}: {other}."),
        });
    }
}

#[cfg(test)]
mod tests {
    use transaction::object::{Gap, Request, Response};

    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (12_345, "12.3 µs"),
            (999_499, "999 µs"),
            (4_560_000, "4.56 ms"),
            (9_999_000, "10.0 ms"),
            (1_200_000_000, "1.20 s"),
            (185_000_000_000, "3 min 5 s"),
        ] {
            assert_eq!(duration(ns), text);
        }
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (5 << 20, "5.00 MiB"), (1 << 31, "2.00 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((grouped(0), grouped(999)), ("0".to_owned(), "999".to_owned()));
    }

    #[test]
    fn a_time_stands_in_its_zone() {
        let ns = 1_790_000_000_123_456_789;
        let utc = when_in(ns, &TimeZone::UTC);
        assert_eq!((utc.date.as_str(), utc.clock.as_str(), utc.zone.as_str()), ("2026-09-21", "14:13:20.123", "UTC"));
        assert_eq!(utc.exact, "2026-09-21T14:13:20.123456789Z");
        let east = when_in(ns, &TimeZone::fixed(jiff::tz::offset(2)));
        assert_eq!((east.clock.as_str(), east.zone.as_str()), ("16:13:20.123", "+02:00"));
        when(u64::MAX);
    }

    #[test]
    fn what_is_missing_is_said_and_nothing_else() {
        let mut t = Transaction {
            request: Some(Request::default()),
            response: Some(Response::default()),
            ..Transaction::default()
        };
        t.completeness.complete = true;
        assert_eq!(missing(&t), Vec::<String>::new());
        t.completeness.complete = false;
        assert_eq!(missing(&t), ["Not everything was seen."]);
        t.response = None;
        t.error_type = Some("timeout".to_owned());
        t.completeness.request.gaps.push(Gap { offset: 4096, bytes: 12_000, cause: "ring".to_owned() });
        assert_eq!(
            missing(&t),
            [
                "There is no whole exchange: timeout.",
                "12\u{202f}000 bytes of the request are missing from offset 4\u{202f}096: the kernel's buffer was full.",
                "No response was seen."
            ]
        );
    }
}
