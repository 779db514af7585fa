//! What a client cannot take from others: connections, memory and time.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use crate::{
    client::{Answer, PATIENCE, connect_as, exchange, is_root, request, rest},
    refusal::assert_hardened,
    running::{Gateway, sealed},
    sample::Sample,
};

/// Connections that those who may read can have open, and everybody else.
const FRIENDS: usize = 512;
const STRANGERS: usize = 16;

/// Sends a request that keeps the connection, and waits for the whole answer.
async fn held(gateway: &Gateway) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut back = Vec::new();
    while !back.ends_with(b"ok\n") {
        let read = timeout(PATIENCE, stream.read_buf(&mut back)).await.unwrap().unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&back));
    }
    stream
}

#[tokio::test]
async fn long_addresses_and_large_heads_are_refused_and_the_next_request_is_served() {
    let gateway = Gateway::with(vec![sealed(&Sample::default())]).await;
    for (length, status) in [(2048, 200), (2049, 414), (15_000, 414)] {
        let target = format!("/?x={}", "a".repeat(length - 4));
        let answer = gateway.get(&target).await;
        assert_eq!(answer.status, status, "{length}");
        assert_hardened(&answer, "a long address");
    }
    // These the HTTP parser refuses before any handler: no body, and nothing captured in it.
    let field = "a".repeat(17_000);
    let many = "X: y\r\n".repeat(65);
    for (what, bytes) in [
        ("a long field", request("GET", "/", &[("X-Long", &field)])),
        ("a long address", request("GET", &format!("/?x={field}"), &[])),
        ("a very long address", request("GET", &format!("/?x={}", "a".repeat(100_000)), &[])),
        ("many fields", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into_bytes()),
        ("no end", vec![b'a'; 1 << 20]),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec()),
    ] {
        let back = exchange(gateway.address, &bytes).await;
        // Bytes that it did not take make the kernel reset the connection, which may overtake the answer.
        if let Some(answer) = Answer::parse(&back) {
            assert!([400, 414, 431].contains(&answer.status), "{what}: {answer:?}");
            assert!(answer.body.is_empty(), "{what}: {answer:?}");
        } else {
            assert!(back.is_empty(), "{what}: {}", String::from_utf8_lossy(&back));
        }
        assert_eq!(gateway.get("/").await.status, 200, "after {what}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_past_the_limit_are_dropped_and_counted_and_a_free_place_is_given_again() {
    allow_descriptors(4 * FRIENDS as u64);
    let gateway = Gateway::with(Vec::new()).await;
    let mut open = Vec::new();
    for _ in 0..FRIENDS {
        open.push(held(&gateway).await);
    }
    assert_eq!(gateway.counted("connections_dropped"), 0);
    assert_eq!(exchange(gateway.address, &request("GET", "/", &[])).await, b"", "one too many was answered");
    assert_eq!(gateway.counted("connections_dropped"), 1);
    assert_eq!(gateway.counted("connections"), FRIENDS as u64);
    drop(open.pop());
    // The place is free once the gateway has seen the end of that connection.
    let served = async {
        while exchange(gateway.address, &request("GET", "/", &[])).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, served).await.expect("a free place was not given again");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_cannot_take_the_connections_of_those_who_may_read() {
    let gateway = Gateway::with(Vec::new()).await;
    if !is_root() {
        eprintln!("not root: strangers were not tried");
        return gateway.stop().await;
    }
    let mut ends = JoinSet::new();
    for _ in 0..=STRANGERS {
        let stream = connect_as(65534, gateway.address);
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        ends.spawn(async move { rest(&mut stream).await });
    }
    // One too many: it is dropped at once, long before the others' patience for a request ends.
    let began = Instant::now();
    assert_eq!(timeout(PATIENCE, ends.join_next()).await.unwrap().unwrap().unwrap(), b"");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert_eq!(gateway.counted("connections_dropped"), 1);
    assert_eq!(gateway.get("/").await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_stops_within_a_second_whatever_clients_do() {
    let body = vec![b'x'; 16 << 20];
    let object = sealed(&Sample { response_body: &body, ..Sample::default() });
    let target = format!("/qpoint/{}", object.record.digest);
    let gateway = Gateway::with(vec![object]).await;
    let mut idle = held(&gateway).await;
    let mut half = TcpStream::connect(gateway.address).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut deaf = TcpStream::connect(gateway.address).await.unwrap();
    deaf.write_all(&request("GET", &target, &[])).await.unwrap();
    // Its answer has begun and cannot be written whole, because nobody reads it.
    deaf.readable().await.unwrap();
    let (address, began) = (gateway.address, Instant::now());
    gateway.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    for stream in [&mut idle, &mut half, &mut silent] {
        assert_eq!(rest(stream).await, b"");
    }
    let part = rest(&mut deaf).await;
    assert!(!part.is_empty() && part.len() < body.len(), "{}", part.len());
    assert!(TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_request_is_answered_before_the_gateway_stops() {
    let object = sealed(&Sample::default());
    let (target, bytes) = (format!("/qpoint/{}", object.record.digest), object.bytes.clone());
    let gateway = Gateway::with(vec![object]).await;
    let mut stream = held(&gateway).await;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    // Its first byte is here, so the request was taken before the stop.
    stream.readable().await.unwrap();
    gateway.stop().await;
    assert_eq!(Answer::parse(&rest(&mut stream).await).map(|a| a.body), Some(bytes));
}

/// Both wait for the gateway's patience at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_finish_its_request_is_given_up() {
    let gateway = Gateway::with(Vec::new()).await;
    let address = gateway.address;
    let silent = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert_eq!(rest(&mut stream).await, b"", "a client that asks nothing");
    };
    let trickling = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut back = Vec::new();
        let head = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ".iter().chain(std::iter::repeat(&b'y'));
        for byte in head.take(240) {
            // A byte now and then keeps a connection busy, and must not keep it open.
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            match timeout(Duration::from_millis(250), stream.read_buf(&mut back)).await {
                Err(_) => {}
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => panic!("half a request was answered: {}", String::from_utf8_lossy(&back)),
            }
        }
        panic!("a head may take for ever");
    };
    tokio::join!(silent, trickling);
    assert_eq!(gateway.get("/healthz").await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_no_bytes_is_given_up_and_its_memory_given_to_the_next() {
    // More than half of the memory for answers: a second one must wait until the first is given up.
    let body = vec![b'x'; 34 << 20];
    let object = sealed(&Sample { response_body: &body, ..Sample::default() });
    let (target, length) = (format!("/qpoint/{}", object.record.digest), object.bytes.len());
    let gateway = Gateway::with(vec![object]).await;
    let mut deaf = TcpStream::connect(gateway.address).await.unwrap();
    deaf.write_all(&request("GET", &target, &[])).await.unwrap();
    deaf.readable().await.unwrap();
    let busy = gateway.get(&target).await;
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("1")), "{:?}", busy.body.len());
    assert_hardened(&busy, "busy");
    // Small answers still find room meanwhile.
    assert_eq!(gateway.get("/").await.status, 200);
    let served = async {
        loop {
            let answer = gateway.get(&target).await;
            match answer.status {
                200 => return answer.body.len(),
                status => assert_eq!(status, 503),
            }
        }
    };
    let served = timeout(PATIENCE, served).await.expect("a client that takes nothing holds its memory for ever");
    assert_eq!(served, length);
    let part = rest(&mut deaf).await;
    assert!(part.len() < length, "{}", part.len());
    gateway.stop().await;
}

/// Raises the limit of open files where it is lower: both ends of each connection are in this process.
fn allow_descriptors(wanted: u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit, which limit is.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    if limit.rlim_cur < wanted {
        limit.rlim_cur = wanted.min(limit.rlim_max);
        // SAFETY: setrlimit(2) reads one rlimit, which limit is.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    }
}
