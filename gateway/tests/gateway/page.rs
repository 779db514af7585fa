//! Pages of what strangers wrote: whatever was captured, a page has the tags that its templates and nobody
//! else gave it.
//!
//! Each text of the corpus stands in every captured field at once. The page's skeleton (its tags, and their
//! attributes' names) must then be that of the same page with plain words in these fields, and each address in
//! it must lead to the gateway itself.

use transaction::{Sealed, Transaction, object::Interim, seal};

use crate::{refusal::assert_hardened, running::Gateway, sample::Sample};

/// Ways out of text, attributes, comments, title, style, script and template syntax.
const CORPUS: &[&str] = &[
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x></sCrIpT>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>",
    "\" onmouseover=\"alert(1)\" x=\"",
    "' autofocus onfocus='alert(1)",
    "`onload=alert(1)`",
    "</title><script>alert(1)</script>",
    "</pre></td></table><iframe srcdoc='<b>'></iframe>",
    "--><!--<script>alert(1)//",
    "<!--#exec cmd=\"id\"-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "</style><style>*{background:url(//evil.example)}",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content='0;url=//evil.example'>",
    "<form action=//evil.example><input name=q>",
    "javascript:alert(1)",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;img src=x&#62;",
    "{{ 7*7 }}{% raw %}${7*7}",
    "<a\0b\r\nSet-Cookie: x=y\r\n\r\n<html>",
    "\u{202e}<b>\u{2028}\u{feff}<i>",
    "<",
    "<x",
    "\\\"</summary></details><script>",
];

/// Tags that the templates use.
const TAGS: &[&str] = &[
    "!doctype", "html", "head", "meta", "title", "link", "body", "a", "header", "img", "main", "nav", "div", "h1",
    "h2", "h3", "span", "b", "p", "time", "strong", "ul", "li", "section", "svg", "rect", "dl", "dt", "dd", "i",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "pre", "details", "summary", "form", "label", "input",
    "select", "option", "button", "code", "g", "text", "line",
];

/// One tag: its name (with `/` when it ends), and its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

/// The tags of a page, read as a browser does: `<` and a letter, `/` or `!` begin one (HTML Standard, section
/// 13.2.5.6).
fn tags(html: &str) -> Vec<Tag> {
    let mut list = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
            continue;
        }
        let end = rest.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        rest = &rest[end..];
        let mut attributes = Vec::new();
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
            if rest.is_empty() || rest.starts_with('>') {
                break;
            }
            let end = rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>')).unwrap_or(rest.len());
            let name = rest[..end].to_ascii_lowercase();
            rest = &rest[end..];
            let mut value = "";
            if let Some(after) = rest.strip_prefix('=') {
                let Some(quoted) = after.strip_prefix('"') else { panic!("an unquoted value: {after:.60}") };
                let end = quoted.find('"').unwrap_or(quoted.len());
                value = &quoted[..end];
                rest = quoted.get(end + 1..).unwrap_or_default();
            }
            attributes.push((name, value.to_owned()));
        }
        list.push(Tag { name, attributes });
    }
    list
}

/// The tags and the names of their attributes.
fn skeleton(html: &str) -> Vec<(String, Vec<String>)> {
    tags(html).into_iter().map(|t| (t.name, t.attributes.into_iter().map(|(n, _)| n).collect())).collect()
}

/// Nothing that runs, loads from elsewhere or leads elsewhere.
fn assert_harmless(html: &str, what: &str) {
    for tag in tags(html) {
        let name = tag.name.trim_start_matches('/');
        assert!(TAGS.contains(&name), "{what}: <{}>", tag.name);
        for (attribute, value) in &tag.attributes {
            assert!(!attribute.starts_with("on") && attribute != "style" && attribute != "srcdoc", "{what}: {tag:?}");
            let own = |v: &str| (v.starts_with('/') && !v.starts_with("//")) || v.starts_with(['?', '#']);
            if ["href", "src", "action"].contains(&attribute.as_str()) {
                assert!(own(value), "{what}: {tag:?}");
            }
        }
    }
}

/// A transaction with `text` in every field that a stranger can write, with bodies of these types.
fn planted(text: &str, types: (&str, &str), body: impl Fn(&str) -> Vec<u8>) -> Sealed {
    let sample = Sample::default();
    let mut t: Transaction = sample.transaction();
    let own = || text.to_owned();
    let list = || vec![(own(), own()), ("X-Planted".to_owned(), own())];
    t.metadata.process_exe = own();
    t.metadata.container_name = own();
    t.metadata.pod_name = own();
    t.metadata.pod_namespace = own();
    t.metadata.endpoint_id = own();
    t.metadata.host_name = own();
    t.metadata.tags = vec![own()];
    t.rule = Some(own());
    t.error_type = Some(own());
    t.completeness.complete = false;
    t.completeness.notes = vec![own()];
    t.completeness.request.end = own();
    t.completeness.response.encoding = own();
    t.completeness.response.truncated = vec![own()];
    t.process.exe = own();
    t.process.args = vec![own(), own()];
    t.process.user = own();
    t.process.unit = own();
    t.process.container_id = own();
    t.process.parent_exe = own();
    t.process.started = own();
    t.connection.local = own();
    t.connection.remote = own();
    t.connection.source = own();
    t.tls = Some(transaction::object::Tls {
        version: own(),
        sni: own(),
        alpn: own(),
        cipher: own(),
        alpn_offered: vec![own()],
        binding: own(),
    });
    t.redactions = vec![transaction::object::Redaction { place: own(), action: own(), count: 2 }];
    let request = t.request.as_mut().unwrap();
    request.method = own();
    request.url = format!("http://{text}/{text}?{text}");
    request.path = format!("/{text}");
    request.authority = own();
    request.version = own();
    request.user_agent = own();
    types.0.clone_into(&mut request.content_type);
    request.header_list = list();
    request.trailer_list = list();
    request.body.0 = body(text);
    let response = t.response.as_mut().unwrap();
    response.reason = own();
    response.version = own();
    types.1.clone_into(&mut response.content_type);
    response.header_list = list();
    response.trailer_list = list();
    response.interim = vec![Interim { status: 103, header_list: list() }];
    response.body.0 = body(text);
    seal(&t, sample.at_ns)
}

/// Text; with a NUL it would be shown as a hex dump, whose skeleton is another.
fn plain_body(text: &str) -> Vec<u8> {
    format!("before {text} after").replace('\0', "").into_bytes()
}

fn json_body(text: &str) -> Vec<u8> {
    let mut member = serde_json::Map::new();
    member.insert(text.to_owned(), text.into());
    serde_json::to_vec(&serde_json::json!([text, member, [text]])).unwrap()
}

fn form_body(text: &str) -> Vec<u8> {
    form_urlencoded::Serializer::new(String::new()).append_pair(text, text).append_pair("b", text).finish().into_bytes()
}

type BodyOf = fn(&str) -> Vec<u8>;

/// Types of bodies, and how to make one.
const BODIES: &[(&str, BodyOf)] = &[
    ("text/html", plain_body),
    ("image/svg+xml", plain_body),
    ("text/plain; charset=utf-8", plain_body),
    ("application/json", json_body),
    ("application/x-www-form-urlencoded", form_body),
];

#[tokio::test]
async fn nothing_captured_adds_a_tag_or_an_attribute_to_the_page_or_the_list() {
    for (kind, body) in BODIES {
        let hostile: Vec<Sealed> = CORPUS.iter().map(|text| planted(text, (kind, kind), body)).collect();
        let digests: Vec<_> = hostile.iter().map(|o| o.record.digest).collect();
        let plain = planted("word", (kind, kind), body);
        let plain_digest = plain.record.digest;
        // Each alone in its archive's list, so that the lists can be compared: one gateway for the pages.
        let gateway = Gateway::with(hostile.into_iter().chain([plain]).collect()).await;
        let html = [("Accept", "text/html")];
        let reference = gateway.ask("GET", &format!("/qpoint/{plain_digest}"), &html).await;
        assert_eq!(reference.status, 200);
        assert_harmless(reference.text(), "plain words");
        // The page shows what was planted: else this test would hold whatever the page does.
        let shown = reference.text().matches("word").count();
        assert!(shown >= 40, "the plain word stands only {shown} times on the page");
        // The other transactions of the connection come last, and are as many on each page.
        let expected = skeleton(reference.text());
        for (text, digest) in CORPUS.iter().zip(&digests) {
            let page = gateway.ask("GET", &format!("/qpoint/{digest}"), &html).await;
            assert_eq!(page.status, 200, "{text}");
            assert_hardened(&page, text);
            assert_harmless(page.text(), text);
            let (found, wanted) = (before_neighbours(skeleton(page.text())), before_neighbours(expected.clone()));
            let differs = found.iter().zip(&wanted).position(|(a, b)| a != b);
            assert_eq!((found.len(), differs), (wanted.len(), None), "{kind}, {text}: {}", page.text());
            if text.contains(['<', '"', '\'']) && text.len() > 2 {
                assert!(!page.text().contains(text), "{kind}: unescaped {text}");
            }
        }
        let list = gateway.ask("GET", "/?limit=1000", &html).await;
        assert_hardened(&list, "list");
        assert_harmless(list.text(), "list");
        assert_eq!(tags(list.text()).iter().filter(|t| t.name == "tr").count(), CORPUS.len() + 2, "{kind}");
        for text in CORPUS.iter().filter(|t| t.contains(['<', '"', '\'']) && t.len() > 2) {
            assert!(!list.text().contains(text), "list: unescaped {text}");
        }
        gateway.stop().await;
    }
}

/// The skeleton without the table of the same connection's transactions, where the shown one has no link.
fn before_neighbours(mut skeleton: Vec<(String, Vec<String>)>) -> Vec<(String, Vec<String>)> {
    let table = skeleton.iter().rposition(|(name, _)| name == "table").expect("the table of the connection");
    skeleton.truncate(table);
    skeleton
}

#[tokio::test]
async fn what_is_typed_into_the_filter_is_escaped_where_it_is_shown_again() {
    let gateway = Gateway::with(Vec::new()).await;
    let names = ["host", "path", "method", "status", "exe", "end", "since", "limit", "before"];
    let query = |text: &str| {
        let mut query = form_urlencoded::Serializer::new(String::from("/?"));
        for name in names {
            query.append_pair(name, text);
        }
        query.finish()
    };
    let reference = skeleton(gateway.get(&query("word")).await.text());
    for text in CORPUS {
        for target in [query(text), format!("/?since={}", &query(text)[7..])] {
            let answer = gateway.get(&target).await;
            assert_eq!(answer.status, 400, "{text}");
            assert_hardened(&answer, text);
            assert_harmless(answer.text(), text);
            if text.contains(['<', '"', '\'']) && text.len() > 2 {
                assert!(!answer.text().contains(text), "unescaped {text}");
            }
        }
        assert_eq!(skeleton(gateway.get(&query(text)).await.text()), reference, "{text}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_of_a_hundred_thousand_brackets_does_not_end_the_gateway() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    let object = crate::running::sealed(&Sample { response_body: deep.as_bytes(), ..Sample::default() });
    let target = format!("/qpoint/{}", object.record.digest);
    let gateway = Gateway::with(vec![object]).await;
    let page = gateway.ask("GET", &target, &[("Accept", "text/html")]).await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains(&deep[..1000]) && !page.text().contains("<details"), "{}", page.body.len());
    assert_eq!(gateway.get("/healthz").await.status, 200);
    gateway.stop().await;
}
