//! Body of the fuzz target `http1`, also run by the property tests: any operations on a [`Connection`] from
//! bytes, with the promises that hold for all of them.

use std::sync::Arc;

use super::{Connection, GapCause, Limits, Note, Output, Side};
use crate::flow::Budget;

const BUDGET: usize = 256 << 10;
const LIMITS: Limits = Limits { head: 2048, fields: 16, body: 4096, pending: 8 };

/// Reads operations from `input`: a byte that says which, one that says how long, then the bytes.
///
/// # Panics
/// When a promise is broken: memory beyond the limits, a count that contradicts another, memory not given back.
pub fn http1(input: &[u8]) {
    let budget = Budget::new(BUDGET);
    let fresh = input.first().is_none_or(|byte| byte & 0x80 == 0);
    let mut connection = if fresh {
        Connection::new(LIMITS, Arc::clone(&budget))
    } else {
        Connection::midway(LIMITS, Arc::clone(&budget))
    };
    let mut out = Vec::new();
    let mut at = [0u64; 2];
    let mut ns = 0;
    let mut input = input;
    while let [op, len, rest @ ..] = input {
        let (side, place) = if op & 1 == 0 { (Side::A, 0) } else { (Side::B, 1) };
        let len = usize::from(*len).min(rest.len());
        // Time does not always go forward between the two directions.
        ns += u64::from(op >> 5);
        match (op >> 1) & 15 {
            0 => {
                connection.gap(side, at[place], len as u64, GapCause::Ring, &mut out);
                at[place] += len as u64;
                input = rest;
            }
            1 => {
                connection.end(side, ns, &mut out);
                input = rest;
            }
            2 => {
                connection.note(side, Note::RetransmissionDiffers);
                input = rest;
            }
            3 => {
                // Far ahead: the skipped bytes are a gap.
                at[place] += (len as u64) << 20;
                input = rest;
            }
            shift => {
                let times = if shift == 15 { 64 } else { 1 };
                for _ in 0..times {
                    connection.data(side, at[place], &rest[..len], ns.saturating_sub(u64::from(shift)), &mut out);
                    at[place] += len as u64;
                }
                input = &rest[len..];
            }
        }
        assert!(budget.used() <= BUDGET);
    }
    connection.close(ns, &mut out);
    assert!(connection.over());
    let mut number = 0;
    for output in &out {
        if let Output::Exchange(exchange) = output {
            assert_eq!(exchange.number, number);
            number += 1;
            assert!(exchange.request.is_some() || exchange.response.is_some());
            assert!(exchange.notes.is_sorted());
            for message in exchange.request.iter().chain(&exchange.response) {
                assert!(message.body.len() <= LIMITS.body && message.head.fields.len() <= LIMITS.fields);
                assert!(message.body.len() as u64 <= message.body_bytes);
                assert!(message.head_bytes + message.body.len() as u64 <= message.wire_bytes);
                assert!(message.gaps.len() <= 256);
                let missing: u64 = message.gaps.iter().map(|gap| gap.1).sum();
                if message.ended && !message.cut && !message.starved {
                    assert_eq!(message.body.len() as u64 + missing, message.body_bytes);
                }
            }
            if let (Some(request), Some(response)) = (&exchange.request, &exchange.response) {
                assert!(request.first_ns <= response.first_ns);
            }
        }
    }
    assert_eq!(budget.used(), 0, "memory not given back");
}
