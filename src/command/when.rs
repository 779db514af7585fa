//! Points in time as a user writes them.

use jiff::{Timestamp, civil, tz::TimeZone};

/// Nanoseconds since 1970 of `1h`, `1d12h` (so long ago), of an RFC 3339 time, or of a date with or without a
/// time of day in this host's time zone.
///
/// # Errors
/// A text for the user.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let now = Timestamp::now().as_nanosecond();
    let wrong = || {
        format!("{text:?} is no time: write 90s, 15m, 1h or 2d (so long ago), 2026-01-31, 2026-01-31T09:30 or RFC 3339")
    };
    let at = match ago(text) {
        Some(seconds) => now - i128::from(seconds) * 1_000_000_000,
        None => absolute(text).ok_or_else(wrong)?.as_nanosecond(),
    };
    // What lies before 1970 asks for everything.
    Ok(u64::try_from(at.max(0)).unwrap_or(u64::MAX))
}

/// Seconds of `1d2h3m4s`, in any order, each unit with a number.
fn ago(text: &str) -> Option<u64> {
    let mut seconds = 0u64;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86400,
            b'w' => 7 * 86400,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    Some(seconds)
}

fn absolute(text: &str) -> Option<Timestamp> {
    let local = |at: civil::DateTime| at.to_zoned(TimeZone::system()).ok().map(|z| z.timestamp());
    text.parse()
        .ok()
        .or_else(|| text.parse().ok().and_then(local))
        .or_else(|| text.parse::<civil::Date>().ok().and_then(|d| local(d.at(0, 0, 0, 0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_durations_dates_and_times() {
        let now = || Timestamp::now().as_nanosecond() as u64;
        for (text, seconds) in [("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800)] {
            let before = now();
            let at = parse(text).expect(text);
            assert!((before - seconds * 1_000_000_000..=now() - seconds * 1_000_000_000).contains(&at), "{text}");
        }
        assert_eq!(parse("2026-09-21T14:13:20Z"), Ok(1_790_000_000_000_000_000));
        assert_eq!(parse("2026-09-21T16:13:20+02:00"), Ok(1_790_000_000_000_000_000));
        assert!(parse("2026-09-21").is_ok() && parse("2026-09-21 12:30").is_ok());
        assert_eq!(parse("99999w"), Ok(0), "before 1970");
    }

    #[test]
    fn says_what_it_takes() {
        for bad in ["", "1", "h", "1y", "-1h", "yesterday", "1h x", "99999999999999999999s", "1é"] {
            assert!(parse(bad).is_err_and(|e| e.contains("write 90s")), "{bad}");
        }
    }
}
