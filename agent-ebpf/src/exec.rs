//! Programs being started: the names of processes that may be gone when somebody asks. And threads that end.

use core::ffi::c_void;

use agent_ebpf::{ARGUMENTS, Exec, FILENAME, Header, counter, kind};
use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_uid_gid, bpf_ktime_get_ns, bpf_probe_read_kernel_str,
        bpf_probe_read_user,
    },
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};

use crate::{
    kernel::{
        BINPRM_INTERP, MM_ARG_END, MM_ARG_START, TASK_LEADER, TASK_MM, TASK_PARENT, TASK_PID, TASK_START, TASK_TGID,
        count, member,
    },
    socket::{CONTROL, NO_WAKEUP},
    stream,
};

/// `name`: whether the file name is read. That needs a helper which a locked-down kernel refuses; then the
/// other form of the program is loaded.
#[inline(always)]
unsafe fn started(ctx: &BtfTracePointContext, name: bool) {
    let task: *const c_void = ctx.arg(0);
    let binprm: *const c_void = ctx.arg(2);
    let task = task as u64;
    let Some(mut e) = CONTROL.reserve::<Exec>(0) else {
        count(counter::CONTROL_FULL, 1);
        return;
    };
    unsafe {
        let r = e.as_mut_ptr();
        (*r).header = Header {
            kind: kind::EXEC,
            direction: 0,
            protocol: 0,
            flags: 0,
            len: 0,
            time: bpf_ktime_get_ns(),
            cookie: 0,
        };
        (*r).pid = member(task, &TASK_TGID);
        let parent: u64 = member(task, &TASK_PARENT);
        (*r).parent = member(parent, &TASK_TGID);
        (*r).uid = bpf_get_current_uid_gid() as u32;
        let leader: u64 = member(task, &TASK_LEADER);
        (*r).start = member(leader, &TASK_START);
        (*r).cgroup = bpf_get_current_cgroup_id();
        (*r).pad = 0;
        (*r).filename_len = 0;
        (*r).arguments_len = 0;
        if name {
            let file: u64 = member(binprm as u64, &BINPRM_INTERP);
            let n = bpf_probe_read_kernel_str((&raw mut (*r).filename).cast(), FILENAME as u32, file as *const c_void);
            if n > 0 {
                (*r).filename_len = n as u32 - 1;
            }
        }
        let mm: u64 = member(task, &TASK_MM);
        if mm != 0 {
            let from: u64 = member(mm, &MM_ARG_START);
            let to: u64 = member(mm, &MM_ARG_END);
            let all = to.wrapping_sub(from);
            let want = if all > ARGUMENTS as u64 { ARGUMENTS as u64 } else { all };
            if want > 0 {
                let n = (core::ptr::read_volatile(&want).wrapping_sub(1) & (ARGUMENTS as u64 - 1)) + 1;
                if bpf_probe_read_user((&raw mut (*r).arguments).cast(), n as u32, from as *const c_void) == 0 {
                    (*r).arguments_len = n as u32;
                }
            }
        }
    }
    e.submit(NO_WAKEUP);
}

/// `tp_btf/sched_process_exec(task, old_pid, binprm)`.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec(ctx: BtfTracePointContext) -> i32 {
    unsafe { started(&ctx, true) };
    0
}

/// The same where kernel memory may not be read by helper (lockdown=confidentiality).
#[btf_tracepoint(function = "sched_process_exec")]
pub fn exec_no_name(ctx: BtfTracePointContext) -> i32 {
    unsafe { started(&ctx, false) };
    0
}

/// `tp_btf/sched_process_exit(task)`: what is known of a thread goes with it.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exit(ctx: BtfTracePointContext) -> i32 {
    let task: *const c_void = ctx.arg(0);
    let task = task as u64;
    unsafe {
        let (pid, thread): (u32, u32) = (member(task, &TASK_TGID), member(task, &TASK_PID));
        stream::forget_thread((pid as u64) << 32 | thread as u64);
    }
    0
}
