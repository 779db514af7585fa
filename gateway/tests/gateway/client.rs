//! A client that sends exactly the bytes it is given, so that wrong requests can be sent too; and the answer.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longer than any limit of the gateway: only a hanging test meets it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The only value of a field; none when it is missing or repeated.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let first = values.next();
        first.filter(|_| values.next().is_none())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Reads one answer off the bytes of a connection that has ended; none when there is no whole head.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Answer> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
        let field = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
        let headers = lines.map(field).collect::<Option<Vec<_>>>()?;
        Some(Answer { status, headers, body: bytes[end + 4..].to_vec() })
    }
}

/// Reads to the end of the connection; a reset counts as the end.
pub(crate) async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection stays open") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    bytes
}

/// Sends `bytes` on a connection of their own, and reads to its end.
pub(crate) async fn exchange(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // The gateway may have refused and closed before it took everything.
    let _ = stream.write_all(bytes).await;
    rest(&mut stream).await
}

/// A request without a body that asks for the connection to be closed.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let own = if headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) { "" } else { "Host: localhost\r\n" };
    let fields: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n{own}{}\r\n", fields.concat()).into_bytes()
}

/// The same from a thread whose sockets belong to another user; needs root.
pub(crate) async fn exchange_as(uid: u32, to: SocketAddr, bytes: Vec<u8>) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    tokio::task::spawn_blocking(move || {
        let mut stream = connect_as(uid, to);
        stream.write_all(&bytes).unwrap();
        let mut back = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_to_end(&mut back).unwrap();
        let _ = stream.shutdown(Shutdown::Both);
        back
    })
    .await
    .unwrap()
}

/// A connection whose socket belongs to `uid`: a socket's owner is the file-system uid of the thread that
/// makes it (credentials(7)).
pub(crate) fn connect_as(uid: u32, to: SocketAddr) -> std::net::TcpStream {
    std::thread::spawn(move || {
        // SAFETY: setfsuid(2) takes no pointers and changes this thread only, which ends here.
        unsafe { libc::setfsuid(uid) };
        // SAFETY: the same; an impossible uid changes nothing and returns the one in force.
        let now = unsafe { libc::setfsuid(u32::MAX) };
        assert_eq!(now as u32, uid, "this thread could not take uid {uid}");
        std::net::TcpStream::connect(to).unwrap()
    })
    .join()
    .unwrap()
}

/// Whether tests that need other users can run.
pub(crate) fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
