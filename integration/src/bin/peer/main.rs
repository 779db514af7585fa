//! A process that talks HTTP/1 for the kernel tests, so that captured ends have an owner that is not the test:
//! `peer serve ADDRESS [--model MODEL] [--send WAY] [--defer]` and `peer client ADDRESS [--send WAY]`.
//!
//! A server says `listening ADDRESS` on standard output, and answers GET and HEAD of `…/bytes/SEED/LENGTH`
//! with that body and POST with what it got; `X-Pid` names the process that answered. A client reads lines
//! `METHOD PATH [SEED LENGTH]` from standard input and says `STATUS LENGTH SHA1` for each; before, it says
//! `connected`. Both end when their input or the test ends.

mod client;
mod server;
mod way;

use std::{net::SocketAddr, process::ExitCode};

use anyhow::{Context as _, Result, bail};

use self::{server::Model, way::Way};

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [role, address, options @ ..] = arguments else { bail!("a role and an address are needed") };
    let address: SocketAddr = address.parse().with_context(|| format!("no address: {address}"))?;
    let (mut way, mut model, mut defer) = (Way::Write, Model::Thread, false);
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || options.next().with_context(|| format!("{option} needs a value"));
        match option.as_str() {
            "--send" => way = Way::named(value()?)?,
            "--model" => model = Model::named(value()?)?,
            "--defer" => defer = true,
            other => bail!("unknown option {other}"),
        }
    }
    match role.as_str() {
        "serve" => server::serve(address, model, way, defer),
        "client" => client::run(address, way),
        other => bail!("unknown role {other}"),
    }
}
