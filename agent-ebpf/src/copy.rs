//! Copies payload from packets straight into the data ring, in pieces.

use core::{ffi::c_void, mem::MaybeUninit, ptr};

use agent_ebpf::{Data, counter, flag};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_skb_load_bytes},
    macros::map,
    maps::RingBuf,
};

use crate::{kernel::count, socket::NO_WAKEUP};

/// Bytes of streams. The loader sets the size.
#[map]
pub static DATA: RingBuf = RingBuf::with_byte_size(32 << 20, 0);

/// Largest piece of a record.
const PIECE: u32 = 16384;
/// 1 MiB: IPv6 jumbograms on loopback end at 512 KiB (Linux 6.3, BIG TCP).
const PIECES: u32 = 64;

#[repr(C)]
struct Record<const N: usize> {
    data: Data,
    bytes: [u8; N],
}

/// What the loop's callback reads. It changes only `lost`, which no branch depends on, so the verifier is done after one
/// round, however many pieces there are.
#[repr(C)]
struct Job {
    data: Data,
    skb: *mut __sk_buff,
    at: u32,
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
        (*r).data = job.data;
        (*r).data.seq = job.data.seq.wrapping_add(offset);
        (*r).data.header.len = n;
        if offset + n < job.todo {
            // Only the last piece ends a run.
            (*r).data.header.flags &= !flag::CAPPED;
        }
        if offset != 0 {
            // Only the first piece comes after earlier copies alone; the others come after the first.
            (*r).data.header.flags &= !flag::SETTLED;
        }
        if bpf_skb_load_bytes(job.skb.cast(), job.at + offset, (&raw mut (*r).bytes).cast(), n) != 0 {
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
    // SAFETY: the loop hands over the pointer that send() gave it.
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

/// Hands `todo` bytes of payload at `at` to user space, with `data` as their description. Gives the number
/// of bytes that were lost because the ring was full.
///
/// # Safety
/// `skb` is the context of the running program.
#[inline(always)]
pub unsafe fn send(skb: *mut __sk_buff, data: &Data, at: u32, todo: u32) -> u32 {
    let mut job = MaybeUninit::<Job>::uninit();
    unsafe {
        let p = job.as_mut_ptr();
        (*p).data = *data;
        (*p).skb = skb;
        (*p).at = at;
        (*p).todo = todo;
        (*p).lost = 0;
        if todo <= 2048 {
            // Most segments: without the call.
            step(0, p);
        } else {
            bpf_loop(PIECES, step as *mut c_void, p.cast(), 0);
        }
        (*p).lost
    }
}

/// A record without bytes.
#[inline(always)]
pub unsafe fn announce(data: &Data) {
    let Some(mut e) = DATA.reserve::<Data>(0) else {
        count(counter::RING_FULL, 1);
        return;
    };
    unsafe {
        let r = e.as_mut_ptr();
        *r = *data;
        (*r).header.len = 0;
    }
    e.submit(NO_WAKEUP);
}
