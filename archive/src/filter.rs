//! What a search asks for: plain conditions, all of which must hold.
//!
//! A condition is decided at the cheapest place: what many rows share once for all of them (see `profile.rs`),
//! numbers before text.

use std::{fmt, str::FromStr};

use transaction::{ArtifactRecord, object::End};

/// Conditions on a transaction; one that is `None` holds for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Host in any case; `*` stands for any text. The port is looked at only when one is given.
    pub host: Option<String>,
    /// Beginning of the path; with a `*` (any text) the whole path.
    pub path: Option<String>,
    /// Method in any case.
    pub method: Option<String>,
    /// Status.
    pub status: Option<StatusFilter>,
    /// Executable: its whole path, the last parts of it (`curl`, `bin/curl`), or with a `*` (any text) either.
    pub exe: Option<String>,
    /// Process id.
    pub pid: Option<u32>,
    /// Client or server.
    pub end: Option<End>,
    /// Identifier of the socket.
    pub connection_id: Option<String>,
    /// Identifier of the exchange.
    pub exchange_id: Option<String>,
    /// Begun at this time or later: nanoseconds since 1970.
    pub since_unix_ns: Option<u64>,
    /// Begun before this time: nanoseconds since 1970.
    pub until_unix_ns: Option<u64>,
    /// Only positions below this one: the last of a page, for the next.
    pub before: Option<u64>,
    /// Most rows to return.
    pub limit: usize,
}

impl Default for Filter {
    /// Everything, 100 rows.
    fn default() -> Self {
        Filter {
            host: None,
            path: None,
            method: None,
            status: None,
            exe: None,
            pid: None,
            end: None,
            connection_id: None,
            exchange_id: None,
            since_unix_ns: None,
            until_unix_ns: None,
            before: None,
            limit: 100,
        }
    }
}

impl Filter {
    /// Whether all conditions hold; `before` and `limit` are about lists and are not looked at.
    #[must_use]
    pub fn matches(&self, r: &ArtifactRecord) -> bool {
        self.fits_numbers(r.time_unix_ns, r.response_status, r.process_pid)
            && self.fits_profile(&r.request_method, &r.request_host, &r.process_exe, r.end)
            && self.fits_path(&r.request_path)
            && self.fits_identifiers(&r.connection_id, &r.exchange_id)
    }

    pub(crate) fn fits_numbers(&self, time: u64, status: Option<u16>, pid: u32) -> bool {
        self.since_unix_ns.is_none_or(|t| time >= t)
            && self.until_unix_ns.is_none_or(|t| time < t)
            && self.pid.is_none_or(|p| p == pid)
            && self.status.as_ref().is_none_or(|s| s.matches(status))
    }

    pub(crate) fn fits_profile(&self, method: &str, host: &str, exe: &str, end: End) -> bool {
        self.end.is_none_or(|e| e == end)
            && self.method.as_ref().is_none_or(|m| m.eq_ignore_ascii_case(method))
            && self.host.as_ref().is_none_or(|h| host_fits(h, host))
            && self.exe.as_ref().is_none_or(|e| exe_fits(e, exe))
    }

    pub(crate) fn fits_path(&self, path: &str) -> bool {
        self.path.as_ref().is_none_or(|p| if p.contains('*') { wild(p, path) } else { path.starts_with(p.as_str()) })
    }

    pub(crate) fn fits_identifiers(&self, connection: &str, exchange: &str) -> bool {
        self.connection_id.as_ref().is_none_or(|c| c == connection)
            && self.exchange_id.as_ref().is_none_or(|e| e == exchange)
    }
}

fn host_fits(pattern: &str, host: &str) -> bool {
    let (pattern, port) = split_port(pattern);
    let (host, actual) = split_port(host);
    port.is_none_or(|p| actual == Some(p)) && wild(&pattern.to_ascii_lowercase(), &host.to_ascii_lowercase())
}

/// Host and port of an authority; an IPv6 address without its brackets (RFC 3986 section 3.2.2).
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some((address, rest)) = authority.strip_prefix('[').and_then(|a| a.split_once(']')) {
        return (address, rest.strip_prefix(':'));
    }
    match authority.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn exe_fits(pattern: &str, exe: &str) -> bool {
    let base = exe.rsplit('/').next().unwrap_or(exe);
    if pattern.contains('*') {
        return wild(pattern, exe) || wild(pattern, base);
    }
    exe.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('/') || pattern.starts_with('/'))
        && !pattern.is_empty()
}

/// Whether `text` is `pattern`, where `*` stands for any text. Linear in the product of both at worst.
fn wild(pattern: &str, text: &str) -> bool {
    let (p, t) = (pattern.as_bytes(), text.as_bytes());
    let (mut i, mut j) = (0, 0);
    // Where the last star was, and how much of the text it has taken.
    let mut star: Option<(usize, usize)> = None;
    while j < t.len() {
        if p.get(i) == Some(&b'*') {
            star = Some((i, j));
            i += 1;
        } else if p.get(i) == Some(&t[j]) {
            i += 1;
            j += 1;
        } else if let Some((at, taken)) = star {
            star = Some((at, taken + 1));
            i = at + 1;
            j = taken + 1;
        } else {
            return false;
        }
    }
    p[i..].iter().all(|c| *c == b'*')
}

/// A condition on the status: `404`, `5xx`, `400-499`, `none` (no response was seen), several with commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusFilter {
    ranges: Vec<(u16, u16)>,
    none: bool,
}

/// What was given is no condition on a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAStatus(String);

impl fmt::Display for NotAStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no status: write 404, 5xx, 400-499 or none, several with commas", self.0)
    }
}

impl std::error::Error for NotAStatus {}

impl StatusFilter {
    /// Whether a status fits; `None` stands for "no response was seen".
    #[must_use]
    pub fn matches(&self, status: Option<u16>) -> bool {
        match status {
            None => self.none,
            Some(s) => self.ranges.iter().any(|(from, to)| (*from..=*to).contains(&s)),
        }
    }
}

impl FromStr for StatusFilter {
    type Err = NotAStatus;

    fn from_str(text: &str) -> Result<Self, NotAStatus> {
        let bad = || NotAStatus(text.to_owned());
        let number = |s: &str| {
            let digits = s.len() == 3 && s.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| s.parse::<u16>().ok()).flatten().ok_or_else(bad)
        };
        let mut filter = StatusFilter { ranges: Vec::new(), none: false };
        for part in text.split(',').map(str::trim) {
            let lower = part.to_ascii_lowercase();
            if lower == "none" {
                filter.none = true;
            } else if let Some(class) = lower.strip_suffix("xx") {
                let class = class.parse::<u16>().ok().filter(|c| (1..=9).contains(c)).ok_or_else(bad)?;
                filter.ranges.push((class * 100, class * 100 + 99));
            } else if let Some((from, to)) = part.split_once('-') {
                let (from, to) = (number(from.trim())?, number(to.trim())?);
                if from > to {
                    return Err(bad());
                }
                filter.ranges.push((from, to));
            } else {
                let status = number(part)?;
                filter.ranges.push((status, status));
            }
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_takes_numbers_classes_ranges_and_none() {
        let fits = |filter: &str, status| filter.parse::<StatusFilter>().map(|f| f.matches(status));
        assert_eq!(fits("404", Some(404)), Ok(true));
        assert_eq!(fits("404", Some(400)), Ok(false));
        assert_eq!(fits("4xx,5XX", Some(503)), Ok(true));
        assert_eq!(fits("4xx,5xx", Some(302)), Ok(false));
        assert_eq!(fits("400-418", Some(418)), Ok(true));
        assert_eq!(fits("400-418", Some(419)), Ok(false));
        assert_eq!(fits("5xx", None), Ok(false));
        assert_eq!(fits("none, 5xx", None), Ok(true));
        for bad in ["", "xx", "0xx", "abc", "40", "4040", "500-400", "404,", "4-5", "-", "+12"] {
            assert!(bad.parse::<StatusFilter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_ignores_case_and_looks_at_the_port_only_when_one_is_given() {
        for (pattern, host, fits) in [
            ("Example.com", "example.COM:8080", true),
            ("example.com:8080", "example.com:8080", true),
            ("example.com:80", "example.com:8080", false),
            ("example.com:80", "example.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*:9000", "x:9000", true),
            ("::1", "[::1]:9000", true),
            ("[::1]:9000", "[::1]:9000", true),
            ("[::1]:9001", "[::1]:9000", false),
            ("xample.com", "example.com", false),
        ] {
            assert_eq!(host_fits(pattern, host), fits, "{pattern} {host}");
        }
    }

    #[test]
    fn exe_is_a_path_its_last_parts_or_a_pattern() {
        for (pattern, exe, fits) in [
            ("curl", "/usr/bin/curl", true),
            ("bin/curl", "/usr/bin/curl", true),
            ("/usr/bin/curl", "/usr/bin/curl", true),
            ("/bin/curl", "/usr/bin/curl", true),
            ("url", "/usr/bin/curl", false),
            ("", "/usr/bin/curl", false),
            ("python*", "/usr/bin/python3.11", true),
            ("/usr/*", "/usr/bin/python3.11", true),
            ("*curl", "/usr/bin/curl7", false),
        ] {
            assert_eq!(exe_fits(pattern, exe), fits, "{pattern} {exe}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("a**", "a", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(wild(pattern, text), fits, "{pattern} {text}");
        }
    }
}
