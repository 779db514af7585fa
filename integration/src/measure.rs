//! What the benchmarks measure with: load by wrk, CPU time, memory, the kernel's statistics of BPF programs, and
//! `tapstack up` started for a round. Called by the binaries `bench` and `bench_tls` only.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

/// A process of ours that is asked to end, and then made to, when it goes out of scope.
#[derive(Debug)]
pub struct Stopped(pub Child);

impl Stopped {
    /// Ends it.
    pub fn stop(&mut self) {
        let end = Instant::now() + Duration::from_secs(5);
        if crate::sys::signal(self.0.id(), libc::SIGTERM).is_ok() {
            while Instant::now() < end {
                if matches!(self.0.try_wait(), Ok(Some(_))) {
                    return;
                }
                sleep(Duration::from_millis(10));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            self.stop();
        }
    }
}

/// A port of 127.0.0.1 that is free now.
///
/// # Errors
/// Those of bind(2).
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Waits at most 10 s.
///
/// # Errors
/// When it is not ready then.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
    crate::wait::until(what, Duration::from_secs(10), || Ok(ready().then_some(())))
}

/// CPU time of a process in nanoseconds, also that of threads that have ended; in the kernel's clock ticks of 10 ms.
///
/// # Errors
/// When the process is gone.
pub fn cpu_ticks_ns(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name before may hold anything; proc_pid_stat(5): utime and stime are fields 14 and 15.
    let (_, fields) = text.rsplit_once(')').context("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    Ok(ticks.sum::<u64>() * 10_000_000)
}

/// CPU time of all threads in nanoseconds, exactly; for a process that starts and ends none.
///
/// # Errors
/// When the process is gone.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text.split_whitespace().next().and_then(|t| t.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// Resident and proportional memory in KiB.
///
/// # Errors
/// When the process is gone.
pub fn memory(pid: u32) -> Result<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0)
    };
    Ok((field("Rss:"), field("Pss:")))
}

/// What the kernel counted of one BPF program while statistics were on (`kernel.bpf_stats_enabled`).
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name, of at most 15 bytes.
    pub name: String,
    /// Runs.
    pub runs: u64,
    /// Nanoseconds in it.
    pub ns: u64,
}

/// The BPF programs that a process holds.
///
/// # Errors
/// When bpftool fails.
pub fn programs(pid: u32) -> Result<Vec<Program>> {
    let mut ids = HashSet::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(fd?.path()).unwrap_or_default();
        ids.extend(text.lines().filter_map(|l| l.strip_prefix("prog_id:")?.trim().parse::<u64>().ok()));
    }
    let out = Command::new("bpftool").args(["prog", "show", "-j"]).output().context("bpftool")?;
    let list: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let all = list.as_array().context("bpftool prints a list")?.iter();
    let own = all.filter(|p| p["id"].as_u64().is_some_and(|id| ids.contains(&id)));
    let program = |p: &serde_json::Value| Program {
        name: p["name"].as_str().unwrap_or("?").to_owned(),
        runs: p["run_cnt"].as_u64().unwrap_or(0),
        ns: p["run_time_ns"].as_u64().unwrap_or(0),
    };
    Ok(own.map(program).collect())
}

/// Runs and nanoseconds of all programs of a process together.
///
/// # Errors
/// When bpftool fails, or statistics are off.
pub fn runs(pid: u32) -> Result<(u64, u64)> {
    let sums = programs(pid)?.iter().fold((0, 0), |(runs, ns), p| (runs + p.runs, ns + p.ns));
    ensure!(sums.0 > 0, "the kernel counted no run of the programs");
    Ok(sums)
}

/// A counter of the status listener at `port`.
///
/// # Errors
/// When there is none of this name.
pub fn metric(port: u16, name: &str) -> Result<u64> {
    let mut s = TcpStream::connect(("127.0.0.1", port))?;
    s.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    s.read_to_string(&mut text)?;
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse().ok());
    value.with_context(|| format!("/metrics has no {name}"))
}

/// What wrk said.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests answered.
    pub requests: u64,
    /// Of them, a second.
    pub per_second: f64,
}

/// Loads a URL on 32 connections by one thread.
///
/// # Errors
/// When wrk is missing, or says something else.
pub fn wrk(seconds: u64, url: &str) -> Result<Load> {
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

/// The middle one.
#[must_use]
pub fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v.get(v.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `median [least..most]`.
#[must_use]
pub fn spread(v: &[f64]) -> String {
    let (low, high) = v.iter().fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    format!("{:.3} [{low:.3}..{high:.3}]", median(v.to_vec()))
}

/// The tapstack to measure: `TAPSTACK_BIN`, or the one beside the benchmark.
///
/// # Errors
/// When there is none.
pub fn tapstack() -> Result<PathBuf> {
    let binary = std::env::var_os("TAPSTACK_BIN")
        .map_or_else(|| std::env::current_exe().map(|p| p.with_file_name("tapstack")), |p| Ok(PathBuf::from(p)))?;
    ensure!(binary.exists(), "{} is not there: cargo build --release", binary.display());
    Ok(binary)
}

/// Starts `tapstack up` with this folder and waits until it is ready; returns its status port and how long it took.
///
/// # Errors
/// When it does not get ready.
pub fn capture(binary: &Path, data: &Path) -> Result<(Stopped, u16, Duration)> {
    let (listen, status) = (free_port()?, free_port()?);
    let start = Instant::now();
    let child = Command::new(binary)
        .arg("up")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen", &format!("127.0.0.1:{listen}"), "--status-listen", &format!("127.0.0.1:{status}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut running = Stopped(child);
    let ready = || {
        let Ok(mut s) = TcpStream::connect(("127.0.0.1", status)) else { return false };
        let mut answer = [0; 12];
        s.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").is_ok()
            && s.read_exact(&mut answer).is_ok()
            && answer.ends_with(b"200")
    };
    wait_for("tapstack is ready", ready)?;
    let took = start.elapsed();
    if let Some(code) = running.0.try_wait()? {
        bail!("tapstack ended: {code}");
    }
    Ok((running, status, took))
}
