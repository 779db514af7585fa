//! The corpus: every kind of secret in every kind of place, plain, compressed and cut. With redaction none of
//! them can be read in the object's bytes, however one decodes them; without it every one can.

use transaction::{Level, Transaction, object::Process};

use super::{Capture, bytes, exchange, gzip, process, request, response};
use crate::{
    capture::redact::Redactor,
    http::{Exchange, GapCause, Head, Message},
};

/// Known by its name only.
const PASSWORD: &str = "correct-horse-battery-9";

const JWT: &str =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
const PEM: &str =
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq\nQ2hlZXNlIGlzIGdvb2Q=\n-----END RSA PRIVATE KEY-----";

/// Known by their form: the secret, and the part of it that must not be readable.
const FORMS: &[(&str, &str)] = &[
    (JWT, "dozjgNryP4J3jVmNHl0w5N"),
    (JWT, "eyJzdWIiOiIxMjM0NTY3ODkwIn0"),
    (PEM, "MIIEowIBAAKCAQEA7bq"),
    (PEM, "Q2hlZXNlIGlzIGdvb2Q"),
    ("AKIAIOSFODNN7EXAMPLE", "IOSFODNN7EXAMPLE"),
    ("ASIAY34FZKBOKMUTVV7A", "Y34FZKBOKMUTVV7A"),
    ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "16C7e42F292c6912E"),
    ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz", "11ABCDEFG0abcdefghijkl"),
    ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "4eC39HqLyjWDarjtT1zdp7dc"),
    ("xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy", "pdFZKVeTuE8sk7oOcHrzqqgy"),
    ("Bearer mF_9.B5f-4.1JqM-opaque", "B5f-4.1JqM-opaque"),
    ("Basic dXNlcjpjb3JyZWN0LWhvcnNl", "dXNlcjpjb3JyZWN0LWhvcnNl"),
];

/// One planted secret: where, the exchange, the process's arguments, what must not be readable.
struct Planted {
    place: String,
    exchange: Exchange,
    arguments: Vec<String>,
    needle: String,
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// Every character as `\uXXXX`.
fn json_escaped(text: &str) -> String {
    text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect::<Vec<_>>().concat()
}

fn plain_request() -> Message {
    request("/", &[("Host", "example.com")], b"")
}

fn plain_response() -> Message {
    response(200, &[("Content-Type", "text/plain")], b"fine")
}

fn with_request(place: &str, needle: &str, request: Message) -> Planted {
    Planted {
        place: place.into(),
        exchange: exchange(request, plain_response()),
        arguments: vec![],
        needle: needle.into(),
    }
}

fn with_response(place: &str, needle: &str, response: Message) -> Planted {
    Planted {
        place: place.into(),
        exchange: exchange(plain_request(), response),
        arguments: vec![],
        needle: needle.into(),
    }
}

fn header(name: &str, value: &str, needle: &str) -> [Planted; 2] {
    [
        with_request(&format!("request header {name}"), needle, request("/", &[("Host", "h"), (name, value)], b"")),
        with_response(&format!("response header {name}"), needle, response(200, &[(name, value)], b"")),
    ]
}

fn target(place: &str, target: &str, needle: &str) -> Planted {
    with_request(place, needle, request(target, &[("Host", "h")], b""))
}

/// Heads, addresses and arguments with a secret that is known by its name.
fn named() -> Vec<Planted> {
    let mut list = Vec::new();
    for (name, value) in [
        ("Authorization", "Basic dXNlcjpjb3JyZWN0LWhvcnNl"),
        ("authorization", "Digest username=\"u\", response=\"dXNlcjpjb3JyZWN0LWhvcnNl\""),
        ("Proxy-Authorization", "dXNlcjpjb3JyZWN0LWhvcnNl"),
    ] {
        list.extend(header(name, value, "dXNlcjpjb3JyZWN0LWhvcnNl"));
    }
    for name in
        ["X-Api-Key", "api-key", "X-Auth-Token", "X-Amz-Security-Token", "X-Vault-Token", "X-CSRF-Token", "X-My-Secret"]
    {
        list.extend(header(name, PASSWORD, PASSWORD));
    }
    list.extend(header("Cookie", &format!("a=b; sid={PASSWORD}; c=d"), PASSWORD));
    list.extend(header("Set-Cookie", &format!("sid={PASSWORD}; Path=/; HttpOnly"), PASSWORD));
    list.extend(header("Referer", &format!("https://h/p?a=b&access_token={PASSWORD}"), PASSWORD));
    list.extend(header("Location", &format!("https://user:{PASSWORD}@h/p"), PASSWORD));
    list.extend(header("Location", &format!("/cb#id_token={PASSWORD}&state=1"), PASSWORD));
    list.extend(header("Location", &format!("/login?next={}", percent(&format!("/cb?code={PASSWORD}"))), PASSWORD));
    list.extend(header("Link", &format!("<https://h/p?token={PASSWORD}>; rel=next"), PASSWORD));
    for key in [
        "token",
        "access_token",
        "api_key",
        "apikey",
        "key",
        "password",
        "passwd",
        "pwd",
        "secret",
        "client_secret",
        "sig",
        "signature",
        "session",
        "auth",
        "code",
        "API-Key",
        "user[password]",
        "X-Amz-Signature",
    ] {
        list.push(target(&format!("query {key}"), &format!("/p?a=b&{key}={PASSWORD}&c=d"), PASSWORD));
    }
    list.push(target("query with an encoded key", &format!("/p?p%61ssword={PASSWORD}"), PASSWORD));
    list.push(target(
        "query in a query",
        &format!("/p?u={}", percent(&format!("https://h/?token={PASSWORD}"))),
        PASSWORD,
    ));
    list.push(target("absolute target", &format!("http://user:{PASSWORD}@h/p"), PASSWORD));
    list.push(target("path parameter", &format!("/p;jsessionid={PASSWORD}?a=b"), PASSWORD));
    list.push(with_request("host", PASSWORD, request("/", &[("Host", &format!("user:{PASSWORD}@h"))], b"")));
    list.push(with_request(
        "connect",
        PASSWORD,
        super::message("CONNECT", &format!("user:{PASSWORD}@h:443"), 0, &[], b""),
    ));
    for arguments in [
        vec!["app".to_owned(), format!("--password={PASSWORD}")],
        vec!["app".to_owned(), "--token".to_owned(), PASSWORD.to_owned()],
        vec!["mysql".to_owned(), format!("-p{PASSWORD}")],
        vec!["curl".to_owned(), "-H".to_owned(), format!("Authorization: Bearer {PASSWORD}")],
        vec!["curl".to_owned(), "-H".to_owned(), format!("X-Api-Key: {PASSWORD}")],
        vec!["curl".to_owned(), format!("http://user:{PASSWORD}@h/")],
        vec!["curl".to_owned(), "-u".to_owned(), format!("user:{PASSWORD}")],
        vec!["psql".to_owned(), format!("postgres://user:{PASSWORD}@db/x")],
    ] {
        let mut planted = with_request(&format!("arguments {arguments:?}"), PASSWORD, plain_request());
        planted.arguments = arguments;
        list.push(planted);
    }
    list
}

/// Heads, addresses and arguments with a secret that is known by its form.
fn formed(secret: &str, needle: &str) -> Vec<Planted> {
    let line = secret.replace('\n', " ");
    let mut list = Vec::new();
    for name in ["X-Anything", "User-Agent", "X-Request-Id", "Content-Type"] {
        list.extend(header(name, &format!("see {line} there"), needle));
    }
    list.push(target("query value", &format!("/p?q={}", percent(secret)), needle));
    list.push(target("path", &format!("/p/{}/x", percent(secret)), needle));
    if !secret.contains(' ') {
        list.push(target("plain path", &format!("/p/{secret}/x"), needle));
        list.push(target("plain query", &format!("/p?q={secret}"), needle));
    }
    let mut reason = response(200, &[], b"");
    reason.head.target = line.clone().into_bytes();
    list.push(with_response("reason phrase", needle, reason));
    let mut trailer = response(200, &[], b"");
    trailer.trailers = vec![(b"X-Note".to_vec(), line.clone().into_bytes())];
    list.push(with_response("trailer", needle, trailer));
    let mut interim = with_response("interim response", needle, plain_response());
    interim.exchange.interim =
        vec![Head { status: 103, fields: vec![(b"Link".to_vec(), line.clone().into_bytes())], ..Head::default() }];
    list.push(interim);
    let mut argument = with_request("argument", needle, plain_request());
    argument.arguments = vec!["app".into(), line];
    list.push(argument);
    list
}

/// Bodies: place, media type, the body, what must not be readable.
fn bodies() -> Vec<(String, String, Vec<u8>, String)> {
    let mut list = Vec::new();
    let mut add = |place: &str, media: &str, body: Vec<u8>, needle: &str| {
        list.push((place.to_owned(), media.to_owned(), body, needle.to_owned()));
    };
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    for key in [
        "password",
        "Password",
        "user_password",
        "client-secret",
        "accessToken",
        "api_key",
        "private_key",
        "passphrase",
        "pass\\u0077ord",
    ] {
        let json = format!(r#"{{"a":[1,{{"b":"c","{key}":"{PASSWORD}","d":null}}],"e":"f"}}"#);
        add(&format!("json {key}"), "application/json", json.clone().into_bytes(), PASSWORD);
        add(&format!("json {key} of no type"), "", json.clone().into_bytes(), PASSWORD);
        add(&format!("json {key} as text"), "text/plain", json.clone().into_bytes(), PASSWORD);
        add(&format!("json {key} as an image"), "image/png", json.clone().into_bytes(), PASSWORD);
        add(&format!("json {key} in utf-16"), "application/json", wide(&json), PASSWORD);
        add(
            &format!("json {key} in lines"),
            "application/x-ndjson",
            format!("{{\"a\":1}}\n{json}\n{{}}\n").into_bytes(),
            PASSWORD,
        );
        let nested = serde_json::json!({"body": json, "n": 1}).to_string();
        add(&format!("json {key} in a string"), "application/json", nested.into_bytes(), PASSWORD);
    }
    add(
        "json, an array",
        "application/json",
        format!(r#"{{"passwords":["x","{PASSWORD}"],"a":1}}"#).into_bytes(),
        PASSWORD,
    );
    add(
        "json, an object",
        "application/json",
        format!(r#"{{"secret":{{"x":"{PASSWORD}"}},"a":1}}"#).into_bytes(),
        PASSWORD,
    );
    add("json, a number", "application/json", br#"{"password":8417263549,"a":1}"#.to_vec(), "8417263549");
    add(
        "json, name and value",
        "application/json",
        format!(r#"[{{"name":"DB_PASSWORD","value":"{PASSWORD}"}}]"#).into_bytes(),
        PASSWORD,
    );
    let escaped = json_escaped(PASSWORD);
    add("json, escaped", "application/json", format!(r#"{{"password":"{escaped}"}}"#).into_bytes(), PASSWORD);
    for key in ["password", "client_secret", "token", "code", "key", "p%61ssword", "user[pwd]"] {
        let form = format!("a=b&{key}={PASSWORD}&c=d");
        add(&format!("form {key}"), "application/x-www-form-urlencoded", form.clone().into_bytes(), PASSWORD);
        add(&format!("form {key} of no type"), "", form.into_bytes(), PASSWORD);
    }
    let multipart = |name: &str, value: &str| {
        format!(
            "--xYz\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--xYz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n--xYz--\r\n"
        )
    };
    add("multipart", "multipart/form-data; boundary=xYz", multipart("password", PASSWORD).into_bytes(), PASSWORD);
    add("multipart of no type", "", multipart("password", PASSWORD).into_bytes(), PASSWORD);
    add(
        "multipart, json inside",
        "multipart/form-data; boundary=\"xYz\"",
        multipart("data", &format!(r#"{{"password":"{PASSWORD}"}}"#)).into_bytes(),
        PASSWORD,
    );
    add("xml", "application/soap+xml", format!("<a><ns:Password>{PASSWORD}</ns:Password></a>").into_bytes(), PASSWORD);
    add("environment", "text/plain", format!("A=b\nexport DB_PASSWORD={PASSWORD}\nC=d\n").into_bytes(), PASSWORD);
    add("yaml", "application/yaml", format!("a: b\npassword: {PASSWORD}\n").into_bytes(), PASSWORD);
    add("address", "text/html", format!("<a href=\"https://u:{PASSWORD}@h/\">x</a>").into_bytes(), PASSWORD);
    add(
        "aws",
        "text/plain",
        b"[default]\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n".to_vec(),
        "wJalrXUtnFEMI/K7MDENG",
    );
    for (secret, needle) in FORMS {
        add("text", "text/plain", format!("see {secret} there").into_bytes(), needle);
        add(
            "json value",
            "application/json",
            serde_json::json!({"a": {"b": [secret]}, "c": 1}).to_string().into_bytes(),
            needle,
        );
        let escaped = json_escaped(secret);
        add("json value, escaped", "application/json", format!(r#"{{"a":"{escaped}"}}"#).into_bytes(), needle);
        add(
            "form value",
            "application/x-www-form-urlencoded",
            format!("a={}&b=c", percent(secret)).into_bytes(),
            needle,
        );
        add("multipart value", "multipart/form-data; boundary=xYz", multipart("note", secret).into_bytes(), needle);
        add("html", "text/html", format!("<p title='{secret}'>{secret}</p>").into_bytes(), needle);
        add(
            "octets",
            "application/octet-stream",
            [&b"\0\x01\x02\xff"[..], secret.as_bytes(), b"\0\xfe"].concat(),
            needle,
        );
        add("utf-16", "text/plain", wide(&format!("see {secret} there")), needle);
    }
    list
}

fn planted() -> Vec<Planted> {
    let mut list = named();
    for (secret, needle) in FORMS {
        list.extend(formed(secret, needle));
    }
    for (place, media, body, needle) in bodies() {
        let zstd = zstd::encode_all(&*body, 3).unwrap();
        for (coding, coded) in
            [("", body.clone()), ("gzip", gzip(&body)), ("zstd", zstd.clone()), ("zstd, gzip", gzip(&zstd))]
        {
            let mut fields = vec![("Host", "h"), ("Content-Type", media.as_str())];
            if !coding.is_empty() {
                fields.push(("Content-Encoding", coding));
            }
            let place = format!("{place} ({media}) {coding}");
            list.push(with_request(&format!("request body {place}"), &needle, request("/", &fields, &coded)));
            list.push(with_response(&format!("response body {place}"), &needle, response(200, &fields, &coded)));
        }
        // Compressed, and not said to be.
        if super::super::redact::shape::may_be_text(&media) {
            let fields = [("Content-Type", media.as_str())];
            list.push(with_response(
                &format!("undeclared gzip {place}"),
                &needle,
                response(200, &fields, &gzip(&body)),
            ));
        }
    }
    list
}

/// Every text that a reader could get out of an object.
fn views(object: &[u8]) -> Vec<Vec<u8>> {
    let mut list = vec![object.to_vec()];
    let parsed: Transaction = serde_json::from_slice(object).unwrap();
    let body = |body: Option<&transaction::object::Body>| body.map(|b| b.0.clone()).unwrap_or_default();
    list.push(body(parsed.request.as_ref().map(|r| &r.body)));
    list.push(body(parsed.response.as_ref().map(|r| &r.body)));
    strings(&serde_json::from_slice(object).unwrap(), &mut list);
    for _ in 0..3 {
        for n in 0..list.len() {
            for decoded in [unquoted(&list[n]), unescaped(&list[n]), narrow(&list[n])] {
                if !list.contains(&decoded) {
                    list.push(decoded);
                }
            }
        }
    }
    list
}

fn strings(value: &serde_json::Value, list: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) => list.push(text.clone().into_bytes()),
        serde_json::Value::Array(values) => values.iter().for_each(|v| strings(v, list)),
        serde_json::Value::Object(members) => members.values().for_each(|v| strings(v, list)),
        _ => {}
    }
}

/// Percent-decoded, written apart from the product's own decoder.
fn unquoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut n = 0;
    while n < text.len() {
        let hex = text
            .get(n + 1..n + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (text[n], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                n += 3;
            }
            (byte, _) => {
                out.push(byte);
                n += 1;
            }
        }
    }
    out
}

/// JSON escapes undone wherever they stand.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut n = 0;
    while n < text.len() {
        let unit = text
            .get(n + 2..n + 6)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (text[n], text.get(n + 1), unit) {
            (b'\\', Some(b'u'), Some(byte)) => {
                out.push(byte);
                n += 6;
            }
            (b'\\', Some(b'n'), _) => {
                out.push(b'\n');
                n += 2;
            }
            (b'\\', Some(&byte), _) => {
                out.push(byte);
                n += 2;
            }
            (byte, ..) => {
                out.push(byte);
                n += 1;
            }
        }
    }
    out
}

/// UTF-16 as if it were ASCII.
fn narrow(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|&b| b != 0).collect()
}

fn readable(object: &[u8], needle: &str) -> bool {
    views(object).iter().any(|view| memchr::memmem::find(view, needle.as_bytes()).is_some())
}

fn object(capture: &Capture, planted: &Planted) -> Vec<u8> {
    let process = Process { args: planted.arguments.clone(), ..process() };
    bytes(capture, &planted.exchange, &process)
}

#[test]
fn no_planted_secret_is_readable_and_without_redaction_each_one_is() {
    let on = Capture::new(Level::Full);
    let off = Capture::with(Level::Full, Redactor::off());
    let list = planted();
    assert!(list.len() > 1000, "{}", list.len());
    let mut wrong = Vec::new();
    for planted in &list {
        if readable(&object(&on, planted), &planted.needle) {
            wrong.push(format!("readable: {} in {}", planted.needle, planted.place));
        }
        if !readable(&object(&off, planted), &planted.needle) {
            wrong.push(format!("not found without redaction: {} in {}", planted.needle, planted.place));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), list.len(), wrong.join("\n"));
}

#[test]
fn at_lower_levels_no_planted_secret_is_readable() {
    for level in [Level::Summary, Level::Headers] {
        for planted in planted() {
            let object = object(&Capture::new(level), &planted);
            assert!(!readable(&object, &planted.needle), "{} in {} at {level:?}", planted.needle, planted.place);
        }
    }
}

/// A body that ends in the middle of a secret: what was there of it is not readable.
#[test]
fn a_secret_that_was_cut_is_not_readable() {
    let on = Capture::new(Level::Full);
    for (place, media, body, needle) in bodies() {
        let Some(at) = memchr::memmem::find(&body, needle.as_bytes()) else { continue };
        for keep in 6..needle.len() {
            let mut message = response(200, &[("Content-Type", &media)], &body[..at + keep]);
            message.body_bytes = body.len() as u64;
            message.cut = true;
            let object = bytes(&on, &exchange(plain_request(), message), &process());
            assert!(!readable(&object, &needle[..6]), "{place} ({media}), {keep} bytes of {needle}");
        }
    }
}

/// Bytes are missing just before a secret, so that nobody can see what it is.
#[test]
fn what_comes_after_a_gap_in_text_is_not_kept() {
    let on = Capture::new(Level::Full);
    for (place, media, body, needle) in bodies() {
        let Some(at) = memchr::memmem::find(&body, needle.as_bytes()) else { continue };
        if media == "application/octet-stream" {
            continue;
        }
        let lost = at.min(30);
        let mut message = response(200, &[("Content-Type", &media)], &[&body[..at - lost], &body[at..]].concat());
        message.body_bytes = body.len() as u64;
        message.gaps = vec![((at - lost) as u64, lost as u64, GapCause::Ring)];
        let object = bytes(&on, &exchange(plain_request(), message), &process());
        assert!(!readable(&object, &needle), "{place} ({media})");
    }
}
