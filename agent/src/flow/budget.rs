//! One budget of bytes for all bodies and all reassembly of the agent.
//!
//! Every connection takes from it before it keeps bytes and gives back when they are handed on, so that a
//! host with many busy connections cannot make the agent grow without bound. [`Lease`] gives back by
//! itself when it is dropped. Called by [`Stream`](super::Stream) and by the HTTP parsers, on all workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bytes that may be kept at the same time by everybody who shares it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    refused: AtomicU64,
}

impl Budget {
    /// 64 MiB: the default of the design.
    pub const DEFAULT: usize = 64 << 20;

    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), refused: AtomicU64::new(0) })
    }

    /// Bytes that may be kept.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes kept now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How often bytes were refused, for the metrics.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        // Only the sum matters, no other memory is published through it: relaxed is enough.
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|sum| *sum <= self.limit)
        });
        if taken.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken.is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What one owner has taken from a [`Budget`]; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    bytes: usize,
    /// Most that this owner may hold, whatever the budget has left.
    limit: usize,
}

impl Lease {
    /// Nothing taken yet; at most `limit` bytes later.
    #[must_use]
    pub fn new(budget: Arc<Budget>, limit: usize) -> Self {
        Self { budget, bytes: 0, limit }
    }

    /// Bytes taken now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `bytes` more; false (and nothing taken) when this owner's limit or the budget is spent.
    pub fn grow(&mut self, bytes: usize) -> bool {
        if self.bytes.checked_add(bytes).is_none_or(|sum| sum > self.limit) || !self.budget.take(bytes) {
            return false;
        }
        self.bytes += bytes;
        true
    }

    /// Gives `bytes` back, at most what was taken.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.give_back(bytes);
        self.bytes -= bytes;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_comes_back_when_the_lease_is_dropped() {
        let budget = Budget::new(100);
        let mut one = Lease::new(Arc::clone(&budget), 80);
        let mut two = Lease::new(Arc::clone(&budget), 80);
        assert!(one.grow(80));
        assert!(!one.grow(1), "beyond the owner's limit");
        assert!(two.grow(20));
        assert!(!two.grow(1), "beyond the budget");
        assert_eq!((budget.used(), budget.refused()), (100, 1));
        one.shrink(30);
        assert!(two.grow(30));
        drop(one);
        assert_eq!(budget.used(), 50);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_sum_beyond_the_address_space_is_refused() {
        let budget = Budget::new(usize::MAX);
        let mut lease = Lease::new(budget, usize::MAX);
        assert!(lease.grow(10));
        assert!(!lease.grow(usize::MAX));
        assert_eq!(lease.bytes(), 10);
    }
}
