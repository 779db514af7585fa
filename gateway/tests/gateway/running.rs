//! A gateway that runs in this process, on an archive of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use archive::{Archive, Entry, Options};
use gateway::{Counters, Settings};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use transaction::{Sealed, seal};

use crate::{
    client::{Answer, exchange, request},
    sample::Sample,
};

/// See the module.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<Result<(), gateway::Error>>,
    _archive: Archive,
    _dir: tempfile::TempDir,
}

/// The object and its record.
pub(crate) fn sealed(sample: &Sample<'_>) -> Sealed {
    seal(&sample.transaction(), sample.at_ns)
}

impl Gateway {
    /// Starts one that has these objects, in this order.
    pub(crate) async fn with(objects: Vec<Sealed>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path(), Options::default()).unwrap();
        for object in objects {
            archive.append(Entry::Transaction(object)).unwrap();
        }
        assert!(archive.flush(Duration::from_secs(30)), "the samples could not be written");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut settings = Settings::new(address, dir.path().to_owned());
        settings.hosts = vec!["tap.example".to_owned()];
        let counters = Arc::clone(&settings.counters);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(gateway::serve(listener, settings, async {
            let _ = stopped.await;
        }));
        Gateway { address, counters, stop, task, _archive: archive, _dir: dir }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, &[]).await
    }

    pub(crate) async fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(&request(method, target, headers)).await
    }

    /// Sends `bytes` and reads the answer.
    pub(crate) async fn send(&self, bytes: &[u8]) -> Answer {
        let back = exchange(self.address, bytes).await;
        Answer::parse(&back).unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&back)))
    }

    /// The value of one of the gateway's counters.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let text = self.counters.render();
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("tapstack_gateway_{name}_total ")));
        line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("no counter {name} in {text}"))
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}
