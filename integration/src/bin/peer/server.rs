//! The server's side: who accepts, who answers.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    thread,
};

use anyhow::{Result, bail};
use integration::{
    content,
    http::{Kind, Message, Reader},
    sys,
};

use crate::way::{Way, Wire};

/// Which process accepts and which one answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// One process, a thread for each connection.
    Thread,
    /// The parent accepts; a child for each connection reads and answers.
    Fork,
    /// Three children accept from the parent's listener.
    Prefork,
    /// One process accepts and hands the socket to another one (`SCM_RIGHTS`).
    Pass,
}

impl Model {
    pub(crate) fn named(name: &str) -> Result<Model> {
        Ok(match name {
            "thread" => Model::Thread,
            "fork" => Model::Fork,
            "prefork" => Model::Prefork,
            "pass" => Model::Pass,
            other => bail!("unknown model {other}"),
        })
    }
}

pub(crate) fn serve(address: SocketAddr, model: Model, way: Way, defer: bool) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    if defer {
        sys::defer_accept(&listener)?;
    }
    // A pipe's reader waits for it: it must leave at once, and not be copied into a child.
    println!("listening {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    match model {
        Model::Thread => accept(&listener, |stream| {
            thread::spawn(move || answer(stream, way));
        }),
        Model::Fork => {
            sys::forget_children();
            loop {
                let (stream, _) = listener.accept()?;
                if sys::fork()?.is_none() {
                    drop(listener);
                    answer(stream, way);
                    return Ok(());
                }
            }
        }
        Model::Prefork => {
            for _ in 0..3 {
                if sys::fork()?.is_none() {
                    return accept(&listener, |stream| answer(stream, way));
                }
            }
            loop {
                thread::park();
            }
        }
        Model::Pass => {
            let (ours, theirs) = UnixStream::pair()?;
            if sys::fork()?.is_none() {
                drop((ours, listener));
                while let Some(stream) = sys::take_socket(&theirs)? {
                    answer(stream, way);
                }
                return Ok(());
            }
            loop {
                let (stream, _) = listener.accept()?;
                sys::pass_socket(&ours, &stream)?;
            }
        }
    }
}

fn accept(listener: &TcpListener, each: impl Fn(TcpStream)) -> Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        each(stream);
    }
}

/// Answers until the client closes; a connection that breaks is the test's business, not ours.
fn answer(stream: TcpStream, way: Way) {
    if let Err(error) = answers(stream, way) {
        eprintln!("peer: {error}");
    }
}

fn answers(stream: TcpStream, way: Way) -> std::io::Result<()> {
    let mut reader = Reader::new(Wire::new(stream, way)?);
    while let Some(request) = reader.message(Kind::Request)? {
        let (status, body) = content_of(&request);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\nX-Pid: {}\r\n\r\n",
            body.len(),
            std::process::id()
        );
        let body = if request.word(0) == "HEAD" { &[] } else { body.as_slice() };
        reader.stream.send(head.as_bytes(), body)?;
    }
    Ok(())
}

fn content_of(request: &Message) -> (&'static str, Vec<u8>) {
    if request.word(0) == "POST" {
        return ("200 OK", request.body.clone());
    }
    let path = request.word(1).split('?').next().unwrap_or_default();
    let mut parts = path.rsplit('/');
    match (parts.next().map(str::parse), parts.next().map(str::parse), parts.next()) {
        (Some(Ok(len)), Some(Ok(seed)), Some("bytes")) => ("200 OK", content::body(seed, len)),
        _ => ("404 Not Found", b"Nothing here.".to_vec()),
    }
}
