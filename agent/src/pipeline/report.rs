//! What a worker hands on: an exchange becomes a transaction for each end that is here, a connection an event.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use agent_ebpf::{evidence, protocol};
use transaction::{
    ConnectionEvent,
    object::{End, Process, Tls},
};

use super::{Counters, Shared};
use crate::{
    capture::{Context, Observed, Unkept},
    connection::{Connection, Endpoint, direction::direction as direction_of, ends},
    http::{Exchange, Side},
    process,
};

/// Where an exchange was read.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// At the socket's edge, in cleartext: it holds for both ends.
    Edge,
    /// In the TLS library of the process at one end, which saw it alone.
    Library {
        /// Which end.
        side: Side,
        tls: &'a Tls,
        /// Seen since the handshake.
        fresh: bool,
        /// Names the object's streams on this host.
        stream: [u64; 2],
    },
}

/// Makes a transaction of an exchange for each end that is here.
pub(super) fn exchange(shared: &Shared, connection: &mut Connection, exchange: &Exchange, source: Source<'_>) {
    let own_pid = shared.host.own_pid;
    if connection.own || connection.ends.iter().flatten().any(|e| e.pid == own_pid) {
        Counters::add(&shared.counters.own_exchanges, 1);
        return;
    }
    Counters::add(&shared.counters.exchanges, 1);
    let client = exchange.client.unwrap_or(Side::A);
    let exchange_id = exchange_id(connection, exchange, client, source);
    let (name, scheme, tls, from_start) = match source {
        Source::Edge => ("edge", "http", None, connection.fresh),
        // Of a connection that is not known, the handshake is its opening.
        Source::Library { tls, fresh, .. } if connection.loose => ("openssl", "https", Some(tls), fresh),
        Source::Library { tls, .. } => ("openssl", "https", Some(tls), connection.fresh),
    };
    let context = Context {
        host_name: &shared.host.name,
        server: connection.address[ends::index(ends::other(client))],
        exchange_id: &exchange_id,
        from_start,
        source: name,
        tls,
        scheme,
        unix_offset_ns: shared.host.wall_offset(),
    };
    let prepared = match shared.capture.prepare(exchange, &context) {
        Ok(prepared) => Some(prepared),
        Err(Unkept::Own) => {
            Counters::add(&shared.counters.own_exchanges, 1);
            return;
        }
        Err(Unkept::Level) => None,
    };
    for side in [Side::A, Side::B] {
        if matches!(source, Source::Library { side: at, .. } if at != side) {
            continue;
        }
        let (local, remote) =
            (connection.address[ends::index(side)], connection.address[ends::index(ends::other(side))]);
        let Some(end) = &mut connection.ends[ends::index(side)] else { continue };
        end.exchanges += 1;
        let Some(prepared) = &prepared else { continue };
        let process = process_of(shared, end);
        let role = if side == client { End::Client } else { End::Server };
        let sealed = prepared.keep(&Observed {
            process: &process.facts,
            local: (!connection.loose).then_some(local),
            remote: (!connection.loose).then_some(remote),
            end: role,
            // Where nothing is known of the peer, it is taken for the farther one.
            direction: direction_of(role, remote.ip(), &shared.host.addresses),
            connection_id: &end.id,
            container_name: "",
            container_image: "",
            pod_name: "",
            pod_namespace: "",
            tags: &[],
        });
        Counters::add(&shared.counters.transactions, 1);
        shared.sink.transaction(sealed);
    }
}

/// Reports a connection as one of its ends sees it.
pub(super) fn connection(shared: &Shared, connection: &mut Connection, side: Side, time: u64, last: bool) {
    // Of a stream without a socket there is nothing to tell but its exchanges.
    if connection.own || connection.loose {
        return;
    }
    let (local, remote) = (connection.address[ends::index(side)], connection.address[ends::index(ends::other(side))]);
    let (first_ns, protocol) = (connection.first_ns, connection.protocol);
    let tls = connection.tls.as_deref().cloned().unwrap_or_default();
    let Some(end) = &mut connection.ends[ends::index(side)] else { return };
    // Without the opening, the lower port is most likely the server's.
    let accepted = end.accepted.unwrap_or(local.port() < remote.port());
    let role = if accepted { End::Server } else { End::Client };
    let (source, destination) = if accepted { (remote, local) } else { (local, remote) };
    let process = process_of(shared, end);
    let is_tls = protocol == protocol::TLS;
    let read = end.library.is_some_and(|l| l.read);
    if is_tls && !read && !end.unread_counted && (last || end.part > 0) {
        end.unread_counted = true;
        shared.counters.unread(&process.facts.exe);
    }
    let event = ConnectionEvent {
        time_unix_ns: shared.host.wall(time),
        connection_id: end.id.clone(),
        endpoint_id: remote.ip().to_string(),
        part: end.part,
        finalized: last,
        created_at: transaction::time::rfc3339(shared.host.wall(first_ns)),
        closed_at: if last { transaction::time::rfc3339(shared.host.wall(time)) } else { String::new() },
        direction: direction_of(role, remote.ip(), &shared.host.addresses),
        socket_protocol: "tcp".into(),
        l7_protocol: match protocol {
            protocol::HTTP1 => "http1",
            protocol::HTTP2 => "http2",
            protocol::TLS => "tls",
            _ => "other",
        }
        .into(),
        source_ip: source.ip().to_string(),
        source_port: source.port(),
        destination_ip: destination.ip().to_string(),
        destination_port: destination.port(),
        bytes_sent: end.bytes[0],
        bytes_received: end.bytes[1],
        exchanges: end.exchanges,
        process_exe: process.facts.exe.clone(),
        process_pid: end.pid,
        process_unit: process.facts.unit.clone(),
        container_id: process.facts.container_id.clone(),
        host_name: shared.host.name.clone(),
        tls_sni: tls.sni.clone(),
        tls_alpn: tls.chosen(end.library.is_some_and(|l| l.http1).then_some("http/1.1")),
        tls_alpn_offered: tls.alpn_offered.join(","),
        tls_version: tls.version.clone(),
        tls_cipher: tls.cipher.clone(),
        tls_error: tls.error.clone(),
        tls_plaintext: match read {
            _ if !is_tls => String::new(),
            true => "openssl".into(),
            false => "none".into(),
        },
    };
    end.part += 1;
    shared.sink.connection(event);
}

/// What an exchange says of TLS, as one end saw it.
pub(super) fn tls(connection: &Connection, side: Side) -> Tls {
    let facts = connection.tls.as_deref().cloned().unwrap_or_default();
    let evidence = connection.ends[ends::index(side)].as_ref().and_then(|e| e.library).map_or(0, |l| l.evidence);
    let binding = match evidence {
        evidence::HANDSHAKE => "handshake",
        evidence::RECORD => "record",
        evidence::DESCRIPTOR => "descriptor",
        _ => "none",
    };
    Tls {
        alpn: facts.chosen(Some("http/1.1")),
        version: facts.version,
        sni: facts.sni,
        alpn_offered: facts.alpn_offered,
        cipher: facts.cipher,
        binding: binding.into(),
    }
}

fn process_of(shared: &Shared, end: &Endpoint) -> Arc<process::Process> {
    if end.pid == 0 {
        let facts = Process { exe: process::UNKNOWN_EXE.to_owned(), ..Process::default() };
        return Arc::new(process::Process { facts, start_ticks: None });
    }
    shared.processes.lookup_child(end.pid, end.start_ns, end.parent)
}

/// Equal at both ends of an exchange, also on two hosts without address translation between them: the
/// addresses and the sequence number of its first byte, inside TLS its offset in the plaintext. Where that was not
/// seen from its start, its offset is not the other end's, and the two ends are not linked.
fn exchange_id(connection: &Connection, exchange: &Exchange, client: Side, source: Source<'_>) -> String {
    let (from, offset) = match (&exchange.request, &exchange.response) {
        (Some(m), _) => (client, m.offset),
        (None, Some(m)) => (ends::other(client), m.offset),
        (None, None) => (client, 0),
    };
    let base = connection.base[ends::index(from)];
    let is_response = u8::from(from == client);
    let tls = match source {
        Source::Edge => 0,
        Source::Library { fresh: true, .. } if base.is_some() => 2,
        Source::Library { side, stream, .. } => {
            let end = connection.ends[ends::index(side)].as_ref().map_or("", |e| &e.id);
            return transaction::id::id(&[
                end.as_bytes(),
                &stream[0].to_be_bytes(),
                &stream[1].to_be_bytes(),
                &offset.to_be_bytes(),
                &[is_response],
            ]);
        }
    };
    let seq = base.unwrap_or(0).wrapping_add(offset as u32);
    let octets = |a: SocketAddr| match a.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let (c, s) = (connection.address[ends::index(client)], connection.address[ends::index(ends::other(client))]);
    transaction::id::id(&[
        &octets(c),
        &c.port().to_be_bytes(),
        &octets(s),
        &s.port().to_be_bytes(),
        &seq.to_be_bytes(),
        // Inside a tunnel both begin with the connection.
        &[is_response | tls],
    ])
}
