//! What x86-64 instructions do, as far as probes are concerned.
//!
//! In: the bytes of a function. Out: its instructions with what the kernel makes of a probe there and which
//! registers they write. Called by `arguments` and `place`.

use iced_x86::{
    Code as Op, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register,
};

/// Longest straight line that is followed, in instructions.
const LINE: usize = 24;

/// Set of the sixteen general registers, by the full register's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Registers(u16);

impl Registers {
    pub(super) const NONE: Registers = Registers(0);
    pub(super) const RAX: Registers = Registers(1);
    pub(super) const RSP: Registers = Registers(1 << 4);

    /// The first `n` integer arguments (System V ABI for AMD64, section 3.2.3).
    pub(super) fn arguments(n: usize) -> Registers {
        ARGUMENTS.iter().take(n).fold(Registers::NONE, |set, r| set.with(*r))
    }

    /// With the register `r` too.
    pub(super) fn with(self, r: usize) -> Registers {
        Registers(self.0 | 1 << r)
    }

    pub(super) fn has(self, r: usize) -> bool {
        self.0 & 1 << r != 0
    }

    pub(super) fn meets(self, other: Registers) -> bool {
        self.0 & other.0 != 0
    }
}

/// Numbers of rdi, rsi, rdx, rcx, r8 and r9.
pub(super) const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];
/// Number of rsp.
pub(super) const RSP: usize = 4;

/// Number of the general register that `register` is a part of.
pub(super) fn number(register: Register) -> Option<usize> {
    let full = register.full_register() as usize;
    full.checked_sub(Register::RAX as usize).filter(|n| *n < 16)
}

/// Bytes of code at a virtual address, from the beginning of a function.
pub(super) struct Code {
    pub(super) start: u64,
    pub(super) bytes: Vec<u8>,
}

impl Code {
    /// The instruction at an address; `None` when it is none or not all there.
    pub(super) fn at(&self, address: u64) -> Option<Instruction> {
        let at = usize::try_from(address.checked_sub(self.start)?).ok()?;
        let bytes = self.bytes.get(at..)?;
        let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
        if !decoder.can_decode() {
            return None;
        }
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }

    /// Its bytes.
    pub(super) fn bytes(&self, instruction: &Instruction) -> &[u8] {
        let at = (instruction.ip() - self.start) as usize;
        self.bytes.get(at..at + instruction.len()).unwrap_or(&[])
    }

    /// All instructions one after another from the beginning, to the first that is none.
    pub(super) fn instructions(&self) -> impl Iterator<Item = Instruction> + '_ {
        let mut next = self.start;
        std::iter::from_fn(move || {
            let instruction = self.at(next)?;
            next = instruction.next_ip();
            Some(instruction)
        })
    }

    /// What the kernel emulates at this instruction instead of stepping over it, in words; `None` when it steps.
    pub(super) fn emulated(&self, instruction: &Instruction) -> Option<String> {
        emulated(self.bytes(instruction))
    }

    /// The instructions on the straight line from `from`: up to and with the first that may go elsewhere.
    pub(super) fn line(&self, from: u64) -> impl Iterator<Item = Instruction> + '_ {
        let mut next = Some(from);
        std::iter::from_fn(move || {
            let instruction = self.at(next?)?;
            next = (instruction.flow_control() == FlowControl::Next).then(|| instruction.next_ip());
            Some(instruction)
        })
        .take(LINE)
    }

    /// The first emulated instruction on the straight line from `from` at which none of `keep` has been written.
    pub(super) fn first_emulated(&self, from: u64, keep: Registers) -> Option<Instruction> {
        for instruction in self.line(from) {
            if self.emulated(&instruction).is_some() {
                return Some(instruction);
            }
            if written(&instruction).meets(keep) {
                break;
            }
        }
        None
    }

    /// Whether a branch of this function goes to `address`.
    pub(super) fn is_target(&self, address: u64) -> bool {
        self.instructions().any(|i| is_branch(&i) && i.near_branch_target() == address)
    }
}

/// A direct jump, conditional or not.
pub(super) fn is_branch(i: &Instruction) -> bool {
    i.is_jcc_short_or_near() || i.is_jmp_short_or_near() || i.is_jcx_short() || i.is_loop() || i.is_loopcc()
}

/// General registers that the instruction writes, or may.
pub(super) fn written(instruction: &Instruction) -> Registers {
    let mut factory = InstructionInfoFactory::new();
    let mut set = Registers::NONE;
    for used in factory.info(instruction).used_registers() {
        let writes =
            !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::None | OpAccess::NoMemAccess);
        if let (true, Some(n)) = (writes, number(used.register())) {
            set = set.with(n);
        }
    }
    set
}

/// The check of the stack protector: `jne` right behind a comparison of the stack with `%fs:0x28`.
pub(super) fn is_stack_check(before: Option<&Instruction>, instruction: &Instruction) -> bool {
    let compares = before.is_some_and(|i| {
        let operation = matches!(i.code(), Op::Sub_r64_rm64 | Op::Cmp_r64_rm64 | Op::Xor_r64_rm64 | Op::Cmp_rm64_r64);
        operation && i.memory_segment() == Register::FS && i.memory_displacement64() == 0x28
    });
    compares && matches!(instruction.code(), Op::Jne_rel8_64 | Op::Jne_rel32_64)
}

const NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// What the kernel emulates (`arch/x86/kernel/uprobes.c`, `branch_setup_xol_ops` and `push_setup_xol_ops`, since
/// 4.17): pushes of a register, nop, relative jumps and calls. With any other prefix it steps over them, or, a 66
/// before a branch, refuses the probe.
fn emulated(bytes: &[u8]) -> Option<String> {
    Some(match *bytes {
        [op @ 0x50..=0x57] => format!("push %{}", NAMES[usize::from(op - 0x50)]),
        [0x41, op @ 0x50..=0x57] => format!("push %{}", NAMES[usize::from(op - 0x50) + 8]),
        [0x90] => "nop".to_owned(),
        [0xeb, _] | [0xe9, _, _, _, _] => "jump".to_owned(),
        [0xe8, _, _, _, _] => "call".to_owned(),
        [0x70..=0x7f, _] | [0x0f, 0x80..=0x8f, _, _, _, _] => "conditional jump".to_owned(),
        _ => return None,
    })
}

/// Whether the kernel takes a probe at an instruction at all: it refuses the prefixes es, cs, ss, ds and lock
/// (`is_prefix_bad`), a 66 before a branch, and instructions of the system.
pub(super) fn can_be_probed(bytes: &[u8]) -> bool {
    let prefixes =
        bytes.iter().take_while(|b| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0 | 0x64..=0x67 | 0xf2 | 0xf3));
    let count = prefixes.clone().count();
    let refused = prefixes.clone().any(|b| matches!(b, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0));
    let short = prefixes.clone().any(|b| *b == 0x66);
    let rex = usize::from(bytes.get(count).is_some_and(|b| b & 0xf0 == 0x40));
    let rest = &bytes[(count + rex).min(bytes.len())..];
    let branch = matches!(rest, [0xe8 | 0xe9 | 0xeb | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..]);
    let system = matches!(rest, [] | [0xcc | 0xcd | 0xf1 | 0xf4 | 0xfa | 0xfb | 0xe4..=0xe7 | 0xec..=0xef, ..])
        || matches!(rest, [0x0f, 0x05 | 0x34 | 0x0b, ..]);
    !(refused || system || short && branch)
}

/// What stands at an address where the kernel has to step, in words.
pub(super) fn name(instruction: &Instruction) -> String {
    format!("{:?}", instruction.mnemonic()).to_lowercase()
}
