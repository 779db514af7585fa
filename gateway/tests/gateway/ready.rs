//! The readiness listener: what probes and Prometheus see.

use std::sync::Arc;

use gateway::{Counters, Ready, serve_ready};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    client::{Answer, exchange, request},
    refusal::assert_hardened,
};

#[tokio::test]
async fn readiness_follows_the_process_from_starting_to_ready_to_stopping() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counters = Arc::new(Counters::default());
    let ready = Ready::new("starting", Arc::new(move || counters.render()));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve_ready(listener, ready.clone(), async {
        let _ = stopped.await;
    }));
    let get = async |path: &str| Answer::parse(&exchange(address, &request("GET", path, &[])).await).unwrap();

    let answer = get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (503, "starting\n"));
    // It lives although it is not ready.
    assert_eq!(get("/healthz").await.status, 200);
    ready.set(None);
    let answer = get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (200, "ready\n"));
    assert_hardened(&answer, "/readyz");
    ready.set(Some("the archive is full"));
    let answer = get("/readyz").await;
    assert_eq!((answer.status, answer.text()), (503, "the archive is full\n"));

    let metrics = get("/metrics").await;
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.text().contains("\ntapstack_gateway_requests_answered_total 0\n"), "{}", metrics.text());
    for line in metrics.text().lines() {
        let sample =
            |l: &str| l.split_once(' ').is_some_and(|(n, v)| n.starts_with("tapstack_") && v.parse::<f64>().is_ok());
        assert!(line.starts_with("# HELP ") || line.starts_with("# TYPE ") || sample(line), "{line}");
    }
    // Nothing captured is here, and nothing else.
    for path in ["/", "/qpoint/da39a3ee5e6b4b0d3255bfef95601890afd80709"] {
        let answer = get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_hardened(&answer, path);
    }
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn libraries_are_told_as_json_where_there_is_a_capture_and_not_found_elsewhere() {
    for told in [true, false] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ready = Ready::new("starting", Arc::new(String::new));
        let ready = if told { ready.with_libraries(Arc::new(|| "{\"libraries\":[]}\n".to_owned())) } else { ready };
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve_ready(listener, ready, async {
            let _ = stopped.await;
        }));
        let answer = Answer::parse(&exchange(address, &request("GET", "/libraries", &[])).await).unwrap();
        assert_hardened(&answer, "/libraries");
        if told {
            assert_eq!((answer.status, answer.text()), (200, "{\"libraries\":[]}\n"));
            assert_eq!(answer.header("content-type"), Some("application/json"));
        } else {
            assert_eq!(answer.status, 404);
        }
        stop.send(()).unwrap();
        task.await.unwrap().unwrap();
    }
}
