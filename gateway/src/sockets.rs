//! The kernel's tables of TCP sockets as text, `/proc/net/tcp` and `/proc/net/tcp6` (`proc_pid_net(5)`): who is at
//! the other end of a loopback connection, on a kernel without the module that answers `NETLINK_SOCK_DIAG`.
//!
//! In: the two addresses of an accepted connection. Out: the uid of the peer's socket. Called by `peer`.
//!
//! The tables are those of this thread's own network namespace. They are read whole for a question, so this is
//! slower than netlink the more sockets there are, and bounded: past [`TABLE_BYTES`] it gives up.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    net::{IpAddr, SocketAddr},
};

/// Bytes of one table that are read; a row has 150, so about 100,000 sockets.
const TABLE_BYTES: u64 = 16 << 20;
/// Bytes of a row that are looked at; the longest, with IPv6 addresses, has under 200.
const ROW_BYTES: u64 = 1 << 10;
/// `TCP_ESTABLISHED` of `net/tcp_states.h`, as the tables write it.
const ESTABLISHED: &str = "01";

/// The uid of the socket at `own` that is connected to `other`; none when there is none that is established
/// and held by a process. Fails when a table cannot be read, or is too long to be sure.
pub(crate) fn uid(own: SocketAddr, other: SocketAddr) -> io::Result<Option<u32>> {
    if own.is_ipv4()
        && let Some(uid) = find(open("tcp")?, own, other, TABLE_BYTES)?
    {
        return Ok(Some(uid));
    }
    // A socket of the other family that talks IPv4 stands there with mapped addresses.
    match open("tcp6") {
        Ok(table) => find(table, own, other, TABLE_BYTES),
        // A kernel without IPv6 has no such table, and then no such socket either.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open(table: &str) -> io::Result<BufReader<File>> {
    Ok(BufReader::with_capacity(64 << 10, File::open(format!("/proc/thread-self/net/{table}"))?))
}

/// Looks through at most `limit` bytes of a table.
fn find(mut table: impl BufRead, own: SocketAddr, other: SocketAddr, limit: u64) -> io::Result<Option<u32>> {
    let mut row = Vec::with_capacity(256);
    let mut left = limit;
    loop {
        row.clear();
        let length = table.by_ref().take(ROW_BYTES).read_until(b'\n', &mut row)? as u64;
        if length == 0 {
            return Ok(None);
        }
        left = left.checked_sub(length).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "more sockets than are looked through; load the module tcp_diag",
            )
        })?;
        let socket = std::str::from_utf8(&row).ok().and_then(parse);
        if let Some(uid) = socket.filter(|s| s.own == own && s.other == other).and_then(|s| s.held_by) {
            return Ok(Some(uid));
        }
    }
}

/// A row of a table.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    own: SocketAddr,
    other: SocketAddr,
    /// The uid, of an established socket that a process holds. The kernel writes uid 0 for the others.
    held_by: Option<u32>,
}

/// `sl local remote state queues timer retransmits uid timeout inode …`
fn parse(row: &str) -> Option<Socket> {
    let mut column = row.split_ascii_whitespace();
    let own = address(column.nth(1)?)?;
    let other = address(column.next()?)?;
    let state = column.next()?;
    let uid = column.nth(3)?.parse::<u32>().ok()?;
    let inode = column.nth(1)?.parse::<u64>().ok()?;
    Some(Socket { own, other, held_by: (state == ESTABLISHED && inode != 0).then_some(uid) })
}

/// `0100007F:0F40`: each four bytes of the address as a number of this machine, the port as a plain one.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0u8; 16];
    for (i, out) in bytes.chunks_exact_mut(4).enumerate().take(words.len() / 8) {
        out.copy_from_slice(&u32::from_str_radix(words.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes());
    }
    let [a, b, c, d, ..] = bytes;
    let ip = match words.len() {
        8 => IpAddr::from([a, b, c, d]),
        32 => IpAddr::from(bytes).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// Rows as kernels 6.x write them, on a little-endian machine.
    #[cfg(target_endian = "little")]
    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0F4A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 56296 1 000000002c63c4c1 100 0 0 10 0
   1: 0100007F:A8C2 0100007F:0F40 06 00000000:00000000 03:000014D2 00000000     0        0 0 3 000000000dc243c7
   2: 0100007F:A8C3 0100007F:0F40 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000084c1a5b5 20 4 30 10 -1
   3: 0100007F:A8C4 0100007F:0F40 01 00000000:00000000 00:00000000 00000000 65534        0 88123 1 00000000f8a7c2d1 20 4 30 10 -1
   4: 0100007F:A8C5 0100007F:0F40 08 00000000:00000000 00:00000000 00000000  1000        0 88124 1 00000000f8a7c2d2 20 4 30 10 -1
   5: 0100007F:A8C6 0100007F:0F41 01 00000000:00000000 00:00000000 00000000     0        0 88125 1 00000000f8a7c2d3 20 4 30 10 -1
";
    #[cfg(target_endian = "little")]
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:9C40 00000000000000000000000001000000:0F40 01 00000000:00000000 00:00000000 00000000  1000        0 91002 1 0000000000000000 20 4 30 10 -1
   1: 0000000000000000FFFF00000100007F:9C41 0000000000000000FFFF00000100007F:0F40 01 00000000:00000000 00:00000000 00000000  1001        0 91003 1 0000000000000000 20 4 30 10 -1
";

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn only_an_established_socket_with_an_inode_and_the_exact_addresses_names_a_user() {
        let here = at("127.0.0.1:3904");
        for (peer, expected) in [
            ("127.0.0.1:43204", Some(65534)),
            ("127.0.0.1:43202", None), // TIME_WAIT, uid 0
            ("127.0.0.1:43203", None), // not accepted or orphaned: no inode, uid 0
            ("127.0.0.1:43205", None), // CLOSE_WAIT
            ("127.0.0.1:43206", None), // connected to another port
            ("127.0.0.1:3914", None),  // listens
            ("127.0.0.2:43204", None),
        ] {
            assert_eq!(find(Cursor::new(TCP), at(peer), here, TABLE_BYTES).unwrap(), expected, "{peer}");
        }
        assert_eq!(find(Cursor::new(TCP), here, at("127.0.0.1:43204"), TABLE_BYTES).unwrap(), None);
        for (peer, here, expected) in [
            ("[::1]:40000", "[::1]:3904", Some(1000)),
            ("127.0.0.1:40001", "127.0.0.1:3904", Some(1001)),
            ("[::1]:40001", "[::1]:3904", None),
        ] {
            assert_eq!(find(Cursor::new(TCP6), at(peer), at(here), TABLE_BYTES).unwrap(), expected, "{peer}");
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_table_past_the_bound_is_an_error_and_not_an_answer() {
        let (peer, here) = (at("127.0.0.1:43204"), at("127.0.0.1:3904"));
        let whole = TCP.len() as u64;
        assert_eq!(find(Cursor::new(TCP), peer, here, whole).unwrap(), Some(65534));
        let error = find(Cursor::new(TCP), peer, here, whole / 2).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        // A line without end is taken in pieces, none of which is a row.
        let endless = vec![b'0'; 100_000];
        assert_eq!(find(Cursor::new(endless), peer, here, whole * 1000).unwrap(), None);
    }

    #[test]
    fn what_is_no_row_is_passed_over() {
        for row in [
            "",
            "sl local rem st",
            "0: 0100007F 0100007F:0F40 01 0:0 0:0 0 0 0 1",
            "0: 0100007F:0F40 0100007F:10000 01 0:0 0:0 0 0 0 1",
            "0: 0100007:0F40 0100007F:0F40 01 0:0 0:0 0 0 0 1",
            "0: é100007:0F40 0100007F:0F40 01 0:0 0:0 0 0 0 1",
            "0: 0100007F:0F40 0100007F:0F40 01 0:0 0:0 0 -1 0 1",
            "0: 0100007F:0F40 0100007F:0F40 01 0:0 0:0 0 0 0",
        ] {
            assert_eq!(parse(row), None, "{row:?}");
        }
    }
}
