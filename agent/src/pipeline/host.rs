//! The host that records come from: this one, or the one that a recording was made on.

use std::{
    io,
    sync::atomic::{AtomicI64, Ordering},
};

use agent_ebpf::RECORD_VERSION;

use crate::{
    connection::direction::OwnAddresses,
    probe::{kernel::wall_offset, recording::About},
};

/// Facts about the host that every transaction carries.
pub struct Host {
    /// Host name.
    pub name: String,
    /// Boot id: part of connection identifiers, so that cookies of another boot are told apart.
    pub boot_id: String,
    /// The agent's own process id there.
    pub own_pid: u32,
    /// Addresses of its interfaces.
    pub addresses: OwnAddresses,
    kernel: String,
    wall_offset: AtomicI64,
    live: bool,
}

fn line(path: &str) -> String {
    std::fs::read_to_string(path).map(|s| s.trim().to_owned()).unwrap_or_default()
}

impl Host {
    /// The host that this process runs on.
    pub fn this() -> io::Result<Host> {
        Ok(Host {
            name: line("/proc/sys/kernel/hostname"),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            own_pid: std::process::id(),
            addresses: OwnAddresses::new(),
            kernel: line("/proc/sys/kernel/osrelease"),
            wall_offset: AtomicI64::new(wall_offset()?),
            live: true,
        })
    }

    /// The host that a recording was made on.
    #[must_use]
    pub fn recorded(about: &About) -> Host {
        Host {
            name: about.host_name.clone(),
            boot_id: about.boot_id.clone(),
            own_pid: about.own_pid,
            addresses: OwnAddresses::fixed(about.addresses.clone()),
            kernel: about.kernel.clone(),
            wall_offset: AtomicI64::new(about.wall_offset_ns),
            live: false,
        }
    }

    /// What a recording made here says of it.
    #[must_use]
    pub fn about(&self) -> About {
        About {
            record_version: RECORD_VERSION,
            host_name: self.name.clone(),
            kernel: self.kernel.clone(),
            wall_offset_ns: self.wall_offset(),
            boot_id: self.boot_id.clone(),
            own_pid: self.own_pid,
            addresses: self.addresses.list(),
        }
    }

    /// Added to a record's time, gives nanoseconds since 1970.
    #[must_use]
    pub fn wall_offset(&self) -> i64 {
        self.wall_offset.load(Ordering::Relaxed)
    }

    /// A record's time as nanoseconds since 1970.
    #[must_use]
    pub fn wall(&self, kernel_ns: u64) -> u64 {
        kernel_ns.saturating_add_signed(self.wall_offset())
    }

    /// Follows steps of the wall clock; called now and then.
    pub fn follow_clock(&self) {
        if self.live
            && let Ok(offset) = wall_offset()
        {
            self.wall_offset.store(offset, Ordering::Relaxed);
        }
    }
}
