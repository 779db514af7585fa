//! Network namespaces without names: they end with the descriptors that hold them, that is at the latest with
//! the test process, whatever happens to it; and with them their interfaces.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, ensure};

use crate::sys;

/// A network namespace with its loopback interface up.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// A new one.
    ///
    /// # Errors
    /// Those of the kernel, and of ip(8).
    pub fn new() -> Result<Netns> {
        // A thread's namespace outlives the thread through the descriptor.
        let made = thread::spawn(|| -> Result<OwnedFd> {
            sys::unshare_network()?;
            Ok(File::open("/proc/thread-self/ns/net")?.into())
        });
        let fd = made.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?.context("a network namespace")?;
        let netns = Netns { fd };
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The command will run inside.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn holds<'a>(&self, command: &'a mut Command) -> Result<&'a mut Command> {
        sys::inside(command, &self.fd)?;
        Ok(command)
    }

    /// Calls a function inside: sockets that it makes belong there for good.
    ///
    /// # Errors
    /// Those of the function, and of setns(2).
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                sys::enter_network(self.fd.as_fd())?;
                f()
            });
            inside.join().map_err(|_| anyhow::anyhow!("the thread inside the namespace panicked"))?
        })
    }

    /// Runs ip(8) inside; `arguments` are separated by white space.
    ///
    /// # Errors
    /// When it fails, with what it says.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("ip");
        let output = self.holds(command.args(arguments.split_whitespace()))?.output().context("ip")?;
        ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Bytes that left on its loopback interface so far, and skbs with data among the packets, whatever their size:
    /// all packets without the acknowledgements that TCP counts.
    ///
    /// # Errors
    /// When the kernel's statistics cannot be read.
    pub fn sent_data(&self) -> Result<(u64, u64)> {
        let mut command = Command::new("ip");
        let output = self.holds(command.args(["-s", "-j", "link", "show", "dev", "lo"]))?.output().context("ip")?;
        let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let count = |name: &str| links[0]["stats64"]["tx"][name].as_u64().context("no statistics");
        // Two lines a group: names, then numbers.
        let table = self.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/netstat")?))?;
        let mut rows = table.lines().filter(|l| l.starts_with("TcpExt:"));
        let (names, numbers) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
        let acknowledgements: u64 = names
            .split(' ')
            .zip(numbers.split(' '))
            .filter(|(name, _)| ["TCPPureAcks", "TCPHPAcks"].contains(name))
            .filter_map(|(_, number)| number.parse::<u64>().ok())
            .sum();
        Ok((count("bytes")?, count("packets")?.saturating_sub(acknowledgements)))
    }

    /// A TUN device inside that is up and has this address (`address/prefix`).
    ///
    /// # Errors
    /// Those of the kernel, and of ip(8).
    pub fn tun(&self, address: &str) -> Result<File> {
        let file = self.run(|| sys::tun("tap0").context("a TUN device"))?;
        self.ip("link set tap0 mtu 1500 up")?;
        self.ip(&format!("address add {address} dev tap0"))?;
        Ok(file)
    }
}

/// Joins two namespaces by a pair of virtual interfaces with these addresses (`address/prefix`).
///
/// # Errors
/// Those of ip(8).
pub fn veth(a: &Netns, address_a: &str, b: &Netns, address_b: &str) -> Result<()> {
    let there = format!("/proc/{}/fd/{}", std::process::id(), b.fd.as_raw_fd());
    a.ip(&format!("link add veth0 type veth peer name veth0 netns {there}"))?;
    for (netns, address) in [(a, address_a), (b, address_b)] {
        netns.ip(&format!("address add {address} dev veth0 nodad"))?;
        netns.ip("link set veth0 up")?;
    }
    Ok(())
}
