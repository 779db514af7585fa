//! Addresses and network namespaces.

use std::net::{Ipv6Addr, SocketAddr, TcpStream};

use anyhow::{Result, ensure};
use integration::{
    content,
    http::Client,
    net::{Netns, veth},
    program::Peer,
    sys,
    tapstack::Tapstack,
};

use crate::{
    PEER, Test,
    content_checks::{body_is, exactly},
};

pub(crate) const TESTS: &[Test] = &[
    ("ipv6_and_ipv4_mapped_addresses_are_captured", ipv6),
    ("the_same_addresses_in_two_namespaces_are_two_connections", two_namespaces),
    ("a_veth_pair_between_two_namespaces_shows_both_ends", between),
    ("ipv6_between_two_namespaces_shows_both_ends", between_ipv6),
];

fn ipv6() -> Result<()> {
    let server = Peer::start(PEER, "serve", "[::]:0", "", None)?;
    let port = server.address.port();
    let mut tapstack = Tapstack::start()?;
    let clients = [
        ("v6", SocketAddr::from((Ipv6Addr::LOCALHOST, port)), "[::1]"),
        ("v4", SocketAddr::from(([127, 0, 0, 1], port)), "127.0.0.1"),
        ("mapped", SocketAddr::from((Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1]), port)), "127.0.0.1"),
    ];
    for (name, address, shown) in clients {
        let path = format!("/{name}/bytes/60/120000");
        let answer = Client::open(address)?.ask("GET", &path, "", None)?;
        ensure!(answer.body == content::body(60, 120_000), "the answer differs");
        let (client, at_server) = tapstack.both(&path)?;
        for record in [&client, &at_server] {
            let object = body_is(&mut tapstack, record, "response", &content::body(60, 120_000))?;
            let pointer = if record.end() == "client" { "/connection/remote" } else { "/connection/local" };
            ensure!(object.text(pointer) == format!("{shown}:{port}"), "{name}: {}", object.0["connection"]);
        }
        ensure!(at_server.number("process_pid") == Some(u64::from(server.pid())), "{name}: {:?}", at_server.0);
        ensure!(client.text("exchange_id") == at_server.text("exchange_id"), "{name}: two ids");
    }
    Ok(())
}

fn two_namespaces() -> Result<()> {
    let places = [Netns::new()?, Netns::new()?];
    let mut tapstack = Tapstack::start()?;
    let servers = [
        Peer::start(PEER, "serve", "127.0.0.1:8080", "", Some(&places[0]))?,
        Peer::start(PEER, "serve", "127.0.0.1:8080", "", Some(&places[1]))?,
    ];
    let (from, to) = (SocketAddr::from(([127, 0, 0, 1], 40001)), servers[0].address);
    let connect = |netns: &Netns| netns.run(|| Ok(Client::over(sys::connect_from(from, to)?)?));
    // Both are open at once, with the same four numbers, and take turns.
    let mut clients: [Client; 2] = [connect(&places[0])?, connect(&places[1])?];
    for n in 0..6_usize {
        let seed = 70 + n as u64;
        let answer = clients[n % 2].ask("GET", &format!("/place/{}/{n}/bytes/{seed}/40000", n % 2), "", None)?;
        ensure!(answer.body == content::body(seed, 40000), "the answer differs");
    }
    let found = tapstack.wait_for("/place/", 12)?;
    for record in &found {
        let mut parts = record.path().split('/').skip(2);
        let place: usize = parts.next().unwrap_or_default().parse()?;
        let seed: u64 = parts.nth(2).unwrap_or_default().parse()?;
        body_is(&mut tapstack, record, "response", &content::body(seed, 40000))?;
        if record.end() == "server" {
            let (owner, server) = (record.number("process_pid"), u64::from(servers[place].pid()));
            ensure!(owner == Some(server), "{} belongs to {server}, found {owner:?}", record.path());
        }
    }
    exactly(&mut tapstack, "/place/", 12)
}

/// One exchange in each direction's size over a veth pair.
fn over_veth(a: &Netns, server: &Peer, name: &str) -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    let sent = content::body(80, 300_000);
    let path = format!("/{name}/echo");
    let address = server.address;
    let answer = a.run(|| {
        let stream = TcpStream::connect(address)?;
        Ok(Client::over(stream)?.ask("POST", &path, "", Some(&sent))?)
    })?;
    ensure!(answer.body == sent, "the echo differs");
    let (client, at_server) = tapstack.both(&path)?;
    for record in [&client, &at_server] {
        body_is(&mut tapstack, record, "request", &sent)?;
        body_is(&mut tapstack, record, "response", &sent)?;
    }
    let (asks, answers) = (client.number("process_pid"), at_server.number("process_pid"));
    ensure!(asks == Some(u64::from(std::process::id())), "the client is the test, not {asks:?}");
    ensure!(answers == Some(u64::from(server.pid())), "the server is {}, not {answers:?}", server.pid());
    ensure!(client.text("exchange_id") == at_server.text("exchange_id"), "two ids");
    exactly(&mut tapstack, &path, 2)
}

fn between() -> Result<()> {
    let (a, b) = (Netns::new()?, Netns::new()?);
    veth(&a, "10.93.3.1/24", &b, "10.93.3.2/24")?;
    let server = Peer::start(PEER, "serve", "10.93.3.2:8080", "", Some(&b))?;
    over_veth(&a, &server, "veth")
}

fn between_ipv6() -> Result<()> {
    let (a, b) = (Netns::new()?, Netns::new()?);
    veth(&a, "fd93::1/64", &b, "fd93::2/64")?;
    let server = Peer::start(PEER, "serve", "[fd93::2]:8080", "", Some(&b))?;
    over_veth(&a, &server, "veth6")
}
