//! Ways past read and write: the capture is at the socket, so bytes and owners are the same.

use anyhow::{Result, ensure};
use integration::{content, program::Peer, tapstack::Tapstack};

use crate::{
    PEER, Test,
    content_checks::{body_is, exactly},
};

pub(crate) const TESTS: &[Test] = &[
    ("sendfile_is_captured", || way("sendfile")),
    ("splice_is_captured", || way("splice")),
    ("io_uring_is_captured", || way("uring")),
    ("io_uring_in_worker_threads_is_captured", || way("uring-async")),
    ("sendmmsg_is_captured", || way("sendmmsg")),
    ("msg_zerocopy_is_captured", || way("zerocopy")),
];

/// Both ends send this way, 200 KB each.
fn way(way: &str) -> Result<()> {
    let options = format!("--send {way}");
    let server = Peer::start(PEER, "serve", "127.0.0.1:0", &options, None)?;
    let mut tapstack = Tapstack::start()?;
    let mut client = Peer::start(PEER, "client", &server.address.to_string(), &options, None)?;
    for seed in [90_u64, 91] {
        let sent = content::body(seed, 200_000);
        let path = format!("/{way}/{seed}");
        let answer = client.ask(&format!("POST {path} {seed} 200000"))?;
        ensure!(answer == format!("200 200000 {}", content::sha1(&sent)), "{answer}");
        let (asking, answering) = tapstack.both(&path)?;
        for (record, peer) in [(&asking, &client), (&answering, &server)] {
            body_is(&mut tapstack, record, "request", &sent)?;
            body_is(&mut tapstack, record, "response", &sent)?;
            let (found, owner) = (record.number("process_pid"), u64::from(peer.pid()));
            ensure!(found == Some(owner), "{path}: the {} is {owner}, found {found:?}", record.end());
        }
    }
    exactly(&mut tapstack, &format!("/{way}/"), 4)
}
