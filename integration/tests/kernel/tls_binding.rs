//! TLS objects whose socket cannot be known, and connections that others carry.

use anyhow::{Context as _, Result};
use integration::tls::Site;

use crate::{
    Test,
    tls::{Asking, Checks},
};

pub(crate) const TESTS: &[Test] = &[("tls_a_stream_without_a_socket_is_reported_unbound", unbound)];

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
