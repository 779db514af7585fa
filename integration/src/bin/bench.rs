//! Benchmark of the capture: what it costs the kernel, the agent and the observed server. As root:
//! `cargo build --release && cargo run --release -p integration --bin bench [SECONDS A ROUND] [ROUNDS]`.
//!
//! nginx (one worker, kept-alive connections) is loaded by wrk on loopback, where one request passes the
//! programs four times: sent and received at both ends. Rounds are interleaved off, on, off, so that a
//! machine that slows down does not look like a cost. Needs Debian's nginx-light, wrk and bpftool.

use std::{
    fs,
    io::Read as _,
    path::PathBuf,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use integration::measure::{
    Load, Stopped, capture, cpu_ns, cpu_ticks_ns, free_port, median, memory, metric, runs as programs_so_far, spread,
    tapstack, wait_for, wrk,
};

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

struct Bench {
    dir: tempfile::TempDir,
    binary: PathBuf,
    port: u16,
    nginx: Stopped,
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
        let nginx = Stopped(child);
        wait_for("nginx", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        let worker = children.split_whitespace().next().context("nginx has a worker")?.parse()?;
        let binary = tapstack()?;
        Ok(Bench { dir, binary, port, nginx, worker })
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
            let capture = capture(&self.binary, &self.dir.path().join(format!("{path}-{round}")))?;
            let pid = capture.0.0.id();
            let start = memory(pid)?;
            let (p0, c0) = (programs_so_far(pid)?, cpu_ticks_ns(pid)?);
            let (on, cpu_on) = side(true)?;
            let p1 = programs_so_far(pid)?;
            // What is in the queues still belongs to this load.
            sleep(Duration::from_millis(500));
            let c1 = cpu_ticks_ns(pid)?;
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
    let (capture, _, took) = capture(&bench.binary, &bench.dir.path().join("read"))?;
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
