//! From ticks since boot to a time of day.

/// When this boot began, and how long a tick is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Nanoseconds of Unix time at which the boot-time clock was 0.
    pub unix_ns: i64,
    /// Ticks a second in `/proc/PID/stat`.
    pub ticks_per_second: u64,
}

impl Boot {
    /// From the two clocks: the same moment as `btime` in `/proc/stat`, with its fraction of a second.
    #[must_use]
    pub fn read() -> Self {
        // SAFETY: takes no pointer.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
        Boot {
            unix_ns: clock(libc::CLOCK_REALTIME) - clock(libc::CLOCK_BOOTTIME),
            // 100 on every architecture that the agent runs on.
            ticks_per_second: u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100),
        }
    }

    /// Ticks of a start given in nanoseconds of the boot-time clock; rounds down as the kernel does
    /// (`nsec_to_clock_t`).
    #[must_use]
    pub fn ticks(&self, start_ns: u64) -> u64 {
        u64::try_from(u128::from(start_ns) * u128::from(self.ticks_per_second) / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// RFC 3339, UTC, milliseconds; empty when it is no time that can be written.
    #[must_use]
    pub fn rfc3339(&self, ticks: u64) -> String {
        let since = i128::from(ticks) * 1_000_000_000 / i128::from(self.ticks_per_second.max(1));
        jiff::Timestamp::from_nanosecond(i128::from(self.unix_ns) + since)
            .map(|time| format!("{time:.3}"))
            .unwrap_or_default()
    }
}

fn clock(id: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call. Both clocks exist on every kernel since 2.6.39.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_a_time_of_day() {
        let boot = Boot { unix_ns: 1_700_000_000_250_000_000, ticks_per_second: 100 };
        assert_eq!(boot.rfc3339(150), "2023-11-14T22:13:21.750Z");
        assert_eq!(boot.ticks(1_509_999_999), 150);
        assert_eq!(boot.ticks(u64::MAX), u64::MAX / 10_000_000);
        assert_eq!(boot.rfc3339(u64::MAX), "");
    }

    #[test]
    fn the_clocks_agree_with_the_kernels_btime() {
        let stat = std::fs::read_to_string("/proc/stat").unwrap();
        let btime: i64 = stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().parse().unwrap();
        let ours = Boot::read().unix_ns / 1_000_000_000;
        assert!((ours - btime).abs() <= 1, "{ours} against {btime}");
    }
}
