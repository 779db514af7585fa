//! Where in x86-64 code the probes go.
//!
//! In: the code of the exported functions. Out: the cheapest places at which their arguments and results can be
//! read, each at the beginning of an instruction that was reached by decoding from the function's beginning. Called
//! by `openssl`.
//!
//! Cheap is an instruction that the kernel emulates (0.7 µs); over any other it single-steps (9 µs on a virtual
//! machine). A return probe costs little more than the first, but replaces the return address, which some
//! seccomp filters on some kernels answer with a signal, and programs that switch stacks inside a call may not
//! survive: used only where it is allowed and `SSL_read` itself has nothing else as cheap.

use agent_ebpf::role;
use iced_x86::{FlowControl, Instruction, Mnemonic};

use super::arguments::{self, Site, Value};
use super::decode::{self, Code, Registers};
use super::elf::{self, Bytes, CODE, Elf, Symbol};
use super::{Options, Program};

/// Places in one function with a `ret`, or a call of the inner function: more is not a function that was understood.
const RETURNS: usize = 32;

/// An exported function.
pub(super) struct Function {
    pub(super) name: &'static str,
    pub(super) code: Code,
    /// The file says where it ends.
    pub(super) whole: bool,
    /// Index of the argument that says where the count is stored; 0: the result is the count.
    pub(super) out: u8,
}

/// A probe by its virtual address.
pub(super) struct Spot {
    pub(super) program: Program,
    pub(super) address: u64,
    pub(super) on_return: bool,
    pub(super) cookie: u64,
    pub(super) symbol: &'static str,
    pub(super) why: String,
}

/// Beginnings of functions, to know where one ends of which the file has no symbol.
pub(super) struct Map(pub(super) Vec<u64>);

impl Map {
    /// The code of the function that begins at `start`.
    pub(super) fn code<B: Bytes + ?Sized>(&self, elf: &Elf<B>, start: u64, size: u64) -> Result<Code, elf::Error> {
        let next = self.0.get(self.0.partition_point(|f| *f <= start));
        let length = if size > 0 { size } else { next.map_or(CODE / 16, |next| next - start) };
        Ok(Code { start, bytes: elf.code(start, length)? })
    }

    /// The beginning of the function around `address`.
    fn around(&self, address: u64) -> Option<u64> {
        self.0[..self.0.partition_point(|f| *f <= address)].last().copied()
    }
}

impl Function {
    pub(super) fn read<B: Bytes + ?Sized>(
        elf: &Elf<B>,
        map: &Map,
        name: &'static str,
        symbol: Symbol,
        out: u8,
    ) -> Result<Function, elf::Error> {
        let code = map.code(elf, symbol.address, symbol.size)?;
        Ok(Function { name, whole: symbol.size > 0 && code.bytes.len() as u64 == symbol.size, code, out })
    }

    /// Whether an address is in its code.
    fn holds(&self, address: u64) -> bool {
        (self.code.start..self.code.start + self.code.bytes.len() as u64).contains(&address)
    }
}

/// Says where an instruction of a function is and what it is.
fn describe(code: &Code, instruction: &Instruction) -> String {
    let what = code
        .emulated(instruction)
        .unwrap_or_else(|| format!("{}, which the kernel has to step over", decode::name(instruction)));
    match instruction.ip() - code.start {
        0 => format!("first instruction ({what})"),
        at => format!("+{at:#x} ({what})"),
    }
}

/// Where the arguments in `keep` can be read once a call: the first emulated instruction if they reach it, else the
/// first instruction. `None`: no probe can be there.
fn entry(code: &Code, keep: Registers) -> Option<Instruction> {
    code.first_emulated(code.start, keep)
        // More often than once a call, if the function jumps there.
        .filter(|i| i.ip() == code.start || !code.is_target(i.ip()))
        .or_else(|| code.at(code.start).filter(|i| decode::can_be_probed(code.bytes(i))))
}

/// A probe at the beginning of an exported function with its first `arguments` arguments.
pub(super) fn at_entry(program: Program, function: &Function, arguments: usize) -> Option<Spot> {
    let i = entry(&function.code, Registers::arguments(arguments))?;
    let why = format!("{} of the function", describe(&function.code, &i));
    Some(Spot { program, address: i.ip(), on_return: false, cookie: 0, symbol: function.name, why })
}

/// A return probe. It may be anywhere before the stack pointer moves, so where the first emulated instruction is;
/// else at the first instruction.
fn at_return(function: &Function, cookie: u64) -> Option<Spot> {
    let i = entry(&function.code, Registers::RSP)?;
    let why = format!("return probe, set up at the {}", describe(&function.code, &i));
    Some(Spot { program: Program::Result, address: i.ip(), on_return: true, cookie, symbol: function.name, why })
}

/// The probes for reading (`role::READ`) or writing: `functions` are the exported ones, the plain form first.
pub(super) fn operation<B: Bytes + ?Sized>(
    elf: &Elf<B>,
    map: &Map,
    operation: u64,
    functions: &[Function],
    options: Options,
) -> Result<Vec<Spot>, elf::Error> {
    if let Some(spots) = through_callee(elf, map, operation, functions, options)? {
        return Ok(spots);
    }
    let mut spots = Vec::new();
    for function in functions {
        let others = functions.iter().map(|f| f.code.start).filter(|start| *start != function.code.start);
        let sites = arguments::sites(&function.code);
        if function.out > 0 && others.clone().any(|other| sites.values().any(|s| s.target == other && hands_on(s))) {
            tracing::debug!(function = function.name, "Only calls another probed function.");
            continue;
        }
        spots.extend(exported(operation, function, options));
    }
    Ok(spots)
}

fn hands_on(site: &Site) -> bool {
    site.arguments[..2] == [Value::Argument(0), Value::Argument(1)]
}

/// Both probes at the exported function itself; none when the result cannot be read.
fn exported(operation: u64, function: &Function, options: Options) -> Vec<Spot> {
    let kind = if function.out == 0 { role::INT } else { u64::from(function.out) << role::OUT };
    let count = if function.out == 0 { role::COUNT } else { 0 };
    let keep = Registers::arguments(3.max(usize::from(function.out) + 1));
    let Some(i) = entry(&function.code, keep) else { return Vec::new() };
    let mut spots = if options.return_probes {
        at_return(function, operation | count).into_iter().collect()
    } else {
        returns(function, operation | count).unwrap_or_else(|why| {
            tracing::debug!(function = function.name, why, "Not probed: its result cannot be read.");
            Vec::new()
        })
    };
    if !spots.is_empty() {
        let why = format!("{} of the function", describe(&function.code, &i));
        let cookie = operation | kind;
        spots.push(Spot {
            program: Program::Call,
            address: i.ip(),
            on_return: false,
            cookie,
            symbol: function.name,
            why,
        });
    }
    spots
}

/// A probe at every `ret`; sound only if that is the one way out.
fn returns(function: &Function, cookie: u64) -> Result<Vec<Spot>, &'static str> {
    let code = &function.code;
    if !function.whole {
        return Err("return probes are not allowed, and the file does not say where the function ends");
    }
    let end = code.start + code.bytes.len() as u64;
    let mut spots = Vec::new();
    let mut next = code.start;
    for i in code.instructions() {
        next = i.next_ip();
        let inside = (code.start..end).contains(&i.near_branch_target());
        if i.flow_control() == FlowControl::IndirectBranch || decode::is_branch(&i) && !inside {
            return Err("return probes are not allowed, and the function leaves by a jump");
        }
        if i.flow_control() == FlowControl::Return {
            let why = format!("{} of the function, return probes are not allowed", describe(code, &i));
            let address = i.ip();
            let program = Program::Result;
            spots.push(Spot { program, address, on_return: false, cookie, symbol: function.name, why });
        }
    }
    if next != end || spots.is_empty() || spots.len() > RETURNS {
        return Err("return probes are not allowed, and the function could not be decoded");
    }
    Ok(spots)
}

/// The probes at the function inside the library that all exported forms call; `None` when there is none or one of
/// them would be missed.
fn through_callee<B: Bytes + ?Sized>(
    elf: &Elf<B>,
    map: &Map,
    operation: u64,
    functions: &[Function],
    options: Options,
) -> Result<Option<Vec<Spot>>, elf::Error> {
    let Some((plain, extended)) = functions.split_first() else { return Ok(None) };
    let Some((target, out, partner)) = callee(plain, extended) else { return Ok(None) };
    let code = map.code(elf, target, 0)?;
    // An entry of the procedure linkage table is no function.
    let first = code.line(target).find(|i| i.mnemonic() != Mnemonic::Endbr64);
    if first.is_none_or(|i| i.flow_control() == FlowControl::IndirectBranch) {
        return Ok(None);
    }
    let Some(i) = entry(&code, Registers::arguments(usize::from(out) + 1)) else { return Ok(None) };
    let function = format!("the function that {} and {partner} call", plain.name);
    let call = Spot {
        program: Program::Call,
        address: i.ip(),
        on_return: false,
        cookie: operation | u64::from(out) << role::OUT,
        symbol: plain.name,
        why: format!("{} of {function}", describe(&code, &i)),
    };
    let inner = Function { name: plain.name, code, whole: false, out };
    let returning = at_return(&inner, operation).filter(|_| options.return_probes).map(|mut spot| {
        spot.why = format!("{} of {function}, whose callers have no cheap place", spot.why);
        spot
    });
    let mut spots = match (results(elf, map, operation, functions, target, options)?, returning) {
        (Some(results), Some(returning)) => {
            let cheap =
                |s: &Spot| !s.on_return && plain.code.at(s.address).is_some_and(|i| plain.code.emulated(&i).is_some());
            let cheaper = inner.code.at(returning.address).is_some_and(|i| inner.code.emulated(&i).is_some());
            if cheaper && !results.iter().filter(|s| plain.holds(s.address)).all(cheap) {
                vec![returning]
            } else {
                results
            }
        }
        (Some(results), None) => results,
        (None, Some(returning)) => vec![returning],
        (None, None) => return Ok(None),
    };
    // A form that neither calls the inner function nor hands on to one that does works by itself.
    for function in functions {
        let apart = !function.code.instructions().any(|i| direct(&i) && i.near_branch_target() == target);
        if apart && !arguments::sites(&function.code).values().any(hands_on) {
            spots.extend(exported(operation, function, options));
        }
    }
    spots.push(call);
    Ok(Some(spots))
}

/// Where the results of all calls of the inner function at `target` are read behind the calls; `None` when an
/// exported function leaves them to its own caller.
fn results<B: Bytes + ?Sized>(
    elf: &Elf<B>,
    map: &Map,
    operation: u64,
    functions: &[Function],
    target: u64,
    options: Options,
) -> Result<Option<Vec<Spot>>, elf::Error> {
    let mut spots = Vec::new();
    for function in functions {
        let to_inner = |i: &Instruction| direct(i) && i.near_branch_target() == target;
        for call in function.code.instructions().filter(to_inner) {
            let Some(spot) = result(operation, function, &call, options).filter(|_| call.is_call_near()) else {
                return Ok(None);
            };
            spots.push(spot);
            if spots.len() > RETURNS {
                return Ok(None);
            }
        }
    }
    for (caller, jump) in elf.callers(target)? {
        if !functions.iter().any(|f| f.holds(caller)) {
            spots.extend(other_caller(elf, map, operation, &functions[0], caller, jump, options)?);
        }
    }
    Ok(Some(spots))
}

fn direct(i: &Instruction) -> bool {
    i.is_call_near() || decode::is_branch(i)
}

/// The function that the plain form calls with its object, buffer and length and a variable of its own for the
/// count, and an extended form with the pointer that it was given for it: its address, the index of the argument
/// with that pointer, and the extended form.
fn callee(plain: &Function, extended: &[Function]) -> Option<(u64, u8, &'static str)> {
    let own = |s: &Site| s.arguments[..3] == [Value::Argument(0), Value::Argument(1), Value::Argument(2)];
    let sites = |f: &Function| arguments::sites(&f.code).into_values().filter(own).collect::<Vec<_>>();
    let ours = sites(plain);
    for function in extended {
        for other in sites(function) {
            for site in ours.iter().filter(|site| site.target == other.target) {
                let passes = |n: &u8| {
                    let n = usize::from(*n);
                    site.arguments[n] == Value::Stack && other.arguments[n] == Value::Argument(function.out)
                };
                let mut places = [3, 4].into_iter().filter(passes);
                if let (Some(out), None) = (places.next(), places.next()) {
                    return Some((site.target, out, function.name));
                }
            }
        }
    }
    None
}

/// Where the result of a call of the inner function is read in an exported one: the first emulated instruction
/// behind the call that it reaches, or the stack protector's check at the end when the exported function's own
/// result reaches that; else by a return probe at the exported function, where that is cheap (with a first
/// instruction that is stepped over it would be dearer than what follows); else right behind the call.
fn result(operation: u64, function: &Function, call: &Instruction, options: Options) -> Option<Spot> {
    let code = &function.code;
    let spot = |address: u64, cookie: u64, why: String| {
        Some(Spot { program: Program::Result, address, on_return: false, cookie, symbol: function.name, why })
    };
    let after = call.next_ip();
    if let Some(i) = code.first_emulated(after, Registers::RAX) {
        let why = format!("after the call, {}", describe(code, &i));
        return spot(i.ip(), operation, why);
    }
    let count = if function.out == 0 { role::COUNT } else { 0 };
    if let Some(i) = last_check(code, after) {
        let why = format!("check of the stack at the end, which has the function's result, {}", describe(code, &i));
        return spot(i.ip(), operation | count, why);
    }
    let returning = at_return(function, operation | count)
        .filter(|s| options.return_probes && code.at(s.address).is_some_and(|i| code.emulated(&i).is_some()));
    if returning.is_some() {
        return returning;
    }
    let i = code.at(after).filter(|i| decode::can_be_probed(code.bytes(i)))?;
    let why = format!("right after the call, {}", describe(code, &i));
    spot(i.ip(), operation, why)
}

/// The stack protector's check on the straight line from `from`, if nothing but the way to `ret` comes behind it and
/// leaves the result alone.
fn last_check(code: &Code, from: u64) -> Option<Instruction> {
    let line: Vec<_> = code.line(from).collect();
    let (check, before) = line.split_last()?;
    if !decode::is_stack_check(before.last(), check) {
        return None;
    }
    for i in code.line(check.next_ip()) {
        if i.flow_control() == FlowControl::Return {
            return Some(*check);
        }
        if i.flow_control() != FlowControl::Next || decode::written(&i).meets(Registers::RAX) {
            break;
        }
    }
    None
}

/// The result of a call of the inner function by another function of the library.
fn other_caller<B: Bytes + ?Sized>(
    elf: &Elf<B>,
    map: &Map,
    operation: u64,
    plain: &Function,
    caller: u64,
    jump: bool,
    options: Options,
) -> Result<Option<Spot>, elf::Error> {
    // Five bytes that look like the call are one only where decoding arrives at them.
    let Some(start) = map.around(caller) else { return Ok(None) };
    let code = map.code(elf, start, 0)?;
    let Some(call) = code.instructions().find(|i| i.ip() == caller && direct(i)) else { return Ok(None) };
    // The extended forms' result: it says whether there are bytes, not how many.
    let function = Function { name: plain.name, code, whole: false, out: 3 };
    let spot = if jump {
        at_return(&function, operation).filter(|_| options.return_probes)
    } else {
        let inside = Options { return_probes: false };
        result(operation, &function, &call, inside)
    };
    Ok(spot.map(|mut spot| {
        spot.why = format!("{}, in the function at {start:#x}, which calls the same", spot.why);
        spot
    }))
}
