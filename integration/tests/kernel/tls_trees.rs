//! OpenSSL of other Debian releases, 1.1.1 to the newest, each by its own C library: see `ci/libssl.sh`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration::{content, program, tls::Site};

use crate::{
    Test,
    tls::{Checks, Owner, Wanted, soon},
    tls_programs::s_client,
};

pub(crate) const TESTS: &[Test] = &[("tls_openssl_of_other_releases", releases)];

const RELEASES: [&str; 3] = ["bullseye", "trixie", "sid"];

/// The trees, fetched when one of them is not in the cache yet.
fn trees() -> Result<Vec<PathBuf>> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).context("no HOME")?;
    let trees = RELEASES.map(|release| cache.join("tapstack/libssl").join(release));
    if !trees.iter().all(|tree| tree.exists()) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci/libssl.sh");
        let fetched = program::outcome(Command::new(script).args(RELEASES), Duration::from_secs(90))?;
        let said = String::from_utf8_lossy(&fetched.stderr);
        ensure!(fetched.status.success(), "ci/libssl.sh: {said}");
    }
    Ok(trees.into())
}

/// The openssl command of a tree, with its libraries and its C library.
fn openssl(tree: &Path) -> Command {
    let at = |folder: &str| tree.join(folder).join("x86_64-linux-gnu").display().to_string();
    let mut command = Command::new(tree.join("loader"));
    command.args(["--library-path", &format!("{}:{}", at("usr/lib"), at("lib"))]);
    command.arg(tree.join("usr/bin/openssl"));
    command
}

fn releases() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        println!("skipped: ci/libssl.sh fetches packages for x86_64 only");
        return Ok(());
    }
    let site = Site::new()?;
    let folder = site.folder().join("tls/trees");
    std::fs::create_dir_all(&folder)?;
    let nginx = site.nginx("", |_| {})?;
    let trees = trees()?;
    let servers = trees.iter().map(|tree| site.s_server(openssl(tree), &[])).collect::<Result<Vec<_>>>()?;
    let mut checks = Checks::start("/tls/trees/", &[])?;
    // The C library's loader is what the kernel runs.
    let loader = "ld-|loader";
    for (release, (tree, server)) in RELEASES.iter().zip(trees.iter().zip(&servers)) {
        let said = program::output(openssl(tree).arg("version"))?;
        println!("{release}: {}", String::from_utf8_lossy(&said).trim());
        soon(&checks.tapstack, |path| {
            let body = content::text(500, 100);
            std::fs::create_dir_all(site.folder().join(&path[1..]))?;
            std::fs::write(site.folder().join(&path[1..]).join("file"), &body)?;
            s_client(openssl(tree), server, &format!("{path}/file"), &[], &body).map(drop)
        })?;
        for (option, version) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
            for len in [500_usize, 40_000] {
                for (to, target, answers) in
                    [("own", server, Owner(loader, Some(server.pid()))), ("nginx", &nginx, Owner("nginx", None))]
                {
                    let (name, body) = (format!("{release}-{to}{option}-{len}"), content::text(500 + len as u64, len));
                    std::fs::write(folder.join(&name), &body)?;
                    std::fs::write(site.folder().join(&name), &body)?;
                    let path = format!("/tls/trees/{name}");
                    let wanted = s_client(openssl(tree), target, &path, &[option], &body).context(name)?;
                    checks.add(Wanted { client: Owner(loader, None), server: answers, version, ..wanted });
                }
            }
        }
    }
    checks.done()
}
