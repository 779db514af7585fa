//! Names whose values are secret: of header fields, query parameters, form fields and JSON members.
//!
//! A name is compared without regard to case and without anything but letters and digits, so `api_key`,
//! `Api-Key` and `apiKey` are one. Of a nested name (`user[token]`, `auth.key`) the last part counts too.

use std::borrow::Cow;

/// Where a name stands. A short word says much in a query (`code`, `key`) and little in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Query parameters, form fields and parts of multipart bodies.
    Query,
    /// Members of JSON objects, and `name=value` or `name: value` in any text.
    Json,
    /// Header fields.
    Header,
}

/// Secret wherever they stand in a name.
const ANYWHERE: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "passwort",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "connectionstring",
    "sessionid",
    "sessid",
    "sessionkey",
    "sessiontoken",
    "authkey",
];

/// Secret when a name ends so.
const AT_END: &[&str] = &["token", "pwd", "pword", "subscriptionkey", "masterkey", "signingkey", "encryptionkey"];

/// Secret as a whole name, anywhere.
const WHOLE: &[&str] =
    &["pass", "pw", "jwt", "bearer", "csrf", "xsrf", "accesstokens", "refreshtokens", "cookie", "setcookie", "otp"];

/// Secret as a whole name in queries and forms.
const WHOLE_IN_QUERY: &[&str] = &[
    "key",
    "sig",
    "signature",
    "session",
    "sid",
    "auth",
    "code",
    "codeverifier",
    "devicecode",
    "usercode",
    "assertion",
    "samlresponse",
    "samlrequest",
];

/// Secret when a query's name ends so: presigned addresses have `X-Amz-Signature`, `X-Goog-Signature`.
const AT_END_IN_QUERY: &[&str] = &["signature"];

/// Secret as a whole name of a header field.
const WHOLE_IN_HEADER: &[&str] =
    &["xauth", "auth", "authentication", "authenticationinfo", "proxyauthenticationinfo", "cookie2", "setcookie2"];

/// Names that would match and say nothing secret.
const HARMLESS: &[&str] = &["nexttoken", "pagetoken", "nextpagetoken", "continuationtoken", "prevpagetoken"];

/// The word that makes `name` a secret's name, or `None`.
pub(super) fn secret(name: &[u8], kind: Kind) -> Option<&'static str> {
    let (plain, last) = normalised(name);
    word(&plain, kind).or_else(|| if last == plain.len() { None } else { word(&plain[plain.len() - last..], kind) })
}

fn word(name: &[u8], kind: Kind) -> Option<&'static str> {
    // Nothing in the lists is shorter, and most names of real bodies are found out here.
    if name.len() < 2 || HARMLESS.iter().any(|word| word.as_bytes() == name) {
        return None;
    }
    if kind == Kind::Header && name.starts_with(b"accesscontrol") {
        return None;
    }
    let whole = |list: &'static [&'static str]| list.iter().find(|word| word.as_bytes() == name).copied();
    let at_end = |list: &'static [&'static str]| list.iter().find(|word| name.ends_with(word.as_bytes())).copied();
    let more = match kind {
        Kind::Query => whole(WHOLE_IN_QUERY).or_else(|| at_end(AT_END_IN_QUERY)),
        Kind::Header => whole(WHOLE_IN_HEADER),
        Kind::Json => None,
    };
    more.or_else(|| whole(WHOLE))
        .or_else(|| at_end(AT_END))
        .or_else(|| ANYWHERE.iter().find(|word| name.windows(word.len()).any(|part| part == word.as_bytes())).copied())
}

/// Letters and digits of a name in lower case, and how many of them belong to its last part.
fn normalised(name: &[u8]) -> (Cow<'_, [u8]>, usize) {
    if name.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()) {
        return (Cow::Borrowed(name), name.len());
    }
    let mut plain = Vec::with_capacity(name.len());
    let (mut part, mut last) = (0, 0);
    for &byte in name {
        if byte.is_ascii_alphanumeric() {
            plain.push(byte.to_ascii_lowercase());
        } else if matches!(byte, b'[' | b'.' | b';' | b':' | b'/') {
            part = plain.len();
        }
        if plain.len() > part {
            last = plain.len() - part;
        }
    }
    (Cow::Owned(plain), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_joints_do_not_matter() {
        for name in ["api_key", "Api-Key", "apiKey", "APIKEY", "x-api-key", "my.api.key"] {
            assert_eq!(secret(name.as_bytes(), Kind::Json), Some("apikey"), "{name}");
        }
    }

    #[test]
    fn short_words_count_where_they_say_something() {
        for name in ["code", "key", "sig", "user[key]", "auth", "amp;code"] {
            assert!(secret(name.as_bytes(), Kind::Query).is_some(), "{name}");
            assert_eq!(secret(name.as_bytes(), Kind::Json), None, "{name}");
        }
        for name in ["user[password]", "userPassword", "DB_PASSWD", "client_secret", "access_token", "id-token", "pwd"]
        {
            assert!(secret(name.as_bytes(), Kind::Json).is_some(), "{name}");
            assert!(secret(name.as_bytes(), Kind::Query).is_some(), "{name}");
        }
    }

    #[test]
    fn harmless_names_stay() {
        for name in
            ["max_tokens", "tokenizer", "next_page_token", "token_type", "passenger", "monkey", "author", "", "a"]
        {
            assert_eq!(secret(name.as_bytes(), Kind::Json), None, "{name}");
        }
        for name in ["Access-Control-Allow-Credentials", "Content-Type", "Host", "If-None-Match", "Sec-WebSocket-Key"] {
            assert_eq!(secret(name.as_bytes(), Kind::Header), None, "{name}");
        }
        for name in [
            "X-Api-Key",
            "X-Auth-Token",
            "X-Amz-Security-Token",
            "X-Vault-Token",
            "X-CSRF-Token",
            "Proxy-Authorization",
        ] {
            assert!(secret(name.as_bytes(), Kind::Header).is_some(), "{name}");
        }
    }
}
