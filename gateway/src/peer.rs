//! Who is at the other end of a loopback connection: the uid of the peer's socket, asked from the kernel by
//! `NETLINK_SOCK_DIAG` with the exact four-tuple (`sock_diag(7)`).
//!
//! In: the two addresses of an accepted connection. Out: a [`Peer`]. Called by `server` once a connection.
//!
//! A socket that nobody holds any more (orphaned, `TIME_WAIT`, not yet accepted) is reported by the kernel with
//! uid 0, so a peer that hangs up quickly would look like root. Only an established socket that still has an
//! inode counts; everything else is [`Peer::Unknown`], which is let in nowhere.
//!
//! A kernel without the module `tcp_diag` answers every question with the same ENOENT as "no such socket". So
//! at start a connection of our own is asked for; where it is not found, `/proc/net/tcp` is read in addition.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{FromRawFd as _, OwnedFd},
};

use crate::sockets;

/// What is known of a connection's other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// On this host, and its socket belongs to this user.
    Uid(u32),
    /// Not a loopback address.
    Remote(IpAddr),
    /// On this host, but its socket is gone, or in another network namespace.
    Unknown,
    /// On this host, but this kernel gives no way to tell.
    Untold,
}

/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `TCP_ESTABLISHED` of `net/tcp_states.h`.
const ESTABLISHED: u8 = 1;
/// Length of `struct nlmsghdr`.
const HEAD: usize = 16;
/// Length of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Length of `struct inet_diag_msg`.
const REPLY: usize = 72;

/// A netlink socket to ask on; one for the accept loop.
#[derive(Debug)]
pub(crate) struct SockDiag {
    socket: File,
    sequence: u32,
    /// `IPPROTO_TCP`.
    protocol: u8,
    /// The kernel did not find a socket that is certainly there: what it does not find is sought in the table
    /// of sockets too.
    table: bool,
}

impl SockDiag {
    /// Opens the socket, and finds out whether the kernel answers on it.
    pub(crate) fn open() -> io::Result<Self> {
        // SAFETY: socket(2) takes no pointers; its result is checked before it is owned.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                libc::NETLINK_SOCK_DIAG,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd was just opened and nobody else has it.
        let socket = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        let mut diag = SockDiag { socket, sequence: 0, protocol: libc::IPPROTO_TCP as u8, table: false };
        diag.table = !diag.answers();
        if diag.table {
            tracing::warn!(
                "This kernel does not answer which user a socket belongs to (NETLINK_SOCK_DIAG); \
                 /proc/net/tcp is read instead, which is slower. Load the module tcp_diag: modprobe tcp_diag."
            );
        }
        Ok(diag)
    }

    /// Whether the kernel finds a connection that is certainly there.
    fn answers(&mut self) -> bool {
        let connection = || -> io::Result<(TcpListener, TcpStream)> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let client = TcpStream::connect(listener.local_addr()?)?;
            Ok((listener, client))
        };
        let Ok((_listener, client)) = connection() else { return false };
        let (Ok(own), Ok(other)) = (client.local_addr(), client.peer_addr()) else { return false };
        matches!(self.ask(own, other), Ok(Some(_)))
    }

    /// Who is behind `peer`, the remote address of a connection accepted at `local`.
    pub(crate) fn peer(&mut self, peer: SocketAddr, local: SocketAddr) -> Peer {
        let (peer, local) = (canonical(peer), canonical(local));
        if !peer.ip().is_loopback() {
            return Peer::Remote(peer.ip());
        }
        let found = match self.ask(peer, local) {
            Ok(Some(uid)) => return Peer::Uid(uid),
            Ok(None) | Err(_) if self.table => sockets::uid(peer, local),
            found => found,
        };
        match found {
            Ok(Some(uid)) => Peer::Uid(uid),
            Ok(None) => Peer::Unknown,
            Err(error) => {
                tracing::warn!(%error, "Could not look up the user behind a connection; it is refused.");
                Peer::Untold
            }
        }
    }

    fn ask(&mut self, peer: SocketAddr, local: SocketAddr) -> io::Result<Option<u32>> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.write_all(&request(self.sequence, self.protocol, peer, local))?;
        let mut buffer = [0u8; 1024];
        // The kernel answers within the write; a reply to an earlier question is passed over.
        loop {
            let length = self.socket.read(&mut buffer)?;
            match reply(&buffer[..length], self.sequence, peer, local) {
                Reply::Other => {}
                Reply::Uid(uid) => return Ok(Some(uid)),
                Reply::NoSocket => return Ok(None),
                Reply::Refused(code) => return Err(io::Error::from_raw_os_error(code)),
            }
        }
    }
}

/// An address with IPv4-mapped IPv6 written as IPv4: a dual-stack listener reports the mapped form.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The 16 address bytes of `struct inet_diag_sockid`: IPv4 in the first four.
fn address_bytes(ip: IpAddr) -> [u8; 16] {
    let mut bytes = [0; 16];
    match ip {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    bytes
}

fn request(sequence: u32, protocol: u8, peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let family = if peer.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut m = Vec::with_capacity(HEAD + REQUEST);
    m.extend_from_slice(&((HEAD + REQUEST) as u32).to_ne_bytes());
    m.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    m.extend_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    m.extend_from_slice(&sequence.to_ne_bytes());
    m.extend_from_slice(&0u32.to_ne_bytes());
    m.extend_from_slice(&[family as u8, protocol, 0, 0]);
    m.extend_from_slice(&(1u32 << ESTABLISHED).to_ne_bytes());
    m.extend_from_slice(&peer.port().to_be_bytes());
    m.extend_from_slice(&local.port().to_be_bytes());
    m.extend_from_slice(&address_bytes(peer.ip()));
    m.extend_from_slice(&address_bytes(local.ip()));
    m.extend_from_slice(&0u32.to_ne_bytes()); // any interface
    m.extend_from_slice(&[0xff; 8]); // INET_DIAG_NOCOOKIE
    m
}

enum Reply {
    Uid(u32),
    NoSocket,
    Refused(i32),
    Other,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn reply(message: &[u8], sequence: u32, peer: SocketAddr, local: SocketAddr) -> Reply {
    let kind = message.get(4..6).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    if u32_at(message, 8) != Some(sequence) {
        return Reply::Other;
    }
    if kind == Some(libc::NLMSG_ERROR as u16) {
        let code = u32_at(message, HEAD).map_or(libc::EPROTO, |c| -(c as i32));
        return if code == libc::ENOENT { Reply::NoSocket } else { Reply::Refused(code) };
    }
    let Some(found) = message.get(HEAD..HEAD + REPLY).filter(|_| kind == Some(SOCK_DIAG_BY_FAMILY)) else {
        return Reply::Refused(libc::EPROTO);
    };
    let port = |at: usize| u16::from_be_bytes([found[at], found[at + 1]]);
    let ip = |at: usize| -> IpAddr {
        if i32::from(found[0]) == libc::AF_INET {
            IpAddr::from([found[at], found[at + 1], found[at + 2], found[at + 3]])
        } else {
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&found[at..at + 16]);
            // An AF_INET6 socket that talks IPv4 is found by the IPv4 question and says the mapped form.
            IpAddr::from(bytes).to_canonical()
        }
    };
    let same = (ip(8), port(4)) == (peer.ip(), peer.port()) && (ip(24), port(6)) == (local.ip(), local.port());
    let held = found[1] == ESTABLISHED && u32_at(found, 68).is_some_and(|inode| inode != 0);
    match u32_at(found, 64) {
        Some(uid) if same && held => Reply::Uid(uid),
        _ => Reply::NoSocket,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_uid() -> u32 {
        // SAFETY: getuid(2) takes nothing and cannot fail.
        unsafe { libc::getuid() }
    }

    /// A way to ask, and the same as on a kernel without `tcp_diag`: it has no handler for this protocol either.
    fn with_and_without_a_handler() -> [SockDiag; 2] {
        let mut without = SockDiag { protocol: 253, ..SockDiag::open().unwrap() };
        without.table = !without.answers();
        assert!(without.table, "a question without a handler was answered");
        [SockDiag::open().unwrap(), without]
    }

    fn connected(listen: &str, connect: impl Fn(u16) -> SocketAddr) -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind(listen).unwrap();
        let client = TcpStream::connect(connect(listener.local_addr().unwrap().port())).unwrap();
        let (server, peer) = listener.accept().unwrap();
        (client, server, peer)
    }

    #[test]
    fn finds_the_uid_over_ipv4_ipv6_and_mapped_addresses() {
        for (listen, to) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.0.0.1:0", "::ffff:127.0.0.1"),
            ("[::1]:0", "::1"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::ffff:127.0.0.1"),
        ] {
            let (_client, server, peer) = connected(listen, |port| SocketAddr::new(to.parse().unwrap(), port));
            for mut diag in with_and_without_a_handler() {
                let found = diag.peer(peer, server.local_addr().unwrap());
                assert_eq!(found, Peer::Uid(own_uid()), "{listen} {to} {diag:?}");
            }
        }
    }

    #[test]
    fn a_peer_that_hung_up_is_nobody_and_never_root() {
        for diag in with_and_without_a_handler() {
            hung_up(diag);
        }
    }

    fn hung_up(mut diag: SockDiag) {
        let (client, mut server, peer) = connected("127.0.0.1:0", |p| SocketAddr::from(([127, 0, 0, 1], p)));
        drop(client);
        // The end of the stream has arrived, so the client's socket is orphaned or in TIME_WAIT.
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(diag.peer(peer, server.local_addr().unwrap()), Peer::Unknown);
        let local = server.local_addr().unwrap();
        drop(server);
        assert_eq!(diag.peer(peer, local), Peer::Unknown);
    }

    #[test]
    fn a_listener_on_the_peers_port_is_not_the_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        for mut diag in with_and_without_a_handler() {
            assert_eq!(diag.peer(here, SocketAddr::from(([127, 0, 0, 1], 9))), Peer::Unknown);
        }
    }

    #[test]
    fn an_address_off_loopback_is_remote() {
        let mut diag = SockDiag::open().unwrap();
        let far = SocketAddr::from(([192, 0, 2, 1], 5));
        assert_eq!(diag.peer(far, SocketAddr::from(([192, 0, 2, 2], 6))), Peer::Remote(far.ip()));
    }
}
