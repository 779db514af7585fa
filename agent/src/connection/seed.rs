//! TCP sockets that are older than the capture.
//!
//! In: the kernel's socket diagnosis (`sock_diag(7)`) of every network namespace that has a process, and
//! `/proc/PID/fd`. Out: [`Seeded`]: a socket's cookie, the same number that the programs see, with its
//! addresses and owner. Called once, after the programs are attached, so that nothing falls in between; a
//! socket that both tell of is the same by its cookie.
//!
//! Everything is bounded and nothing here is needed for capture: without rights or without the kernel's
//! `tcp_diag` less is known at first, and the programs find the owner at the socket's next use.

mod diag;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

use crate::process::proc;

/// Network namespaces that are looked into.
const MAX_NAMESPACES: usize = 256;
/// Sockets taken in all.
const MAX_SOCKETS: usize = 256 << 10;
/// Descriptors looked at in all.
const MAX_DESCRIPTORS: usize = 4 << 20;

/// Why no sockets could be had at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `/proc` is not there.
    #[error("cannot list /proc: {0}; it must be mounted")]
    Proc(#[source] io::Error),
    /// The kernel gave no answer about sockets.
    #[error(
        "the kernel does not list TCP sockets (sock_diag): {0}; connections older than the capture get their owner at their next use. Needs CONFIG_INET_TCP_DIAG (module tcp_diag)"
    )]
    Diag(#[source] io::Error),
}

/// State of a TCP socket (the kernel's `include/net/tcp_states.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Data can go both ways.
    Established,
    /// Waits for connections.
    Listen,
    /// Any other, by its number: opening or closing.
    Other(u8),
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeded {
    /// The kernel's number of the socket, never used twice.
    pub cookie: u64,
    /// Its own address. IPv4 addresses mapped into IPv6 are given as IPv4, here and in `remote`.
    pub local: SocketAddr,
    /// The other end's; unspecified with port 0 for a listener.
    pub remote: SocketAddr,
    /// Process that has it open; the youngest where there are several, because a server that forks leaves the
    /// connection to its child. 0 when none was found.
    pub pid: u32,
    /// Start of that process in clock ticks since boot; 0 when there is none.
    pub start_ticks: u64,
    /// Identifier of the network namespace (`ns.inum` in the kernel, the inode of `/proc/PID/ns/net`).
    pub netns: u32,
    /// What can happen on it.
    pub state: State,
}

/// Lists the sockets: IPv4 and IPv6, every state but `TIME_WAIT` and half-open ones (no owner, and no data come).
pub fn seed() -> Result<Vec<Seeded>, Error> {
    let pids: Vec<u32> = proc::pids().map_err(Error::Proc)?.collect();
    let mut found = HashMap::new();
    let own = std::fs::metadata("/proc/thread-self/ns/net").map(|about| about.ino() as u32).unwrap_or_default();
    collect(own, &mut found).map_err(Error::Diag)?;
    // A thread can change its own network namespace; one of its own, because it does not come back.
    let others = namespaces(&pids, own);
    std::thread::scope(|scope| {
        let collected = scope.spawn(|| {
            for (netns, file) in others {
                // SAFETY: the descriptor is open; only this thread moves.
                let moved = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } == 0;
                let result = if moved { collect(netns, &mut found) } else { Err(io::Error::last_os_error()) };
                if let Err(error) = result {
                    tracing::debug!(netns, %error, "Sockets of a network namespace were not listed.");
                }
            }
        });
        // A panic there would have been reported; what was found before it is used.
        let _ = collected.join();
    });
    assign_owners(&pids, &mut found);
    Ok(found.into_values().collect())
}

/// Adds the sockets of this thread's network namespace, by their inode in sockfs (one for all namespaces).
fn collect(netns: u32, found: &mut HashMap<u32, Seeded>) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        diag::dump(family as u8, |socket| {
            if found.len() < MAX_SOCKETS {
                let state = match socket.state {
                    1 => State::Established,
                    10 => State::Listen,
                    other => State::Other(other),
                };
                found.insert(
                    socket.inode,
                    Seeded {
                        cookie: socket.cookie,
                        local: socket.local,
                        remote: socket.remote,
                        pid: 0,
                        start_ticks: 0,
                        netns,
                        state,
                    },
                );
            }
        })?;
    }
    Ok(())
}

/// One open file for each network namespace other than `own`.
fn namespaces(pids: &[u32], own: u32) -> Vec<(u32, File)> {
    let mut seen = HashSet::from([own]);
    let mut files = Vec::new();
    for pid in pids {
        if files.len() == MAX_NAMESPACES {
            tracing::warn!(MAX_NAMESPACES, "More network namespaces than are looked into for older connections.");
            break;
        }
        // Opened before it is asked for its number: the process could be another one by the second look.
        let Ok(file) = File::open(format!("/proc/{pid}/ns/net")) else { continue };
        let Ok(about) = file.metadata() else { continue };
        if seen.insert(about.ino() as u32) {
            files.push((about.ino() as u32, file));
        }
    }
    files
}

fn assign_owners(pids: &[u32], found: &mut HashMap<u32, Seeded>) {
    let mut left = MAX_DESCRIPTORS;
    for pid in pids {
        let Some(stat) = proc::stat(*pid) else { continue };
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for descriptor in descriptors.flatten() {
            left -= 1;
            if left == 0 {
                return tracing::warn!(MAX_DESCRIPTORS, "More open files than are looked at for older connections.");
            }
            let Ok(target) = std::fs::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let socket = inode.and_then(|inode: u32| found.get_mut(&inode));
            if let Some(socket) = socket.filter(|socket| (socket.start_ticks, socket.pid) < (stat.start_ticks, *pid)) {
                (socket.start_ticks, socket.pid) = (stat.start_ticks, *pid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn cookie(socket: &impl AsRawFd) -> u64 {
        let (mut cookie, mut len) = (0u64, 8 as libc::socklen_t);
        // SAFETY: the value and its length are valid for the call.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            )
        };
        assert_eq!(result, 0);
        cookie
    }

    #[test]
    fn open_sockets_are_found_with_their_owner() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("skipped: {address} is not there");
                continue;
            };
            let at = listener.local_addr().unwrap();
            let client = TcpStream::connect(at).unwrap();
            let (server, _) = listener.accept().unwrap();
            let list = match seed() {
                Ok(list) => list,
                Err(error) => return eprintln!("skipped: {error}"),
            };
            let find = |cookie: u64| list.iter().find(|socket| socket.cookie == cookie).unwrap();

            let seen = find(cookie(&client));
            assert_eq!((seen.local, seen.remote), (client.local_addr().unwrap(), at));
            assert_eq!((seen.state, seen.pid), (State::Established, std::process::id()));
            assert_eq!(seen.start_ticks, proc::stat(std::process::id()).unwrap().start_ticks);
            assert_eq!(u64::from(seen.netns), std::fs::metadata("/proc/self/ns/net").unwrap().ino());

            let seen = find(cookie(&server));
            assert_eq!((seen.local, seen.remote), (at, client.local_addr().unwrap()));
            let seen = find(cookie(&listener));
            assert_eq!((seen.local, seen.state, seen.remote.port()), (at, State::Listen, 0));
        }
    }

    #[test]
    fn the_youngest_of_several_processes_is_the_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // The child has the same socket as its standard input.
        let inherited = std::os::fd::OwnedFd::from(client.try_clone().unwrap());
        let mut child = std::process::Command::new("/bin/sleep").arg("60").stdin(inherited).spawn().unwrap();
        let list = seed();
        child.kill().unwrap();
        child.wait().unwrap();
        let list = match list {
            Ok(list) => list,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let seen = list.iter().find(|socket| socket.cookie == cookie(&client)).unwrap();
        assert_eq!(seen.pid, child.id());
    }

    #[test]
    fn sockets_of_another_network_namespace_are_found() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        // The namespace belongs to a child of its own: seeding looks at processes, not at threads.
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // SAFETY: no pointer; only this thread moves.
                if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                    tell.send(None).unwrap();
                    return;
                }
                let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
                let listener = TcpListener::bind("0.0.0.0:0").unwrap();
                let netns = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino() as u32;
                tell.send(Some((cookie(&listener), netns))).unwrap();
                let _ = ended.recv();
                child.kill().unwrap();
                child.wait().unwrap();
            });
            let Some((cookie, netns)) = told.recv().unwrap() else {
                return eprintln!("skipped: needs root");
            };
            let list = seed();
            drop(end);
            let list = match list {
                Ok(list) => list,
                Err(error) => return eprintln!("skipped: {error}"),
            };
            let seen = list.iter().find(|socket| socket.cookie == cookie).unwrap();
            assert_eq!((seen.netns, seen.pid), (netns, std::process::id()));
        });
    }
}
