//! Bytes that nobody should send: the agent's memory stays bounded, nothing panics, and the next honest exchange
//! is captured.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use integration::{content, http::PATIENCE, program, tapstack::Tapstack};

use crate::{Test, content_checks::recovers};

pub(crate) const TESTS: &[Test] = &[
    ("garbage_neither_stops_nor_fattens_the_agent", || hostile("garbage", &garbage()?)),
    ("endless_heads_neither_stop_nor_fatten_the_agent", || hostile("heads", &heads())),
    ("broken_framing_neither_stops_nor_fattens_the_agent", || hostile("framing", &framing())),
    ("floods_of_messages_neither_stop_nor_fatten_the_agent", || hostile("floods", &floods())),
];

/// Most resident memory at any time: 64 MiB of bodies and reassembly, the rings, queues, and the archive's blocks.
const MEMORY: u64 = 200 << 20;

/// What a client sends, and what the server answers without looking.
struct Attack {
    /// Connections at the same time.
    times: usize,
    request: Vec<u8>,
    response: Vec<u8>,
}

fn attack(times: usize, request: impl AsRef<[u8]>, response: impl AsRef<[u8]>) -> Attack {
    Attack { times, request: request.as_ref().to_vec(), response: response.as_ref().to_vec() }
}

/// A start and then so many times the same.
fn many(start: &str, again: &str, times: usize) -> Vec<u8> {
    let mut bytes = start.as_bytes().to_vec();
    bytes.extend(again.as_bytes().repeat(times));
    bytes
}

const ASKED: &str = "GET /hostile HTTP/1.1\r\nHost: a\r\n\r\n";

fn garbage() -> Result<Vec<Attack>> {
    // 100 MB of zeros in 100 KB, as an honest length.
    let code = "import gzip,sys\nz = gzip.compress(bytes(100_000_000))\n\
                sys.stdout.buffer.write(b'HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nContent-Encoding: gzip\\r\\n\
                Content-Length: %d\\r\\n\\r\\n' % len(z) + z)";
    let bomb = program::output(program::command("python3").args(["-c", code]))?;
    let mut all = vec![attack(4, ASKED, bomb)];
    for seed in 0..40 {
        let noise = content::body(seed, 100_000);
        let [get, status] = ["GET ", "HTTP/1.1 200 "].map(|start| [start.as_bytes(), &noise].concat());
        all.extend([attack(1, &noise, &noise), attack(1, get, status), attack(1, ASKED, &noise)]);
    }
    Ok(all)
}

fn heads() -> Vec<Attack> {
    const SIZE: usize = 8 << 20;
    let fields = many("GET /hostile HTTP/1.1\r\n", "a:b\r\n", 1_000_000);
    vec![
        attack(4, many("GET /hostile HTTP/1.1\r\nX-Long: ", "a", SIZE), ""),
        attack(4, many("GET /", "a", SIZE), ""),
        attack(4, ASKED, many("HTTP/1.1 200 OK\r\nX-Long: ", "a", SIZE)),
        attack(2, &fields, ""),
        attack(2, [fields.as_slice(), b"\r\n"].concat(), "HTTP/1.1 204 No Content\r\n\r\n"),
        attack(2, many("GET /hostile HTTP/1.1\r\nX-Folded: a\r\n", " b\r\n", 500_000), ""),
        // Heads that never end, on many connections: each of them has to be remembered.
        attack(300, many("GET /hostile HTTP/1.1\r\nX-Long: ", "a", 60_000), ""),
    ]
}

fn framing() -> Vec<Attack> {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let posted = "POST /hostile HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut all = vec![
        attack(4, many(&format!("{posted}1;"), "x=y;", 2 << 20), ""),
        attack(4, ASKED, many(&format!("{chunked}1;"), "x=y;", 2 << 20)),
        attack(2, many(posted, "1\r\na\r\n", 300_000), ""),
        attack(2, ASKED, many(&format!("{chunked}0\r\n"), "T: v\r\n", 1_000_000)),
        attack(2, ASKED, many(&format!("{chunked}ffffffffffffffff\r\n"), "a", 1 << 20)),
        attack(2, ASKED, many(&format!("{chunked}00000000000000000000000000000000000001\r\n"), "a", 1 << 20)),
        attack(2, ASKED, many(&format!("{chunked}zz\r\n"), "a", 1 << 20)),
    ];
    for length in ["18446744073709551615", "99999999999999999999999", "-1", "0x10", "5, 6", ""] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        all.push(attack(1, ASKED, many(&head, "a", 1 << 20)));
        let head = format!("POST /hostile HTTP/1.1\r\nContent-Length: {length}\r\nContent-Length: 3\r\n\r\n");
        all.push(attack(1, many(&head, "a", 1 << 20), ""));
    }
    all
}

fn floods() -> Vec<Attack> {
    vec![
        // Requests that nobody answers, answers that nobody asked for, interim ones without an end.
        attack(1, ASKED.repeat(3000), ""),
        attack(1, ASKED, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(3000)),
        attack(1, ASKED, "HTTP/1.1 100 Continue\r\n\r\n".repeat(200_000)),
        attack(1, "\r\n".repeat(1 << 20), "\r\n".repeat(1 << 20)),
        attack(1, many("PROXY TCP4 ", "1", 1 << 20), ""),
        // Bodies on many connections at once, none of which ends.
        attack(60, many("POST /hostile HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", "a", 2 << 20), ""),
    ]
}

/// Takes everything, says its piece, and closes.
fn serve(mut stream: TcpStream, response: &[u8]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut piece = vec![0; 65536];
    let mut first = true;
    loop {
        let n = stream.read(&mut piece)?;
        if first {
            stream.write_all(response)?;
            first = false;
        }
        if n == 0 {
            return Ok(());
        }
    }
}

/// Sends everything and reads the answer to its end, on all connections at once.
fn launch(attack: &Attack) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address: SocketAddr = listener.local_addr()?;
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::scope(|inner| {
                for _ in 0..attack.times {
                    let Ok((stream, _)) = listener.accept() else { return };
                    inner.spawn(|| serve(stream, &attack.response));
                }
            });
        });
        let streams = (0..attack.times).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>()?;
        for mut stream in streams {
            scope.spawn(move || -> std::io::Result<()> {
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut reader = stream.try_clone()?;
                let rest = thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
                stream.write_all(&attack.request)?;
                stream.shutdown(std::net::Shutdown::Write)?;
                let _ = rest.join();
                Ok(())
            });
        }
        Ok(())
    })
}

fn hostile(name: &str, attacks: &[Attack]) -> Result<()> {
    let mut tapstack = Tapstack::start()?;
    for attack in attacks {
        launch(attack)?;
    }
    recovers(&mut tapstack, name)?;
    let peak = tapstack.peak()?;
    println!("{} attacks, at most {} MiB resident", attacks.len(), peak >> 20);
    ensure!(tapstack.metric("panics")? == 0, "a parser panicked:\n{}", tapstack.log());
    ensure!(peak < MEMORY, "{} MiB resident", peak >> 20);
    let took = tapstack.stop(libc::SIGTERM)?;
    ensure!(took < Duration::from_secs(1), "the stop took {took:?}");
    Ok(())
}
