//! What is secret is nowhere: not in the archive's files, not in what the commands and pages show, not in the
//! log. What is not secret is there, so the search would have found the rest.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use integration::{
    http::{Client, Kind, Reader},
    program,
    tapstack::{Tapstack, binary},
};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[("secrets_are_nowhere", secrets)];

/// Stands where a secret stands, but under an innocent name.
const HARMLESS: &str = "Harmless7Qw4Zr9Lk2";

/// One secret for each place; each name says where it was sent.
const SECRETS: [&str; 15] = [
    "Auth0rizationBearer8xT2",
    "BasicPassw0rd5kL9mQ",
    "ReqC00kieValue7hJ3pW",
    "SetC00kieValue2nB6vX",
    "Query-T0kenValue4cD8sF",
    "QueryAp1KeyValue9gH1zK",
    "JsonPassw0rdValue3rT7yU",
    "FormPassw0rdValue6iO0pA",
    "AnswerAccessT0ken1sD5fG",
    "UserinfoPassw0rd8hJ4kL",
    "GzippedPassw0rd2zX6cV",
    "XApiKeyHeader0bN3mQ7w",
    "NestedClientSecret5eR9t",
    "ProxyAuthorizati0n1yU4i",
    "SplitPassw0rdValue7oP2a",
];

/// A server that answers each request with a secret header and a secret member.
fn server() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    // Ends with the test process: it holds nothing but its socket.
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            thread::spawn(move || -> std::io::Result<()> {
                let mut reader = Reader::new(stream);
                while reader.message(Kind::Request)?.is_some() {
                    let body = format!(r#"{{"note":"{HARMLESS}","access_token":"{}"}}"#, SECRETS[8]);
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Note: {HARMLESS}\r\n\
                         Set-Cookie: session={}; Path=/\r\nContent-Length: {}\r\n\r\n{body}",
                        SECRETS[3],
                        body.len()
                    );
                    std::io::Write::write_all(&mut reader.stream, answer.as_bytes())?;
                }
                Ok(())
            });
        }
    });
    Ok(address)
}

/// Sends every secret as a user's programs would; returns the number of exchanges.
fn send(address: SocketAddr, folder: &Path) -> Result<usize> {
    let plain = folder.join("plain.json");
    fs::write(&plain, format!(r#"{{"user":"a","password":"{}"}}"#, SECRETS[10]))?;
    program::output(program::command("python3").args([
        "-c",
        &format!("import gzip; open('{0}.gz', 'wb').write(gzip.compress(open('{0}', 'rb').read()))", plain.display()),
    ]))?;
    let base = format!("http://{address}");
    let zipped = format!("@{}.gz", plain.display());
    let json = format!(r#"{{"user":"a","password":"{}","note":"{HARMLESS}"}}"#, SECRETS[6]);
    let nested = format!(r#"{{"a":[{{"client_secret":"{}"}}],"note":"{HARMLESS}"}}"#, SECRETS[12]);
    let form = format!("user=a&password={}&note={HARMLESS}", SECRETS[7]);
    let calls: [&[&str]; 10] = [
        &["-H", &format!("Authorization: Bearer {}", SECRETS[0]), "-H", &format!("X-Note: {HARMLESS}")],
        &["-u", &format!("user:{}", SECRETS[1])],
        &["-H", &format!("Cookie: a=b; session={}", SECRETS[2])],
        &["-G", "-d", &format!("token={}&api_key={}&note={HARMLESS}", SECRETS[4], SECRETS[5])],
        &["-H", "Content-Type: application/json", "-d", &json],
        &["-H", "Content-Type: application/json", "-d", &nested],
        &["-d", &form],
        &["-H", "Content-Type: application/json", "-H", "Content-Encoding: gzip", "--data-binary", &zipped],
        &["-H", &format!("X-Api-Key: {}", SECRETS[11]), "-H", &format!("Proxy-Authorization: Basic {}", SECRETS[13])],
        &["--url", &format!("http://user:{}@{address}/secret/userinfo", SECRETS[9])],
    ];
    for (n, arguments) in calls.iter().enumerate() {
        let mut command = program::command("curl");
        command.args(["-sSf", "-o", "/dev/null"]).args(*arguments);
        if !arguments.contains(&"--url") {
            command.arg(format!("{base}/secret/{n}"));
        }
        program::output(&mut command)?;
    }
    // A secret that is split over segments.
    let mut client = Client::open(address)?;
    let body = format!("password={}", SECRETS[14]);
    let head = format!(
        "POST /secret/split HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    for byte in head.into_bytes().into_iter().chain(body.into_bytes()) {
        std::io::Write::write_all(&mut client.stream, &[byte])?;
    }
    client.answer("POST")?;
    Ok(calls.len() + 1)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

/// Where bytes were found, and the bytes.
type Haystack = Vec<(String, Vec<u8>)>;

/// Everything that a reader of the product can get at.
fn everything(tapstack: &mut Tapstack, count: usize) -> Result<Haystack> {
    let mut all = Haystack::new();
    let found = tapstack.wait_for("/secret/", count * 2)?;
    let data = tapstack.data();
    let page = |path: &str| -> Result<Vec<u8>> {
        let mut client = Client::open(tapstack.listen)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/html\r\n\r\n", tapstack.listen);
        std::io::Write::write_all(&mut client.stream, request.as_bytes())?;
        let answer = client.answer("GET")?;
        ensure!(answer.status() == 200, "GET {path}: {}", answer.start);
        Ok(answer.body)
    };
    all.push(("the explorer's list".into(), page("/")?));
    for record in &found {
        let (digest, name) = (record.text("digest"), record.path());
        all.push((format!("find: {name}"), record.0.to_string().into_bytes()));
        all.push((format!("the page of {name}"), page(&format!("/qpoint/{digest}"))?));
        for form in ["--json", "--har", "--curl"] {
            let mut command = std::process::Command::new(binary()?);
            command.args(["show", digest, form, "--data-dir"]).arg(&data);
            all.push((format!("show {form}: {name}"), program::output(&mut command)?));
        }
        let object = tapstack.show(record)?;
        for message in ["request", "response"] {
            all.push((format!("{message} body of {name}"), object.body(message)?));
        }
    }
    all.push(("/metrics".into(), tapstack.metrics()?.into_bytes()));
    tapstack.stop(libc::SIGTERM)?;
    all.push(("the log".into(), tapstack.log().into_bytes()));
    for file in files(&data)? {
        all.push((file.display().to_string(), fs::read(&file)?));
    }
    Ok(all)
}

fn secrets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let address = server()?;
    let mut tapstack = Tapstack::start()?;
    let count = send(address, folder.path())?;
    let everywhere = everything(&mut tapstack, count)?;
    let holds = |hay: &[u8], needle: &str| hay.windows(needle.len()).any(|w| w == needle.as_bytes());
    for place in ["show --json", "show --har", "show --curl", "request body", "response body", "the page of"] {
        let mut here = everywhere.iter().filter(|(name, _)| name.starts_with(place));
        ensure!(here.any(|(_, bytes)| holds(bytes, HARMLESS)), "{place} does not even show what is harmless");
    }
    let mut leaks = Vec::new();
    for secret in SECRETS {
        // As sent, in Base64 as Basic does it, and Base64 of the body as objects hold it is decoded above.
        let encoded = STANDARD.encode(format!("user:{secret}"));
        for (name, bytes) in &everywhere {
            if holds(bytes, secret) || holds(bytes, &encoded) {
                leaks.push(format!("{secret} in {name}"));
            }
        }
    }
    ensure!(leaks.is_empty(), "{} places:\n{}", leaks.len(), leaks.join("\n"));
    everywhere.iter().find(|(name, _)| name.contains("archive.db")).context("the archive's file was not searched")?;
    Ok(())
}
