//! Transactions for the tests, and waiting for a condition.

use std::time::{Duration, Instant};

use transaction::{
    ArtifactRecord, ConnectionEvent, Digest, Level, Sealed,
    id::id,
    object::{Direction, End},
};

/// Longest wait for what should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A transaction like those of a busy web server: number `n`, with an object of about `size` bytes.
pub(crate) fn sealed(n: u64, size: usize) -> Sealed {
    let request_id = id(&[b"request", &n.to_le_bytes()]);
    let connection_id = id(&[b"connection", &(n / 100).to_le_bytes()]);
    let exchange_id = id(&[b"exchange", &n.to_le_bytes()]);
    let mut bytes = format!(
        r#"{{"metadata":{{"request_id":"{request_id}","connection_id":"{connection_id}"}},"request":{{"method":"GET","path":"/items/{n}"}},"response":{{"status":200}},"body":""#
    )
    .into_bytes();
    // Text that compresses about as well as JSON bodies do.
    let words = ["alpha", "beta", "gamma", "delta", "price", "name", "id", "null", "true", "17"];
    let mut seed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() + 8 < size {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(words[(seed % 10) as usize].as_bytes());
        bytes.push(b' ');
    }
    bytes.extend_from_slice(b"\"}");
    let record = ArtifactRecord {
        time_unix_ns: now() + n,
        digest: Digest::of(&bytes),
        request_method: "GET".to_owned(),
        request_host: format!("host{}.example:8080", n % 5),
        request_scheme: "http".to_owned(),
        request_path: format!("/items/{n}"),
        request_protocol: "http1".to_owned(),
        request_content_type: String::new(),
        response_status: Some([200, 404, 503][(n % 3) as usize]),
        response_content_type: "application/json".to_owned(),
        duration_ns: 1_234_567 + n,
        ttfb_ns: Some(1_000_000 + n),
        bytes_sent: 120,
        bytes_received: size as u64,
        process_exe: "/usr/bin/curl".to_owned(),
        process_pid: 1000 + (n % 7) as u32,
        process_unit: "web.service".to_owned(),
        container_id: String::new(),
        container_name: String::new(),
        direction: Direction::EgressInternal,
        end: if n.is_multiple_of(2) { End::Client } else { End::Server },
        level: Level::Full,
        complete: true,
        error_type: None,
        request_id,
        connection_id,
        exchange_id,
    };
    Sealed { bytes, record }
}

/// A connection's event.
pub(crate) fn event(n: u64) -> ConnectionEvent {
    ConnectionEvent {
        time_unix_ns: now() + n,
        connection_id: id(&[b"connection", &(n / 100).to_le_bytes()]),
        part: n as u32,
        bytes_sent: n * 17,
        process_exe: "/usr/bin/curl".to_owned(),
        source_ip: "127.0.0.1".to_owned(),
        ..ConnectionEvent::default()
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_nanos() as u64
}

/// Waits until a condition holds.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON, "{what} did not come in {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
