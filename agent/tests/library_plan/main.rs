//! Plans of probes for TLS libraries: for real ones, for small ones made here, and for hostile files. The decoder is
//! for x86-64 only, and a plan is made for this machine's files only.
#![cfg(target_arch = "x86_64")]

mod build;
mod hostile;
mod real;
mod small;

use agent::library::{Plan, Program};

/// What holds for every plan of a file of `size` bytes; how many points it has.
fn check(plan: &Plan, size: u64) -> usize {
    let mut places: Vec<_> = plan.points.iter().map(|p| (p.offset, p.program)).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), plan.points.len(), "two points at one place:\n{plan}");
    let order = [Program::Free, Program::Mark, Program::Descriptor, Program::Result, Program::Call];
    let ranks: Vec<_> = plan.points.iter().map(|p| order.iter().position(|o| *o == p.program)).collect();
    assert!(ranks.is_sorted(), "a call before its result:\n{plan}");
    assert!(plan.points.iter().all(|p| p.offset < size && !p.why.is_empty()), "{plan}");
    assert!(plan.points.iter().all(|p| !p.on_return || p.program == Program::Result), "{plan}");
    plan.points.len()
}
