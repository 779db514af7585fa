//! Benchmark of the capture: what it costs the kernel, the agent and the observed server. As root:
//! `cargo build --release && cargo run --release -p integration --bin bench [SECONDS A ROUND] [ROUNDS]`.
//!
//! nginx (one worker, kept-alive connections) is loaded by wrk on loopback, where one request passes the
//! programs four times: sent and received at both ends. Rounds are interleaved off, on, off, so that a
//! machine that slows down does not look like a cost. Needs Debian's nginx-light, wrk and bpftool.

use std::{
    collections::HashSet,
    fs,
    io::Read as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// Ends a process of ours when it goes out of scope.
struct Running(Child);

impl Running {
    fn stop(&mut self) {
        // SAFETY: a signal to a child that was not waited for yet.
        unsafe { libc::kill(self.0.id() as i32, libc::SIGTERM) };
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if ready() {
            return Ok(());
        }
        sleep(Duration::from_millis(10));
    }
    bail!("{what} was not ready after 10 s")
}

/// CPU time of all threads in nanoseconds, where the kernel says it so exactly.
fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

fn memory(pid: u32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        text.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split_whitespace().nth(1))
            .and_then(|v| v.parse::<u64>().ok())
            .unwrap_or(0)
    };
    Ok((field("Rss:"), field("Pss:")))
}

/// Runs and nanoseconds so far of the programs that process `pid` holds.
fn programs(pid: u32) -> Result<(u64, u64)> {
    let mut ids = HashSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(fd?.path()).unwrap_or_default();
        ids.extend(text.lines().filter_map(|l| l.strip_prefix("prog_id:")?.trim().parse::<u64>().ok()));
    }
    let out = Command::new("bpftool").args(["prog", "show", "-j"]).output().context("bpftool")?;
    let list: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let mut sums = (0, 0);
    for p in list.as_array().context("bpftool prints a list")? {
        if p["id"].as_u64().is_some_and(|id| ids.contains(&id)) {
            sums.0 += p["run_cnt"].as_u64().unwrap_or(0);
            sums.1 += p["run_time_ns"].as_u64().unwrap_or(0);
        }
    }
    ensure!(sums.0 > 0, "the kernel counted no run of the programs");
    Ok(sums)
}

/// A counter of the status listener at `port`.
fn metric(port: u16, name: &str) -> Result<u64> {
    let mut s = std::net::TcpStream::connect(("127.0.0.1", port))?;
    std::io::Write::write_all(&mut s, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    s.read_to_string(&mut text)?;
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("/metrics has no {name}"))
}

struct Load {
    requests: u64,
    per_second: f64,
}

fn wrk(seconds: u64, url: &str) -> Result<Load> {
    let out = Command::new("wrk").args(["-t1", "-c32", &format!("-d{seconds}s"), url]).output().context("wrk")?;
    let text = String::from_utf8_lossy(&out.stdout);
    let requests = text
        .lines()
        .find_map(|l| l.trim().split_once(" requests in "))
        .and_then(|(n, _)| n.parse().ok())
        .with_context(|| format!("wrk said: {text}"))?;
    let per_second = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("Requests/sec:"))
        .and_then(|v| v.trim().parse().ok())
        .with_context(|| format!("wrk said: {text}"))?;
    Ok(Load { requests, per_second })
}

/// Nanoseconds a `read()` of one byte from /dev/zero, best of 9.
fn read_cost() -> Result<f64> {
    let mut zero = fs::File::open("/dev/zero")?;
    let mut byte = [0u8; 1];
    let mut best = f64::MAX;
    for _ in 0..9 {
        let start = Instant::now();
        for _ in 0..200_000 {
            zero.read_exact(&mut byte)?;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / 200_000.0);
    }
    Ok(best)
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

fn spread(v: &[f64]) -> String {
    let (low, high) = v.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    format!("{:.3} [{low:.3}..{high:.3}]", median(v.to_vec()))
}

struct Bench {
    dir: tempfile::TempDir,
    binary: PathBuf,
    port: u16,
    nginx: Running,
    worker: u32,
}

impl Bench {
    fn new() -> Result<Bench> {
        let dir = tempfile::tempdir()?;
        let port = free_port()?;
        let root = dir.path();
        for (name, size) in [("1k", 1024), ("64k", 65536)] {
            fs::write(root.join(name), vec![b'x'; size])?;
        }
        let conf = format!(
            "user root; daemon off; worker_processes 1; pid {d}/pid; error_log {d}/error;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 100000000; client_body_temp_path {d}/c;\n\
             proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;\n\
             server {{ listen 127.0.0.1:{port}; root {d}; }} }}\n",
            d = root.display()
        );
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        fs::write(root.join("conf"), conf)?;
        let child =
            Command::new("nginx").arg("-c").arg(root.join("conf")).spawn().context("nginx (apt: nginx-light)")?;
        let master = child.id();
        let nginx = Running(child);
        wait_for("nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        let worker = children.split_whitespace().next().context("nginx has a worker")?.parse()?;
        let binary = std::env::var_os("TAPSTACK_BIN")
            .map_or_else(|| std::env::current_exe().map(|p| p.with_file_name("tapstack")), |p| Ok(PathBuf::from(p)))?;
        ensure!(binary.exists(), "{} is not there: cargo build --release", binary.display());
        Ok(Bench { dir, binary, port, nginx, worker })
    }

    fn capture(&self, name: &str) -> Result<(Running, u16, Duration)> {
        let data: &Path = &self.dir.path().join(name);
        let (listen, status) = (free_port()?, free_port()?);
        let start = Instant::now();
        let child = Command::new(&self.binary)
            .arg("up")
            .arg("--data-dir")
            .arg(data)
            .args(["--listen", &format!("127.0.0.1:{listen}"), "--status-listen", &format!("127.0.0.1:{status}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let running = Running(child);
        wait_for("tapstack", || {
            let Ok(mut s) = std::net::TcpStream::connect(("127.0.0.1", status)) else { return false };
            let mut answer = [0; 12];
            std::io::Write::write_all(&mut s, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .is_ok()
                && s.read_exact(&mut answer).is_ok()
                && answer.ends_with(b"200")
        })?;
        Ok((running, status, start.elapsed()))
    }

    fn workload(&self, path: &str, seconds: u64, rounds: usize) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/{path}", self.port);
        let (mut ratio, mut added, mut agent, mut inside, mut runs) = (vec![], vec![], vec![], vec![], vec![]);
        let (mut memories, mut kept) = (vec![], vec![]);
        wrk(1, &url)?;
        for round in 0..rounds {
            let side = |on: bool| -> Result<(Load, f64)> {
                let before = cpu_ns(self.worker)?;
                let _ = on;
                let load = wrk(seconds, &url)?;
                let used = (cpu_ns(self.worker)? - before) as f64 / load.requests as f64 / 1000.0;
                Ok((load, used))
            };
            let (off1, cpu1) = side(false)?;
            let capture = self.capture(&format!("{path}-{round}"))?;
            let pid = capture.0.0.id();
            let start = memory(pid)?;
            let (p0, c0) = (programs(pid)?, cpu_ns(pid)?);
            let (on, cpu_on) = side(true)?;
            let p1 = programs(pid)?;
            // What is in the queues still belongs to this load.
            sleep(Duration::from_millis(500));
            let c1 = cpu_ns(pid)?;
            memories.push((start, memory(pid)?));
            let found = metric(capture.1, "tapstack_exchanges_total")? as f64 / on.requests as f64;
            let overrun = metric(capture.1, "tapstack_kernel_ring_full_records_total")?;
            kept.push(found);
            if overrun > 0 {
                println!("  ring overrun       {overrun} records lost in round {round}: the other figures flatter");
            }
            drop(capture);
            let (off2, cpu2) = side(false)?;
            ratio.push(on.per_second / f64::midpoint(off1.per_second, off2.per_second));
            added.push(cpu_on - f64::midpoint(cpu1, cpu2));
            agent.push((c1 - c0) as f64 / on.requests as f64 / 1000.0);
            inside.push((p1.1 - p0.1) as f64 / on.requests as f64);
            runs.push((p1.0 - p0.0) as f64 / on.requests as f64);
        }
        println!("http {path}, both ends on loopback, {rounds} rounds of {seconds} s, median [min..max]");
        println!("  in programs        {} ns a request ({:.2} runs)", spread(&inside), median(runs));
        println!("  agent              {} us CPU a request (two transactions, level full)", spread(&agent));
        println!("  exchanges found    {} of the requests", spread(&kept));
        println!("  nginx, added       {} us CPU a request", spread(&added));
        println!("  nginx, throughput  {} of without", spread(&ratio));
        for ((r0, p0), (r1, p1)) in memories.iter().take(1) {
            println!("  memory             RSS {r0} KiB (PSS {p0}) at start, RSS {r1} KiB (PSS {p1}) after the load");
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    // SAFETY: takes nothing.
    ensure!(unsafe { libc::geteuid() } == 0, "run it as root");
    let mut args = std::env::args().skip(1);
    let seconds = args.next().map_or(Ok(2), |a| a.parse())?;
    let rounds = args.next().map_or(Ok(5), |a| a.parse())?;
    let stats = "/proc/sys/kernel/bpf_stats_enabled";
    let before = fs::read_to_string(stats)?;
    let mut bench = Bench::new()?;
    let off = read_cost()?;
    let (capture, _, took) = bench.capture("read")?;
    let on = read_cost()?;
    drop(capture);
    println!("read() of /dev/zero  {off:.0} ns without, {on:.0} ns with ({:.3})", on / off);
    println!("ready after          {} ms", took.as_millis());
    fs::write(stats, "1")?;
    let result = bench.workload("1k", seconds, rounds).and_then(|()| bench.workload("64k", seconds, rounds));
    fs::write(stats, before.trim())?;
    bench.nginx.stop();
    result
}
