//! One dump of the kernel's socket diagnosis: `inet_diag` over netlink (`sock_diag(7)`, `netlink(7)`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_msg`.
const MESSAGE: usize = 72;
/// Every state but `TIME_WAIT` (6) and the half-open ones, `SYN_RECV` (3) and `NEW_SYN_RECV` (12).
const STATES: u32 = 0x0fff & !(1 << 6) & !(1 << 3);
/// An answer takes milliseconds even for a hundred thousand sockets.
const PATIENCE: Duration = Duration::from_secs(5);

/// A socket as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) state: u8,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) cookie: u64,
    /// In sockfs; 0 when no process has it open any more.
    pub(super) inode: u32,
}

/// Hands each TCP socket of a family in this thread's network namespace to `each`.
pub(super) fn dump(family: u8, mut each: impl FnMut(Socket)) -> io::Result<()> {
    let socket = open()?;
    let request = request(family);
    // SAFETY: the buffer is valid for its length.
    if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = vec![0u8; 64 << 10];
    while Instant::now() < deadline {
        // SAFETY: the buffer is valid for its length.
        let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(received) {
            Ok(len) => {
                if read(&buffer[..len.min(buffer.len())], &mut each)? {
                    return Ok(());
                }
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(error),
            },
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; a new descriptor or an error.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::NETLINK_SOCK_DIAG);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let patience = libc::timeval { tv_sec: PATIENCE.as_secs() as libc::time_t, tv_usec: 0 };
    // SAFETY: the value is valid for its length.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const patience).cast(),
            size_of::<libc::timeval>() as libc::socklen_t,
        )
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`, whose socket identity is all zero: any.
fn request(family: u8) -> [u8; HEADER + 56] {
    const REQUEST_AND_DUMP: u16 = 0x301;
    let mut bytes = [0; HEADER + 56];
    bytes[0..4].copy_from_slice(&(HEADER as u32 + 56).to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&REQUEST_AND_DUMP.to_ne_bytes());
    bytes[16] = family;
    bytes[17] = libc::IPPROTO_TCP as u8;
    bytes[20..24].copy_from_slice(&STATES.to_ne_bytes());
    bytes
}

/// Reads one datagram of messages; `true` when the dump is over.
fn read(mut bytes: &[u8], each: &mut impl FnMut(Socket)) -> io::Result<bool> {
    while let (Some(len), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let len = len as usize;
        let Some(body) = bytes.get(HEADER..len) else { break };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = u32_at(body, 0).map_or(libc::EIO, |code| (code as i32).wrapping_neg());
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(code)) };
            }
            SOCK_DIAG_BY_FAMILY => {
                if let Some(socket) = socket(body) {
                    each(socket);
                }
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// `struct inet_diag_msg`: family, state, timer, retransmissions; the socket's identity (ports and addresses
/// in network order, interface, cookie); expiry, queues, uid, inode.
fn socket(body: &[u8]) -> Option<Socket> {
    let body = body.get(..MESSAGE)?;
    let family = i32::from(body[0]);
    let end = |port: usize, address: usize| {
        let ip = match family {
            libc::AF_INET => IpAddr::V4(Ipv4Addr::from(*body[address..].first_chunk::<4>()?)),
            libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*body[address..].first_chunk::<16>()?)).to_canonical(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes(*body[port..].first_chunk::<2>()?)))
    };
    Some(Socket {
        state: body[1],
        local: end(4, 8)?,
        remote: end(6, 24)?,
        cookie: u64::from(u32_at(body, 44)?) | u64::from(u32_at(body, 48)?) << 32,
        inode: u32_at(body, 68)?,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk::<4>()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk::<2>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[0..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn body() -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        body[0] = libc::AF_INET6 as u8;
        body[1] = 1;
        body[4..6].copy_from_slice(&8080u16.to_be_bytes());
        body[6..8].copy_from_slice(&5000u16.to_be_bytes());
        body[8..24].copy_from_slice(&Ipv6Addr::LOCALHOST.octets());
        body[24..40].copy_from_slice(&"::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets());
        body[44..48].copy_from_slice(&7u32.to_ne_bytes());
        body[48..52].copy_from_slice(&1u32.to_ne_bytes());
        body[68..72].copy_from_slice(&99u32.to_ne_bytes());
        body
    }

    fn all(bytes: &[u8]) -> (Vec<Socket>, io::Result<bool>) {
        let mut list = Vec::new();
        let over = read(bytes, &mut |socket| list.push(socket));
        (list, over)
    }

    #[test]
    fn messages_are_read_until_the_dump_is_over() {
        let mut bytes = message(SOCK_DIAG_BY_FAMILY, &body());
        // Attributes may follow the fixed part.
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, &[body(), vec![1, 2, 3]].concat()));
        assert!(!all(&bytes).1.unwrap());
        bytes.extend(message(NLMSG_DONE, &[0; 4]));
        bytes.extend(message(SOCK_DIAG_BY_FAMILY, &body()));
        let (list, over) = all(&bytes);
        assert!(over.unwrap());
        assert_eq!(list.len(), 2);
        let expected = Socket {
            state: 1,
            local: "[::1]:8080".parse().unwrap(),
            remote: "10.0.0.1:5000".parse().unwrap(),
            cookie: 1 << 32 | 7,
            inode: 99,
        };
        assert_eq!(list, [expected, expected]);
    }

    #[test]
    fn the_kernels_error_is_handed_on() {
        let bytes = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(all(&bytes).1.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u16..24) {
            let _ = all(&bytes);
            let _ = all(&message(kind, &bytes));
        }
    }
}
