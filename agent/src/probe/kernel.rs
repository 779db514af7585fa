//! Loads and attaches the kernel programs and talks to their maps.
//!
//! In: [`Options`]. Out: raw records from the two rings, counters. Features are chosen by trying them, never
//! by the kernel's version. Everything is detached when [`Kernel`] is dropped, or when the process dies.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use agent_ebpf::counter;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError, UProbe},
};

use super::{btf, cgroup, multi, returns};

/// Why the programs do not run. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not privileged.
    #[error(
        "capturing needs root (or the capabilities {missing}): start it with sudo, or as a service with \
         AmbientCapabilities"
    )]
    Privileges {
        /// Names of the capabilities that are missing.
        missing: String,
    },
    /// Not the host's processes.
    #[error(
        "this process sees other process ids than the kernel (a pid namespace of its own): owners would be wrong. \
         Start the container with --pid=host"
    )]
    PidNamespace,
    /// No type information.
    #[error(
        "{0}. Capturing needs a kernel built with CONFIG_DEBUG_INFO_BTF=y (5.10 or later; Debian, Ubuntu, Fedora, RHEL and NixOS kernels have it)"
    )]
    Btf(#[from] btf::Error),
    /// A structure has not the expected member.
    #[error("this kernel's types have no {0}: please report the kernel's version (uname -r)")]
    Member(String),
    /// No cgroup v2 root.
    #[error("{0}")]
    Cgroup(#[from] cgroup::Error),
    /// The object was refused.
    #[error("the kernel did not take the programs' maps: {0}")]
    Object(Box<aya::EbpfError>),
    /// The kernel's BTF was refused by the loader.
    #[error("/sys/kernel/btf/vmlinux: {0}")]
    KernelBtf(#[from] aya::BtfError),
    /// A program was refused.
    #[error("the kernel refused to {what} program {program}: {error}{hint}")]
    Program {
        /// Name in the object.
        program: &'static str,
        /// `load` or `attach`.
        what: &'static str,
        /// The kernel's or the loader's answer, without the verifier's words.
        error: String,
        /// What the kernel lacks.
        hint: &'static str,
    },
    /// A map could not be used.
    #[error("map {map}: {error}")]
    Map {
        /// Name in the object.
        map: &'static str,
        /// The loader's error.
        error: Box<aya::maps::MapError>,
    },
}

/// How the kernel side runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Size of the data ring in bytes; rounded up to a power of two.
    pub ring_bytes: u32,
    /// Most bytes copied of one uninterrupted run of one direction.
    pub cap: u32,
    /// Copy payload; otherwise only count.
    pub copy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            ring_bytes: 32 << 20,
            // A body of 2 MiB, its head, and chunk framing: beyond it `http` keeps nothing.
            cap: (2 << 20) + (256 << 10),
            copy: true,
        }
    }
}

/// The running kernel side.
pub struct Kernel {
    // Dropped first: what is attached goes before the maps.
    bpf: Ebpf,
    control: RingBuf<MapData>,
    data: RingBuf<MapData>,
    settings: Array<MapData, [u32; 4]>,
    stops: HashMap<MapData, u64, u32>,
    counters: PerCpuArray<MapData, u64>,
    current: [u32; 4],
    notes: Vec<String>,
    cgroup: cgroup::Root,
    library: Vec<(&'static str, OwnedFd)>,
}

/// The programs that probes in TLS libraries run.
const LIBRARY: [&str; 5] = ["tls_call", "tls_result", "tls_mark", "tls_free", "tls_descriptor"];

/// Global in the object → member in the kernel's types.
const OFFSETS: [(&str, &str); 29] = [
    ("TASK_PID", "task_struct.pid"),
    ("TASK_TGID", "task_struct.tgid"),
    ("TASK_LEADER", "task_struct.group_leader"),
    ("TASK_PARENT", "task_struct.real_parent"),
    ("TASK_START", "task_struct.start_boottime"),
    ("TASK_MM", "task_struct.mm"),
    ("MM_ARG_START", "mm_struct.arg_start"),
    ("MM_ARG_END", "mm_struct.arg_end"),
    ("BINPRM_INTERP", "linux_binprm.interp"),
    ("SOCK_OWNED", "sock.sk_lock.owned"),
    ("SOCK_FAMILY", "sock.__sk_common.skc_family"),
    ("SOCK_DPORT", "sock.__sk_common.skc_dport"),
    ("SOCK_LOCAL4", "sock.__sk_common.skc_rcv_saddr"),
    ("SOCK_REMOTE4", "sock.__sk_common.skc_daddr"),
    ("SOCK_LOCAL6", "sock.__sk_common.skc_v6_rcv_saddr"),
    ("SOCK_REMOTE6", "sock.__sk_common.skc_v6_daddr"),
    ("SOCK_NET", "sock.__sk_common.skc_net"),
    ("NET_INUM", "net.ns.inum"),
    ("INET_SPORT", "inet_sock.inet_sport"),
    ("TASK_FILES", "task_struct.files"),
    ("FILES_FDT", "files_struct.fdt"),
    ("FDT_MAX", "fdtable.max_fds"),
    ("FDT_FD", "fdtable.fd"),
    ("FILE_PRIVATE", "file.private_data"),
    ("SOCKET_FILE", "socket.file"),
    ("SOCKET_SK", "socket.sk"),
    ("SOCK_COOKIE", "sock.__sk_common.skc_cookie"),
    ("TCP_RCV_NXT", "tcp_sock.rcv_nxt"),
    ("TCP_SND_NXT", "tcp_sock.snd_nxt"),
];

const NEEDS_STORAGE: &str = ". Most likely it has no socket storage in tracing programs (Linux 5.11); tapstack needs Linux \
     5.17 or later. TAPSTACK_LOG=debug shows the verifier's words";
const NEEDS_LOOP: &str = ". Most likely it has no bpf_loop (Linux 5.17), which tapstack needs. TAPSTACK_LOG=debug shows the \
     verifier's words";

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-ebpf.o"));

impl Kernel {
    /// Loads and attaches everything. On an error nothing stays attached.
    pub fn load(options: &Options) -> Result<Kernel, Error> {
        privileges()?;
        pid_namespace()?;
        let types = btf::Btf::load()?;
        let mut offsets = Vec::with_capacity(OFFSETS.len());
        for (global, path) in OFFSETS {
            offsets.push((global, types.offset(path).map_err(|_| Error::Member(path.to_owned()))?));
        }
        let root = cgroup::open_root()?;
        let pid = std::process::id();
        let ring = options.ring_bytes.max(4096).checked_next_power_of_two().unwrap_or(1 << 31);
        let mut loader = EbpfLoader::new();
        // Without relocations by type there is nothing that the kernel's types are needed for.
        loader.btf(None).allow_unsupported_maps().override_global("SELF", &pid, true).map_max_entries("DATA", ring);
        for (global, offset) in &offsets {
            loader.override_global(global, offset, true);
        }
        let mut bpf = loader.load(OBJECT).map_err(|e| Error::Object(Box::new(e)))?;
        let kernel_btf = aya::Btf::from_sys_fs()?;
        let mut notes = Vec::new();
        // Owners first: no segment may be seen before its connection can be.
        trace(&mut bpf, "state", "inet_sock_set_state", &kernel_btf, NEEDS_STORAGE)?;
        trace(&mut bpf, "reader", "tcp_rcv_space_adjust", &kernel_btf, NEEDS_STORAGE)?;
        if let Err(first) = trace(&mut bpf, "exec", "sched_process_exec", &kernel_btf, "") {
            trace(&mut bpf, "exec_no_name", "sched_process_exec", &kernel_btf, "")?;
            notes.push(format!("file names of short-lived programs are not read: {first}"));
        }
        for (name, kind) in [("edge_in", CgroupSkbAttachType::Ingress), ("edge_out", CgroupSkbAttachType::Egress)] {
            let p: &mut CgroupSkb = program(&mut bpf, name)?;
            p.load().map_err(refused(name, "load", NEEDS_LOOP))?;
            // A cgroup link is always "multi": other programs keep running beside it. The loader would
            // hand any other mode's flag on, which the kernel refuses for links.
            p.attach(&root, kind, CgroupAttachMode::Single).map_err(refused(name, "attach", ""))?;
        }
        let library = library_programs(&mut bpf, &kernel_btf, &mut notes);
        let control = RingBuf::try_from(take(&mut bpf, "CONTROL")?).map_err(map("CONTROL"))?;
        let data = RingBuf::try_from(take(&mut bpf, "DATA")?).map_err(map("DATA"))?;
        let settings = Array::try_from(take(&mut bpf, "SETTINGS")?).map_err(map("SETTINGS"))?;
        let stops = HashMap::try_from(take(&mut bpf, "STOPS")?).map_err(map("STOPS"))?;
        let counters = PerCpuArray::try_from(take(&mut bpf, "COUNTERS")?).map_err(map("COUNTERS"))?;
        let mut kernel = Kernel {
            bpf,
            control,
            data,
            settings,
            stops,
            counters,
            current: [u32::from(options.copy), options.cap, 0, 0],
            notes,
            cgroup: root,
            library,
        };
        // Until here the settings are zero: nothing was copied while not everything was attached.
        kernel.write_settings()?;
        drop(kernel_btf);
        give_back_memory();
        Ok(kernel)
    }

    /// The root of cgroup v2, open.
    pub fn cgroup(&self) -> io::Result<OwnedFd> {
        self.cgroup.try_clone()
    }

    /// The loaded programs for probes in TLS libraries, by name; empty when this kernel refuses them. They run where
    /// they are attached, until their last descriptor and attachment is closed.
    pub fn library_programs(&mut self) -> Vec<(&'static str, OwnedFd)> {
        std::mem::take(&mut self.library)
    }

    /// What this kernel lacks, one line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Hands on the control records that are there.
    pub fn drain_control(&mut self, mut f: impl FnMut(&[u8])) -> usize {
        let mut n = 0;
        while let Some(item) = self.control.next() {
            f(&item);
            n += 1;
        }
        n
    }

    /// Hands on at most `most` data records; gives their number.
    pub fn drain_data(&mut self, most: usize, mut f: impl FnMut(&[u8])) -> usize {
        let mut n = 0;
        while n < most {
            let Some(item) = self.data.next() else { break };
            f(&item);
            n += 1;
        }
        n
    }

    /// Tells the kernel side what is still wanted of these connections: one of [`agent_ebpf::stop`] each.
    pub fn stop(&mut self, connections: &[(u64, u32)]) -> Result<(), Error> {
        for (cookie, what) in connections {
            self.stops.insert(cookie, what, 0).map_err(map("STOPS"))?;
        }
        self.current[2] = self.current[2].wrapping_add(1);
        self.write_settings()
    }

    /// Changes the cap on runs and whether payload is copied.
    pub fn set(&mut self, copy: bool, cap: u32) -> Result<(), Error> {
        self.current[0] = u32::from(copy);
        self.current[1] = cap;
        self.write_settings()
    }

    fn write_settings(&mut self) -> Result<(), Error> {
        self.settings.set(0, self.current, 0).map_err(map("SETTINGS"))
    }

    /// Counters of the kernel side by index of [`counter`], summed over the CPUs.
    #[must_use]
    pub fn counters(&self) -> [u64; counter::COUNT as usize] {
        let mut sums = [0; counter::COUNT as usize];
        for (i, sum) in sums.iter_mut().enumerate() {
            if let Ok(values) = self.counters.get(&(i as u32), 0) {
                *sum = values.iter().sum();
            }
        }
        sums
    }

    /// Time spent and runs of each program since it was attached, from the kernel's statistics; zeros unless
    /// `kernel.bpf_stats_enabled` is 1.
    #[must_use]
    pub fn program_times(&self) -> BTreeMap<String, (u64, u64)> {
        self.bpf
            .programs()
            .filter_map(|(name, p)| {
                let info = p.info().ok()?;
                Some((name.to_owned(), (u64::try_from(info.run_time().as_nanos()).ok()?, info.run_count())))
            })
            .collect()
    }
}

fn take(bpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, Error> {
    bpf.take_map(name).ok_or_else(|| map(name)(aya::maps::MapError::InvalidName { name: name.to_owned() }))
}

fn map(map: &'static str) -> impl Fn(aya::maps::MapError) -> Error {
    move |error| Error::Map { map, error: Box::new(error) }
}

fn refused(program: &'static str, what: &'static str, hint: &'static str) -> impl Fn(ProgramError) -> Error {
    move |error| {
        let error = match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                // Pages of it, and of no use to who only wants to know what to do.
                tracing::debug!(program, %verifier_log, "The kernel's verifier says why.");
                io_error.to_string()
            }
            other => other.to_string(),
        };
        Error::Program { program, what, error, hint }
    }
}

fn program<'a, P>(bpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    bpf.program_mut(name).ok_or(ProgramError::NotLoaded).and_then(TryInto::try_into).map_err(refused(name, "load", ""))
}

/// Loads the programs for TLS libraries. Without them HTTPS is not read; everything else works.
fn library_programs(bpf: &mut Ebpf, btf: &aya::Btf, notes: &mut Vec<String>) -> Vec<(&'static str, OwnedFd)> {
    if let Err(error) = trace(bpf, "exit", "sched_process_exit", btf, "") {
        notes.push(format!("HTTPS is not read: {error}"));
        return Vec::new();
    }
    let btf_id = bpf.program("exit").and_then(|p| p.info().ok()).and_then(|info| info.btf_id()).unwrap_or(0);
    match multi::load(OBJECT, bpf, btf_id, &LIBRARY) {
        Ok(loaded) if loaded.first().is_some_and(|(_, program)| returns::attachable(program.as_fd())) => return loaded,
        Ok(_) => tracing::debug!("This kernel has no links for many probes (Linux 6.6): each has an event of its own."),
        Err(error) => tracing::debug!("Programs for links with many probes are refused: {error}."),
    }
    let mut loaded = Vec::with_capacity(LIBRARY.len());
    for name in LIBRARY {
        let fd = program::<UProbe>(bpf, name).and_then(|p| {
            p.load().map_err(refused(name, "load", ""))?;
            p.fd().and_then(|fd| Ok(fd.as_fd().try_clone_to_owned()?)).map_err(refused(name, "load", ""))
        });
        match fd {
            Ok(fd) => loaded.push((name, fd)),
            // It reads kernel memory by helper, which lockdown=confidentiality forbids; two other kinds of evidence
            // stay.
            Err(error) if name == "tls_descriptor" => {
                notes.push(format!("sockets of SSL_set_fd are not read: {error}"));
            }
            Err(error) => {
                notes.push(format!("HTTPS is not read: {error}"));
                return Vec::new();
            }
        }
    }
    loaded
}

fn trace(
    bpf: &mut Ebpf,
    name: &'static str,
    tracepoint: &str,
    btf: &aya::Btf,
    hint: &'static str,
) -> Result<(), Error> {
    let p: &mut BtfTracePoint = program(bpf, name)?;
    p.load(tracepoint, btf).map_err(refused(name, "load", hint))?;
    p.attach().map_err(refused(name, "attach", hint))?;
    Ok(())
}

/// The programs and `/proc` must speak of the same process ids: those of the initial namespace, whose inode number is
/// fixed (`PROC_PID_INIT_INO` of `linux/proc_ns.h`).
fn pid_namespace() -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt as _;
    const INITIAL: u64 = 0xEFFF_FFFC;
    // Where it cannot be told (no /proc), the rest says what is wrong.
    match std::fs::metadata("/proc/self/ns/pid") {
        Ok(m) if m.ino() != INITIAL => Err(Error::PidNamespace),
        _ => Ok(()),
    }
}

/// Checks the capabilities before anything is tried: the kernel's own answer would be a bare EPERM.
pub fn privileges() -> Result<(), Error> {
    const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_PERFMON", 38), ("CAP_NET_ADMIN", 12)];
    const ADMIN: u64 = 1 << 21;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let Some(effective) =
        status.lines().find_map(|l| l.strip_prefix("CapEff:")).and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
    else {
        return Ok(());
    };
    if effective & ADMIN != 0 {
        return Ok(());
    }
    let missing: Vec<&str> = NEEDED.iter().filter(|(_, bit)| effective >> bit & 1 == 0).map(|(n, _)| *n).collect();
    if missing.is_empty() { Ok(()) } else { Err(Error::Privileges { missing: missing.join(", ") }) }
}

/// Keeps the allocator small: bodies of a burst are given back as they are let go, and threads share two heaps.
pub fn lean_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes and gives no pointer.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 10);
    }
}

/// Gives free memory back to the system: the kernel's types take some 40 MB while they are read, a burst of large
/// bodies more, and the allocator would keep it for good.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes and gives no pointer.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC` in nanoseconds: what turns the records' times into wall time.
///
/// # Errors
/// When a clock cannot be read.
pub fn wall_offset() -> io::Result<i64> {
    let read = |clock| {
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a timespec of ours.
        if unsafe { libc::clock_gettime(clock, &raw mut t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(t.tv_sec * 1_000_000_000 + t.tv_nsec)
    };
    let before = read(libc::CLOCK_MONOTONIC)?;
    let wall = read(libc::CLOCK_REALTIME)?;
    let after = read(libc::CLOCK_MONOTONIC)?;
    Ok(wall - (before + (after - before) / 2))
}
