//! Small ELF files made of functions given as bytes.

/// Where the first function is, in the file and in memory.
pub(crate) const TEXT: u64 = 0x1000;
/// Distance between functions.
pub(crate) const STEP: u64 = 0x100;

/// What [`file`] is made of.
pub(crate) struct Shape {
    /// `e_machine`.
    pub(crate) machine: u16,
    /// Class byte: 2 is 64 bits.
    pub(crate) class: u8,
    /// Names in `.symtab`, not `.dynsym`.
    pub(crate) full_table: bool,
    /// With `.eh_frame_hdr`.
    pub(crate) unwind: bool,
}

impl Default for Shape {
    fn default() -> Shape {
        let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
        Shape { machine, class: 2, full_table: false, unwind: true }
    }
}

/// A function: its name if it is a symbol, its code. The n-th is at `TEXT + n * STEP`; an empty one is imported.
pub(crate) type Function<'a> = (Option<&'a str>, Vec<u8>);

/// Address and offset of the n-th function.
pub(crate) fn at(n: u64) -> u64 {
    TEXT + n * STEP
}

/// `call` from `from` to `to`.
pub(crate) fn call(from: u64, to: u64) -> Vec<u8> {
    relative(0xe8, from, to)
}

/// `jmp` from `from` to `to`.
pub(crate) fn jump(from: u64, to: u64) -> Vec<u8> {
    relative(0xe9, from, to)
}

fn relative(opcode: u8, from: u64, to: u64) -> Vec<u8> {
    let distance = (to as i64 - from as i64 - 5) as i32;
    [&[opcode][..], &distance.to_le_bytes()].concat()
}

/// The file.
pub(crate) fn file(shape: &Shape, functions: &[Function<'_>]) -> Vec<u8> {
    let mut file = vec![0; TEXT as usize];
    for (n, (_, code)) in functions.iter().enumerate() {
        assert!(code.len() < STEP as usize, "function {n} is too long");
        file.resize(at(n as u64) as usize, 0x90);
        file.extend(code);
    }
    file.resize(at(functions.len() as u64) as usize, 0x90);
    let text = file.len() as u64 - TEXT;
    let mut strings = vec![0];
    let mut symbols = vec![0; 24];
    for (n, (name, code)) in functions.iter().enumerate() {
        let Some(name) = name else { continue };
        symbols.extend((strings.len() as u32).to_le_bytes());
        symbols.extend([0x12, 0]);
        symbols.extend(u16::from(!code.is_empty()).to_le_bytes());
        symbols.extend(at(n as u64).to_le_bytes());
        symbols.extend((code.len() as u64).to_le_bytes());
        strings.extend(name.as_bytes());
        strings.push(0);
    }
    let mut put = |bytes: &[u8]| {
        let offset = file.len() as u64;
        file.extend(bytes);
        (offset, bytes.len() as u64)
    };
    let (strings, symbols) = (put(&strings), put(&symbols));
    // Version 1, pointer to .eh_frame as sdata4 relative, count as udata4, entries as sdata4 relative to the table.
    let mut unwind = vec![1, 0x1b, 0x03, 0x3b, 0, 0, 0, 0];
    unwind.extend((functions.len() as u32).to_le_bytes());
    let table = symbols.0 + symbols.1;
    for n in 0..functions.len() as u64 {
        unwind.extend(((at(n) as i64 - table as i64) as i32).to_le_bytes());
        unwind.extend([0; 4]);
    }
    let unwind = put(&unwind);
    let kind = if shape.full_table { 2 } else { 11 };
    let sections = [(0, (0, 0), 0), (kind, symbols, 2), (3, strings, 0)];
    let mut headers = Vec::new();
    for (kind, (offset, size), link) in sections {
        headers.extend([0_u32.to_le_bytes(), u32::to_le_bytes(kind)].concat());
        headers.extend([0_u64, 0, offset, size].map(u64::to_le_bytes).concat());
        headers.extend([u32::to_le_bytes(link), [0; 4]].concat());
        headers.extend([0_u64; 2].map(u64::to_le_bytes).concat());
    }
    let headers = put(&headers);
    let mut segments = Vec::new();
    let mut segment = |kind: u32, flags: u32, offset: u64, size: u64| {
        segments.extend([kind, flags].map(u32::to_le_bytes).concat());
        segments.extend([offset, offset, offset, size, size, 0x1000].map(u64::to_le_bytes).concat());
    };
    segment(1, 5, TEXT, text);
    if shape.unwind {
        segment(0x6474_e550, 4, unwind.0, unwind.1);
    }
    let mut head = b"\x7fELF\x02\x01\x01".to_vec();
    head[4] = shape.class;
    head.resize(16, 0);
    head.extend([3_u16, shape.machine].map(u16::to_le_bytes).concat());
    head.extend([1, 0, 0, 0]);
    head.extend([0_u64, 64, headers.0].map(u64::to_le_bytes).concat());
    head.extend([0; 4]);
    let count = segments.len() as u16 / 56;
    head.extend([64_u16, 56, count, 64, 3, 0].map(u16::to_le_bytes).concat());
    file[..64].copy_from_slice(&head);
    file[64..64 + segments.len()].copy_from_slice(&segments);
    file
}
