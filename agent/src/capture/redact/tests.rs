//! Each kind of place one by one, and what must hold for any text.

use proptest::prelude::*;

use super::*;

fn body_cut(media: &str, text: &str, cut: bool) -> (String, Vec<String>) {
    let mut tally = Tally::default();
    let out = Redactor::new().body(Cow::Borrowed(text.as_bytes()), media, cut, "request", &mut tally);
    let places = tally.into_list().into_iter().map(|r| format!("{} {}", r.place, r.count)).collect();
    (String::from_utf8(out.into_owned()).unwrap(), places)
}

fn body(media: &str, text: &str) -> String {
    body_cut(media, text, false).0
}

fn header(name: &str, value: &str) -> String {
    Redactor::new().header(name, Cow::Borrowed(value), "request", &mut Tally::default()).into_owned()
}

fn url(target: &str) -> String {
    Redactor::new().url(Cow::Borrowed(target), "request", &mut Tally::default()).into_owned()
}

fn arguments(list: &[&str]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|&a| a.to_owned()).collect();
    Redactor::new().arguments(&mut list, &mut Tally::default());
    list
}

const JWT: &str =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";

#[test]
fn json_members_of_every_type_are_masked_and_all_else_stays() {
    for (text, expected) in [
        (r#"{"user":"ann","password":"p\"w","n": 1}"#, r#"{"user":"ann","password":"[redacted]","n": 1}"#),
        (r#"{"password" : 12345 ,"a":[1, 2]}"#, r#"{"password" : "[redacted]" ,"a":[1, 2]}"#),
        (r#"{"secret":{"a":"}","b":["]"]},"z":true}"#, r#"{"secret":"[redacted]","z":true}"#),
        (r#"{"a":{"b":[{"apiKey":null}]}}"#, r#"{"a":{"b":[{"apiKey":"[redacted]"}]}}"#),
        (r#"{"pass\u0077ord":"hunter2"}"#, r#"{"pass\u0077ord":"[redacted]"}"#),
        ("{\"token\":\"a\"}\n{\"token\":\"b\"}\n", "{\"token\":\"[redacted]\"}\n{\"token\":\"[redacted]\"}\n"),
        (")]}',\n{\"token\":\"a\"}", ")]}',\n{\"token\":\"[redacted]\"}"),
        (
            r#"[{"name":"DB_PASSWORD","value":"x"},{"name":"A","value":"y"}]"#,
            r#"[{"name":"DB_PASSWORD","value":"[redacted]"},{"name":"A","value":"y"}]"#,
        ),
        (
            r#"{"max_tokens":5,"token_type":"bearer","code":404}"#,
            r#"{"max_tokens":5,"token_type":"bearer","code":404}"#,
        ),
        (r#"{"password":""}"#, r#"{"password":"[redacted]"}"#),
    ] {
        assert_eq!(body("application/json", text), expected);
    }
}

#[test]
fn json_that_was_cut_shows_nothing_of_the_value() {
    for text in [
        r#"{"a":1,"password":"hunt"#,
        r#"{"a":1,"password":"hunt\"#,
        r#"{"a":1,"password":{"x":"hunt"#,
        r#"{"a":1,"password":["hunt", 5"#,
        r#"{"a":1,"password":1234"#,
    ] {
        let (out, _) = body_cut("application/json", text, true);
        assert_eq!(out, r#"{"a":1,"password":"[redacted]""#, "{text}");
    }
}

#[test]
fn json_inside_of_strings_is_seen() {
    let inner = r#"{"password":"hunter2","a":"b"}"#;
    let text = serde_json::json!({"message": inner, "log": format!("line\nAuthorization: Bearer {JWT}\n")}).to_string();
    let out = body("application/json", &text);
    let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(parsed["message"], r#"{"password":"[redacted]","a":"b"}"#);
    assert_eq!(parsed["log"], "line\nAuthorization: [redacted]\n");
    let twice = serde_json::json!({ "outer": text }).to_string();
    assert!(!body("text/plain", &twice).contains("hunter2"));
}

#[test]
fn a_stray_quote_does_not_hide_a_member() {
    let out = body("application/json", "{\"it\"s\": 1, \"password\":\"hunter2\"}");
    assert!(!out.contains("hunter2"), "{out}");
}

#[test]
fn forms_are_masked_by_name() {
    let media = "application/x-www-form-urlencoded";
    for (text, expected) in [
        ("user=ann&password=p%26w&x=1", "user=ann&password=[redacted]&x=1"),
        (
            "pass%77ord=x&user[token]=y&code=z&q=a+b",
            "pass%77ord=[redacted]&user[token]=[redacted]&code=[redacted]&q=a+b",
        ),
        ("next=%2Fcb%3Fcode%3Dabc&a=b", "next=[redacted]&a=b"),
        ("data=%7B%22password%22%3A%22x%22%7D", "data=[redacted]"),
        ("a=b&password=hun", "a=b&password=[redacted]"),
        ("a=1&b=2", "a=1&b=2"),
    ] {
        assert_eq!(body(media, text), expected);
        assert_eq!(body("", text), expected, "also when nobody says that it is a form");
    }
}

#[test]
fn parts_of_multipart_bodies_are_masked_by_name() {
    let text = "--b1\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nhunter2\r\nmore\r\n--b1\r\n\
                Content-Disposition: form-data; name=\"doc\"; filename=\"d.json\"\r\nContent-Type: application/json\r\n\r\n\
                {\"token\":\"abc\",\"n\":1}\r\n--b1\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--b1--\r\n";
    let expected = text.replace("hunter2\r\nmore", "[redacted]").replace("\"abc\"", "\"[redacted]\"");
    let (out, places) = body_cut("multipart/form-data; boundary=b1", text, false);
    assert_eq!(out, expected);
    assert_eq!(places, ["request.body.form.password 1", "request.body.json.token 1"]);
    assert_eq!(body("", text), expected, "the boundary is seen in the first line");
    let cut = &text[..text.find("nter2").unwrap()];
    assert!(!body_cut("multipart/form-data; boundary=b1", cut, true).0.contains("hu\r"), "{cut}");
    assert!(body_cut("multipart/form-data; boundary=b1", cut, true).0.ends_with("[redacted]"));
}

#[test]
fn text_is_masked_by_names_and_forms() {
    for (text, expected) in [
        ("DB_PASSWORD=hunter2\nA=b\n", "DB_PASSWORD=[redacted]\nA=b\n"),
        ("password: hunter2\nname: x", "password: [redacted]\nname: x"),
        ("api_key = 'abc def' # x", "api_key = '[redacted]' # x"),
        (
            "<a><Password>hunter2</Password><ns:token t=\"1\">x</ns:token></a>",
            "<a><Password>[redacted]</Password><ns:token t=\"1\">[redacted]</ns:token></a>",
        ),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key = [redacted]"),
        (
            "see https://user:pw@host/x?token=abc&a=b#c for more",
            "see https://[redacted]@host/x?token=[redacted]&a=b#c for more",
        ),
        ("postgres://u:p@db/x", "postgres://[redacted]@db/x"),
        ("> Authorization: Digest a=\"b c\"\n> Accept: x", "> Authorization: [redacted]\n> Accept: x"),
        ("Basic usage of the Bearer token scheme", "Basic usage of the Bearer token scheme"),
        ("use Basic dXNlcjpwYXNz here", "use Basic [redacted] here"),
    ] {
        assert_eq!(body("text/plain", text), expected);
    }
}

#[test]
fn values_are_known_by_their_form() {
    let pem = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nabc=\n-----END RSA PRIVATE KEY-----";
    for (secret, word) in [
        (JWT, "jwt"),
        (pem, "pem"),
        ("AKIAIOSFODNN7EXAMPLE", "aws"),
        ("ASIAIOSFODNN7EXAMPLE", "aws"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "github"),
        ("gho_16C7e42F292c6912E7710c838347Ae178B4a", "github"),
        ("github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz", "github"),
        ("sk_live_4eC39HqLyjWDarjtT1zdp7dc", "stripe"),
        ("rk_live_4eC39HqLyjWDarjtT1zdp7dc", "stripe"),
        ("xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy", "slack"),
    ] {
        let (out, places) = body_cut("text/plain", &format!("before {secret} after"), false);
        assert_eq!(out, "before [redacted] after");
        assert_eq!(places, [format!("request.body.pattern.{word} 1")]);
        let cut = format!("before {}", &secret[..secret.len() * 2 / 3]);
        assert_eq!(body_cut("text/plain", &cut, true).0, "before [redacted]");
    }
    let certificate = "-----BEGIN CERTIFICATE-----\nMIIEowIBAAKCAQEA\n-----END CERTIFICATE-----";
    assert_eq!(body("text/plain", certificate), certificate);
    for harmless in [
        "keyJoinedObservable.prototype.lift",
        "AKIA",
        "ghp_short",
        "Bearer authentication",
        "data:image/png;base64,iVBORw0KGgo=",
    ] {
        assert_eq!(body("text/plain", harmless), harmless);
    }
}

#[test]
fn binary_bodies_stay_but_for_values_known_by_their_form() {
    let mut tally = Tally::default();
    let binary = [b"\x89PNG\r\n\x1a\n\0\0\0\xff\xfe", JWT.as_bytes(), b"\0\0\x01"].concat();
    let out = Redactor::new().body(Cow::Borrowed(&binary), "image/png", false, "response", &mut tally);
    assert_eq!(*out, [&b"\x89PNG\r\n\x1a\n\0\0\0\xff\xfe"[..], b"[redacted]", b"\0\0\x01"].concat());
}

#[test]
fn wide_text_is_masked_in_its_own_form() {
    let wide = |text: &str| [b"\xff\xfe".to_vec(), text.encode_utf16().flat_map(u16::to_le_bytes).collect()].concat();
    let text = wide(r#"{"password":"hunter2","ü":1}"#);
    let out = Redactor::new().body(Cow::Borrowed(&text), "application/json", false, "request", &mut Tally::default());
    assert_eq!(*out, wide(r#"{"password":"[redacted]","ü":1}"#));
}

#[test]
fn header_fields_keep_what_is_not_secret() {
    for (name, value, expected) in [
        ("Authorization", "Bearer abc.def", "Bearer [redacted]"),
        ("authorization", "Basic dTpw", "Basic [redacted]"),
        ("Authorization", "abcdef", "[redacted]"),
        ("Authorization", "my secret", "[redacted]"),
        ("Authorization", "Negotiate", "Negotiate"),
        ("Proxy-Authorization", "Digest username=\"u\", response=\"r\"", "Digest [redacted]"),
        ("Cookie", "a=1; b=2; c", "a=[redacted]; b=[redacted]; [redacted]"),
        ("Set-Cookie", "sid=abc=d; Path=/; HttpOnly; weird=1", "sid=[redacted]; Path=/; HttpOnly; weird=[redacted]"),
        ("X-Api-Key", "abc", "[redacted]"),
        ("X-Amz-Security-Token", "abc", "[redacted]"),
        ("X-CSRF-Token", "abc", "[redacted]"),
        ("Referer", "https://u:p@h/p?token=x&a=b", "https://[redacted]@h/p?token=[redacted]&a=b"),
        ("Location", "/cb?code=x#access_token=y&z=1", "/cb?code=[redacted]#access_token=[redacted]&z=1"),
        ("Link", "<https://h/?token=abc>; rel=next", "<https://h/?token=[redacted]>; rel=next"),
        ("X-Debug", "password=hunter2, a=b", "password=[redacted], a=b"),
        ("Access-Control-Allow-Credentials", "true", "true"),
        ("Access-Control-Request-Headers", "authorization, x-api-key", "authorization, x-api-key"),
        ("User-Agent", "curl/8", "curl/8"),
    ] {
        assert_eq!(header(name, value), expected, "{name}");
    }
    assert_eq!(header("X-Any", JWT), "[redacted]");
}

#[test]
fn addresses_are_masked_in_every_part() {
    for (target, expected) in [
        ("/p?token=abc&a=b", "/p?token=[redacted]&a=b"),
        ("/p?a=b&API-Key=abc&x", "/p?a=b&API-Key=[redacted]&x"),
        ("/p;jsessionid=abc/q?x=1", "/p;jsessionid=[redacted]/q?x=1"),
        ("http://u:p@h:8/p", "http://[redacted]@h:8/p"),
        ("/p?u=https%3A%2F%2Fu%3Ap%40h%2F", "/p?u=[redacted]"),
        ("/p?u=https://u:p@h/?code=1", "/p?u=https://[redacted]@h/?code=[redacted]"),
        ("/p?u=%257B%2522password%2522%253A1%257D", "/p?u=[redacted]"),
        (
            "/p?X-Amz-Credential=a%2Fb&X-Amz-Signature=c&X-Amz-Date=d",
            "/p?X-Amz-Credential=[redacted]&X-Amz-Signature=[redacted]&X-Amz-Date=d",
        ),
        ("/hooks/ghp_16C7e42F292c6912E7710c838347Ae178B4a/x", "/hooks/[redacted]/x"),
        ("/hooks/g%68p_16C7e42F292c6912E7710c838347Ae178B4a/x", "/hooks/[redacted]/x"),
        ("/plain/path?q=a%20b&page=2", "/plain/path?q=a%20b&page=2"),
        ("*", "*"),
        ("", ""),
    ] {
        assert_eq!(url(target), expected);
    }
    assert_eq!(url(&format!("/verify/{JWT}")), "/verify/[redacted]");
}

#[test]
fn arguments_are_masked_after_their_options() {
    for (list, expected) in [
        (vec!["app", "--password=x", "--port=1"], vec!["app", "--password=[redacted]", "--port=1"]),
        (vec!["app", "--token", "x", "--verbose"], vec!["app", "--token", "[redacted]", "--verbose"]),
        (vec!["app", "-token", "x"], vec!["app", "-token", "[redacted]"]),
        (vec!["/usr/bin/mysql", "-pHunter2", "-u", "root"], vec!["/usr/bin/mysql", "-p[redacted]", "-u", "root"]),
        (vec!["mkdir", "-p", "x"], vec!["mkdir", "-p", "x"]),
        (
            vec!["curl", "-u", "a:b", "-H", "Authorization: Bearer abc", "http://u:p@h/?token=x"],
            vec![
                "curl",
                "-u",
                "[redacted]",
                "-H",
                "Authorization: [redacted]",
                "http://[redacted]@h/?token=[redacted]",
            ],
        ),
        (vec!["curl", "-d", "user=a&password=b"], vec!["curl", "-d", "user=a&password=[redacted]"]),
        (vec!["curl", "-d", "{\"password\":\"b\"}"], vec!["curl", "-d", "{\"password\":\"[redacted]\"}"]),
        (vec!["env", "SECRET_KEY=abc", "run"], vec!["env", "SECRET_KEY=[redacted]", "run"]),
        (vec!["app", "--no-password", "--x"], vec!["app", "--no-password", "--x"]),
    ] {
        assert_eq!(arguments(&list), expected);
    }
}

#[test]
fn places_are_counted() {
    let mut tally = Tally::default();
    let redactor = Redactor::new();
    redactor.header("authorization", Cow::Borrowed("Bearer x"), "request", &mut tally);
    redactor.url(Cow::Borrowed("/?token=1&token=2"), "request", &mut tally);
    redactor.header("Location", Cow::Borrowed("/?code=1"), "response", &mut tally);
    redactor.body(Cow::Borrowed(br#"{"password":1}"#), "", false, "response", &mut tally);
    let places: Vec<_> = tally.into_list().into_iter().map(|r| (r.place, r.count)).collect();
    let expected = [
        ("request.header.Authorization", 1),
        ("request.query.token", 2),
        ("response.header.Location.query.code", 1),
        ("response.body.json.password", 1),
    ];
    assert_eq!(places, expected.map(|(place, count)| (place.to_owned(), count)));
}

/// CPU time of this thread: what else the machine does counts little.
fn cpu() -> std::time::Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local of the right type, and the call keeps none.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    std::time::Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// Long runs of what looks like a beginning cost linear time: of four times the length about four times the
/// time, where a square would cost sixteen times.
#[test]
fn hostile_runs_are_bounded() {
    for piece in [
        "eyJ",
        "://",
        "token",
        "token=",
        "\"password\"",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "a%",
        "\\\"",
        "{\"a\":",
        "\"\\u0070",
        "<token ",
        "bearer ",
        "basic ",
        "eyJhbGciOiJub25lIn0.",
        "https://a?",
        "&a=%25",
        "--b\r\n",
        "[",
        "xoxb-",
    ] {
        let long = if cfg!(debug_assertions) { 16 << 10 } else { 64 << 10 };
        let [short, long] = [long / 4, long].map(|length| piece.repeat(length / piece.len()));
        for media in [
            "",
            "application/json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=b",
            "text/plain",
        ] {
            let [few, many] = [&short, &long].map(|text| {
                let started = cpu();
                body_cut(media, text, true);
                cpu().saturating_sub(started)
            });
            // A beginning of milliseconds is measured badly; a square of these lengths takes longer than this.
            let most = few * 8 + std::time::Duration::from_millis(30);
            assert!(many < most, "{piece} as {media}: {few:?} for a quarter of the length, {many:?} for all");
        }
    }
}

/// Text made of what the walks look for.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "\"password\"",
        "password",
        "token",
        "=",
        ":",
        "&",
        "\"",
        "'",
        "\\",
        "{",
        "}",
        "[",
        "]",
        ",",
        "eyJ",
        "eyJhbGciOiJub25lIn0",
        ".",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----END",
        "-----",
        "://",
        "@",
        "/",
        "?",
        "#",
        ";",
        "%",
        "%22",
        "%7B",
        "\\u0070",
        "\\n",
        "\n",
        "\r\n\r\n",
        "--b",
        "Content-Disposition: form-data; name=password",
        "<",
        ">",
        "AKIA",
        "ABCDEFGHIJ0123456789",
        "Bearer ",
        "Basic ",
        "dTpw",
        "[redacted]",
        "ü",
        " ",
        "a",
        "name",
        "value",
        "\0",
        "\u{fffd}",
    ]);
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
}

fn media() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "text/plain",
        "image/png",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn nothing_panics_and_twice_is_once(bytes in prop_oneof![pieces(), prop::collection::vec(any::<u8>(), 0..200)], media in media(), cut: bool) {
        let redactor = Redactor::new();
        let once = redactor.body(Cow::Borrowed(&bytes), media, cut, "request", &mut Tally::default());
        let mut tally = Tally::default();
        let twice = redactor.body(Cow::Borrowed(&once), media, cut, "request", &mut tally);
        prop_assert_eq!(String::from_utf8_lossy(&twice), String::from_utf8_lossy(&once));
    }

    #[test]
    fn heads_never_panic_and_twice_is_once(bytes in pieces()) {
        let text = String::from_utf8(bytes).unwrap();
        for name in ["Authorization", "Cookie", "Set-Cookie", "Location", "X-Any"] {
            let once = header(name, &text);
            prop_assert_eq!(header(name, &once), once);
        }
        let once = url(&text);
        prop_assert_eq!(url(&once), once);
        let once = arguments(&["app", &text, &text]);
        prop_assert_eq!(arguments(&once.iter().map(String::as_str).collect::<Vec<_>>()), once);
    }

    #[test]
    fn bodies_without_secrets_stay_untouched(words in prop::collection::vec("[f-hj-n ]{1,12}", 0..30), media in media()) {
        let object: serde_json::Map<_, _> = words.iter().map(|w| (w.clone(), serde_json::json!([w, 1, null]))).collect();
        let texts = [words.join("\n"), serde_json::Value::Object(object).to_string(), words.join("=1&") ];
        for text in texts {
            prop_assert_eq!(body(media, &text), text);
        }
    }

    #[test]
    fn a_secret_member_is_masked_wherever_the_text_is_cut(at in 0usize..200) {
        let text = format!(r#"{{"a":[1,2],"x":{{"password":"hunter2\n{}","b":"c"}},"access-token":"{}","end":0}}"#, "hunter2".repeat(5), "hunter2".repeat(5));
        let (out, _) = body_cut("application/json", &text[..at.min(text.len())], true);
        prop_assert!(!out.contains("hun"), "{}", out);
    }
}
