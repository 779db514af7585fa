//! The kernel's records of new executable mappings, from every process of the host.
//!
//! In: one ring of perf side-band records a CPU (`PERF_RECORD_MMAP2`, Linux 3.12). Out: mappings with their
//! process, and whether any were lost. Used by `discover`'s thread alone.
//!
//! Records come for mappings that are made, not for those that are: what is older is read from `/proc`. CPUs
//! come and go: [`Sideband::refresh`] opens those that came, and again those that went and are back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mappings::{self, Mapping};
use crate::probe::perf;

const ONLINE: &str = "/sys/devices/system/cpu/online";
/// Of one ring, without its page of positions: some 900 records of usual paths.
const RING: usize = 128 << 10;
/// Of one ring on hosts with more than [`MANY`] CPUs.
const SMALL_RING: usize = 64 << 10;
const MANY: usize = 16;

/// What came since the last time.
#[derive(Debug, Default)]
pub(super) struct Drained {
    /// By process.
    pub(super) mappings: Vec<(u32, Mapping)>,
    /// Records that found no room.
    pub(super) lost: u64,
}

/// All rings.
#[derive(Debug)]
pub(super) struct Sideband {
    rings: BTreeMap<u32, Ring>,
    scratch: Vec<u8>,
}

impl Sideband {
    /// Opens a ring for each CPU that is online. An error when not one could be opened.
    pub(super) fn open() -> io::Result<Self> {
        let mut sideband = Self { rings: BTreeMap::new(), scratch: Vec::new() };
        sideband.refresh()?;
        Ok(sideband)
    }

    /// Follows the CPUs that came or went. True when one was opened, so that mappings may have been missed.
    pub(super) fn refresh(&mut self) -> io::Result<bool> {
        let online = parse_cpus(&fs::read_to_string(ONLINE)?);
        // An event whose CPU went away stays dead when the CPU is back: its clock stands still.
        self.rings.retain(|cpu, ring| online.contains(cpu) && ring.goes_on());
        let size = if online.len() > MANY { SMALL_RING } else { RING };
        let mut opened = false;
        let mut failed = None;
        for cpu in online {
            if self.rings.contains_key(&cpu) {
                continue;
            }
            match Ring::open(cpu, size) {
                Ok(ring) => {
                    self.rings.insert(cpu, ring);
                    opened = true;
                }
                // It went away between.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => {
                Err(io::Error::new(error.kind(), format!("mapping records cannot be had: {error}{}", advice(&error))))
            }
            None => Ok(opened),
        }
    }

    /// To be polled for reading.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.rings.values().map(|ring| ring.event.as_raw_fd())
    }

    /// Takes what there is.
    pub(super) fn drain(&mut self) -> Drained {
        let mut drained = Drained::default();
        for ring in self.rings.values_mut() {
            ring.drain(&mut self.scratch);
            let mut rest = self.scratch.as_slice();
            while let Some((kind, body, after)) = next_record(rest) {
                match kind {
                    RECORD_MMAP2 => drained.mappings.extend(mappings::parse_record(body)),
                    // Its body: id, then the number.
                    RECORD_LOST => {
                        let number =
                            body.get(8..16).map_or(1, |b| u64::from_ne_bytes(b.try_into().unwrap_or_default()));
                        drained.lost += number;
                    }
                    _ => {}
                }
                rest = after;
            }
        }
        drained
    }
}

const RECORD_LOST: u32 = 2;
const RECORD_MMAP2: u32 = 10;

/// Kind, body and what follows: `struct perf_event_header` is kind (4), misc (2) and size with itself (2).
fn next_record(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let size = usize::from(u16::from_ne_bytes(bytes.get(6..8)?.try_into().ok()?));
    Some((kind, bytes.get(8..size)?, &bytes[size..]))
}

fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; it takes CAP_PERFMON (Linux 5.8) or CAP_SYS_ADMIN, where kernel.perf_event_paranoid is over 0"
        }
        Some(libc::EMFILE | libc::ENFILE) => "; too many open files: raise the limit (LimitNOFILE=, ulimit -n)",
        Some(libc::ENOSYS) => "; the kernel was built without CONFIG_PERF_EVENTS",
        _ => "",
    }
}

/// `0-3,8,10-11`.
fn parse_cpus(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u32>().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().take(8192).collect()
}

/// One CPU's records.
#[derive(Debug)]
struct Ring {
    event: OwnedFd,
    area: Area,
    /// When it was last looked at: how long the event had been on, in ns.
    enabled: u64,
}

impl Ring {
    fn open(cpu: u32, size: usize) -> io::Result<Self> {
        let attributes = perf::Attributes {
            kind: perf::TYPE_SOFTWARE,
            config: perf::SOFTWARE_DUMMY,
            read_format: perf::READ_TIME_ENABLED,
            // Records do not count as events, so a wake-up after one event would never come: after one byte it
            // does.
            flags: perf::FLAG_MMAP | perf::FLAG_MMAP2 | perf::FLAG_WATERMARK,
            wakeup: 1,
            ..Default::default()
        };
        // SAFETY: this kind of event takes no address.
        let event = unsafe { perf::open(attributes, cpu)? };
        let area = Area::map(&event, size)?;
        Ok(Self { event, area, enabled: 0 })
    }

    /// Whether the event's clock went on since the last time.
    fn goes_on(&mut self) -> bool {
        let Ok(event) = self.event.try_clone() else { return true };
        let mut values = [0; 16];
        if File::from(event).read_exact(&mut values).is_err() {
            return false;
        }
        let enabled = u64::from_ne_bytes(values[8..].try_into().unwrap_or_default());
        enabled > std::mem::replace(&mut self.enabled, enabled)
    }

    /// Copies what is there into `out` and gives the room back.
    fn drain(&mut self, out: &mut Vec<u8>) {
        out.clear();
        let head = self.area.head().load(Ordering::Acquire);
        let tail = self.area.tail().load(Ordering::Relaxed);
        let size = self.area.size as u64;
        let length = head.wrapping_sub(tail).min(size) as usize;
        let from = (tail % size) as usize;
        let first = length.min(self.area.size - from);
        out.extend_from_slice(self.area.bytes(from, first));
        out.extend_from_slice(self.area.bytes(0, length - first));
        self.area.tail().store(head, Ordering::Release);
    }
}

/// The memory that is shared with the kernel: a page of positions, then the ring.
#[derive(Debug)]
struct Area {
    start: NonNull<u8>,
    page: usize,
    size: usize,
}

// SAFETY: the memory is used through `&self` of its one owner only, by atomics and copies.
unsafe impl Send for Area {}

impl Area {
    /// Offsets in `struct perf_event_mmap_page`, fixed by its 1 KiB of reserved space.
    const HEAD: usize = 1024;
    const TAIL: usize = 1032;

    fn map(event: &OwnedFd, size: usize) -> io::Result<Self> {
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        // A power of two of whole pages, also where pages are large.
        let size = size.max(page);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                page + size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                event.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, page, size })
    }

    fn head(&self) -> &AtomicU64 {
        // SAFETY: inside of the first page, aligned, and only changed by the kernel in one piece.
        unsafe { self.start.add(Self::HEAD).cast::<AtomicU64>().as_ref() }
    }

    fn tail(&self) -> &AtomicU64 {
        // SAFETY: as for the head; the kernel only reads it.
        unsafe { self.start.add(Self::TAIL).cast::<AtomicU64>().as_ref() }
    }

    /// Bytes between tail and head, which the kernel leaves alone until the tail passes them.
    fn bytes(&self, from: usize, length: usize) -> &[u8] {
        assert!(from + length <= self.size);
        // SAFETY: inside of the mapping, by the line above.
        unsafe { std::slice::from_raw_parts(self.start.add(self.page + from).as_ptr(), length) }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing borrowed from it outlives it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.page + self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(parse_cpus("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_cpus("0"), [0]);
        assert_eq!(parse_cpus("\n"), [0; 0]);
        assert!(parse_cpus("0-4294967295").len() <= 8192);
    }

    #[test]
    fn a_record_that_says_too_little_or_too_much_ends_the_reading() {
        let record = |size: u16| [&10u32.to_ne_bytes()[..], &[0, 0], &size.to_ne_bytes()[..], &[7; 8]].concat();
        assert_eq!(next_record(&record(16)).unwrap().1, [7; 8]);
        for size in [0, 7, 17, u16::MAX] {
            assert!(next_record(&record(size)).is_none(), "{size}");
        }
        assert!(next_record(&[]).is_none());
    }

    #[test]
    fn mappings_of_a_new_process_are_seen() {
        let mut sideband = match Sideband::open() {
            Ok(sideband) => sideband,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let begun = std::time::Instant::now();
        let mut seen = Vec::new();
        while !seen.iter().any(|path: &String| path.contains("libc")) {
            assert!(begun.elapsed().as_secs() < 10, "only {seen:?} was seen");
            let mut polled: Vec<_> =
                sideband.descriptors().map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
            // SAFETY: valid entries.
            unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, 1000) };
            let drained = sideband.drain();
            let ours = drained.mappings.into_iter().filter(|(pid, _)| *pid == child.id());
            seen.extend(ours.map(|(_, mapping)| mapping.path.display().to_string()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen[0].ends_with("sleep"), "{seen:?}");
        for _ in 0..3 {
            assert!(!sideband.refresh().unwrap(), "rings that work are kept");
        }
        sideband.rings.pop_last();
        assert!(sideband.refresh().unwrap(), "a CPU that is back gets its ring back");
    }

    #[test]
    fn records_that_find_no_room_are_counted() {
        let mut sideband = match Sideband::open() {
            Ok(sideband) => sideband,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let file = File::open("/proc/self/exe").unwrap();
        let map = |times| {
            for _ in 0..times {
                let (access, kind) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
                // SAFETY: new mappings, which nobody uses before they are taken away.
                unsafe {
                    let at = libc::mmap(std::ptr::null_mut(), 4096, access, kind, file.as_raw_fd(), 0);
                    assert_ne!(at, libc::MAP_FAILED);
                    libc::munmap(at, 4096);
                }
            }
        };
        // Each record is longer than 64 bytes.
        map(sideband.rings.len() * RING / 64 + 1);
        let mut drained = sideband.drain();
        // What was lost is told by the next record on the same CPU.
        let begun = std::time::Instant::now();
        while drained.lost == 0 {
            assert!(begun.elapsed().as_secs() < 10, "nothing was lost");
            map(1);
            drained.lost += sideband.drain().lost;
        }
        let ours = drained.mappings.iter().filter(|(pid, _)| *pid == std::process::id()).count();
        assert!(ours > 100, "what found room came whole: {ours}");
    }
}
