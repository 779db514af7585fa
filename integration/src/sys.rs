//! System calls that the standard library lacks, each in a safe shape.

use std::{
    ffi::{CString, c_int, c_uint},
    fs::File,
    io::{self, IoSlice, Write as _},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::Command,
};

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn counted(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Whether this process may do everything.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Sends a signal to one process.
///
/// # Errors
/// Those of kill(2).
pub fn signal(pid: u32, signal: c_int) -> io::Result<()> {
    // SAFETY: numbers only.
    checked(unsafe { libc::kill(pid.cast_signed(), signal) }).map(drop)
}

/// The child is killed when this process ends, however it ends.
pub fn dies_with_us(command: &mut Command) {
    // SAFETY: prctl(2) is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL)).map(drop));
    }
}

/// The child runs in this network namespace.
pub fn inside(command: &mut Command, netns: &OwnedFd) -> io::Result<()> {
    let netns = netns.try_clone()?;
    // SAFETY: setns(2) is async-signal-safe; the closure owns the descriptor.
    unsafe {
        command.pre_exec(move || checked(libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET)).map(drop));
    }
    Ok(())
}

/// The calling thread goes into a network namespace of its own.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: changes the calling thread's namespace only.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// The calling thread goes into this network namespace.
///
/// # Errors
/// Those of setns(2).
pub fn enter_network(netns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: changes the calling thread's namespace only.
    checked(unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Opens or makes a TUN device in the calling thread's network namespace: plain IP packets.
///
/// # Errors
/// Those of open(2) and ioctl(2).
pub fn tun(name: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: an all-zero ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(file)
}

/// Waits at most `milliseconds` until the file can be read.
///
/// # Errors
/// Those of poll(2).
pub fn readable(file: &impl AsRawFd, milliseconds: c_int) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, that lives through the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    match checked(ready) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        other => Ok(other? > 0),
    }
}

/// Sets an integer option.
///
/// # Errors
/// Those of setsockopt(2).
pub fn option(socket: &impl AsRawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value is an int that lives through the call.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

/// Connects from a given local port, so that two namespaces can have the same four numbers.
///
/// # Errors
/// Those of socket(2), bind(2), connect(2).
pub fn connect_from(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: numbers only; the result is checked before it is owned.
    let socket = checked(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    let (address, len) = raw_address(local);
    // SAFETY: the address lives through the call, and `len` is its size.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    let (address, len) = raw_address(remote);
    // SAFETY: as before.
    checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(TcpStream::from(socket))
}

fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: an all-zero sockaddr_storage is a valid value.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let len = match address {
        SocketAddr::V4(a) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(a.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is large enough and aligned for every address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(a) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: a.ip().octets() },
                sin6_scope_id: a.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, len as libc::socklen_t)
}

/// A second process with a copy of everything. Only for a process that has one thread.
///
/// # Errors
/// Those of fork(2).
pub fn fork() -> io::Result<Option<u32>> {
    // SAFETY: the callers are the peer's modes that start no threads, so no lock is held by another thread.
    let pid = checked(unsafe { libc::fork() })?;
    if pid == 0 {
        // The parent may be killed at any time; so then is the child.
        // SAFETY: numbers only.
        checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
        return Ok(None);
    }
    Ok(Some(pid.cast_unsigned()))
}

/// Children that end are forgotten, so that a forking server leaves no zombies.
pub fn forget_children() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// An unnamed file in memory with this content.
fn memory_file(bytes: &[u8]) -> io::Result<File> {
    let name = CString::default();
    // SAFETY: the name lives through the call.
    let fd = checked(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let mut file = unsafe { File::from_raw_fd(fd) };
    file.write_all(bytes)?;
    Ok(file)
}

/// Sends bytes by sendfile(2).
///
/// # Errors
/// Those of the system calls.
pub fn sendfile(socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let file = memory_file(bytes)?;
    let mut offset: libc::off_t = 0;
    while (offset as usize) < bytes.len() {
        let left = bytes.len() - offset as usize;
        // SAFETY: `offset` lives through the call.
        counted(unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &raw mut offset, left) })?;
    }
    Ok(())
}

/// Sends bytes by splice(2), from a file through a pipe.
///
/// # Errors
/// Those of the system calls.
pub fn splice(socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let file = memory_file(bytes)?;
    let (reader, writer) = io::pipe()?;
    let mut offset: libc::off64_t = 0;
    while (offset as usize) < bytes.len() {
        let left = bytes.len() - offset as usize;
        // SAFETY: `offset` lives through the call; the other offset is that of a pipe, which has none.
        let mut inside = counted(unsafe {
            libc::splice(file.as_raw_fd(), &raw mut offset, writer.as_raw_fd(), std::ptr::null_mut(), left, 0)
        })?;
        while inside > 0 {
            // SAFETY: no memory is passed.
            inside -= counted(unsafe {
                let none = std::ptr::null_mut();
                libc::splice(reader.as_raw_fd(), none, socket.as_raw_fd(), none, inside, libc::SPLICE_F_MORE)
            })?;
        }
    }
    Ok(())
}

/// Sends bytes by sendmmsg(2): eight messages a call, of two pieces each.
///
/// # Errors
/// Those of the system call, and a message that was taken in part.
pub fn sendmmsg(socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    for turn in bytes.chunks(8 * 8192) {
        let mut pieces: Vec<[IoSlice<'_>; 2]> = turn
            .chunks(8192)
            .map(|message| message.split_at(message.len() / 3))
            .map(|(a, b)| [IoSlice::new(a), IoSlice::new(b)])
            .collect();
        let mut messages: Vec<libc::mmsghdr> = pieces
            .iter_mut()
            .map(|two| {
                // SAFETY: an all-zero mmsghdr is a valid value.
                let mut m: libc::mmsghdr = unsafe { mem::zeroed() };
                // IoSlice has the layout of iovec; that is its promise.
                m.msg_hdr.msg_iov = two.as_mut_ptr().cast();
                m.msg_hdr.msg_iovlen = two.len();
                m
            })
            .collect();
        let mut done = 0;
        while done < messages.len() {
            let left = &mut messages[done..];
            // SAFETY: `left` and the pieces that it points at live through the call.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), left.as_mut_ptr(), left.len() as c_uint, 0) };
            done += checked(sent)? as usize;
        }
        let sent: usize = messages.iter().map(|m| m.msg_len as usize).sum();
        if sent != turn.len() {
            return Err(io::Error::other(format!("sendmmsg took {sent} of {} bytes", turn.len())));
        }
    }
    Ok(())
}

/// Sends bytes with `MSG_ZEROCOPY`. The kernel may read them at any later time, so they stay for good.
///
/// # Errors
/// Those of the system call.
pub fn zerocopy(socket: &TcpStream, bytes: &'static [u8]) -> io::Result<()> {
    option(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)?;
    let mut left = bytes;
    while !left.is_empty() {
        // SAFETY: the bytes are never freed or changed.
        let sent = counted(unsafe {
            libc::send(socket.as_raw_fd(), left.as_ptr().cast(), left.len(), libc::MSG_ZEROCOPY | libc::MSG_NOSIGNAL)
        })?;
        left = &left[sent..];
    }
    Ok(())
}

const CONTROL: usize = 64;

fn with_message<T>(call: impl FnOnce(&mut libc::msghdr) -> io::Result<T>) -> io::Result<T> {
    let mut byte = [0_u8];
    let mut piece = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // As u64: the alignment of a control message header.
    let mut control = [0_u64; CONTROL / 8];
    // SAFETY: an all-zero msghdr is a valid value.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = CONTROL;
    call(&mut message)
}

/// Hands a socket to the process at the other end (`SCM_RIGHTS`).
///
/// # Errors
/// Those of sendmsg(2).
pub fn pass_socket(to: &UnixStream, socket: &TcpStream) -> io::Result<()> {
    with_message(|message| {
        // SAFETY: CMSG_SPACE and CMSG_LEN only count; the first header lies in `control`, which is long enough.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(mem::size_of::<c_int>() as u32) as usize;
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(mem::size_of::<c_int>() as u32) as usize;
            libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(socket.as_raw_fd());
            counted(libc::sendmsg(to.as_raw_fd(), message, 0)).map(drop)
        }
    })
}

/// Takes a socket that [`pass_socket`] handed over; `None` when the other end is gone.
///
/// # Errors
/// Those of recvmsg(2), and a message without a socket.
pub fn take_socket(from: &UnixStream) -> io::Result<Option<TcpStream>> {
    with_message(|message| {
        // SAFETY: the header is read only when the kernel says that there is one, of the kind that holds an int,
        // which is a new descriptor that nobody else owns.
        unsafe {
            if counted(libc::recvmsg(from.as_raw_fd(), message, libc::MSG_CMSG_CLOEXEC))? == 0 {
                return Ok(None);
            }
            let header = libc::CMSG_FIRSTHDR(message);
            if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
                return Err(io::Error::other("a message without a socket"));
            }
            let fd = libc::CMSG_DATA(header).cast::<c_int>().read_unaligned();
            Ok(Some(TcpStream::from_raw_fd(fd)))
        }
    })
}

/// The listener hands out connections only when their first data has come (`TCP_DEFER_ACCEPT`).
///
/// # Errors
/// Those of setsockopt(2).
pub fn defer_accept(listener: &TcpListener) -> io::Result<()> {
    option(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 10)
}

/// Closing this socket resets the connection (`SO_LINGER` with no time).
///
/// # Errors
/// Those of setsockopt(2).
pub fn abort_on_close(socket: &TcpStream) -> io::Result<()> {
    let value = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = mem::size_of::<libc::linger>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: the value lives through the call, and `len` is its size.
    checked(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, pointer, len) }).map(drop)
}
