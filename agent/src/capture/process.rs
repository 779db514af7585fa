//! Processes as they stand in objects: arguments redacted and everything written, once a process instead of
//! once an exchange.

use std::sync::{Arc, Mutex, PoisonError};

use transaction::{
    object::{Process, Redaction},
    seal::Written,
};

use super::redact::{Redactor, Tally};

/// Processes that are remembered. Of two in one place the later one stays.
const PLACES: usize = 64;

/// A process as it stands in objects.
#[derive(Debug)]
pub(super) struct Shown {
    /// As it was observed: what is secret in its arguments stands there still.
    observed: Process,
    /// With its arguments redacted.
    pub(super) written: Written,
    /// What was replaced.
    pub(super) redactions: Vec<Redaction>,
}

/// The last processes seen, for one way to redact.
#[derive(Debug)]
pub(super) struct Processes([Mutex<Option<Arc<Shown>>>; PLACES]);

impl Processes {
    pub(super) fn new() -> Self {
        Processes(std::array::from_fn(|_| Mutex::new(None)))
    }

    /// `process` as it stands in objects. The facts themselves are the key, so a pid that another process has by
    /// now, or an exec, can never give the wrong ones.
    pub(super) fn show(&self, process: &Process, redactor: &Redactor) -> Arc<Shown> {
        let place = &self.0[process.pid as usize % PLACES];
        let known = place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.observed == *process) {
            return known;
        }
        let mut redacted = process.clone();
        let mut tally = Tally::default();
        redactor.arguments(&mut redacted.args, &mut tally);
        let shown = Arc::new(Shown {
            observed: process.clone(),
            written: Written::of(&redacted),
            redactions: tally.into_list(),
        });
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&shown));
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, password: &str) -> Process {
        Process { pid, args: vec!["app".into(), format!("--password={password}")], ..Process::default() }
    }

    #[test]
    fn the_same_facts_are_shown_once_and_others_anew() {
        let (processes, redactor) = (Processes::new(), Redactor::new());
        let first = processes.show(&process(7, "one"), &redactor);
        assert!(Arc::ptr_eq(&first, &processes.show(&process(7, "one"), &redactor)));
        assert_eq!(first.redactions.iter().map(|r| r.count).sum::<u32>(), 1);
        for other in [process(7, "two"), process(7 + PLACES as u32, "one")] {
            let shown = processes.show(&other, &redactor);
            assert!(!Arc::ptr_eq(&first, &shown));
            let mut redacted = other.clone();
            redacted.args[1] = "--password=[redacted]".into();
            assert_eq!(format!("{:?}", shown.written), format!("{:?}", Written::of(&redacted)));
        }
    }
}
