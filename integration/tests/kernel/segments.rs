//! TCP as it can be: data in the handshake's last ACK, segments that TCP refuses, loss, order, sizes.
//! Never a wrong byte; and no missing one where TCP itself delivered everything.

use std::{fs::File, net::SocketAddr, thread};

use anyhow::{Context as _, Result, ensure};
use integration::{
    content,
    http::Client,
    net::{Netns, veth},
    program::Peer,
    relay::{Relay, Road},
    tapstack::Tapstack,
};

use crate::{
    PEER, Test,
    content_checks::{body_is, complete_ones_are_right, exactly, once_each},
};

pub(crate) const TESTS: &[Test] = &[
    ("a_request_in_the_last_ack_of_the_handshake_is_captured", last_ack),
    ("corrupted_segments_put_no_wrong_byte_into_a_body", corrupted),
    ("forged_segments_put_no_wrong_byte_into_a_body", forged),
    ("loss_reordering_and_doubles_leave_all_bodies_whole", lossy),
    ("skbs_over_64_kib_are_copied_whole", large),
    ("one_byte_segments_make_the_same_exchange", small),
];

/// Asks `GET PREFIX/N/bytes/N/LEN` for all N below `count`, over `connections` connections from inside `netns`.
fn ask(netns: &Netns, server: SocketAddr, prefix: &str, count: usize, len: usize, connections: usize) -> Result<()> {
    netns.run(|| {
        // Connected here, in the namespace; used by other threads.
        let clients: Vec<Client> = (0..connections).map(|_| Client::open(server)).collect::<std::io::Result<_>>()?;
        thread::scope(|scope| {
            let each: Vec<_> = clients
                .into_iter()
                .enumerate()
                .map(|(c, mut client)| {
                    scope.spawn(move || -> Result<()> {
                        for n in (c..count).step_by(connections) {
                            let answer = client.ask("GET", &format!("{prefix}/{n}/bytes/{n}/{len}"), "", None)?;
                            ensure!(answer.body == content::body(n as u64, len), "TCP delivered something else");
                        }
                        Ok(())
                    })
                })
                .collect();
            each.into_iter().try_for_each(|t| t.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
        })
    })
}

fn last_ack() -> Result<()> {
    let (a, b) = (Netns::new()?, Netns::new()?);
    veth(&a, "10.93.1.1/24", &b, "10.93.1.2/24")?;
    let server = Peer::start(PEER, "serve", "10.93.1.2:8080", "--defer", Some(&b))?;
    let mut tapstack = Tapstack::start()?;
    for n in 0..4 {
        ask(&a, server.address, &format!("/ack/{n}"), 1, 3000, 1)?;
    }
    // A first request that does not fit one segment.
    let sent = content::body(30, 30000);
    let address = server.address;
    a.run(|| {
        let answer = Client::open(address)?.ask("POST", "/ack/post", "", Some(&sent))?;
        ensure!(answer.body == sent, "the echo differs");
        Ok(())
    })?;
    let found = tapstack.wait_for("/ack/", 10)?;
    tapstack.rises("kernel_listener_segments", 5).context("the trap was not set")?;
    for record in &found {
        if record.path() == "/ack/post" {
            body_is(&mut tapstack, record, "request", &sent)?;
            body_is(&mut tapstack, record, "response", &sent)?;
        } else {
            body_is(&mut tapstack, record, "response", &content::body(0, 3000))?;
        }
        if record.end() == "server" {
            ensure!(record.number("process_pid") == Some(u64::from(server.pid())), "owner: {:?}", record.0);
        }
    }
    exactly(&mut tapstack, "/ack/", 10)
}

/// Two namespaces and the road between them.
struct Country {
    client: Netns,
    _server: Netns,
    peer: Peer,
    _devices: [File; 2],
    relay: Relay,
}

fn country(road: Road, seed: u64) -> Result<Country> {
    let (client, server) = (Netns::new()?, Netns::new()?);
    let devices = [client.tun("10.93.2.1/24")?, server.tun("10.93.2.2/24")?];
    let relay = Relay::start(&devices[0], &devices[1], road, seed)?;
    let peer = Peer::start(PEER, "serve", "10.93.2.2:8080", "", Some(&server))?;
    Ok(Country { client, _server: server, peer, _devices: devices, relay })
}

/// What is reported as complete is right; most is complete.
fn refused(road: Road, prefix: &str) -> Result<()> {
    const COUNT: usize = 48;
    let country = country(road, 3)?;
    let mut tapstack = Tapstack::start_with(&["--ring", "128M"])?;
    ask(&country.client, country.peer.address, prefix, COUNT, 250_000, 8)?;
    let found = tapstack.wait_for(prefix, COUNT * 2)?;
    once_each(&found)?;
    let complete = complete_ones_are_right(&mut tapstack, &found)?;
    let differing = tapstack.metric("differing_segments")?;
    println!("{complete} of {} complete; {differing} copies differed; {}", found.len(), country.relay.tally.line());
    ensure!(complete * 10 >= found.len() * 6, "only {complete} of {} are complete", found.len());
    let sent = found.iter().filter(|r| r.end() == "server");
    ensure!(sent.clone().all(integration::tapstack::Record::complete), "at the sender nothing was missing");
    exactly(&mut tapstack, prefix, COUNT * 2)
}

fn corrupted() -> Result<()> {
    refused(Road { corrupt: 0.01, ..Road::default() }, "/corrupt")
}

fn forged() -> Result<()> {
    refused(Road { forge: 0.05, reorder: 0.01, ..Road::default() }, "/forged")
}

fn lossy() -> Result<()> {
    const COUNT: usize = 48;
    let country = country(Road { loss: 0.02, reorder: 0.05, double: 0.01, ..Road::default() }, 4)?;
    let mut tapstack = Tapstack::start_with(&["--ring", "128M"])?;
    ask(&country.client, country.peer.address, "/lossy", COUNT, 1 << 20, 8)?;
    let found = tapstack.wait_for("/lossy", COUNT * 2)?;
    println!("{}", country.relay.tally.line());
    once_each(&found)?;
    let complete = complete_ones_are_right(&mut tapstack, &found)?;
    ensure!(complete == COUNT * 2, "{complete} of {} are complete", found.len());
    exactly(&mut tapstack, "/lossy", COUNT * 2)
}

fn large() -> Result<()> {
    let netns = Netns::new()?;
    // BIG TCP: IPv6 skbs of this size carry a jumbo option in front of the TCP header (RFC 2675).
    netns.ip("link set lo gso_max_size 400000 gro_max_size 400000")?;
    let mut tapstack = Tapstack::start_with(&["--ring", "128M"])?;
    for (n, address) in ["127.0.0.1:8080", "[::1]:8080"].into_iter().enumerate() {
        let server = Peer::start(PEER, "serve", address, "", Some(&netns))?;
        ask(&netns, server.address, &format!("/large/{n}"), 12, 1_900_000, 2)?;
    }
    let found = tapstack.wait_for("/large/", 48)?;
    let complete = complete_ones_are_right(&mut tapstack, &found)?;
    ensure!(complete == 48, "{complete} of 48 are complete");
    once_each(&found)?;
    let (bytes, packets) = netns.sent_data()?;
    println!("{packets} skbs with data, of {} bytes on average", bytes / packets.max(1));
    ensure!(bytes / packets.max(1) > 65536, "on average no skb is larger than 64 KiB: the trap was not set");
    exactly(&mut tapstack, "/large/", 48)
}

fn small() -> Result<()> {
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", "--send pieces=3", None)?;
    let mut tapstack = Tapstack::start()?;
    let mut client = Peer::start(PEER, "client", &server.address.to_string(), "--send pieces=1", None)?;
    for seed in 40..50 {
        let answer = client.ask(&format!("POST /small/{seed}/echo {seed} 2000"))?;
        ensure!(answer == format!("200 2000 {}", content::sha1(&content::body(seed, 2000))), "{answer}");
    }
    for seed in 40..50 {
        let (client, server) = tapstack.both(&format!("/small/{seed}/echo"))?;
        for record in [client, server] {
            body_is(&mut tapstack, &record, "request", &content::body(seed, 2000))?;
            body_is(&mut tapstack, &record, "response", &content::body(seed, 2000))?;
        }
    }
    exactly(&mut tapstack, "/small/", 20)
}
