//! Points in time as text: RFC 3339, UTC, nine digits after the second. Used for every time in objects and
//! events, so that times of one length sort as text.

use std::fmt::Write as _;

/// RFC 3339 in UTC with nanoseconds, of `unix_ns` nanoseconds since 1970.
#[must_use]
pub fn rfc3339(unix_ns: u64) -> String {
    let mut text = String::with_capacity(30);
    // u64 nanoseconds end in the year 2554, well inside of what jiff can say.
    let at = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(text, "{at:.9}");
    text
}

/// The other way: nanoseconds since 1970 of an RFC 3339 text; `None` when it is no time or lies before 1970.
#[must_use]
pub fn unix_ns(text: &str) -> Option<u64> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_nanosecond()).ok()
}

/// Nanoseconds as milliseconds, rounded to microseconds: a number with at most three decimals.
#[must_use]
pub fn millis(ns: u64) -> f64 {
    (ns / 1000 + u64::from(ns % 1000 >= 500)) as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_nine_digits_and_reads_back() {
        for (ns, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (1_790_000_000_000_000_001, "2026-09-21T14:13:20.000000001Z"),
            (u64::MAX, "2554-07-21T23:34:33.709551615Z"),
        ] {
            assert_eq!(rfc3339(ns), text);
            assert_eq!(unix_ns(text), Some(ns));
        }
        assert_eq!(unix_ns("1969-12-31T23:59:59Z"), None);
        assert_eq!(unix_ns("yesterday"), None);
    }

    #[test]
    fn milliseconds_are_rounded_to_microseconds() {
        assert_eq!(
            serde_json::json!([millis(1_499), millis(1_500), millis(12_345_678_901)]).to_string(),
            "[0.001,0.002,12345.679]"
        );
        assert!(millis(u64::MAX) > 1e13);
    }
}
