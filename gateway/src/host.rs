//! Which names a request may ask for. A browser that was led here by a foreign name (DNS rebinding) sends
//! that name in `Host`, so only names that mean this machine, or were configured, are answered.
//!
//! In: the `Host` field and the request target. Out: yes or no. Called by `guard`.

use std::net::{IpAddr, SocketAddr};

/// The names that are answered.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    listen: IpAddr,
    names: Vec<String>,
}

impl Hosts {
    /// `names` are further host names without port, in any case.
    pub(crate) fn new(listen: SocketAddr, names: &[String]) -> Self {
        let names = names.iter().map(|n| n.trim_end_matches('.').to_ascii_lowercase()).collect();
        Hosts { listen: listen.ip().to_canonical(), names }
    }

    /// Whether `host` (RFC 9110 section 7.2: name or address, with or without port) means this gateway. Any
    /// port is fine: a tunnel has another one.
    pub(crate) fn allows(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        if let Some(v6) = name.strip_prefix('[') {
            let address = v6.strip_suffix(']').and_then(|a| a.parse::<std::net::Ipv6Addr>().ok());
            return address.is_some_and(|a| self.allows_address(a.into()));
        }
        if let Ok(v4) = name.parse::<std::net::Ipv4Addr>() {
            return self.allows_address(v4.into());
        }
        name == "localhost" || self.names.contains(&name)
    }

    fn allows_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_loopback() || (address == self.listen && !address.is_unspecified())
    }
}

/// The host without `:port`; none when what follows the colon is no port.
fn without_port(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, rest) = host.split_at(end);
    match rest.strip_prefix(':') {
        None => rest.is_empty().then_some(name),
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()).then_some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_and_configured_ones_are_answered() {
        let hosts = Hosts::new(([10, 1, 2, 3], 3904).into(), &["Tap.Example.".to_owned()]);
        for good in [
            "localhost",
            "LOCALHOST:3904",
            "localhost.",
            "127.0.0.1",
            "127.9.8.7:1",
            "[::1]",
            "[::1]:3904",
            "10.1.2.3:3904",
            "tap.example",
            "TAP.example:80",
            "[::ffff:127.0.0.1]:3904",
        ] {
            assert!(hosts.allows(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.1.2.4",
            "0.0.0.0:3904",
            "[::]",
            "[::1",
            "[::1]x",
            "localhost:x",
            "localhost:80:90",
            "user@localhost",
            "2130706433",
            "::1",
            "[fe80::1]",
        ] {
            assert!(!hosts.allows(bad), "{bad}");
        }
    }

    #[test]
    fn listening_everywhere_does_not_make_the_unspecified_address_a_name() {
        let hosts = Hosts::new(([0, 0, 0, 0], 3904).into(), &[]);
        assert!(!hosts.allows("0.0.0.0:3904") && hosts.allows("127.0.0.1:3904"));
    }
}
