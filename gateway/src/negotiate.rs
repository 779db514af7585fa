//! What a client asks for by its header fields: page or bytes (`Accept`, RFC 9110 section 12.5.1), and
//! whether it already has the object (`If-None-Match`, section 13.1.2). Pure; called by the handlers.

use axum::http::{HeaderMap, header};

/// Whether the client would rather have a page than JSON: it names `text/html`, and not with a lower weight
/// than JSON. `curl`, with `*/*`, gets the bytes.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    let ranges = || accept.iter().flat_map(|v| v.split(',')).filter_map(range);
    let weight = |wanted: &str| ranges().find(|(kind, _)| kind.eq_ignore_ascii_case(wanted)).map(|(_, q)| q);
    let Some(html) = weight("text/html") else { return false };
    html > 0 && weight("application/json").is_none_or(|json| html > json)
}

/// Whether the client asks for JSON by name and not for a page.
pub(crate) fn wants_json(headers: &HeaderMap) -> bool {
    let named =
        |v: &axum::http::HeaderValue| v.to_str().is_ok_and(|v| v.to_ascii_lowercase().contains("application/json"));
    headers.get_all(header::ACCEPT).iter().any(named) && !wants_page(headers)
}

/// A media range and its weight in thousandths.
fn range(text: &str) -> Option<(&str, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().filter(|k| !k.is_empty())?;
    let q = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
    let weight = q.map_or(Some(1.0), |q| q.parse::<f32>().ok().filter(|q| (0.0..=1.0).contains(q)))?;
    Some((kind, (weight * 1000.0) as u16))
}

/// Whether `If-None-Match` names the entity tag `"{digest}"`, or is `*`.
pub(crate) fn has_it(headers: &HeaderMap, digest: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).any(
        |tag| {
            let tag = tag.trim();
            // Weak comparison, RFC 9110 section 8.8.3.2.
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            tag == "*" || opaque.strip_prefix('"').and_then(|t| t.strip_suffix('"')) == Some(digest)
        },
    )
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn browsers_get_the_page_and_programs_the_bytes() {
        for (accept, page) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", true),
            ("text/html", true),
            ("application/json;q=0.5, text/html;q=0.6", true),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html", false),
            ("text/html;q=0.5, application/json", false),
            ("text/html;q=0", false),
            ("text/html;q=nonsense", false),
            ("text/*", false),
        ] {
            assert_eq!(wants_page(&with(header::ACCEPT, accept)), page, "{accept}");
        }
        assert!(!wants_page(&HeaderMap::new()));
        assert!(wants_json(&with(header::ACCEPT, "application/json")));
        assert!(!wants_json(&with(header::ACCEPT, "*/*")) && !wants_json(&HeaderMap::new()));
    }

    #[test]
    fn an_entity_tag_is_compared_as_a_whole() {
        for (field, known) in [
            ("\"abc\"", true),
            ("W/\"abc\"", true),
            ("\"x\", \"abc\"", true),
            ("*", true),
            ("abc", false),
            ("\"abcd\"", false),
            ("\"", false),
        ] {
            assert_eq!(has_it(&with(header::IF_NONE_MATCH, field), "abc"), known, "{field}");
        }
    }
}
