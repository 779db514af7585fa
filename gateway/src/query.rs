//! The query string: which form of an object, and which transactions to list. Parameters are those of
//! `tapstack find`: host, path, method, status, exe, end, since, limit; and `before` for paging.
//!
//! Strict in values (a wrong one is an error with what was expected) and tolerant of unknown names, which
//! links from dashboards may add.

use std::time::{SystemTime, UNIX_EPOCH};

use archive::Filter;
use transaction::{Digest, object::End};

/// Rows of a page unless asked otherwise.
pub(crate) const LIMIT: usize = 100;
/// Most rows of a page.
pub(crate) const LIMIT_MAX: usize = 1000;

/// Which form of an object is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The page or the bytes, as `Accept` says.
    Negotiated,
    /// The bytes.
    Raw,
    /// The bytes as a file.
    Json,
    /// A HAR file.
    Har,
    /// A curl command as a file.
    Curl,
    /// The request's body as a file.
    RequestBody,
    /// The response's body as a file.
    ResponseBody,
}

/// The form that a query string asks for.
pub(crate) fn form(query: &str) -> Result<Form, String> {
    let mut form = Form::Negotiated;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        form = match (&*name, &*value) {
            ("raw", "" | "1" | "true") => Form::Raw,
            ("format", "json") => Form::Json,
            ("format", "har") => Form::Har,
            ("format", "curl") => Form::Curl,
            ("body", "request") => Form::RequestBody,
            ("body", "response") => Form::ResponseBody,
            ("format", _) => return Err("format must be json, har or curl.".to_owned()),
            ("body", _) => return Err("body must be request or response.".to_owned()),
            _ => form,
        };
    }
    Ok(form)
}

/// The parameters as typed, to be shown again in the form, and in links to the next page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) method: String,
    pub(crate) status: String,
    pub(crate) exe: String,
    pub(crate) end: String,
    pub(crate) since: String,
    pub(crate) limit: String,
    pub(crate) before: String,
    /// `format=json` was asked for.
    pub(crate) json: bool,
}

impl Typed {
    /// Reads a query string; of a repeated name the last counts.
    pub(crate) fn parse(query: &str) -> Self {
        let mut typed = Typed::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.trim();
            match &*name {
                "host" => value.clone_into(&mut typed.host),
                "path" => value.clone_into(&mut typed.path),
                "method" => value.clone_into(&mut typed.method),
                "status" => value.clone_into(&mut typed.status),
                "exe" => value.clone_into(&mut typed.exe),
                "end" => value.clone_into(&mut typed.end),
                "since" => value.clone_into(&mut typed.since),
                "limit" => value.clone_into(&mut typed.limit),
                "before" => value.clone_into(&mut typed.before),
                "format" => typed.json = value == "json",
                _ => {}
            }
        }
        typed
    }

    /// Whether anything narrows the list.
    pub(crate) fn filters(&self) -> bool {
        [&self.host, &self.path, &self.method, &self.status, &self.exe, &self.end, &self.since]
            .iter()
            .any(|f| !f.is_empty())
    }

    /// The query string of the page that starts before `before`.
    pub(crate) fn link(&self, before: Option<u64>) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in [
            ("host", &self.host),
            ("path", &self.path),
            ("method", &self.method),
            ("status", &self.status),
            ("exe", &self.exe),
            ("end", &self.end),
            ("since", &self.since),
            ("limit", &self.limit),
        ] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
        query.finish()
    }

    /// The filter that this asks for, or what was wrong.
    pub(crate) fn filter(&self, now: SystemTime) -> Result<Filter, String> {
        let text = |value: &String| (!value.is_empty()).then(|| value.clone());
        let number = |name: &str, value: &str| {
            value.parse::<u64>().map_err(|_| format!("{name} must be a number, not {value:?}."))
        };
        let now_ns = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        Ok(Filter {
            host: text(&self.host),
            path: text(&self.path),
            method: text(&self.method),
            status: match self.status.as_str() {
                "" => None,
                status => Some(status.parse().map_err(|wrong| format!("status: {wrong}."))?),
            },
            exe: text(&self.exe),
            end: match self.end.as_str() {
                "" => None,
                "client" => Some(End::Client),
                "server" => Some(End::Server),
                other => return Err(format!("end must be client or server, not {other:?}.")),
            },
            since_unix_ns: if self.since.is_empty() { None } else { Some(now_ns.saturating_sub(age_ns(&self.since)?)) },
            before: if self.before.is_empty() { None } else { Some(number("before", &self.before)?) },
            limit: if self.limit.is_empty() {
                LIMIT
            } else {
                (number("limit", &self.limit)?.min(LIMIT_MAX as u64) as usize).max(1)
            },
            ..Filter::default()
        })
    }
}

/// `90s`, `15m`, `1h`, `2d`, in nanoseconds.
fn age_ns(text: &str) -> Result<u64, String> {
    let wrong = || format!("since must be like 90s, 15m, 1h or 2d, not {text:?}.");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count = text.strip_suffix(unit).and_then(|n| n.parse::<u64>().ok()).ok_or_else(wrong)?;
    Ok(count.saturating_mul(seconds).saturating_mul(1_000_000_000))
}

/// A path `/<bucket>/<digest>`, taken as it stands: nothing is decoded, so nothing can be smuggled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// An object of this gateway's bucket.
    Object(Digest),
    /// The second part is not 40 lower-case hexadecimal digits.
    BadDigest,
    /// Anything else.
    Unknown,
}

/// See [`Target`].
pub(crate) fn target(path: &str, bucket: &str) -> Target {
    match path.strip_prefix('/').and_then(|p| p.split_once('/')) {
        Some((b, digest)) if b == bucket => digest.parse().map_or(Target::BadDigest, Target::Object),
        _ => Target::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(query: &str) -> Result<Filter, String> {
        Typed::parse(query).filter(UNIX_EPOCH + Duration::from_secs(10_000))
    }

    #[test]
    fn filters_are_read_and_wrong_ones_are_named() {
        let s = at("host=api.example&status=5XX&since=15m&end=server&limit=5&before=77&path=%2Fa+b&other=1").unwrap();
        assert_eq!((s.host.as_deref(), s.path.as_deref()), (Some("api.example"), Some("/a b")));
        assert_eq!((s.end, s.limit, s.before), (Some(End::Server), 5, Some(77)));
        assert!(s.status.is_some_and(|s| s.matches(Some(503)) && !s.matches(Some(404))));
        assert_eq!(s.since_unix_ns, Some(9_100_000_000_000));
        assert_eq!(at("").unwrap().limit, LIMIT);
        assert_eq!(at("limit=999999").unwrap().limit, LIMIT_MAX);
        for bad in [
            "status=4x",
            "status=0xx",
            "status=500-400",
            "status=20",
            "since=1y",
            "since=h",
            "since=é",
            "limit=x",
            "before=-1",
            "end=both",
        ] {
            let name = bad.split('=').next().unwrap();
            assert!(at(bad).unwrap_err().starts_with(name), "{bad}");
        }
        assert!(at("since=99999999999999999d").is_ok());
    }

    #[test]
    fn a_link_keeps_the_filters_and_escapes_them() {
        let typed = Typed::parse("host=a%26b%3Dc&before=9&limit=5");
        assert_eq!(typed.link(Some(3)), "host=a%26b%3Dc&limit=5&before=3");
    }

    #[test]
    fn a_target_is_taken_as_it_stands() {
        let d = Digest::of(b"x");
        assert_eq!(target(&format!("/qpoint/{d}"), "qpoint"), Target::Object(d));
        for (path, expected) in [
            (format!("/qpoint/{}", d.to_string().to_uppercase()), Target::BadDigest),
            (format!("/qpoint/{d}/"), Target::BadDigest),
            (format!("/qpoint/{d}0"), Target::BadDigest),
            ("/qpoint/".to_owned(), Target::BadDigest),
            ("/qpoint/../../etc/passwd".to_owned(), Target::BadDigest),
            (format!("/other/{d}"), Target::Unknown),
            (format!("/QPOINT/{d}"), Target::Unknown),
            (format!("//qpoint/{d}"), Target::Unknown),
            (format!("/%71point/{d}"), Target::Unknown),
            (format!("/{d}"), Target::Unknown),
            ("/qpoint".to_owned(), Target::Unknown),
        ] {
            assert_eq!(target(&path, "qpoint"), expected, "{path}");
        }
    }

    #[test]
    fn forms_are_read() {
        for (query, expected) in [
            ("", Ok(Form::Negotiated)),
            ("raw", Ok(Form::Raw)),
            ("format=har", Ok(Form::Har)),
            ("body=response", Ok(Form::ResponseBody)),
            ("utm=1", Ok(Form::Negotiated)),
        ] {
            assert_eq!(form(query), expected, "{query}");
        }
        assert!(form("format=exe").is_err() && form("body=").is_err());
    }
}
