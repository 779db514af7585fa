//! Each rule of placement, on functions of a few instructions.

use agent::library::{Error, Options, Plan, Point, Program, plan_bytes};
use agent_ebpf::role::{COUNT, INT, OUT, READ, WRITE};

use super::build::{Function, Shape, at, call, file, jump};

const WITH: Options = Options { return_probes: true };
const WITHOUT: Options = Options { return_probes: false };

const ENDBR64: &[u8] = b"\xf3\x0f\x1e\xfa";
const PUSH_RBX: &[u8] = b"\x53";
const POP_RBX: &[u8] = b"\x5b";
const SUB_RSP: &[u8] = b"\x48\x83\xec\x18";
const ADD_RSP: &[u8] = b"\x48\x83\xc4\x18";
const RCX_IS_RSP: &[u8] = b"\x48\x89\xe1";
const R8_IS_RSP: &[u8] = b"\x49\x89\xe0";
const R8_IS_RCX: &[u8] = b"\x49\x89\xc8";
const ECX_IS_0: &[u8] = b"\x31\xc9";
const EAX_IS_0: &[u8] = b"\x31\xc0";
const EDI_IS_0: &[u8] = b"\x31\xff";
const INT_TO_SIZE: &[u8] = b"\x48\x63\xd2";
const TEST_EAX: &[u8] = b"\x85\xc0";
const TEST_EDX: &[u8] = b"\x85\xd2";
/// `jle` over the next three bytes, and they.
const JLE: &[u8] = b"\x7e\x03\x8b\x04\x24";
const CMOVG_RSP: &[u8] = b"\x0f\x4f\x04\x24";
const RET: &[u8] = b"\xc3";
/// `mov 8(%rsp),%rdx`, `sub %fs:0x28,%rdx`, `jne` to itself: 16 bytes, the jump at 14.
const STACK_CHECK: &[u8] = b"\x48\x8b\x54\x24\x08\x64\x48\x2b\x14\x25\x28\x00\x00\x00\x75\xfe";

/// Functions 0 to 3 are exported, 4 and 5 are the inner ones, 6 and on are others.
const INNER: [u64; 2] = [4, 5];

/// Code of function `n`: `before`, a call of `to`, `after`.
fn calling(n: u64, before: &[&[u8]], to: u64, after: &[&[u8]]) -> Vec<u8> {
    let mut code = before.concat();
    code.extend(call(at(n) + code.len() as u64, at(to)));
    code.extend(after.concat());
    code
}

fn inner() -> Vec<u8> {
    [PUSH_RBX, EAX_IS_0, POP_RBX, RET].concat()
}

/// A library with `read` as its `SSL_read`, `read_ex`, and `inner` behind them; the same for writing, as usual.
fn library(read: Vec<u8>, read_ex: Vec<u8>, inner_read: Vec<u8>) -> Vec<Function<'static>> {
    let write = calling(2, &[SUB_RSP, RCX_IS_RSP, INT_TO_SIZE], INNER[1], &[TEST_EAX, JLE, ADD_RSP, RET]);
    let write_ex = calling(3, &[SUB_RSP], INNER[1], &[TEST_EAX, JLE, ADD_RSP, RET]);
    vec![
        (Some("SSL_read"), read),
        (Some("SSL_read_ex"), read_ex),
        (Some("SSL_write"), write),
        (Some("SSL_write_ex"), write_ex),
        (None, inner_read),
        (None, inner()),
    ]
}

fn usual_read() -> Vec<u8> {
    calling(0, &[SUB_RSP, RCX_IS_RSP, INT_TO_SIZE], INNER[0], &[TEST_EAX, JLE, ADD_RSP, RET])
}

fn usual_read_ex() -> Vec<u8> {
    calling(1, &[SUB_RSP], INNER[0], &[TEST_EAX, JLE, ADD_RSP, RET])
}

fn planned(functions: &[Function<'_>], options: Options) -> Plan {
    plan_bytes(&file(&Shape::default(), functions), options).expect("can be read").expect("is a TLS library")
}

/// The points of a program for reading, as (offset, on return, cookie).
fn reading(plan: &Plan, program: Program) -> Vec<(u64, bool, u64)> {
    let of = |p: &&Point| p.program == program && p.cookie & READ != 0;
    plan.points.iter().filter(of).map(|p| (p.offset, p.on_return, p.cookie)).collect()
}

#[test]
fn inner_function_and_the_jump_after_the_call() {
    let plan = planned(&library(usual_read(), usual_read_ex(), inner()), WITHOUT);
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
    // 4 + 3 + 3 + 5 bytes, then test; 4 + 5, then test.
    assert_eq!(reading(&plan, Program::Result), [(at(0) + 17, false, READ), (at(1) + 11, false, READ)]);
    let why: Vec<_> = plan.points.iter().map(|p| p.why.as_str()).collect();
    assert_eq!(why[0], "after the call, +0x11 (conditional jump)");
    assert_eq!(why[4], "first instruction (push %rbx) of the function that SSL_read and SSL_read_ex call");
    let write = plan.points.iter().find(|p| p.program == Program::Call && p.symbol == "SSL_write");
    assert_eq!(write.map(|p| (p.offset, p.cookie)), Some((at(5), WRITE | 3 << OUT)));
}

#[test]
fn behind_endbr64() {
    let inner = [ENDBR64, PUSH_RBX, POP_RBX, RET].concat();
    let plan = planned(&library(usual_read(), usual_read_ex(), inner), WITHOUT);
    assert_eq!(reading(&plan, Program::Call), [(at(4) + 4, false, READ | 3 << OUT)]);
}

#[test]
fn count_behind_the_fifth_argument() {
    let read = calling(0, &[SUB_RSP, ECX_IS_0, INT_TO_SIZE, R8_IS_RSP], INNER[0], &[TEST_EAX, JLE, ADD_RSP, RET]);
    let read_ex = calling(1, &[SUB_RSP, R8_IS_RCX, ECX_IS_0], INNER[0], &[TEST_EAX, JLE, ADD_RSP, RET]);
    let plan = planned(&library(read, read_ex, inner()), WITHOUT);
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 4 << OUT)]);
}

#[test]
fn count_that_cannot_be_told_leaves_the_exported_functions() {
    let read = calling(0, &[SUB_RSP, RCX_IS_RSP, R8_IS_RSP], INNER[0], &[TEST_EAX, JLE, ADD_RSP, RET]);
    let read_ex = calling(1, &[SUB_RSP, R8_IS_RCX], INNER[0], &[TEST_EAX, JLE, ADD_RSP, RET]);
    let plan = planned(&library(read, read_ex, inner()), WITH);
    // The calls themselves are the first that is emulated; SSL_read_ex still has its pointer in rcx there.
    assert_eq!(reading(&plan, Program::Call), [(at(0) + 10, false, READ | INT), (at(1) + 7, false, READ | 3 << OUT)]);
    assert_eq!(reading(&plan, Program::Result), [(at(0), true, READ | COUNT), (at(1), true, READ)]);
}

#[test]
fn another_call_with_the_same_target_is_no_inner_function() {
    // A profiler's call at the beginning: all arguments are in place, but there is no variable for the count.
    let body: &[&[u8]] = &[PUSH_RBX, POP_RBX, RET];
    let plan = planned(&library(calling(0, &[], 4, body), calling(1, &[], 4, body), inner()), WITH);
    assert_eq!(reading(&plan, Program::Call), [(at(0), false, READ | INT), (at(1), false, READ | 3 << OUT)]);
}

#[test]
fn argument_lost_before_the_first_cheap_instruction() {
    let inner = [SUB_RSP, EDI_IS_0, PUSH_RBX, POP_RBX, ADD_RSP, RET].concat();
    let plan = planned(&library(usual_read(), usual_read_ex(), inner), WITHOUT);
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
    assert!(plan.points.iter().any(|p| p.why.contains("first instruction (sub, which the kernel has to step over)")));
}

#[test]
fn first_cheap_instruction_that_is_jumped_to() {
    // sub; push; test; jle back to the push.
    let inner = [SUB_RSP, PUSH_RBX, TEST_EAX, b"\x7e\xfb", POP_RBX, ADD_RSP, RET].concat();
    let plan = planned(&library(usual_read(), usual_read_ex(), inner), WITHOUT);
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
}

#[test]
fn nothing_emulated_anywhere() {
    let read = calling(0, &[SUB_RSP, RCX_IS_RSP], INNER[0], &[EAX_IS_0, ADD_RSP, RET]);
    let read_ex = calling(1, &[SUB_RSP], INNER[0], &[EAX_IS_0, ADD_RSP, RET]);
    let inner = [SUB_RSP, EAX_IS_0, ADD_RSP, RET].concat();
    for options in [WITH, WITHOUT] {
        let plan = planned(&library(read.clone(), read_ex.clone(), inner.clone()), options);
        assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
        // Right after the calls: a return probe's own place would be as dear.
        assert_eq!(reading(&plan, Program::Result), [(at(0) + 12, false, READ), (at(1) + 9, false, READ)]);
    }
}

#[test]
fn return_probe_where_that_is_cheap() {
    let read_ex = calling(1, &[ENDBR64, PUSH_RBX], INNER[0], &[EAX_IS_0, POP_RBX, RET]);
    let functions = library(usual_read(), read_ex, inner());
    // Behind endbr64, where the stack pointer still points to the return address.
    assert_eq!(reading(&planned(&functions, WITH), Program::Result)[1], (at(1) + 4, true, READ));
    assert_eq!(reading(&planned(&functions, WITHOUT), Program::Result)[1], (at(1) + 10, false, READ));
}

#[test]
fn return_probe_at_the_inner_function_where_its_callers_have_no_cheap_place() {
    // Built without the stack protector: nothing but test, cmovg and ret behind the call.
    let read = calling(0, &[SUB_RSP, RCX_IS_RSP], INNER[0], &[TEST_EAX, CMOVG_RSP, ADD_RSP, RET]);
    let functions = library(read, usual_read_ex(), inner());
    let plan = planned(&functions, WITH);
    assert_eq!(reading(&plan, Program::Result), [(at(4), true, READ)]);
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
    let plan = planned(&functions, WITHOUT);
    assert_eq!(reading(&plan, Program::Result), [(at(0) + 12, false, READ), (at(1) + 11, false, READ)]);
}

#[test]
fn check_of_the_stack_carries_the_result() {
    let read = calling(0, &[SUB_RSP, RCX_IS_RSP], INNER[0], &[TEST_EAX, CMOVG_RSP, STACK_CHECK, ADD_RSP, RET]);
    let plan = planned(&library(read, usual_read_ex(), inner()), WITHOUT);
    // 12 bytes to the call's end, test, cmovg, 14 bytes of the check.
    assert_eq!(reading(&plan, Program::Result)[0], (at(0) + 32, false, READ | COUNT));
    // The result is made behind the check: not there.
    let read =
        calling(0, &[SUB_RSP, RCX_IS_RSP], INNER[0], &[TEST_EAX, CMOVG_RSP, STACK_CHECK, EAX_IS_0, ADD_RSP, RET]);
    let plan = planned(&library(read, usual_read_ex(), inner()), WITHOUT);
    assert_eq!(reading(&plan, Program::Result)[0], (at(0) + 14 - 2, false, READ));
}

#[test]
fn way_round_an_error_that_comes_first() {
    // test; jns over a call of the error function, which has all arguments in place too.
    let mut read = [SUB_RSP, TEST_EDX, b"\x79\x05"].concat();
    read.extend(call(at(0) + 8, at(6)));
    read.extend([RCX_IS_RSP, INT_TO_SIZE].concat());
    read.extend(call(at(0) + read.len() as u64, at(4)));
    read.extend([TEST_EAX, JLE, ADD_RSP, RET].concat());
    let mut functions = library(read, usual_read_ex(), inner());
    functions.push((None, inner()));
    // The error function returns, as far as the bytes tell: its ways meet, and the arguments are not known any more.
    let plan = planned(&functions, WITH);
    assert_eq!(reading(&plan, Program::Call)[0], (at(0) + 6, false, READ | INT));
    // With the error's way ending in a return, they are.
    let mut read = [SUB_RSP, TEST_EDX, b"\x79\x06"].concat();
    read.extend(call(at(0) + 8, at(6)));
    read.extend([RET, RCX_IS_RSP, INT_TO_SIZE].concat());
    read.extend(call(at(0) + read.len() as u64, at(4)));
    read.extend([TEST_EAX, JLE, ADD_RSP, RET].concat());
    functions[0].1 = read;
    let plan = planned(&functions, WITH);
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
}

#[test]
fn other_callers_have_their_results_read() {
    let mut functions = library(usual_read(), usual_read_ex(), inner());
    functions.push((None, calling(6, &[PUSH_RBX], INNER[0], &[TEST_EAX, JLE, POP_RBX, RET])));
    // A call inside another instruction (mov $…, %r10) is none.
    let hidden = call(at(7) + 5, at(4));
    functions.push((None, [b"\x49\xba\x00\x00\x00", &hidden[..], b"\xc3"].concat()));
    let plan = planned(&functions, WITHOUT);
    assert_eq!(reading(&plan, Program::Result)[2..], [(at(6) + 8, false, READ)]);
    // Without the table of functions there is no beginning to decode from.
    let shape = Shape { unwind: false, ..Shape::default() };
    let plan = plan_bytes(&file(&shape, &functions), WITHOUT).expect("can be read").expect("is a TLS library");
    assert_eq!(reading(&plan, Program::Result).len(), 2);
}

#[test]
fn jump_to_the_inner_function() {
    let functions = library(usual_read(), [jump(at(1), at(4)), RET.to_vec()].concat(), inner());
    let plan = planned(&functions, WITH);
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
    assert_eq!(reading(&plan, Program::Result), [(at(4), true, READ)], "the caller of SSL_read_ex gets the result");
    // Without return probes SSL_read_ex is not probed at all, and SSL_read by itself.
    let plan = planned(&functions, WITHOUT);
    assert_eq!(reading(&plan, Program::Call), [(at(0), false, READ | INT)]);
    let end = usual_read().len() as u64;
    assert_eq!(reading(&plan, Program::Result), [(at(0) + end - 1, false, READ | COUNT)]);
}

#[test]
fn form_that_only_hands_on_is_not_probed() {
    // SSL_read_ex goes on to something else, as OpenSSL's SSL_write_ex does from 3.3 on, and a third form calls.
    let write_ex = [R8_IS_RCX, ECX_IS_0, &jump(at(3) + 5, at(6))[..]].concat();
    let write_ex2 = calling(7, &[SUB_RSP], INNER[1], &[TEST_EAX, JLE, ADD_RSP, RET]);
    let write = calling(2, &[SUB_RSP, ECX_IS_0, INT_TO_SIZE, R8_IS_RSP], INNER[1], &[TEST_EAX, JLE, ADD_RSP, RET]);
    let mut functions = library(usual_read(), usual_read_ex(), inner());
    functions[2].1 = write;
    functions[3].1 = write_ex;
    functions.push((None, [b"\xff\x25\x00\x00\x00\x00".as_slice(), RET].concat()));
    functions.push((Some("SSL_write_ex2"), write_ex2));
    let plan = planned(&functions, WITHOUT);
    let writing: Vec<_> =
        plan.points.iter().filter(|p| p.cookie & WRITE != 0).map(|p| (p.program, p.offset, p.symbol)).collect();
    assert_eq!(
        writing,
        [
            (Program::Result, at(2) + 19, "SSL_write"),
            (Program::Result, at(7) + 11, "SSL_write_ex2"),
            (Program::Call, at(5), "SSL_write")
        ]
    );
}

#[test]
fn exported_functions_alone() {
    let body = [PUSH_RBX, TEST_EAX, b"\x7e\x02", POP_RBX, RET, EAX_IS_0, POP_RBX, RET].concat();
    let functions = [(Some("SSL_read"), body.clone()), (Some("SSL_write"), body)];
    let plan = planned(&functions, WITH);
    assert_eq!(reading(&plan, Program::Call), [(at(0), false, READ | INT)]);
    assert_eq!(reading(&plan, Program::Result), [(at(0), true, READ | COUNT)]);
    // Both ways out.
    let plan = planned(&functions, WITHOUT);
    let ways = [(at(0) + 6, false, READ | COUNT), (at(0) + 10, false, READ | COUNT)];
    assert_eq!(reading(&plan, Program::Result), ways);
}

#[test]
fn way_out_that_is_a_jump_needs_return_probes() {
    let body = [PUSH_RBX, POP_RBX, b"\xff\xe0"].concat();
    let functions = [(Some("SSL_read"), body.clone()), (Some("SSL_write"), body)];
    assert_eq!(planned(&functions, WITH).points.len(), 4);
    let refused = plan_bytes(&file(&Shape::default(), &functions), WITHOUT);
    assert!(matches!(refused, Err(Error::NoPlace)), "{refused:?}");
}

#[test]
fn other_functions_and_their_order() {
    let mut functions = library(usual_read(), usual_read_ex(), inner());
    for name in ["SSL_set_fd", "SSL_connect", "SSL_free", "SSL_accept"] {
        functions.push((Some(name), inner()));
    }
    // rsi is the descriptor: lost before the push.
    functions.push((Some("SSL_set_wfd"), [b"\x31\xf6", PUSH_RBX, POP_RBX, RET].concat()));
    let of = |plan: Plan| -> Vec<_> {
        let others = plan.points.into_iter().take_while(|p| p.program < Program::Call || p.program > Program::Result);
        others.map(|p| (p.program, p.offset, p.symbol)).collect()
    };
    let plan = planned(&functions, WITHOUT);
    let order: Vec<_> = plan.points.iter().map(|p| p.program).collect();
    assert_eq!(order[order.len() - 6..order.len() - 2], [Program::Result; 4]);
    assert_eq!(order[order.len() - 2..], [Program::Call; 2]);
    let expected = [
        (Program::Free, at(8), "SSL_free"),
        (Program::Mark, at(7), "SSL_connect"),
        (Program::Mark, at(9), "SSL_accept"),
        (Program::Descriptor, at(6), "SSL_set_fd"),
        (Program::Descriptor, at(10), "SSL_set_wfd"),
    ];
    assert_eq!(of(plan), expected);
    functions.push((Some("SSL_do_handshake"), inner()));
    let marks: Vec<_> = of(planned(&functions, WITHOUT)).into_iter().filter(|p| p.0 == Program::Mark).collect();
    assert_eq!(marks, [(Program::Mark, at(11), "SSL_do_handshake")]);
}

#[test]
fn symbols_of_the_full_table() {
    let functions = library(usual_read(), usual_read_ex(), inner());
    let shape = Shape { full_table: true, ..Shape::default() };
    let plan = plan_bytes(&file(&shape, &functions), WITHOUT).expect("can be read").expect("is a TLS library");
    assert_eq!(reading(&plan, Program::Call), [(at(4), false, READ | 3 << OUT)]);
}

#[test]
fn no_library() {
    let none =
        |shape: &Shape, functions: &[Function<'_>]| matches!(plan_bytes(&file(shape, functions), WITH), Ok(None));
    let all = library(usual_read(), usual_read_ex(), inner());
    assert!(!none(&Shape::default(), &all));
    assert!(none(&Shape { class: 1, ..Shape::default() }, &all), "32 bits");
    assert!(none(&Shape { machine: 243, ..Shape::default() }, &all), "another machine");
    let other = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    assert!(none(&Shape { machine: other, ..Shape::default() }, &all), "a machine that is known, but not this one");
    let imported: Vec<_> = all.iter().map(|(name, _)| (*name, Vec::new())).collect();
    assert!(none(&Shape::default(), &imported), "imported only");
    assert!(none(&Shape::default(), &all[2..]), "writing only");
    let longer = [(Some("SSL_readable"), inner()), (Some("SSL_writes"), inner())];
    assert!(none(&Shape::default(), &longer), "longer names");
    assert!(matches!(plan_bytes(b"#!/bin/sh\n", WITH), Ok(None)));
    assert!(matches!(plan_bytes(b"", WITH), Ok(None)));
}
