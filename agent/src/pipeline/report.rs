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
    Library(Side, &'a Tls),
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
    let exchange_id = exchange_id(connection, exchange, client, matches!(source, Source::Library(..)));
    let (name, scheme, tls) = match source {
        Source::Edge => ("edge", "http", None),
        Source::Library(_, tls) => ("openssl", "https", Some(tls)),
    };
    let context = Context {
        host_name: &shared.host.name,
        server: connection.address[ends::index(ends::other(client))],
        exchange_id: &exchange_id,
        from_start: connection.fresh,
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
        if matches!(source, Source::Library(at, _) if at != side) {
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
            local,
            remote,
            end: role,
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
    if is_tls && end.library.is_none() && !end.unread_counted && (last || end.part > 0) {
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
        tls_plaintext: match end.library {
            _ if !is_tls => String::new(),
            Some(_) => "openssl".into(),
            None => "none".into(),
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
/// addresses and the sequence number of its first byte.
fn exchange_id(connection: &Connection, exchange: &Exchange, client: Side, tls: bool) -> String {
    let (from, offset) = match (&exchange.request, &exchange.response) {
        (Some(m), _) => (client, m.offset),
        (None, Some(m)) => (ends::other(client), m.offset),
        (None, None) => (client, 0),
    };
    let seq = connection.base[ends::index(from)].unwrap_or(0).wrapping_add(offset as u32);
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
        &[u8::from(from == client) | u8::from(tls) << 1],
    ])
}
