//! Locks of the kernel that sleep: which one the current task is getting (`contention_begin`, `contention_end`; 5.19+).
//!
//! These tracepoints also fire inside the ring buffer's own lock. So the programs look up and note, and do nothing else.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::TASK_WAITS;
use crate::sample;

/// `LCB_F_SPIN` (`include/trace/events/lock.h`): a lock that does not sleep, or one that sleeps and is spun on at first.
const SPIN: u32 = 1;

/// The current task begins to wait for a lock.
#[btf_tracepoint(function = "contention_begin")]
fn lock_contended(context: BtfTracePointContext) -> i32 {
    let flags: u32 = context.arg(1);
    if flags & SPIN == 0 {
        note(context.arg(0));
    }
    0
}

/// It has the lock, or gave up.
#[btf_tracepoint(function = "contention_end")]
fn lock_acquired(_context: BtfTracePointContext) -> i32 {
    note(0);
    0
}

/// A task that has not left a CPU yet has no entry: its first wait for a lock is not told apart from others.
#[inline(always)]
fn note(lock: u64) {
    let (_, tid) = sample::current_ids();
    if tid == 0 {
        return;
    }
    if let Some(entry) = TASK_WAITS.get_ptr_mut(&tid) {
        // SAFETY: the current task's entry; what others write of it while it runs is nothing of this member.
        unsafe { (*entry).lock = lock };
    }
}
