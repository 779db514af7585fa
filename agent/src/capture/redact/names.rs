//! Names whose values are secret: of header fields, query parameters, form fields and JSON members.
//!
//! A name is compared without regard to case and without anything but letters and digits, so `api_key`,
//! `Api-Key` and `apiKey` are one. Of a nested name (`user[token]`, `auth.key`) the last part counts too.

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
const ANYWHERE: List<16> = List::new([
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
]);

/// Secret when a name ends so.
const AT_END: List<7> =
    List::new(["token", "pwd", "pword", "subscriptionkey", "masterkey", "signingkey", "encryptionkey"]);

/// Secret as a whole name, anywhere.
const WHOLE: List<11> = List::new([
    "pass",
    "pw",
    "jwt",
    "bearer",
    "csrf",
    "xsrf",
    "accesstokens",
    "refreshtokens",
    "cookie",
    "setcookie",
    "otp",
]);

/// Secret as a whole name in queries and forms.
const WHOLE_IN_QUERY: List<13> = List::new([
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
]);

/// Secret when a query's name ends so: presigned addresses have `X-Amz-Signature`, `X-Goog-Signature`.
const AT_END_IN_QUERY: List<1> = List::new(["signature"]);

/// Secret as a whole name of a header field.
const WHOLE_IN_HEADER: List<7> = List::new([
    "xauth",
    "auth",
    "authentication",
    "authenticationinfo",
    "proxyauthenticationinfo",
    "cookie2",
    "setcookie2",
]);

/// Names that would match and say nothing secret.
const HARMLESS: List<5> = List::new(["nexttoken", "pagetoken", "nextpagetoken", "continuationtoken", "prevpagetoken"]);

/// A list with the letters of each word: most names lack one of them, which one comparison shows.
struct List<const N: usize> {
    words: [&'static str; N],
    /// Side by side, so that several are compared at once.
    needs: [u32; N],
}

impl<const N: usize> List<N> {
    const fn new(words: [&'static str; N]) -> Self {
        let mut needs = [0; N];
        let mut n = 0;
        while n < N {
            needs[n] = letters(words[n].as_bytes());
            n += 1;
        }
        List { words, needs }
    }

    fn find(&self, has: u32, fits: impl Fn(&'static str) -> bool) -> Option<&'static str> {
        // Without an early end the compiler makes vector instructions of this.
        if self.needs.iter().fold(0, |any, needs| any | u32::from(has & needs == *needs)) == 0 {
            return None;
        }
        let mut words = self.words.iter().zip(self.needs);
        words.find(|(word, needs)| has & needs == *needs && fits(word)).map(|(word, _)| *word)
    }
}

/// The letters of a name as bits.
const fn letters(name: &[u8]) -> u32 {
    let (mut set, mut n) = (0, 0);
    while n < name.len() {
        set |= 1 << (name[n] & 31);
        n += 1;
    }
    set
}

/// The word that makes `name` a secret's name, or `None`.
pub(super) fn secret(name: &[u8], kind: Kind) -> Option<&'static str> {
    let (mut short, mut long);
    let plain: &mut [u8] = if name.len() <= 64 {
        short = [0; 64];
        &mut short
    } else {
        long = vec![0; name.len()];
        &mut long
    };
    let (len, last) = normalise(name, plain);
    let plain = &plain[..len];
    word(plain, kind).or_else(|| if last == len { None } else { word(&plain[len - last..], kind) })
}

fn word(name: &[u8], kind: Kind) -> Option<&'static str> {
    let has = letters(name);
    let whole = |word: &'static str| word.as_bytes() == name;
    let at_end = |word: &'static str| name.ends_with(word.as_bytes());
    let anywhere = |word: &'static str| name.windows(word.len()).any(|part| part == word.as_bytes());
    if HARMLESS.find(has, whole).is_some() || (kind == Kind::Header && name.starts_with(b"accesscontrol")) {
        return None;
    }
    let more = match kind {
        Kind::Query => WHOLE_IN_QUERY.find(has, whole).or_else(|| AT_END_IN_QUERY.find(has, at_end)),
        Kind::Header => WHOLE_IN_HEADER.find(has, whole),
        Kind::Json => None,
    };
    more.or_else(|| WHOLE.find(has, whole))
        .or_else(|| AT_END.find(has, at_end))
        .or_else(|| ANYWHERE.find(has, anywhere))
}

/// Writes letters and digits of a name in lower case to `plain`; answers how many there are, and how many of
/// them belong to the name's last part.
fn normalise(name: &[u8], plain: &mut [u8]) -> (usize, usize) {
    let (mut len, mut part, mut last) = (0, 0, 0);
    for &byte in name {
        if byte.is_ascii_alphanumeric() {
            plain[len] = byte.to_ascii_lowercase();
            len += 1;
            last = len - part;
        } else if matches!(byte, b'[' | b'.' | b';' | b':' | b'/') {
            part = len;
        }
    }
    (len, last)
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
