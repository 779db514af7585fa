//! Probes in TLS libraries: the plaintext of each call as a stream of its object, the offsets advanced by what the
//! calls moved, copied or not.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use agent_ebpf::{Header, Library, counter, direction, flag, kind, protocol, role, stop};
use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    helpers::generated::{
        bpf_get_attach_cookie, bpf_get_current_pid_tgid, bpf_get_current_task_btf, bpf_ktime_get_ns, bpf_loop,
        bpf_probe_read_kernel, bpf_probe_read_user,
    },
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};

use crate::{
    copy::DATA,
    kernel::{
        FDT_FD, FDT_MAX, FILE_PRIVATE, FILES_FDT, SELF, SOCK_COOKIE, SOCKET_FILE, SOCKET_SK, TASK_FILES, count, global,
        member,
    },
    shape::{LOOK, judge},
    socket::{NO_WAKEUP, settings, stopping},
    stream::{self, FREED, FRESH, Key, Stream},
};

/// A stream that was not seen from its beginning is judged at this many calls before it counts as something else.
const TRIES: u8 = 64;
/// Largest piece of a record.
const PIECE: u32 = 16384;

/// A call begins.
#[uprobe]
pub fn tls_call(ctx: ProbeContext) -> u32 {
    unsafe { call(&ctx) };
    0
}

#[inline(always)]
unsafe fn call(ctx: &ProbeContext) -> Option<()> {
    unsafe {
        let id = bpf_get_current_pid_tgid();
        if (id >> 32) as u32 == global(&SELF) {
            return None;
        }
        let cookie = bpf_get_attach_cookie(ctx.as_ptr());
        let object: u64 = ctx.arg(0)?;
        let key = Key::new((id >> 32) as u32, object);
        let Some(t) = stream::make_thread(id) else {
            // Its result will be nobody's.
            if let Some(s) = stream::stream(key) {
                stream::tear(&mut *s);
            }
            return None;
        };
        let t = &mut *t;
        let mut length: u64 = ctx.arg(2)?;
        if cookie & role::INT != 0 {
            // The upper half of the register is not the caller's.
            length = if (length as i32) < 0 { 0 } else { length as u32 as u64 };
        }
        let operation = (cookie & role::OPERATION) as u32;
        // Both, and chosen from later: the context may only be read at fixed places.
        let arguments = [ctx.arg(3)?, ctx.arg(4)?];
        let buffer: u64 = ctx.arg(1)?;
        let time = bpf_ktime_get_ns();
        let stack = stack(ctx.regs);
        let (c, gone) = stream::begin(t, object, operation, stack);
        c.object = object;
        c.buffer = buffer;
        c.arguments = arguments;
        c.operation = operation;
        c.out = (cookie >> role::OUT & 7) as u32;
        c.time = time;
        c.stack = stack;
        t.last = object;
        t.time = time;
        if cookie & role::OPERATION == role::WRITE {
            t.wrote = object;
            t.length = length;
        }
        if gone != 0
            && let Some(s) = stream::stream(Key::new(key.pid, gone))
        {
            stream::tear(&mut *s);
        }
        Some(())
    }
}

/// The stack pointer.
#[inline(always)]
unsafe fn stack(registers: *const pt_regs) -> u64 {
    #[cfg(bpf_target_arch = "x86_64")]
    // SAFETY: the context's own registers.
    return unsafe { (*registers).rsp };
    #[cfg(bpf_target_arch = "aarch64")]
    // SAFETY: as above.
    return unsafe { (*registers).sp };
}

/// It ends.
#[uretprobe]
pub fn tls_result(ctx: RetProbeContext) -> u32 {
    unsafe { result(&ctx) };
    0
}

#[inline(always)]
unsafe fn result(ctx: &RetProbeContext) -> Option<()> {
    unsafe {
        let id = bpf_get_current_pid_tgid();
        let pid = (id >> 32) as u32;
        if pid == global(&SELF) {
            return None;
        }
        let cookie = bpf_get_attach_cookie(ctx.as_ptr());
        if cookie & role::OPERATION == 0 {
            // Only a test whether return probes are safe.
            return None;
        }
        let Some(t) = stream::thread(id) else {
            count(counter::CALLS_UNKNOWN, 1);
            return None;
        };
        let Some(t) = stream::end(&mut *t, (cookie & role::OPERATION) as u32, stack(ctx.regs)) else {
            // A second result of one call, where there are two places for it.
            return None;
        };
        let value: u64 = ctx.ret();
        if value as i32 <= 0 {
            // To be tried again, or an error: nothing has moved.
            return None;
        }
        let n = if cookie & role::COUNT != 0 || t.out == 0 {
            value as u32 as u64
        } else {
            let mut n = 0u64;
            let out = if t.out == 4 { t.arguments[1] } else { t.arguments[0] };
            if bpf_probe_read_user((&raw mut n).cast(), 8, out as *const c_void) != 0 {
                count(counter::LOAD_FAILED, 1);
                if let Some(s) = stream::stream(Key::new(pid, t.object)) {
                    stream::tear(&mut *s);
                }
                return None;
            }
            n
        };
        if n == 0 {
            return None;
        }
        count(counter::CALLS, 1);
        let key = Key::new(pid, t.object);
        let s = &mut *stream::make_stream(key, false)?;
        let direction = if cookie & role::OPERATION == role::WRITE { direction::OUT } else { direction::IN };
        let d = direction as usize & 1;
        let offset = s.offset[d];
        s.offset[d] = offset + n;
        if direction == direction::OUT {
            s.wrote = n;
        }
        // What was written was there when the call began; what was read, when it ended.
        let time = if direction == direction::OUT { t.time } else { bpf_ktime_get_ns() };
        moved(key, s, direction, offset, t.buffer, n, time);
        Some(())
    }
}

/// Judges a stream that is not judged yet; false when there is nothing to copy.
#[inline(always)]
unsafe fn look(s: &mut Stream, direction: u8, offset: u64, from: u64, len: u64) -> bool {
    unsafe {
        let fresh = s.flags & FRESH != 0;
        let mut have = s.head_len;
        if have > 0 && s.head_direction != direction {
            // The other end speaks while the first one's beginning is not judged: user space sorts it out.
            return true;
        }
        if !fresh || have as usize >= LOOK {
            have = 0;
        }
        let at = have as usize & (LOOK - 1);
        let want = if len > LOOK as u64 { LOOK as u32 } else { len as u32 };
        let n = (ptr::read_volatile(&want).wrapping_sub(1) & (LOOK as u32 - 1)) + 1;
        if bpf_probe_read_user(s.head.as_mut_ptr().add(at).cast(), n, from as *const c_void) != 0 {
            count(counter::LOAD_FAILED, 1);
            return false;
        }
        let have = at as u32 + n;
        s.head_len = have;
        s.head_direction = direction;
        if fresh && at == 0 && offset != 0 {
            // The first bytes could not be read.
            s.head_len = 0;
            s.protocol = protocol::HTTP1;
            return true;
        }
        let v = judge(&s.head, have);
        // TLS inside TLS has an object of its own.
        if v == protocol::OTHER || v == protocol::TLS {
            s.head_len = 0;
            s.tries += 1;
            if fresh || s.tries > TRIES {
                s.protocol = protocol::OTHER;
            }
            return false;
        }
        if v == protocol::UNKNOWN && !fresh {
            s.head_len = 0;
            return false;
        }
        s.protocol = v;
        true
    }
}

/// Hands on the bytes of a call.
#[inline(always)]
unsafe fn moved(key: Key, s: &mut Stream, direction: u8, offset: u64, from: u64, n: u64, time: u64) {
    unsafe {
        if s.protocol == protocol::OTHER {
            return;
        }
        let Some(settings) = settings() else { return };
        if s.cookie != 0 && stopping(&mut s.stop_generation, s.cookie, settings) == stop::ALL {
            s.protocol = protocol::OTHER;
            return;
        }
        if s.protocol == protocol::UNKNOWN && !look(s, direction, offset, from, n) {
            return;
        }
        if s.protocol == protocol::HTTP2 {
            count(counter::LIBRARY_HTTP2, 1);
            return;
        }
        let d = direction as usize & 1;
        let mut flags = if s.flags & FRESH != 0 { flag::FRESH } else { 0 };
        s.run[1 - d] = 0;
        let run = s.run[d];
        if run >= settings.cap {
            count(counter::CAPPED_BYTES, n);
            return;
        }
        let left = settings.cap - run;
        let mut todo = if n > u32::MAX as u64 { u32::MAX } else { n as u32 };
        if todo >= left {
            count(counter::CAPPED_BYTES, (todo - left) as u64);
            todo = left;
            flags |= flag::CAPPED;
        }
        s.run[d] = run + todo;
        if settings.copy == 0 {
            return;
        }
        let mut job = MaybeUninit::<Job>::uninit();
        let p = job.as_mut_ptr();
        (*p).record = Library {
            header: Header {
                kind: kind::LIBRARY,
                direction,
                protocol: s.protocol,
                flags,
                len: 0,
                time,
                cookie: s.cookie,
            },
            address: s.address,
            owner: key.pid,
            lost: s.lost[d],
            evidence: s.evidence,
            object: key.object,
            generation: s.generation,
            offset,
            owner_start: s.start,
            owner_parent: s.parent,
            pad: 0,
        };
        (*p).from = from;
        (*p).todo = todo;
        (*p).lost = 0;
        if todo <= 4096 {
            // Most calls: without the loop.
            step(0, p);
        } else {
            bpf_loop((todo + PIECE - 1) / PIECE, step as *mut c_void, p.cast(), 0);
        }
        let lost = (*p).lost;
        if lost != 0 {
            s.lost[d] = s.lost[d].wrapping_add(lost);
        }
    }
}

#[repr(C)]
struct Record<const N: usize> {
    record: Library,
    bytes: [u8; N],
}

/// What the loop's callback reads; it changes only `lost`, which no branch depends on.
#[repr(C)]
struct Job {
    record: Library,
    from: u64,
    todo: u32,
    lost: u32,
}

#[inline(always)]
unsafe fn piece<const N: usize>(job: &Job, offset: u32, want: u32) -> bool {
    let Some(mut e) = DATA.reserve::<Record<N>>(0) else {
        count(counter::RING_FULL, 1);
        return false;
    };
    unsafe {
        // Through memory: LLVM knows that want <= N and would drop the mask; the verifier has lost that.
        let n = (ptr::read_volatile(&want).wrapping_sub(1) & (N as u32 - 1)) + 1;
        let r = e.as_mut_ptr();
        (*r).record = job.record;
        (*r).record.offset = job.record.offset + offset as u64;
        (*r).record.header.len = n;
        if offset + n < job.todo {
            // Only the last piece ends a run.
            (*r).record.header.flags &= !flag::CAPPED;
        }
        let from = job.from + offset as u64;
        if bpf_probe_read_user((&raw mut (*r).bytes).cast(), n, from as *const c_void) != 0 {
            count(counter::LOAD_FAILED, 1);
            e.discard(NO_WAKEUP);
            return false;
        }
    }
    count(counter::RECORDS, 1);
    e.submit(NO_WAKEUP);
    true
}

extern "C" fn step(i: u32, job: *mut Job) -> i64 {
    // SAFETY: the loop hands over the pointer that moved() gave it.
    let job = unsafe { &mut *job };
    let offset = i << 14;
    if job.todo <= offset {
        return 1;
    }
    let left = job.todo - offset;
    let done = unsafe {
        if left <= 512 {
            piece::<512>(job, offset, left)
        } else if left <= 2048 {
            piece::<2048>(job, offset, left)
        } else if left <= 4096 {
            piece::<4096>(job, offset, left)
        } else {
            piece::<{ PIECE as usize }>(job, offset, if left > PIECE { PIECE } else { left })
        }
    };
    if done {
        0
    } else {
        // This piece and all behind it.
        count(counter::LOST_BYTES, left as u64);
        job.lost = left;
        1
    }
}

/// A handshake goes on.
#[uprobe]
pub fn tls_mark(ctx: ProbeContext) -> u32 {
    unsafe { mark(&ctx) };
    0
}

#[inline(always)]
unsafe fn mark(ctx: &ProbeContext) -> Option<()> {
    unsafe {
        let id = bpf_get_current_pid_tgid();
        let pid = (id >> 32) as u32;
        if pid == global(&SELF) {
            return None;
        }
        let object: u64 = ctx.arg(0)?;
        let s = &mut *stream::make_stream(Key::new(pid, object), true)?;
        if s.flags & FREED != 0 {
            stream::renew(s);
        }
        let t = &mut *stream::make_thread(id)?;
        t.last = object;
        t.time = bpf_ktime_get_ns();
        Some(())
    }
}

/// The object is freed or cleared.
#[uprobe]
pub fn tls_free(ctx: ProbeContext) -> u32 {
    unsafe { free(&ctx) };
    0
}

#[inline(always)]
unsafe fn free(ctx: &ProbeContext) -> Option<()> {
    unsafe {
        let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let object: u64 = ctx.arg(0)?;
        let key = Key::new(pid, object);
        let s = &mut *stream::stream(key)?;
        // SSL_clear is also called when a handshake begins: what has moved nothing yet is as new.
        if s.flags & FREED == 0 && s.offset[0] | s.offset[1] != 0 {
            s.flags |= FREED;
            stream::report(kind::FREE, key, s);
            if s.cookie == 0 {
                stream::forget(key);
            }
        }
        Some(())
    }
}

/// The object is given a descriptor.
#[uprobe]
pub fn tls_descriptor(ctx: ProbeContext) -> u32 {
    unsafe { descriptor(&ctx) };
    0
}

/// Reads kernel memory by helper: the walk through the table of files cannot be typed.
#[inline(always)]
unsafe fn kernel_word(at: u64) -> Option<u64> {
    let mut value = 0u64;
    // SAFETY: the helper checks the address.
    if at < 4096 || unsafe { bpf_probe_read_kernel((&raw mut value).cast(), 8, at as *const c_void) } != 0 {
        return None;
    }
    Some(value)
}

#[inline(always)]
unsafe fn descriptor(ctx: &ProbeContext) -> Option<()> {
    unsafe {
        let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let object: u64 = ctx.arg(0)?;
        let number: u64 = ctx.arg(1)?;
        let number = number as u32;
        let task = bpf_get_current_task_btf() as u64;
        let files: u64 = member(task, &TASK_FILES);
        let table = kernel_word(files + global(&FILES_FDT) as u64)?;
        let most = kernel_word(table + global(&FDT_MAX) as u64)? as u32;
        if number >= most {
            return None;
        }
        let array = kernel_word(table + global(&FDT_FD) as u64)?;
        let file = kernel_word(array + number as u64 * 8)?;
        let socket = kernel_word(file + global(&FILE_PRIVATE) as u64)?;
        // Only a socket's private data points back to its file.
        if kernel_word(socket + global(&SOCKET_FILE) as u64)? != file {
            return None;
        }
        let sk = kernel_word(socket + global(&SOCKET_SK) as u64)?;
        let cookie = kernel_word(sk + global(&SOCK_COOKIE) as u64)?;
        if cookie != 0 {
            let key = Key::new(pid, object);
            let s = &mut *stream::make_stream(key, true)?;
            if s.flags & FREED != 0 {
                stream::renew(s);
            }
            stream::describe(cookie, key);
        }
        Some(())
    }
}
