//! The ways to send and receive that a capture at the socket must see alike.

use std::{
    io::{self, Read, Write as _},
    net::TcpStream,
    os::fd::AsRawFd as _,
};

use anyhow::{Result, bail};
use integration::sys;
use io_uring::{IoUring, opcode, squeue::Flags, types::Fd};

/// How bytes leave and reach a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// write(2) and read(2).
    Write,
    /// write(2) of so many bytes each.
    Pieces(usize),
    /// The body by sendfile(2).
    Sendfile,
    /// The body by splice(2).
    Splice,
    /// sendmmsg(2).
    Sendmmsg,
    /// `MSG_ZEROCOPY`.
    Zerocopy,
    /// `io_uring`, sending and receiving; `true`: always in its worker threads.
    Uring(bool),
}

impl Way {
    pub(crate) fn named(name: &str) -> Result<Way> {
        Ok(match name {
            "write" => Way::Write,
            "sendfile" => Way::Sendfile,
            "splice" => Way::Splice,
            "sendmmsg" => Way::Sendmmsg,
            "zerocopy" => Way::Zerocopy,
            "uring" => Way::Uring(false),
            "uring-async" => Way::Uring(true),
            other => match other.strip_prefix("pieces=").and_then(|n| n.parse().ok()) {
                Some(n) => Way::Pieces(n),
                None => bail!("unknown way to send: {other}"),
            },
        })
    }
}

/// A socket with its way.
pub(crate) struct Wire {
    stream: TcpStream,
    way: Way,
    ring: Option<IoUring>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream, way: Way) -> io::Result<Wire> {
        stream.set_nodelay(true)?;
        let ring = matches!(way, Way::Uring(_)).then(|| IoUring::new(8)).transpose()?;
        Ok(Wire { stream, way, ring })
    }

    /// Sends a head and a body.
    pub(crate) fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let mut all = head.to_vec();
        match self.way {
            Way::Sendfile | Way::Splice => {
                self.stream.write_all(head)?;
                let send = if self.way == Way::Splice { sys::splice } else { sys::sendfile };
                return send(&self.stream, body);
            }
            _ => all.extend_from_slice(body),
        }
        match self.way {
            Way::Pieces(n) => all.chunks(n).try_for_each(|piece| self.stream.write_all(piece)),
            Way::Sendmmsg => sys::sendmmsg(&self.stream, &all),
            // The kernel may read them later; this process is short-lived.
            Way::Zerocopy => sys::zerocopy(&self.stream, all.leak()),
            Way::Uring(_) => {
                let mut left = all.as_slice();
                while !left.is_empty() {
                    let fd = Fd(self.stream.as_raw_fd());
                    let entry = opcode::Send::new(fd, left.as_ptr(), left.len().min(1 << 20) as u32).build();
                    let sent = self.submit(entry)?;
                    left = &left[sent..];
                }
                Ok(())
            }
            _ => self.stream.write_all(&all),
        }
    }

    /// Submits one operation and waits for its end.
    fn submit(&mut self, entry: io_uring::squeue::Entry) -> io::Result<usize> {
        let Some(ring) = &mut self.ring else { return Err(io::Error::other("no ring")) };
        let entry = if self.way == Way::Uring(true) { entry.flags(Flags::ASYNC) } else { entry };
        // SAFETY: the callers' buffers live until this returns, and it returns when the operation has ended.
        unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        while let Err(error) = ring.submit_and_wait(1) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        let result = ring.completion().next().map_or(-libc::EIO, |done| done.result());
        usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ring.is_none() {
            return self.stream.read(buffer);
        }
        let fd = Fd(self.stream.as_raw_fd());
        let entry = opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).build();
        self.submit(entry)
    }
}
