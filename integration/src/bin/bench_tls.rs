//! Benchmark of reading TLS libraries: what an HTTPS request of 1 KB costs the observed programs, beside the same
//! with bpftrace's empty probes. As root:
//! `cargo build --release && cargo run --release -p integration --bin bench_tls [SECONDS A ROUND] [ROUNDS]`.
//!
//! nginx (one worker, kept-alive connections) is loaded by wrk on loopback: each request passes `SSL_read` and
//! `SSL_write` at both ends. A round is off, tapstack, off, bpftrace, off; each figure is compared with the two
//! neighbours without. Needs Debian's nginx-light, wrk, bpftool, openssl and bpftrace; without the last one its
//! columns are left out. The time inside of the programs is measured in a turn of its own, because counting it costs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use integration::{
    measure::{Stopped, capture, cpu_ns, cpu_ticks_ns, median, memory, metric, programs, spread, tapstack, wrk},
    program,
    tls::{Server, Site},
};

/// Costs of one request in one turn, in microseconds of CPU, and the throughput.
#[derive(Clone, Copy)]
struct Turn {
    server: f64,
    client: f64,
    per_second: f64,
    requests: u64,
}

impl Turn {
    /// What this turn has added to two without, and its throughput as a share of theirs.
    fn added(self, before: Turn, after: Turn) -> Added {
        Added {
            server: self.server - f64::midpoint(before.server, after.server),
            client: self.client - f64::midpoint(before.client, after.client),
            ratio: self.per_second / f64::midpoint(before.per_second, after.per_second),
        }
    }
}

struct Added {
    server: f64,
    client: f64,
    ratio: f64,
}

struct Bench {
    site: Site,
    server: Server,
    url: String,
    binary: PathBuf,
    seconds: u64,
}

/// CPU time of our children that have ended, in microseconds.
fn children_us() -> Result<f64> {
    // SAFETY: an all-zero rusage is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: writes one rusage.
    ensure!(unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } == 0, "getrusage failed");
    let us = |t: libc::timeval| t.tv_sec as f64 * 1e6 + t.tv_usec as f64;
    Ok(us(usage.ru_utime) + us(usage.ru_stime))
}

impl Bench {
    fn new(seconds: u64) -> Result<Bench> {
        let site = Site::new()?;
        let file = site.file(1, 1024)?;
        let server = site.nginx("keepalive_requests 100000000;", |_| {})?;
        let url = server.url("localhost", &format!("/{file}"));
        Ok(Bench { site, server, url, binary: tapstack()?, seconds })
    }

    fn turn(&self) -> Result<Turn> {
        let (server, client) = (cpu_ns(self.server.pid())?, children_us()?);
        let load = wrk(self.seconds, &self.url)?;
        let requests = load.requests as f64;
        Ok(Turn {
            server: (cpu_ns(self.server.pid())? - server) as f64 / requests / 1000.0,
            client: (children_us()? - client) / requests,
            per_second: load.per_second,
            requests: load.requests,
        })
    }

    fn data(&self, name: &str) -> PathBuf {
        self.site.folder().join(name)
    }
}

/// The libssl that nginx uses.
fn library(pid: u32) -> Result<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let path = maps.split_whitespace().find(|word| word.starts_with('/') && word.contains("libssl.so"));
    path.map(str::to_owned).context("nginx does not use libssl")
}

/// bpftrace with empty probes at the beginning and the end of both functions, attached; `None` when it is missing.
fn bpftrace(library: &str) -> Result<Option<Stopped>> {
    let Some(path) = program::find("bpftrace") else { return Ok(None) };
    let probe = |kind: &str, name: &str| format!("{kind}:{library}:{name} {{ }} ");
    let script: String = ["SSL_read", "SSL_write"]
        .iter()
        .map(|name| probe("uprobe", name) + &probe("uretprobe", name))
        .chain(["interval:ms:50 { printf(\"attached\\n\"); }".to_owned()])
        .collect();
    let mut command = Command::new(path);
    command.env("BPFTRACE_STRLEN", "64").args(["-e", &script]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let out = child.stdout.take().context("no standard output")?;
    let running = Stopped(child);
    let mut lines = BufReader::new(out).lines().map_while(Result::ok);
    ensure!(lines.any(|line| line == "attached"), "bpftrace ended");
    // Nobody else reads; the pipe must not fill up.
    std::thread::spawn(move || lines.for_each(drop));
    // Probes are attached one after the other.
    sleep(Duration::from_millis(500));
    Ok(Some(running))
}

#[derive(Default)]
struct Columns {
    server: Vec<f64>,
    client: Vec<f64>,
    both: Vec<f64>,
    ratio: Vec<f64>,
}

impl Columns {
    fn add(&mut self, added: &Added) {
        self.server.push(added.server);
        self.client.push(added.client);
        self.both.push(added.server + added.client);
        self.ratio.push(added.ratio);
    }

    fn print(&self, name: &str) {
        println!("{name}");
        println!("  nginx, added       {} us CPU a request", spread(&self.server));
        println!("  wrk, added         {} us CPU a request", spread(&self.client));
        println!("  both, added        {} us CPU a request", spread(&self.both));
        println!("  throughput         {} of without", spread(&self.ratio));
    }
}

/// Nanoseconds in each program, of a turn with the kernel's statistics on.
fn inside(bench: &Bench) -> Result<()> {
    let (capture, status, _) = capture(&bench.binary, &bench.data("inside"))?;
    let pid = capture.0.id();
    let before = programs(pid)?;
    let turn = bench.turn()?;
    let after = programs(pid)?;
    let requests = turn.requests as f64;
    println!("inside of the programs, a request (both ends)");
    let (mut all_runs, mut all_ns) = (0.0, 0.0);
    let mut names: Vec<&str> = after.iter().map(|p| p.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let sum = |list: &[integration::measure::Program]| {
            let own = list.iter().filter(|p| p.name == name);
            own.fold((0, 0), |(runs, ns), p| (runs + p.runs, ns + p.ns))
        };
        let ((r0, n0), (r1, n1)) = (sum(&before), sum(&after));
        let (runs, ns) = ((r1 - r0) as f64 / requests, (n1 - n0) as f64 / requests);
        all_runs += runs;
        all_ns += ns;
        if runs > 0.01 {
            println!("  {name:<18} {ns:8.0} ns in {runs:6.2} runs, {:6.0} ns each", ns / runs);
        }
    }
    println!("  {:<18} {all_ns:8.0} ns in {all_runs:6.2} runs", "all");
    // What is in the queues still belongs to this load.
    sleep(Duration::from_millis(500));
    let found = metric(status, "tapstack_exchanges_total")? as f64 / requests;
    println!("  exchanges found    {found:.3} of the requests");
    Ok(())
}

fn run(bench: &Bench, rounds: usize, stats: &str) -> Result<()> {
    let library = library(bench.server.pid())?;
    wrk(1, &bench.url)?;
    let (mut ours, mut theirs, mut ratio) = (Columns::default(), Columns::default(), Vec::new());
    let (mut ready, mut memories, mut agent, mut found) = (vec![], vec![], vec![], vec![]);
    let mut base = Vec::new();
    for round in 0..rounds {
        let first = bench.turn()?;
        base.push(first.server);
        let (capture, status, took) = capture(&bench.binary, &bench.data(&format!("data-{round}")))?;
        let pid = capture.0.id();
        let start = (memory(pid)?, cpu_ticks_ns(pid)?);
        let on = bench.turn()?;
        // What is in the queues still belongs to this load.
        sleep(Duration::from_millis(500));
        agent.push((cpu_ticks_ns(pid)? - start.1) as f64 / on.requests as f64 / 1000.0);
        memories.push((start.0, memory(pid)?));
        found.push(metric(status, "tapstack_exchanges_total")? as f64 / on.requests as f64);
        let overrun = metric(status, "tapstack_kernel_ring_full_records_total")?;
        if overrun > 0 {
            println!("  ring overrun       {overrun} records lost in round {round}: the other figures flatter");
        }
        ready.push(took.as_secs_f64() * 1000.0);
        drop(capture);
        let second = bench.turn()?;
        let added = on.added(first, second);
        ours.add(&added);
        if let Some(running) = bpftrace(&library)? {
            let with = bench.turn()?;
            drop(running);
            let third = bench.turn()?;
            let peer = with.added(second, third);
            theirs.add(&peer);
            ratio.push((added.server + added.client) / (peer.server + peer.client));
        }
    }
    println!("https 1 KB, both ends on loopback, {rounds} rounds of {} s, median [min..max]", bench.seconds);
    println!("without: nginx       {} us CPU a request", spread(&base));
    ours.print("tapstack up");
    println!("  agent              {} us CPU a request (two transactions, level full)", spread(&agent));
    println!("  exchanges found    {} of the requests", spread(&found));
    println!("  ready after        {} ms", spread(&ready));
    if let Some(((r0, p0), (r1, p1))) = memories.first() {
        println!("  memory             RSS {r0} KiB (PSS {p0}) at start, RSS {r1} KiB (PSS {p1}) after the load");
    }
    if ratio.is_empty() {
        println!("bpftrace is missing (apt-get install bpftrace): nothing to compare with");
    } else {
        theirs.print("bpftrace, empty probes on SSL_read and SSL_write, entry and return");
        let (a, b) = (median(ours.both.clone()), median(theirs.both.clone()));
        println!("tapstack / bpftrace  {:.3} of the medians; by round {}", a / b, spread(&ratio));
    }
    fs::write(stats, "1")?;
    inside(bench)
}

fn main() -> Result<()> {
    ensure!(integration::sys::is_root(), "run it as root");
    let mut args = std::env::args().skip(1);
    let mut number = |or: u64| args.next().map_or(Ok(or), |a| a.parse());
    let usage = "usage: bench_tls [SECONDS of a round, 2] [ROUNDS, 5]";
    let (seconds, rounds) = (number(2).context(usage)?, number(5).context(usage)? as usize);
    let stats = "/proc/sys/kernel/bpf_stats_enabled";
    let before = fs::read_to_string(stats)?;
    fs::write(stats, "0")?;
    let result = Bench::new(seconds).and_then(|bench| run(&bench, rounds, stats));
    fs::write(stats, before.trim())?;
    result
}
