//! Which way a connection goes, seen from the observed process.
//!
//! In: which end the process is, and the other end's address. Out: `transaction`'s [`Direction`]. Called when
//! an exchange is handed on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use transaction::object::{Direction, End};

/// How long the list of the host's addresses holds.
const FRESH: Duration = Duration::from_secs(10);

/// The direction of a connection whose observed end is `end` and whose other end is `remote`.
#[must_use]
pub fn direction(end: End, remote: IpAddr, own: &OwnAddresses) -> Direction {
    match end {
        End::Server => Direction::Ingress,
        End::Client if is_internal(remote, own) => Direction::EgressInternal,
        End::Client => Direction::EgressExternal,
    }
}

/// Loopback, RFC 1918, `fc00::/7` (RFC 4193), link-local, 100.64/10 (RFC 6598), the unspecified address (which
/// connects to this host) and the host's own addresses. IPv4 addresses mapped into IPv6 count as IPv4.
#[must_use]
pub fn is_internal(ip: IpAddr, own: &OwnAddresses) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) if is_internal_v4(v4) => true,
        IpAddr::V6(v6) if is_internal_v6(v6) => true,
        other => own.contains(other),
    }
}

fn is_internal_v4(ip: Ipv4Addr) -> bool {
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
    ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified() || shared
}

fn is_internal_v6(ip: Ipv6Addr) -> bool {
    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified()
}

/// The addresses of this host's interfaces, read again when they are asked for after 10 s. Those inside other
/// network namespaces are not among them.
#[derive(Debug, Default)]
pub struct OwnAddresses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    list: Vec<IpAddr>,
    /// When they were read; `None` before the first time.
    read: Option<Instant>,
    /// Given once and not read again.
    fixed: bool,
}

impl OwnAddresses {
    /// Reads the interfaces when first asked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// These and no others: for records that are run again on another host.
    #[must_use]
    pub fn fixed(list: Vec<IpAddr>) -> Self {
        OwnAddresses(Mutex::new(State { list, read: None, fixed: true }))
    }

    /// The addresses as last read.
    #[must_use]
    pub fn list(&self) -> Vec<IpAddr> {
        self.fresh().list.clone()
    }

    fn contains(&self, ip: IpAddr) -> bool {
        self.fresh().list.contains(&ip)
    }

    fn fresh(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.fixed && state.read.is_none_or(|read| read.elapsed() >= FRESH) {
            state.read = Some(Instant::now());
            match interfaces() {
                Ok(list) => state.list = list,
                Err(error) => tracing::warn!(%error, "Own addresses could not be read; the last ones hold."),
            }
        }
        state
    }
}

fn interfaces() -> std::io::Result<Vec<IpAddr>> {
    let mut first = std::ptr::null_mut();
    // SAFETY: `first` is valid for the call.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mut list = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: the C library made a list that ends with a null pointer and lives until it is freed below;
        // an address has the length that its family says.
        unsafe {
            let address = (*next).ifa_addr;
            if !address.is_null() {
                match i32::from((*address).sa_family) {
                    libc::AF_INET => {
                        let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                        list.push(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))));
                    }
                    libc::AF_INET6 => {
                        let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                        list.push(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)));
                    }
                    _ => {}
                }
            }
            next = (*next).ifa_next;
        }
    }
    // SAFETY: the list came from getifaddrs and nothing of it is used any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_where_they_end() {
        let own = OwnAddresses::fixed(vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()]);
        let internal = |text: &str| is_internal(text.parse().unwrap(), &own);
        for ip in [
            "127.0.0.1",
            "127.255.255.255",
            "0.0.0.0",
            "10.0.0.0",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.0",
            "100.127.255.255",
            "203.0.113.7",
            "::1",
            "::",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "2001:db8::7",
            "::ffff:10.1.2.3",
            "::ffff:203.0.113.7",
        ] {
            assert!(internal(ip), "{ip}");
        }
        for ip in [
            "126.255.255.255",
            "128.0.0.1",
            "9.255.255.255",
            "11.0.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "169.253.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "8.8.8.8",
            "203.0.113.8",
            "fbff::1",
            "fe00::1",
            "fec0::1",
            "2001:db8::8",
            "::ffff:8.8.8.8",
            "::2",
        ] {
            assert!(!internal(ip), "{ip}");
        }
    }

    #[test]
    fn the_end_decides_first() {
        let own = OwnAddresses::fixed(Vec::new());
        let [near, far] = ["10.0.0.1", "8.8.8.8"].map(|ip| ip.parse().unwrap());
        assert_eq!(direction(End::Server, far, &own), Direction::Ingress);
        assert_eq!(direction(End::Client, near, &own), Direction::EgressInternal);
        assert_eq!(direction(End::Client, far, &own), Direction::EgressExternal);
    }

    #[test]
    fn the_hosts_addresses_are_read() {
        let list = interfaces().unwrap();
        let own = OwnAddresses::new();
        assert!(!own.contains("203.0.113.99".parse().unwrap()));
        assert!(list.iter().all(|ip| own.contains(*ip)), "{list:?}");
        assert!(list.iter().any(IpAddr::is_loopback), "{list:?}");
    }
}
