//! As much HTTP/1 as the tests' own clients and servers need. Strict about what it reads: a test must not
//! pass because its own end was lenient.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest time that one read or write of a test's connection may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A message as read: start line, fields with lower-case names, body without chunk framing.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// Request line or status line.
    pub start: String,
    /// Header fields.
    pub fields: Vec<(String, String)>,
    /// Body.
    pub body: Vec<u8>,
}

/// What a reader must know beside the message itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No length means no body.
    Request,
    /// No length means until the close.
    Response,
    /// The answer to HEAD: a length without a body.
    Headless,
}

impl Message {
    /// The first value of a field; `name` in lower case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The status code of a response, 0 for a request.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.start.strip_prefix("HTTP/").and_then(|s| s.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0)
    }

    /// The `n`th word of the start line.
    #[must_use]
    pub fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads messages from a stream, and keeps what came too early for the next one.
#[derive(Debug)]
pub struct Reader<S> {
    /// The stream.
    pub stream: S,
    buffer: Vec<u8>,
}

impl<S: Read> Reader<S> {
    /// A reader without anything read yet.
    pub fn new(stream: S) -> Self {
        Reader { stream, buffer: Vec::new() }
    }

    /// Reads more; false at the end of the stream.
    fn more(&mut self) -> io::Result<bool> {
        let mut piece = vec![0; 64 << 10];
        loop {
            match self.stream.read(&mut piece) {
                Ok(n) => {
                    self.buffer.extend_from_slice(&piece[..n]);
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn exactly(&mut self, len: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < len {
            if !self.more()? {
                return Err(wrong(format!("{} of {len} bytes of a body, then the end", self.buffer.len())));
            }
        }
        let rest = self.buffer.split_off(len);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut from = 0;
        loop {
            if let Some(at) = self.buffer[from..].iter().position(|b| *b == b'\n') {
                let line = self.exactly(from + at + 1)?;
                return String::from_utf8(line).map(|s| s.trim_end().to_owned()).map_err(|_| wrong("not UTF-8"));
            }
            from = self.buffer.len();
            if !self.more()? {
                return Err(wrong("the end within a line"));
            }
        }
    }

    /// Everything up to the end of the stream.
    ///
    /// # Errors
    /// Those of the stream.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// The next message; `None` at an orderly end of the stream.
    ///
    /// # Errors
    /// Those of the stream, and `InvalidData` for what is no message.
    pub fn message(&mut self, kind: Kind) -> io::Result<Option<Message>> {
        if self.buffer.is_empty() && !self.more()? {
            return Ok(None);
        }
        let mut message = Message { start: self.line()?, ..Message::default() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| wrong(format!("no field: {line:?}")))?;
            message.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let bodiless = kind == Kind::Headless || matches!(message.status(), 100..=199 | 204 | 304);
        if bodiless {
        } else if message.field("transfer-encoding") == Some("chunked") {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).map_err(|_| wrong(format!("no chunk size: {line:?}")))?;
                if size == 0 {
                    break;
                }
                message.body.extend(self.exactly(size)?);
                self.line()?;
            }
            while !self.line()?.is_empty() {}
        } else if let Some(length) = message.field("content-length") {
            let length = length.parse().map_err(|_| wrong(format!("no length: {length:?}")))?;
            message.body = self.exactly(length)?;
        } else if kind == Kind::Response {
            message.body = self.rest()?;
        }
        Ok(Some(message))
    }
}

/// A client's connection.
pub type Client = Reader<TcpStream>;

impl Client {
    /// Connects, without Nagle's delay and with bounds on each read and write.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn open(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        Client::over(stream)
    }

    /// A client on a connected stream.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn over(stream: TcpStream) -> io::Result<Client> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client::new(stream))
    }

    /// Sends a request and reads the answer. `fields`: further header lines, each with CR LF.
    ///
    /// # Errors
    /// Those of the socket, and an early end.
    pub fn ask(&mut self, method: &str, path: &str, fields: &str, body: Option<&[u8]>) -> io::Result<Message> {
        let mut bytes = request(method, path, fields, body);
        if let Some(body) = body {
            bytes.extend_from_slice(body);
        }
        self.stream.write_all(&bytes)?;
        self.answer(method)
    }

    /// Reads the answer to a request with this method.
    ///
    /// # Errors
    /// Those of the socket, and an early end.
    pub fn answer(&mut self, method: &str) -> io::Result<Message> {
        let kind = if method == "HEAD" { Kind::Headless } else { Kind::Response };
        self.message(kind)?.ok_or_else(|| wrong("closed without an answer"))
    }
}

/// A request's head, with the length of its body.
#[must_use]
pub fn request(method: &str, path: &str, fields: &str, body: Option<&[u8]>) -> Vec<u8> {
    let length = body.map(|b| format!("Content-Type: application/octet-stream\r\nContent-Length: {}\r\n", b.len()));
    format!("{method} {path} HTTP/1.1\r\nHost: peer.test\r\n{fields}{}\r\n", length.unwrap_or_default()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_messages_one_after_the_other() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\n\
            HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n\
            HTTP/1.0 200 OK\r\n\r\nrest";
        let mut reader = Reader::new(&text[..]);
        let mut next = || reader.message(Kind::Response).unwrap().map(|m| (m.status(), m.body));
        assert_eq!(next(), Some((200, b"abc".to_vec())));
        assert_eq!(next(), Some((204, Vec::new())));
        assert_eq!(next(), Some((200, b"abc".to_vec())));
        assert_eq!(next(), Some((200, b"rest".to_vec())));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_short_body_is_an_error() {
        let mut reader = Reader::new(&b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"[..]);
        assert!(reader.message(Kind::Response).is_err());
    }
}
