//! What OpenSSL's calls carry: sizes round a record's, large writes in one call, calls that are tried again, the ways
//! that C programs use the library.

use anyhow::{Context as _, Result, ensure};
use integration::tls::{Server, Site};

use crate::{
    Test,
    tls::{Asking, Checks, Owner, Wanted, curl_file},
};

pub(crate) const TESTS: &[Test] = &[
    ("tls_bodies_of_0_bytes_to_1_mb_in_both_directions", sizes),
    ("tls_bodies_of_5_mb_with_the_limit_raised", large),
    ("tls_calls_that_are_tried_again_and_partial_writes", retries),
    ("tls_the_ways_of_c_programs", ways),
    ("tls_coalesced_records_and_pipelined_requests", coalesced),
    ("tls_a_thread_that_reads_does_not_disturb_others", parallel),
];

/// A client of `peers/`: which program, which model or options.
#[derive(Clone, Copy)]
enum Client {
    Python(&'static str),
    Node(&'static str),
    C(&'static str),
}

fn client(site: &Site, server: &Server, which: Client) -> Result<Asking> {
    let (host, port) = ("b.tls.test", server.port);
    let command = match which {
        Client::Python(model) => site.python(model, host, port, &[]),
        Client::Node(model) => site.node(model, host, port),
        Client::C(options) => site.c(options, host, port)?,
    };
    Asking::start(command, host, server)
}

fn sizes() -> Result<()> {
    let site = Site::new()?;
    let nginx = site.nginx("", |_| {})?;
    let (threads, asyncio, node) = (site.server("threads")?, site.server("asyncio")?, site.server("node")?);
    let pairs = [
        (Client::C(""), &nginx),
        (Client::Python("session"), &threads),
        (Client::Python("asyncio"), &asyncio),
        (Client::Node("https"), &node),
    ];
    let mut checks = Checks::start("/tls/sizes/", &["--ring", "128M"])?;
    for (at, (which, server)) in pairs.into_iter().enumerate() {
        let mut client = client(&site, server, which)?;
        for len in [0, 1, 16_383, 16_384, 16_385, 100 << 10, 1 << 20] {
            let at = format!("/tls/sizes/{at}");
            client.get(&mut checks, &site, &at, 10 + len as u64, len)?;
            if len > 0 {
                client.send(&mut checks, &site, &at, 20 + len as u64, len)?;
            }
        }
    }
    checks.done()
}

fn large() -> Result<()> {
    const LEN: usize = 5_000_000;
    let site = Site::new()?;
    let (nginx, threads) = (site.nginx("", |_| {})?, site.server("threads")?);
    let mut checks = Checks::start("/tls/large/", &["--ring", "128M", "--max-body", "8M"])?;
    checks.add(curl_file(&site, &nginx, "/tls/large/curl", 30, LEN, &[])?);
    let mut c = client(&site, &nginx, Client::C("ex"))?;
    c.send(&mut checks, &site, "/tls/large/c", 31, LEN)?;
    let mut python = client(&site, &threads, Client::Python("session"))?;
    python.send(&mut checks, &site, "/tls/large/python", 32, LEN)?;
    // After them the connection still is in step.
    python.get(&mut checks, &site, "/tls/large/after", 33, 100)?;
    checks.done()
}

fn retries() -> Result<()> {
    let site = Site::new()?;
    let (nginx, threads) = (site.nginx("", |_| {})?, site.server("threads")?);
    let mut checks = Checks::start("/tls/retries/", &["--ring", "128M"])?;
    for (at, server) in [&nginx, &threads].into_iter().enumerate() {
        for which in [Client::C("partial"), Client::C("partial ex"), Client::Python("nonblocking")] {
            let name = match which {
                Client::Python(model) | Client::Node(model) | Client::C(model) => model.replace(' ', "-"),
            };
            let mut client = client(&site, server, which)?;
            let at = format!("/tls/retries/{at}/{name}");
            client.send(&mut checks, &site, &at, 40, 1 << 20)?;
            client.get(&mut checks, &site, &at, 41, 300_000)?;
            client.get(&mut checks, &site, &at, 42, 10)?;
        }
    }
    checks.done()
}

fn ways() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    // Compiled before the capture begins.
    site.c("", "b.tls.test", server.port)?;
    let mut checks = Checks::start("/tls/ways/", &[])?;
    for options in ["", "ex", "tls1.2", "memory", "memory ex", "chain", "readahead", "fresh", "clear", "fresh tls1.2"] {
        let mut client = client(&site, &server, Client::C(options)).context(options)?;
        let at = format!("/tls/ways/as-{}", options.replace(' ', "-"));
        // Objects that are freed are soon followed by others at the same address.
        let rounds = if options.contains("fresh") || options == "clear" { 12 } else { 3 };
        for n in 0..rounds {
            client.get(&mut checks, &site, &format!("{at}/{n}"), 50 + n, 20_000)?;
        }
        client.send(&mut checks, &site, &at, 60, 50_000)?;
    }
    for options in ["fork", "fork ex", "seccomp", "seccomp ex"] {
        let mut client = client(&site, &server, Client::C(options)).context(options)?;
        if options.contains("fork") {
            // The child asks, with the object that its parent has made.
            client.shared.client = Owner("tls_client", Some(child(client.dialogue.pid())?));
        }
        for n in 0..3 {
            let at = format!("/tls/ways/{}/{n}", options.replace(' ', "-"));
            client.get(&mut checks, &site, &at, 70 + n, 20_000).with_context(|| format!("{options}: unharmed"))?;
        }
    }
    checks.done()
}

/// The one child of a process.
fn child(pid: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(children.trim().parse()?)
}

fn coalesced() -> Result<()> {
    let site = Site::new()?;
    let (nginx, asyncio) = (site.nginx("", |_| {})?, site.server("asyncio")?);
    let mut checks = Checks::start("/tls/coalesced/", &[])?;
    // Both ends write head and body as two records in one segment.
    let mut python = client(&site, &asyncio, Client::Python("asyncio"))?;
    for n in 0..5 {
        python.send(&mut checks, &site, &format!("/tls/coalesced/asyncio/{n}"), 80 + n, 3000)?;
    }
    for options in ["memory", "memory readahead", "readahead", "memory tls1.2"] {
        let mut client = client(&site, &nginx, Client::C(options))?;
        let name = options.replace(' ', "-");
        let files = (0..6_u64).map(|n| Ok((n, site.file(90 + n, 2000)?))).collect::<Result<Vec<_>>>()?;
        let paths: Vec<String> = files.iter().map(|(n, file)| format!("/tls/coalesced/{name}/{n}/{file}")).collect();
        let said = client.dialogue.ask(&format!("PIPELINE {}", paths.join(" ")))?;
        for ((n, _), path) in files.iter().zip(&paths) {
            let wanted = Wanted::get(path, 90 + n, 2000);
            ensure!(said.contains(&integration::content::sha1(&wanted.response)), "{name} got something else: {said}");
            let shared = client.shared.clone();
            checks.add(Wanted { sni: shared.sni, client: shared.client, server: shared.server, ..wanted });
        }
    }
    checks.done()
}

/// Two threads wait inside of a read while a third one goes on, each with a connection of its own.
fn parallel() -> Result<()> {
    let site = Site::new()?;
    let server = site.server("threads")?;
    let mut checks = Checks::start("/tls/parallel/", &[])?;
    let mut client = client(&site, &server, Client::Python("parallel"))?;
    let files = (0..4_u64).map(|n| site.file(100 + n, 30_000)).collect::<Result<Vec<_>>>()?;
    for turn in 0..3 {
        let paths: Vec<String> =
            files.iter().enumerate().map(|(n, f)| format!("/tls/parallel/{turn}/{n}/{f}")).collect();
        // The first two answers come last.
        let line = format!("GET {}?wait=300 {}?wait=200 {} {}", paths[0], paths[1], paths[2], paths[3]);
        let said = client.dialogue.ask(&line)?;
        for (n, path) in paths.iter().enumerate() {
            let wanted = Wanted::get(path, 100 + n as u64, 30_000);
            ensure!(
                said.contains(&integration::content::sha1(&wanted.response)),
                "a thread got something else: {said}"
            );
            let shared = client.shared.clone();
            checks.add(Wanted { sni: shared.sni, client: shared.client, server: shared.server, ..wanted });
        }
    }
    checks.done()
}
