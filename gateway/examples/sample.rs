//! Serves an archive of made-up transactions: for work on the pages without capturing anything.
//!
//! `cargo run -p gateway --example sample [ADDRESS]`, by default 127.0.0.1:3914.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use archive::{Archive, Entry, Options};
use gateway::Settings;

#[path = "../tests/common/sample.rs"]
mod sample;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3914".to_owned());
    let dir = tempfile::tempdir()?;
    let archive = Archive::open(dir.path(), Options::default())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    for sealed in sample::day(now) {
        archive.append(Entry::Transaction(sealed))?;
    }
    if !archive.flush(Duration::from_secs(5)) {
        return Err("the samples could not be written".into());
    }
    let listener = tokio::net::TcpListener::bind(&address).await?;
    let settings = Settings::new(listener.local_addr()?, dir.path().to_owned());
    println!("http://{}/", settings.listen);
    gateway::serve(listener, settings, async {
        // Without a signal it runs until it is killed.
        let _ = tokio::signal::ctrl_c().await;
    })
    .await?;
    Ok(())
}
