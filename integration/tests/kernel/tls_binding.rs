//! TLS objects whose socket cannot be known, and connections that others carry.

use anyhow::{Context as _, Result, ensure};
use integration::{program, sys, tls::Site};

use crate::{
    Test,
    tls::{Asking, Checks},
};

pub(crate) const TESTS: &[Test] = &[
    ("tls_a_stream_without_a_socket_is_reported_unbound", unbound),
    ("tls_a_descriptor_ties_an_object_whose_ciphertext_another_thread_sends", named),
    ("tls_a_binding_that_the_full_ring_lost_is_said_again", lost_binding),
];

/// The ciphertext leaves by another thread, or by another process: nothing ties the object to the TCP socket.
fn unbound() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let mut checks = Checks::start("/tls/unbound/", &[])?;
    for options in ["thread", "process", "thread ex"] {
        let mut client = Asking::start(site.c(options, "d.tls.test", server.port)?, "d.tls.test", &server)?;
        client.shared.unbound = true;
        let at = format!("/tls/unbound/{}", options.replace(' ', "-"));
        for n in 0..3 {
            client.get(&mut checks, &site, &format!("{at}/{n}"), 140 + n, 30_000).context(options)?;
        }
        client.send(&mut checks, &site, &at, 150, 30_000)?;
    }
    checks.done()?;
    Ok(())
}

/// As above by another thread, but the object was once given the socket's descriptor: the weakest evidence, and the only
/// one here.
fn named() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let mut checks = Checks::start("/tls/named/", &[])?;
    let mut client = Asking::start(site.c("thread named", "n.tls.test", server.port)?, "n.tls.test", &server)?;
    for n in 0..3 {
        client.get(&mut checks, &site, &format!("/tls/named/{n}"), 160 + n, 30_000)?;
    }
    for record in checks.tapstack.wait_for("/tls/named/", 6)? {
        let object = checks.tapstack.object(&record)?;
        let binding = if record.end() == "client" { "descriptor" } else { "handshake" };
        ensure!(object.text("/tls/binding") == binding, "{}: {}", record.end(), object.0["tls"]);
    }
    checks.done()
}

/// The agent sleeps while the ring of connections and bindings overflows, and a connection is made meanwhile: what was
/// lost of it comes with later records.
fn lost_binding() -> Result<()> {
    let site = Site::new()?;
    let server = site.nginx("", |_| {})?;
    let mut checks = Checks::start("/tls/lost/", &[])?;
    let host = "lost.tls.test";
    let mut client = Asking::start(site.python("session", host, server.port, &[]), host, &server)?;
    let agent = checks.tapstack.pid()?;
    sys::signal(agent, libc::SIGSTOP)?;
    // A record of 1.4 KB for each program that is started; the ring has 4 MiB.
    let flood = "i=0; while [ $i -lt 3500 ]; do /bin/true; i=$((i+1)); done";
    let flooded = program::output(program::command("sh").args(["-c", flood]));
    let asked = flooded.and_then(|_| client.get(&mut checks, &site, "/tls/lost/0", 400, 20_000));
    sys::signal(agent, libc::SIGCONT)?;
    asked?;
    for n in 1..4 {
        client.get(&mut checks, &site, &format!("/tls/lost/{n}"), 400 + n, 20_000)?;
    }
    checks.tapstack.rises("kernel_control_ring_full_records", 1)?;
    checks.done()
}
