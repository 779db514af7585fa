//! The query string of an address as decoded pairs. Used by the HAR export and the explorer.

use std::borrow::Cow;

/// Name and value of each parameter of `url`'s query string, percent-decoded, `+` as a space
/// (application/x-www-form-urlencoded); bytes that are no UTF-8 are replaced.
pub fn pairs(url: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    let address = url.split_once('#').map_or(url, |(before, _)| before);
    let query = address.split_once('?').map_or("", |(_, query)| query);
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match (first, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (other, _) => *other,
        };
        out.push(byte);
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn digit(hex: u8) -> Option<u8> {
    char::from(hex).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::pairs;

    fn list(url: &str) -> Vec<(String, String)> {
        pairs(url).map(|(n, v)| (n.into_owned(), v.into_owned())).collect()
    }

    #[test]
    fn decodes_names_and_values() {
        let expected = [("a", "1 2"), ("b", "ü"), ("c", ""), ("d", "x=y"), ("e", "100%"), ("f", "%zz")];
        let got = list("http://h/p?a=1+2&b=%C3%BC&&c&d=x=y&e=100%&f=%zz#g=h");
        assert_eq!(got.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
        assert!(list("http://h/p").is_empty());
    }
}
