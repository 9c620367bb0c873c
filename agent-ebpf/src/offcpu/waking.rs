//! Who ends a wait: the task that wakes another one, and its stack.
//!
//! Only waits that are told of anyway have their wakers looked at: those whose stack was taken, and long ones. Whether the waker is the
//! current task or an interrupt that hit it, the kernel's stack tells; nothing else that programs can read does on every kernel.
//!
//! The tracepoint is run with interrupts off and the sleeper's `pi_lock` held, like the switch program; neither interrupts the other, so both
//! share the scheduler's scratch record.

use agent_ebpf::{SwitchCounters, TaskWaits, ended, kind, wait_state};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use super::{LONG_WAIT, SWITCH_COUNTERS, TASK_WAITS, budget, futex, task};
use crate::context::Scheduler;
use crate::record::ClaimedScratch;
use crate::sample::{self, Moment};
use crate::unwind::{KernelSupport, Legacy, Modern};

/// For kernels from 5.17 on.
#[btf_tracepoint(function = "sched_waking")]
fn offcpu_waking(context: BtfTracePointContext) -> i32 {
    on_waking::<Modern>(&context)
}

/// For kernels from 5.10 on.
#[btf_tracepoint(function = "sched_waking")]
fn offcpu_waking_legacy(context: BtfTracePointContext) -> i32 {
    on_waking::<Legacy>(&context)
}

#[inline(always)]
fn on_waking<K: KernelSupport>(context: &BtfTracePointContext) -> i32 {
    let sleeper = task::thread_id(context.arg(0));
    let Some(entry) = TASK_WAITS.get_ptr_mut(&sleeper) else { return 0 };
    // SAFETY: whoever wakes a task holds its `pi_lock`, so that wakings come one by one. The switch program writes the entry when
    // the task leaves, `left` last, and when it comes back, which is after this. So what is written here belongs to the wait that
    // `left` tells of.
    let entry = unsafe { &mut *entry };
    // SAFETY: a reference; volatile, for it is read before the other members.
    let began = unsafe { core::ptr::read_volatile(&raw const entry.left) };
    // SAFETY: helpers without arguments.
    let (cpu, now) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
    let Some(counters) = SWITCH_COUNTERS.get_ptr_mut(cpu) else { return 0 };
    // SAFETY: as in the switch program.
    let counters = unsafe { &mut *counters };
    if began == 0 {
        counters.early += 1;
        return 0;
    }
    // SAFETY: a static in `.rodata`.
    let is_long = now.saturating_sub(began) >= unsafe { core::ptr::read_volatile(&raw const LONG_WAIT) };
    if entry.state != wait_state::RUNNABLE && (entry.sampled != 0 || is_long) {
        note::<K>(context, counters, entry, cpu, now);
    }
    0
}

/// Notes who wakes the task of `entry`.
#[inline(always)]
fn note<K: KernelSupport>(
    context: &BtfTracePointContext,
    counters: &mut SwitchCounters,
    entry: &mut TaskWaits,
    cpu: u32,
    now: u64,
) {
    let (pid, tid) = sample::current_ids();
    counters.wakings += 1;
    entry.woken = now;
    entry.waker_pid = pid;
    entry.waker_tid = tid;
    if tid == 0 {
        entry.ended = ended::IDLE;
        return;
    }
    let by_futex = entry.state == wait_state::FUTEX && futex::is_waking::<K>();
    entry.ended = if by_futex { ended::FUTEX } else { ended::TASK };
    if !budget::affords_waker(counters, now) {
        return;
    }
    let Some(mut scratch) = ClaimedScratch::<Scheduler>::claim() else { return };
    let sequence = budget::records(counters);
    let moment = Moment { kind: kind::WAKE, sequence, timestamp: now, cpu, pid, tid };
    let body_bytes = sample::fill::<K, _, _>(context, &mut scratch, &moment);
    if scratch.emit(body_bytes) {
        counters.wakers += 1;
        entry.waker_sampled = 1;
    } else {
        counters.wakers_ring_full += 1;
    }
    budget::spend(counters, now);
}
