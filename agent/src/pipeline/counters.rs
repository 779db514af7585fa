//! What the pipeline counts. Every loss has a counter of its own.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use agent_ebpf::counter;
/// Data records that were lost because the ring was full.
pub use agent_ebpf::counter::RING_FULL;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// Connections with TLS whose plaintext was not read, by the program's path.
            unread: Mutex<BTreeMap<String, u64>>,
            /// Counters of the kernel side by index of [`counter`], as last read.
            pub kernel: [AtomicU64; counter::COUNT as usize],
        }

        impl Counters {
            /// Name and value of each.
            #[must_use]
            pub fn list(&self) -> Vec<(String, u64)> {
                let mut all = vec![$((stringify!($name).to_owned(), self.$name.load(Ordering::Relaxed)),)*];
                for (name, value) in counter::NAMES.iter().zip(&self.kernel) {
                    all.push((format!("kernel_{name}"), value.load(Ordering::Relaxed)));
                }
                all
            }
        }
    };
}

counters! {
    /// Exchanges found on the wire.
    exchanges,
    /// Transactions handed to the archive: one for each local end of an exchange.
    transactions,
    /// Connections with the agent itself, not captured.
    own_connections,
    /// Exchanges of the product's own processes, not kept.
    own_exchanges,
    /// Connections seen.
    connections,
    /// Connections that began like HTTP and were not.
    not_http,
    /// Connections handed over to another protocol (Upgrade, CONNECT).
    handovers,
    /// Bytes known to be missing in the streams.
    gap_bytes,
    /// Runs of missing bytes.
    gaps,
    /// Segments held because an earlier one was missing.
    out_of_order,
    /// Segments that repeated bytes.
    duplicate_segments,
    /// Segments that no connection could take.
    refused_segments,
    /// Copies of the same bytes that differed.
    differing_segments,
    /// Streams of TLS objects that could not be bound to a socket.
    unbound_streams,
    /// Connections forgotten because there were too many.
    evicted_connections,
    /// Connections whose parser panicked; their exchanges are lost.
    panics,
    /// Records and connections not taken to their end because the stop was asked for and time was up.
    dropped_at_stop,
    /// Records for a worker that had died.
    lost_records,
    /// Records that could not be read.
    unreadable_records,
}

impl Counters {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, by: u64) {
        if by != 0 {
            counter.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// A counter of the kernel side, by its index in [`counter`].
    #[must_use]
    pub fn kernel_count(&self, index: u32) -> u64 {
        self.kernel.get(index as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// Counts a connection with TLS whose plaintext was not read.
    pub fn unread(&self, program: &str) {
        /// Programs that have a line of their own.
        const PROGRAMS: usize = 256;
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        let known = unread.contains_key(program) || unread.len() < PROGRAMS;
        *unread.entry(if known { program } else { "other" }.to_owned()).or_default() += 1;
    }

    /// Prometheus text (exposition format 0.0.4), each name with the prefix `tapstack_`.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.list() {
            let _ = writeln!(text, "# TYPE tapstack_{name}_total counter\ntapstack_{name}_total {value}");
        }
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str("# TYPE tapstack_tls_unread_connections_total counter\n");
        for (program, value) in &*unread {
            let program = program.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(text, "tapstack_tls_unread_connections_total{{program=\"{program}\"}} {value}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_kernel_has_a_name() {
        let c = Counters::default();
        c.kernel[counter::RING_FULL as usize].store(7, Ordering::Relaxed);
        Counters::add(&c.exchanges, 2);
        let text = c.prometheus();
        assert!(text.contains("tapstack_kernel_ring_full_records_total 7\n"), "{text}");
        assert!(text.contains("tapstack_exchanges_total 2\n"), "{text}");
    }
}
