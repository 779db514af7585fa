//! Loads programs for links that hold many probes at once (`uprobe_multi`, Linux 6.6).
//!
//! In: the object, and the maps that aya has made of it. Out: the same programs once more, of the kind that such links
//! want. One link is attached and taken away as quickly as one probe by a perf event, which takes 0.1 s each. aya
//! 0.14 does not know this kind, so the last step of its loading is done here; what comes before it is its own.

use std::{
    collections::HashSet,
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{Object, generated::bpf_prog_type::BPF_PROG_TYPE_KPROBE};

/// `BPF_TRACE_UPROBE_MULTI` of `linux/bpf.h`.
pub(crate) const ATTACH_TYPE: u32 = 48;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_BTF_GET_FD_BY_ID: libc::c_long = 19;

/// The part of `union bpf_attr` of `linux/bpf.h` that loading takes.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
    btf: u32,
    func_info_size: u32,
    func_info: u64,
    func_info_count: u32,
    line_info_size: u32,
    line_info: u64,
    line_info_count: u32,
    pad: u32,
}

/// Loads the programs called `names`. `btf_id`: of the object's types as they were loaded, from any loaded program.
///
/// # Errors
/// What the kernel says; also when it does not know this kind of program, which attaching shows at the latest.
pub(crate) fn load<'a>(
    object: &[u8],
    bpf: &Ebpf,
    btf_id: u32,
    names: &[&'a str],
) -> io::Result<Vec<(&'a str, OwnedFd)>> {
    let mut object = Object::parse(object).map_err(io::Error::other)?;
    // What aya's loader did to the types when it loaded them, done to this copy: the ids stay the same.
    if let Some(features) = aya::features().btf() {
        object.fixup_and_sanitize_btf(features).map_err(io::Error::other)?;
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let mut maps = Vec::new();
    for (name, map) in &object.maps {
        let made = bpf.map(name).and_then(descriptor);
        let made = made.ok_or_else(|| io::Error::other(format!("map {name} was not made")))?;
        maps.push((name.clone(), made, map.clone()));
    }
    object
        .relocate_maps(maps.iter().map(|(name, fd, map)| (name.as_str(), *fd, map)), &text)
        .map_err(io::Error::other)?;
    object.relocate_calls(&text).map_err(io::Error::other)?;
    object.sanitize_functions(aya::features());
    let btf = types(btf_id)?;
    names.iter().map(|name| Ok((*name, load_one(&object, name, &btf)?))).collect()
}

fn load_one(object: &Object, name: &str, btf: &OwnedFd) -> io::Result<OwnedFd> {
    let missing = || io::Error::other(format!("program {name} is not in the object"));
    let program = object.programs.get(name).ok_or_else(missing)?;
    let function = object.functions.get(&program.function_key()).ok_or_else(missing)?;
    let license: CString = program.license.clone();
    let (func_info, line_info) = (function.func_info.func_info_bytes(), function.line_info.line_info_bytes());
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    let load = ProgLoad {
        kind: BPF_PROG_TYPE_KPROBE as u32,
        instructions: function.instructions.len() as u32,
        code: function.instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        name: short,
        attach_type: ATTACH_TYPE,
        btf: btf.as_raw_fd() as u32,
        func_info_size: function.func_info_rec_size as u32,
        func_info: func_info.as_ptr() as u64,
        func_info_count: function.func_info.len() as u32,
        line_info_size: function.line_info_rec_size as u32,
        line_info: line_info.as_ptr() as u64,
        line_info_count: function.line_info.len() as u32,
        ..ProgLoad::default()
    };
    // SAFETY: every address is of memory that lives until the call is over, with its length beside it.
    unsafe { owned(libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<ProgLoad>())) }
}

/// The object's types, which aya has loaded: programs with callbacks must name them.
fn types(id: u32) -> io::Result<OwnedFd> {
    // The first members of `union bpf_attr` for commands that take an id.
    let attributes = [id, 0, 0, 0];
    // SAFETY: as above.
    unsafe { owned(libc::syscall(libc::SYS_bpf, BPF_BTF_GET_FD_BY_ID, attributes.as_ptr(), size_of_val(&attributes))) }
}

/// # Safety
/// `result` must be the result of a system call that returns a new descriptor.
unsafe fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller says that it is a new descriptor, so nobody else closes it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

fn descriptor(map: &Map) -> Option<i32> {
    let (Map::Array(data)
    | Map::PerCpuArray(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::RingBuf(data)
    | Map::SkStorage(data)
    | Map::Unsupported(data)) = map
    else {
        return None;
    };
    Some(data.fd().as_fd().as_raw_fd())
}
