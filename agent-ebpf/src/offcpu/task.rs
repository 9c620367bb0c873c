//! What is read of tasks: the one place that knows the kernel's states.

use agent_ebpf::wait_state;
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel};

/// Set by the agent before loading, from the kernel's BTF: offset of `pid` in `task_struct`, the thread's id.
#[unsafe(no_mangle)]
static TASK_PID_OFFSET: u32 = 0;

/// Offset of `__state`, or of `state` before 5.14.
#[unsafe(no_mangle)]
static TASK_STATE_OFFSET: u32 = 0;

/// Offset of the byte that holds `in_iowait`,
#[unsafe(no_mangle)]
static TASK_IOWAIT_OFFSET: u32 = 0;

/// and the bit in it; 0 where the kernel does not tell.
#[unsafe(no_mangle)]
static TASK_IOWAIT_MASK: u32 = 0;

/// States (`include/linux/sched.h`; the same since 4.14).
const INTERRUPTIBLE: u32 = 0x1;
const UNINTERRUPTIBLE: u32 = 0x2;
const STOPPED: u32 = 0x4;
const TRACED: u32 = 0x8;
/// `EXIT_DEAD`, `EXIT_ZOMBIE` and `TASK_DEAD`.
pub(super) const DEAD: u32 = 0x10 | 0x20 | 0x80;
/// With [`UNINTERRUPTIBLE`]: `TASK_IDLE`, a kernel thread that has nothing to do.
const NO_LOAD: u32 = 0x400;

/// The current task's state.
#[inline(always)]
pub(super) fn current_state() -> u32 {
    // SAFETY: a helper without arguments, and a static in `.rodata`.
    read_u32(unsafe {
        bpf_get_current_task() + u64::from(core::ptr::read_volatile(&raw const TASK_STATE_OFFSET))
    })
}

/// One of [`wait_state`] for the current task.
#[inline(always)]
pub(super) fn wait_state(state: u32) -> u16 {
    if state & (STOPPED | TRACED) != 0 {
        wait_state::STOPPED
    } else if state & UNINTERRUPTIBLE != 0 && state & NO_LOAD == 0 {
        if waits_for_io() { wait_state::IO } else { wait_state::DISK }
    } else if state & (INTERRUPTIBLE | UNINTERRUPTIBLE) != 0 {
        wait_state::SLEEP
    } else {
        wait_state::RUNNABLE
    }
}

#[inline(always)]
fn waits_for_io() -> bool {
    // SAFETY: statics in `.rodata`, and a helper without arguments.
    let (address, mask) = unsafe {
        (
            bpf_get_current_task() + u64::from(core::ptr::read_volatile(&raw const TASK_IOWAIT_OFFSET)),
            core::ptr::read_volatile(&raw const TASK_IOWAIT_MASK),
        )
    };
    read_u32(address) & mask != 0
}

/// The id of a thread that is not the current one.
#[inline(always)]
pub(super) fn thread_id(task: *mut task_struct) -> u32 {
    // SAFETY: a static in `.rodata`.
    read_u32(task as u64 + u64::from(unsafe { core::ptr::read_volatile(&raw const TASK_PID_OFFSET) }))
}

/// The word at a kernel address; 0 when it cannot be read.
#[inline(always)]
fn read_u32(address: u64) -> u32 {
    let mut word = 0u32;
    // SAFETY: the destination has the size that is passed; the source is read with fault handling.
    unsafe {
        bpf_probe_read_kernel((&raw mut word).cast(), 4, address as *const core::ffi::c_void);
    }
    word
}
