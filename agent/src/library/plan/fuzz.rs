//! Body of the fuzz target `library`, also run by the tests: a plan for any bytes, with what holds for all of them.

use super::{Options, Plan, Program, plan_bytes};

/// Plans the file with and without return probes. Says how many points there were.
///
/// # Panics
/// If a promise is broken.
#[must_use]
pub fn library(file: &[u8]) -> usize {
    let mut points = 0;
    for return_probes in [true, false] {
        if let Ok(Some(plan)) = plan_bytes(file, Options { return_probes }) {
            check(&plan, file.len() as u64, Options { return_probes });
            points += plan.points.len();
        }
    }
    points
}

/// Checks what holds for every plan of a file of `size` bytes.
///
/// # Panics
/// If it does not.
pub fn check(plan: &Plan, size: u64, options: Options) {
    let mut places: Vec<_> = plan.points.iter().map(|p| (p.offset, p.program)).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), plan.points.len(), "two points at one place:\n{plan}");
    let order = [Program::Free, Program::Mark, Program::Descriptor, Program::Result, Program::Call];
    let ranks = plan.points.iter().map(|p| order.iter().position(|o| *o == p.program));
    assert!(ranks.is_sorted(), "a call before its result:\n{plan}");
    for point in &plan.points {
        assert!(point.offset < size, "a point outside the file:\n{plan}");
        assert!(!point.on_return || options.return_probes, "a return probe that is not allowed:\n{plan}");
        assert!(!point.on_return || point.program == Program::Result, "a return probe for arguments:\n{plan}");
        assert!(!point.why.is_empty(), "a point without a reason:\n{plan}");
    }
}
