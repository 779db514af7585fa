//! Which response answers which request.
//!
//! HTTP/1 answers in order (RFC 9112 section 9.3.2), so the oldest unanswered request is the one, as long as
//! neither direction has lost anything. Two exchanges must never be joined across a gap, so after a loss:
//! - *In the requests*: those that came whole before it are still answered in order; behind them nobody
//!   knows how many requests are missing, and the pairing is unsure.
//! - *In the responses*: which of the outstanding requests were answered in the gap is not known. They are
//!   handed on unanswered at once, and the pairing is unsure.
//!
//! While it is unsure, each response is handed on as unasked, and the requests that began before it as
//! unanswered. It is sure again when nothing can be outstanding any more:
//! - the requests are all known, and as many responses as requests have been seen since; or
//! - this client waits for each response before it asks again: it did so at least [`HABIT`] times on this
//!   connection and never otherwise; or it has done so [`STREAK`] times in a row since the loss. (What this
//!   cannot tell apart: a client that keeps the same number of requests in flight from its first one on,
//!   if the first of them were lost. Without the rule a connection that lost its beginning would never be
//!   paired again, with it such a client's exchanges can be joined wrongly.)
//!
//! A cap of the kernel side is a milder loss: copying stops within a run of responses and begins again when the
//! client speaks. If this client is known to wait, the one request that came since is the one answered next.
//!
//! Time guards each join besides: a request that began after its response did is not its request.

use std::collections::VecDeque;

use super::exchange::{Exchange, Head, Message};
use super::head::push;
use super::reader::Taken;

/// Exchanges one after the other that show that a client does not pipeline.
const HABIT: u32 = 2;
/// The same, seen only after a loss, when an outstanding response could make it look so.
const STREAK: u32 = 8;
/// Interim responses kept for an exchange.
const INTERIM: usize = 32;

/// What of a request frames its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) head: bool,
    pub(super) connect: bool,
    pub(super) upgrade: bool,
}

/// An exchange that is not over.
#[derive(Debug)]
struct Slot {
    exchange: Exchange,
    asked: Asked,
    first_ns: u64,
    /// The request's end was reached, or given up.
    requested: bool,
    /// The response is over.
    answered: bool,
    /// Its response, if any, can no longer be told.
    forsaken: bool,
    charged: usize,
}

/// Whether the oldest unanswered request is the one that the next response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Sure,
    /// Only for so many more.
    Until(usize),
    Unsure,
}

/// Who a response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A request that was seen.
    To(Asked),
    /// Nobody that can be told.
    Unasked,
    /// Its request has not come yet.
    Early,
}

/// An exchange that is over, with the bytes of the lease that it held.
pub(super) type Over = (Exchange, usize);

// Each flag is a fact of its own; they do not exclude one another.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub(super) struct Pairing {
    slots: VecDeque<Slot>,
    trust: Trust,
    /// Most requests that may still be answered although they were handed on; None: nobody knows.
    limbo: Option<u32>,
    /// Requests that began up to here are not to be paired.
    floor_ns: Option<u64>,
    /// How often a request began after the response before it had ended.
    alternations: u32,
    /// A request began before the response before it had ended.
    pipelines: bool,
    streak: u32,
    /// Something was lost since the last response began.
    lost: bool,
    /// All that was lost since the pairing was sure are runs of responses cut by a cap.
    capped: bool,
    /// Since a loss in the requests none was found yet: more may be missing.
    searching: bool,
    /// Kernel time of the end of the last response.
    response_ns: u64,
    /// The response that is being read.
    answering: Option<Answer>,
    /// Interim responses to nobody that can be told.
    stray: Vec<Head>,
}

impl Default for Pairing {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            trust: Trust::Sure,
            limbo: Some(0),
            floor_ns: None,
            alternations: 0,
            pipelines: false,
            streak: 0,
            lost: false,
            capped: false,
            searching: false,
            response_ns: 0,
            answering: None,
            stray: Vec::new(),
        }
    }
}

impl Pairing {
    /// Exchanges that are not over.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the last request that came awaits its response's verdict: does the protocol change?
    pub(super) fn awaits_verdict(&self) -> bool {
        self.slots
            .back()
            .is_some_and(|slot| slot.requested && !slot.answered && !slot.forsaken && slot.asked.changes_protocol())
    }

    /// A request's head has come.
    pub(super) fn request_begins(&mut self, asked: Asked, first_ns: u64) {
        self.searching = false;
        let late = self.floor_ns.is_some_and(|floor| first_ns <= floor);
        if late {
            self.outstanding(1);
            self.lost = true;
            if self.trust == Trust::Sure && !self.habit() {
                self.trust = Trust::Unsure;
            }
        } else if self.slots.iter().all(|slot| slot.answered) && self.answering.is_none() && self.response_ns > 0 {
            self.order(first_ns >= self.response_ns);
        }
        self.slots.push_back(Slot {
            exchange: Exchange::default(),
            asked,
            first_ns,
            requested: false,
            answered: false,
            forsaken: late,
            charged: 0,
        });
    }

    /// The request that began last is over, or broke off.
    pub(super) fn request_ends(&mut self, taken: Taken) {
        if let Some(slot) = self.slots.back_mut().filter(|slot| !slot.requested) {
            slot.requested = true;
            slot.charged += taken.charged;
            slot.exchange.request = Some(taken.message);
            for note in taken.notes {
                push(&mut slot.exchange.notes, note);
            }
        }
    }

    /// A response's head has come. `early`: its request may still come.
    pub(super) fn response_begins(&mut self, first_ns: u64, early: bool) -> Answer {
        if let Some(answer) = self.answering {
            return answer;
        }
        if self.trust == Trust::Unsure && self.answers_the_only(first_ns) {
            self.become_sure();
        }
        let answer = if self.trust == Trust::Unsure {
            self.forsake_before(first_ns);
            Answer::Unasked
        } else {
            match self.unanswered() {
                Some(slot) if slot.first_ns <= first_ns => Answer::To(slot.asked),
                None if early => return Answer::Early,
                _ => {
                    // A request from before it that comes late all the same is not to take the next response.
                    self.floor_ns = Some(self.floor_ns.unwrap_or(0).max(first_ns));
                    Answer::Unasked
                }
            }
        };
        self.answering = Some(answer);
        answer
    }

    /// Whether the response being read answers CONNECT.
    pub(super) fn answers_connect(&self) -> bool {
        matches!(self.answering, Some(Answer::To(asked)) if asked.connect)
    }

    /// The response being read is an interim one: more come for the same request.
    pub(super) fn interim(&mut self, taken: Taken) -> usize {
        let answer = self.answering;
        let heads = match self.unanswered() {
            Some(slot) if matches!(answer, Some(Answer::To(_))) => {
                for note in taken.notes {
                    push(&mut slot.exchange.notes, note);
                }
                if slot.exchange.interim.len() < INTERIM {
                    slot.charged += taken.charged;
                    slot.exchange.interim.push(taken.message.head);
                    return 0;
                }
                return taken.charged;
            }
            _ => &mut self.stray,
        };
        // Not charged: bounded by their number, and gone with the next response.
        if heads.len() < INTERIM {
            heads.push(taken.message.head);
        }
        taken.charged
    }

    /// The response being read is over, or broke off. An unasked one is over at once.
    pub(super) fn response_ends(&mut self, taken: Taken) -> Option<Over> {
        let Taken { message, notes, charged } = taken;
        let (ended, last_ns) = (message.ended, message.last_ns);
        let answer = self.answering.take();
        if let (Some(Answer::To(_)), Some(slot)) = (answer, self.unanswered()) {
            slot.answered = true;
            slot.charged += charged;
            slot.exchange.response = Some(message);
            for note in notes {
                push(&mut slot.exchange.notes, note);
            }
            if let Trust::Until(left) = &mut self.trust {
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.become_unsure(None);
                }
            }
            self.response_ns = last_ns;
            if let Some(next) = self.unanswered().map(|slot| slot.first_ns) {
                self.order(next >= last_ns);
            }
            return None;
        }
        self.response_ns = last_ns;
        if self.trust == Trust::Unsure && ended {
            self.limbo = self.limbo.map(|limbo| limbo.saturating_sub(1));
            if !self.searching && (self.limbo == Some(0) || self.habit() || self.streak >= STREAK) {
                self.become_sure();
            }
        }
        let interim = std::mem::take(&mut self.stray);
        Some((Exchange { response: Some(message), notes, interim, ..Exchange::default() }, charged))
    }

    /// Bytes of the requests are missing, or were not understood. `initial`: before the first message of a
    /// connection that is older than the capture.
    pub(super) fn requests_lost(&mut self, initial: bool) {
        self.lost = true;
        self.searching = true;
        self.capped = false;
        match self.trust {
            _ if initial => self.become_unsure(self.limbo),
            Trust::Sure => match self.slots.iter().filter(|slot| !slot.answered && !slot.forsaken).count() {
                0 => self.become_unsure(None),
                left => self.trust = Trust::Until(left),
            },
            Trust::Until(_) => {}
            Trust::Unsure => {
                self.limbo = None;
                self.streak = 0;
            }
        }
    }

    /// Bytes of the responses are missing, or were not understood. What of a response was read is taken
    /// first, by [`Pairing::response_ends`]. `capped`: a cap of the kernel side is why.
    pub(super) fn responses_lost(&mut self, capped: bool) {
        self.capped = capped && (self.capped || self.trust == Trust::Sure);
        let limbo = if matches!(self.trust, Trust::Until(_)) { None } else { self.limbo };
        self.lost = true;
        self.become_unsure(limbo);
        self.answering = None;
        self.stray.clear();
        // Requests that came since the last byte of a capped response may be judged with what follows.
        let until = if self.capped { self.response_ns } else { u64::MAX };
        let before = |slot: &&mut Slot| !slot.answered && !slot.forsaken && slot.first_ns < until;
        let mut count = 0;
        for slot in self.slots.iter_mut().filter(before) {
            slot.forsaken = true;
            count += 1;
        }
        self.outstanding(count);
    }

    /// No response comes any more to the requests that are here.
    pub(super) fn forsake_all(&mut self) {
        let mut count = 0;
        for slot in self.slots.iter_mut().filter(|slot| !slot.answered && !slot.forsaken) {
            slot.forsaken = true;
            count += 1;
        }
        self.outstanding(count);
    }

    /// The oldest exchange, if it is over.
    pub(super) fn over(&mut self) -> Option<Over> {
        let slot = self.slots.front()?;
        if !(slot.requested && (slot.answered || slot.forsaken)) {
            return None;
        }
        self.slots.pop_front().map(|slot| (slot.exchange, slot.charged))
    }

    fn unanswered(&mut self) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| !slot.answered && !slot.forsaken)
    }

    fn forsake_before(&mut self, ns: u64) {
        let mut count = 0;
        let mut alone = false;
        for slot in self.slots.iter_mut().filter(|slot| !slot.answered && !slot.forsaken && slot.first_ns <= ns) {
            slot.forsaken = true;
            count += 1;
            let last_ns = slot.exchange.request.as_ref().map(|request: &Message| request.last_ns);
            alone = slot.first_ns >= self.response_ns && last_ns.is_some_and(|last| last <= ns);
        }
        if count > 1 && !self.lost {
            self.pipelines = true;
        }
        self.lost = false;
        self.streak = if count == 1 && alone && !self.pipelines { self.streak + 1 } else { 0 };
        self.outstanding(count);
        self.floor_ns = Some(self.floor_ns.unwrap_or(0).max(ns));
    }

    fn answers_the_only(&mut self, first_ns: u64) -> bool {
        if !self.capped || !self.habit() {
            return false;
        }
        let mut waiting = self.slots.iter().filter(|slot| !slot.answered && !slot.forsaken);
        let (only, none) = (waiting.next(), waiting.next());
        let last_ns = only.and_then(|slot| slot.exchange.request.as_ref()).map(|request| request.last_ns);
        none.is_none() && last_ns.is_some_and(|last| last <= first_ns)
    }

    fn become_sure(&mut self) {
        self.trust = Trust::Sure;
        self.limbo = Some(0);
        self.streak = 0;
        self.capped = false;
    }

    fn outstanding(&mut self, count: u32) {
        self.limbo = self.limbo.and_then(|limbo| limbo.checked_add(count));
    }

    fn become_unsure(&mut self, limbo: Option<u32>) {
        self.trust = Trust::Unsure;
        self.limbo = limbo;
        self.streak = 0;
    }

    fn habit(&self) -> bool {
        !self.pipelines && self.alternations >= HABIT
    }

    fn order(&mut self, one_after_the_other: bool) {
        if self.trust != Trust::Sure {
            return;
        }
        if one_after_the_other {
            self.alternations = self.alternations.saturating_add(1);
        } else {
            self.pipelines = true;
        }
    }
}

impl Asked {
    fn changes_protocol(self) -> bool {
        self.connect || self.upgrade
    }
}
