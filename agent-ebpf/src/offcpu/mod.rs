//! The off-CPU profiler: times every switch of tasks, and takes the stacks of some of them when they leave their CPU.
//!
//! ```text
//! a task leaves   its entry says when; its stack is taken with a probability that falls as it switches more often
//! it comes back   the wait is added to its totals; it is told of by itself if its stack was taken or it was long;
//!                 if it was too short to be asked for, it is in no totals, but counted
//! it ends         its totals are told, and its entry goes
//! it is woken     who did it, if the wait is one that is told of ([`waking`])
//! ```
//!
//! So totals are exact, and what the sampled stacks stand for can be scaled to them. Entries belong to tasks, not to CPUs: a task
//! that comes back elsewhere is the same.

mod arguments;
mod budget;
mod futex;
mod locks;
mod task;
mod waking;

use agent_ebpf::{
    FutexCall, MAX_KERNEL_FRAMES, SwitchCounters, TaskWaits, Wait, WaitTotal, ended, flag, kind, wait_state,
};
use aya_ebpf::bindings::task_struct;
use aya_ebpf::helpers::bpf_get_current_comm;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_get_task_stack, bpf_ktime_get_ns};
use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::BtfTracePointContext;

use self::arguments::{Arguments, NoState, StateFirst, StateLast};
use crate::context::Scheduler;
use crate::record::ClaimedScratch;
use crate::sample::{self, Moment};
use crate::select;
use crate::unwind::{KernelSupport, Legacy, Modern};

/// `BPF_F_MMAPABLE` (5.5+).
const MMAPABLE: u32 = 1 << 10;

/// Tasks that were switched, by thread id; the agent sets the number before loading. All of it is allocated at once: allocating
/// under the run queue's lock is not allowed.
#[map]
static TASK_WAITS: HashMap<u32, TaskWaits> = HashMap::with_max_entries(1, 0);

/// What a new entry begins as: zeros that need no room on the BPF stack.
#[map]
static NEW_TASK: Array<TaskWaits> = Array::with_max_entries(1, 0);

/// One element for each possible CPU; the agent sets the number before loading.
#[map]
static SWITCH_COUNTERS: Array<SwitchCounters> = Array::with_max_entries(1, MMAPABLE);

/// Set by the agent before loading: its own process id, which is left out.
#[unsafe(no_mangle)]
static OWN_PID: u32 = 0;

/// Set by the agent before loading: nanoseconds from which on a wait is told of by itself.
#[unsafe(no_mangle)]
static LONG_WAIT: u64 = 20_000_000;

/// Set by the agent before loading: nanoseconds below which a wait is left out, and only counted.
#[unsafe(no_mangle)]
static SHORTEST_WAIT: u64 = 0;

/// For kernels from 6.0 on.
#[btf_tracepoint(function = "sched_switch")]
fn offcpu_switch(context: BtfTracePointContext) -> i32 {
    on_switch::<Modern, StateLast>(&context)
}

/// For 5.18 and 5.19.
#[btf_tracepoint(function = "sched_switch")]
fn offcpu_switch_5_18(context: BtfTracePointContext) -> i32 {
    on_switch::<Modern, StateFirst>(&context)
}

/// For kernels from 5.10 on.
#[btf_tracepoint(function = "sched_switch")]
fn offcpu_switch_legacy(context: BtfTracePointContext) -> i32 {
    on_switch::<Legacy, NoState>(&context)
}

#[inline(always)]
fn on_switch<K: KernelSupport, A: Arguments>(context: &BtfTracePointContext) -> i32 {
    // SAFETY: a helper without arguments.
    let (cpu, now) = unsafe { (bpf_get_smp_processor_id(), bpf_ktime_get_ns()) };
    let Some(counters) = SWITCH_COUNTERS.get_ptr_mut(cpu) else { return 0 };
    // SAFETY: only this program and the wakings' write the element, only on this CPU, with interrupts off; the agent only reads it.
    let counters = unsafe { &mut *counters };
    counters.switches += 1;
    arrive(A::next(context), counters, cpu, now);
    leave::<K, A>(context, counters, cpu, now);
    0
}

/// The current task leaves.
#[inline(always)]
fn leave<K: KernelSupport, A: Arguments>(
    context: &BtfTracePointContext,
    counters: &mut SwitchCounters,
    cpu: u32,
    now: u64,
) {
    let (pid, tid) = sample::current_ids();
    if tid == 0 {
        counters.idle += 1;
        return;
    }
    let state = arguments::leaving_state::<A>(context);
    if state & task::DEAD != 0 {
        counters.ended += 1;
        end(counters, cpu, now, tid);
        return;
    }
    // SAFETY: a static in `.rodata`.
    let own = unsafe { core::ptr::read_volatile(&raw const OWN_PID) };
    if pid == own || !select::current_task_is_selected(pid) {
        counters.not_selected += 1;
        return;
    }
    let Some(entry) = entry_of(pid, tid) else {
        counters.table_full += 1;
        return;
    };
    counters.begun += 1;
    begin::<K>(entry, task::wait_state(state));
    let wants_stack = budget::wants_stack(counters, entry, now);
    // Whoever wakes the task may come while its stack is taken, and wants to know.
    entry.sampled = u16::from(wants_stack);
    // SAFETY: a reference. Volatile, and last: a waking that sees it sees what belongs to it (x86 keeps stores in order).
    unsafe { core::ptr::write_volatile(&raw mut entry.left, now) };
    if wants_stack {
        take_stack::<K>(
            context,
            counters,
            entry,
            Moment { kind: kind::LEAVE, sequence: 0, timestamp: now, cpu, pid, tid },
        );
    }
}

/// A wait of `state` begins: what is known of it, but for its time.
#[inline(always)]
fn begin<K: KernelSupport>(entry: &mut TaskWaits, state: u16) {
    entry.state = state;
    entry.woken = 0;
    entry.ended = ended::UNSEEN;
    entry.waker_sampled = 0;
    entry.locked = u16::from(entry.lock != 0 && state != wait_state::RUNNABLE);
    entry.futex = FutexCall::default();
    if state == wait_state::SLEEP
        && let Some(call) = futex::waiting::<K>()
    {
        entry.state = wait_state::FUTEX;
        entry.futex = call;
    }
}

/// The entry of a task, a new one if need be; `None` when there is no room.
#[inline(always)]
fn entry_of(pid: u32, tid: u32) -> Option<&'static mut TaskWaits> {
    // SAFETY: an entry is written by whoever switches its task, which is one CPU at a time.
    if let Some(entry) = TASK_WAITS.get_ptr_mut(&tid) {
        return Some(unsafe { &mut *entry });
    }
    let new = NEW_TASK.get_ptr(0)?;
    // SAFETY: nobody writes to the map of zeros.
    TASK_WAITS.insert(&tid, unsafe { &*new }, 0).ok()?;
    // SAFETY: as above.
    let entry = unsafe { &mut *TASK_WAITS.get_ptr_mut(&tid)? };
    entry.pid = pid;
    entry.tid = tid;
    entry.every = 1;
    entry.comm = bpf_get_current_comm().unwrap_or_default();
    Some(entry)
}

#[inline(always)]
fn take_stack<K: KernelSupport>(
    context: &BtfTracePointContext,
    counters: &mut SwitchCounters,
    entry: &mut TaskWaits,
    moment: Moment,
) {
    let Some(mut scratch) = ClaimedScratch::<Scheduler>::claim() else {
        entry.sampled = 0;
        return;
    };
    let moment = Moment { sequence: budget::records(counters), ..moment };
    let body_bytes = sample::fill::<K, _, _>(context, &mut scratch, &moment);
    if scratch.emit(body_bytes) {
        counters.stacks += 1;
    } else {
        counters.stacks_ring_full += 1;
        entry.sampled = 0;
    }
    budget::spend(counters, moment.timestamp);
}

/// Task `next` comes back, if it was ever seen to leave.
#[inline(always)]
fn arrive(next: *mut task_struct, counters: &mut SwitchCounters, cpu: u32, now: u64) {
    let tid = task::thread_id(next);
    if tid == 0 {
        return;
    }
    let Some(entry) = TASK_WAITS.get_ptr_mut(&tid) else { return };
    // SAFETY: as in `entry_of`.
    let entry = unsafe { &mut *entry };
    let began = entry.left;
    if began == 0 {
        return;
    }
    entry.left = 0;
    let lasted = now - began;
    // SAFETY: statics in `.rodata`.
    let (long, shortest) = unsafe {
        (core::ptr::read_volatile(&raw const LONG_WAIT), core::ptr::read_volatile(&raw const SHORTEST_WAIT))
    };
    let is_left_out = lasted < shortest;
    let flags = if is_left_out { flag::LEFT_OUT } else { 0 };
    let is_long = lasted >= long && !is_left_out;
    // Of a wait that is left out the agent hears if it has stacks of it, which it would keep for the end.
    let has_stack = entry.sampled != 0 || entry.waker_sampled != 0;
    let told = (is_long || has_stack) && tell(next, counters, entry, cpu, now, began, flags);
    if is_left_out {
        counters.left_out += 1;
        counters.left_out_nanoseconds += lasted;
    } else if !(is_long && told) {
        let state = entry.state as usize & 7;
        if state < wait_state::COUNT {
            entry.totals[state].count += 1;
            entry.totals[state].nanoseconds += lasted;
        }
    }
}

/// Tells the agent that a wait is over; false when the ring is full.
#[inline(always)]
fn tell(
    next: *mut task_struct,
    counters: &mut SwitchCounters,
    entry: &TaskWaits,
    cpu: u32,
    now: u64,
    began: u64,
    flags: u16,
) -> bool {
    let Some(mut scratch) = ClaimedScratch::<Scheduler>::claim() else {
        counters.waits_ring_full += 1;
        return false;
    };
    let mut frame_bytes = 0;
    if entry.sampled == 0 {
        const SIZE: u32 = (MAX_KERNEL_FRAMES * size_of::<u64>()) as u32;
        let to = scratch.body_at(size_of::<Wait>());
        // SAFETY: the body has room for a `Wait` and SIZE bytes; the task is the tracepoint's argument.
        let written = unsafe { bpf_get_task_stack(next, to.cast(), SIZE, 0) };
        frame_bytes = if written > 0 { written as usize & (agent_ebpf::FRAMES_BYTES - 8) } else { 0 };
    }
    let every = if entry.sampled == 0 { 0 } else { entry.every };
    // SAFETY: the body begins with room for a `Wait`, aligned as it is. Member by member: a structure of its own would take the BPF
    // stack's bytes.
    unsafe {
        let wait = scratch.body_at(0).cast::<Wait>();
        fill_wait(wait, entry, kind::WAIT, cpu, now);
        (*wait).began = began;
        (*wait).every = every;
        (*wait).kernel_frames = (frame_bytes / 8) as u16;
        (*wait).flags = flags | if frame_bytes == MAX_KERNEL_FRAMES * 8 { flag::KERNEL_DEPTH } else { 0 };
    }
    let told = scratch.emit_body(0, size_of::<Wait>() + frame_bytes);
    counters.waits_ring_full += u64::from(!told);
    told
}

/// A task has ended: its totals are told, and its entry goes.
#[inline(always)]
fn end(counters: &mut SwitchCounters, cpu: u32, now: u64, tid: u32) {
    let Some(entry) = TASK_WAITS.get_ptr_mut(&tid) else { return };
    // SAFETY: as in `entry_of`.
    let entry = unsafe { &mut *entry };
    let Some(mut scratch) = ClaimedScratch::<Scheduler>::claim() else { return };
    // SAFETY: the body has room for both, aligned as they are.
    unsafe {
        let wait = scratch.body_at(0).cast::<Wait>();
        fill_wait(wait, entry, kind::TASK_END, cpu, now);
        (*wait).began = 0;
        (*wait).every = 0;
        (*wait).kernel_frames = 0;
        (*wait).flags = 0;
        let totals = scratch.body_at(size_of::<Wait>()).cast::<[WaitTotal; wait_state::COUNT]>();
        *totals = entry.totals;
    }
    // What the ring has no room for stays in the map, where the agent finds it at the end of the window.
    if scratch.emit_body(0, size_of::<Wait>() + size_of::<[WaitTotal; wait_state::COUNT]>()) {
        let _ = TASK_WAITS.remove(&tid);
    } else {
        counters.waits_ring_full += 1;
    }
}

/// What both kinds of records have.
///
/// # Safety
/// `wait` is the body of a claimed record.
#[inline(always)]
unsafe fn fill_wait(wait: *mut Wait, entry: &TaskWaits, kind: u16, cpu: u32, now: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        (*wait).timestamp = now;
        (*wait).state = entry.state;
        (*wait).woken = entry.woken;
        (*wait).pid = entry.pid;
        (*wait).tid = entry.tid;
        (*wait).cpu = cpu;
        (*wait).kind = kind;
        (*wait).comm = entry.comm;
        (*wait).futex = entry.futex;
        (*wait).waker_pid = entry.waker_pid;
        (*wait).waker_tid = entry.waker_tid;
        (*wait).ended = entry.ended;
        (*wait).waker_sampled = entry.waker_sampled;
        (*wait).locked = entry.locked;
        (*wait).reserved = 0;
    }
}
