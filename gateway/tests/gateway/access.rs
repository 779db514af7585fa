//! On loopback, being on the same host is not enough: the user behind the connection decides. These tests
//! need root to be other users; without it they try what they can.

use std::process::{Command, Stdio};

use crate::{
    client::{Answer, exchange_as, is_root, request},
    refusal::assert_hardened,
    running::{Gateway, sealed},
    sample::Sample,
};

/// The user `nobody`.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn root_reads_everything_and_nobody_only_that_the_gateway_runs() {
    let object = sealed(&Sample::default());
    let d = object.record.digest;
    let secret = "api.example";
    let gateway = Gateway::with(vec![object]).await;
    let paths = [
        "/".to_owned(),
        "/?format=json".to_owned(),
        format!("/qpoint/{d}"),
        format!("/qpoint/{d}?raw"),
        format!("/qpoint/{d}?format=json"),
        format!("/qpoint/{d}?format=har"),
        format!("/qpoint/{d}?format=curl"),
        format!("/qpoint/{d}?body=response"),
        "/static/style.css".to_owned(),
    ];
    for path in &paths {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    if !is_root() {
        eprintln!("not root: what other users get was not tried");
        return gateway.stop().await;
    }
    let served = gateway.counted("requests_answered");
    let more =
        ["/nowhere", "/qpoint/", "/healthz/", "//healthz", "/HEALTHZ", "/healthz?x/../..", "/%68ealthz", "/metrics"];
    for path in paths.iter().map(String::as_str).chain(more) {
        for method in ["GET", "HEAD", "POST"] {
            let back = exchange_as(NOBODY, gateway.address, request(method, path, &[])).await;
            let answer = Answer::parse(&back).unwrap();
            let health = path.split('?').next() == Some("/healthz");
            if health && method != "POST" {
                assert_eq!(answer.status, 200, "{method} {path}");
                continue;
            }
            assert_eq!(answer.status, if health { 405 } else { 403 }, "{method} {path}");
            assert_hardened(&answer, path);
            assert!(!answer.text().contains(secret) && !answer.text().contains(&d.to_string()), "{method} {path}");
        }
    }
    let back = exchange_as(NOBODY, gateway.address, request("GET", "/", &[])).await;
    let why = Answer::parse(&back).unwrap();
    assert!(why.text().contains("uid 65534") && why.text().contains("usermod -aG tapstack"), "{}", why.text());
    // A foreign host name does not tell a stranger more.
    let foreign = request("GET", "/", &[("Host", "evil.example")]);
    assert_eq!(Answer::parse(&exchange_as(NOBODY, gateway.address, foreign).await).unwrap().status, 403);
    let healthy = exchange_as(NOBODY, gateway.address, request("GET", "/healthz", &[])).await;
    assert_eq!(Answer::parse(&healthy).map(|a| a.body), Some(b"ok\n".to_vec()));
    assert_eq!(gateway.counted("requests_answered") - served, 3, "/healthz only");
    gateway.stop().await;
}

#[tokio::test]
async fn a_process_of_another_user_is_refused_also_after_the_first_request_on_a_connection() {
    let object = sealed(&Sample::default());
    let target = format!("/qpoint/{}", object.record.digest);
    let gateway = Gateway::with(vec![object]).await;
    if !is_root() {
        eprintln!("not root: another user's process was not tried");
        return gateway.stop().await;
    }
    let ask = |path: &str, more: &str| format!("GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n{more}\\r\\n");
    let last = ask(&target, "Connection: close\\r\\n");
    let run = async |uid: &'static str, requests: String| {
        let port = gateway.address.port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; printf '{requests}' >&3; cat <&3");
        let output = tokio::task::spawn_blocking(move || {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", uid, "--regid", uid, "--clear-groups", "bash", "-c", &script]);
            command.stdin(Stdio::null()).current_dir("/").output().unwrap()
        });
        String::from_utf8(output.await.unwrap().stdout).unwrap()
    };
    let alone = run("65534", last.clone()).await;
    assert!(alone.starts_with("HTTP/1.1 403") && alone.contains("uid 65534"), "{alone}");
    // Two requests in a row: what the first one may see must not open the second. A stranger's connection
    // ends after one answer, and bytes that come later reset it, which may take that answer away again.
    let both = ask("/healthz", "") + &last;
    let nobody = run("65534", both.clone()).await;
    assert!(nobody.is_empty() || nobody.starts_with("HTTP/1.1 200 OK"), "{nobody}");
    assert!(!nobody.contains("api.example"), "{nobody}");
    let root = run("0", both).await;
    assert!(root.starts_with("HTTP/1.1 200 OK") && root.contains("api.example"), "{root}");
    gateway.stop().await;
}
