//! Which calls of a function hand on its own arguments, and a pointer to a variable of its own.
//!
//! In: the code of an exported function. Out: every direct call in it, with what is known of the argument registers
//! there. Called by `place` to find the internal function behind `SSL_read` and `SSL_read_ex`. A plain forward
//! data-flow analysis: values meet where ways join, and only the values below are told apart.

use std::collections::BTreeMap;

use iced_x86::{Code as Op, FlowControl, Instruction, OpKind, Register};

use super::decode::{self, ARGUMENTS, Code, RSP};

/// Instructions taken up, each as often as the values before it change.
const STEPS: usize = 20_000;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// The function's own argument of this index.
    Argument(u8),
    /// An address in the function's frame.
    Stack,
    /// Anything.
    Unknown,
}

type State = [Value; 16];

/// A direct call, or a jump out of the function.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site {
    /// Where it goes.
    pub(super) target: u64,
    /// What the argument registers hold.
    pub(super) arguments: [Value; 6],
}

/// All direct calls and jumps out of the function that can be reached from its beginning, by address.
pub(super) fn sites(code: &Code) -> BTreeMap<u64, Site> {
    let mut entry = [Value::Unknown; 16];
    for (n, register) in ARGUMENTS.iter().enumerate() {
        entry[*register] = Value::Argument(n as u8);
    }
    entry[RSP] = Value::Stack;
    let end = code.start + code.bytes.len() as u64;
    let mut before: BTreeMap<u64, State> = BTreeMap::from([(code.start, entry)]);
    let mut waiting = vec![code.start];
    let mut sites = BTreeMap::new();
    for _ in 0..STEPS {
        let Some(address) = waiting.pop() else { break };
        let (Some(i), Some(state)) = (code.at(address), before.get(&address).copied()) else { continue };
        let flow = i.flow_control();
        let direct = i.is_call_near() || decode::is_branch(&i);
        let target = if direct { i.near_branch_target() } else { 0 };
        let inside = (code.start..end).contains(&target);
        if direct && (i.is_call_near() || !inside) {
            sites.insert(address, Site { target, arguments: ARGUMENTS.map(|r| state[r]) });
        }
        let after = step(&i, state);
        let next = matches!(
            flow,
            FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::Call | FlowControl::IndirectCall
        );
        for to in [next.then(|| i.next_ip()), (direct && inside && !i.is_call_near()).then_some(target)] {
            let Some(to) = to else { continue };
            let known = before.get(&to).copied();
            let met = known.map_or(after, |known| meet(known, after));
            if known != Some(met) {
                before.insert(to, met);
                waiting.push(to);
            }
        }
    }
    // Values that were still changing are not to be trusted.
    if waiting.is_empty() { sites } else { BTreeMap::new() }
}

fn meet(a: State, b: State) -> State {
    std::array::from_fn(|n| if a[n] == b[n] { a[n] } else { Value::Unknown })
}

/// The values after an instruction.
fn step(i: &Instruction, before: State) -> State {
    let mut after = before;
    if matches!(i.flow_control(), FlowControl::Call | FlowControl::IndirectCall) {
        // rax, rcx, rdx, rsi, rdi, r8 to r11 belong to the callee (System V ABI for AMD64, figure 3.4).
        for register in [0, 1, 2, 6, 7, 8, 9, 10, 11] {
            after[register] = Value::Unknown;
        }
        return after;
    }
    let written = decode::written(i);
    for (n, value) in after.iter_mut().enumerate() {
        if written.has(n) && n != RSP {
            *value = Value::Unknown;
        }
    }
    let register = |n| if i.op_kind(n) == OpKind::Register { decode::number(i.op_register(n)) } else { None };
    match i.code() {
        Op::Mov_r64_rm64 | Op::Mov_rm64_r64 => {
            if let (Some(to), Some(from)) = (register(0), register(1)) {
                after[to] = before[from];
            }
        }
        // A C int that becomes a size_t is still the length.
        Op::Movsxd_r64_rm32 | Op::Mov_r32_rm32 | Op::Mov_rm32_r32 => {
            if let (Some(to), Some(from)) = (register(0), register(1))
                && before[from] == Value::Argument(2)
            {
                after[to] = before[from];
            }
        }
        Op::Lea_r64_m => {
            let based = decode::number(i.memory_base()).is_some_and(|base| before[base] == Value::Stack);
            if let (Some(to), true) = (register(0), based && i.memory_index() == Register::None) {
                after[to] = Value::Stack;
            }
        }
        _ => {}
    }
    after[RSP] = Value::Stack;
    after
}
