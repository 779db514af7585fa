//! The client's side: one connection, requests on demand.

use std::{
    io::{BufRead as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result};
use integration::{
    content,
    http::{Kind, Reader, request},
};

use crate::way::{Way, Wire};

pub(crate) fn run(address: SocketAddr, way: Way) -> Result<()> {
    let mut reader = Reader::new(Wire::new(TcpStream::connect(address)?, way)?);
    let mut out = std::io::stdout().lock();
    writeln!(out, "connected")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let (method, path) = (words[0], words.get(1).copied().context("a path is needed")?);
        let body = match words.get(2..) {
            Some([seed, len]) => Some(content::body(seed.parse()?, len.parse()?)),
            _ => None,
        };
        let head = request(method, path, "", body.as_deref());
        reader.stream.send(&head, body.as_deref().unwrap_or_default())?;
        let kind = if method == "HEAD" { Kind::Headless } else { Kind::Response };
        let answer = reader.message(kind)?.context("closed without an answer")?;
        writeln!(out, "{} {} {}", answer.status(), answer.body.len(), content::sha1(&answer.body))?;
        out.flush()?;
    }
    Ok(())
}
