//! The contexts that programs run in. What interrupts what decides who shares a ring and a scratch record.
//!
//! ```text
//! timer      an interrupt: nothing of ours interrupts it on its CPU          a record a CPU
//!            page faults too: they run in a task, but with preemption off,
//!            and of programs for perf events the kernel runs one at a time
//!            on a CPU (`bpf_prog_active`; who comes second is skipped)
//! scheduler  the switch of tasks: interrupts are off, the run queue's lock   a record a CPU
//!            is held
//! task       a probe in a task's own code: preempted from Linux 6.0 on,      records from a pool
//!            and interrupted by timers
//! ```

use agent_ebpf::{SlotUse, slot};
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf, Stack};

/// `BPF_F_MMAPABLE` (5.5+): the agent reads the counters without a system call.
const MMAPABLE: u32 = 1 << 10;

/// Records of programs that run in timer interrupts. One ring per context: a program that interrupts another inside the ring's
/// own spinlock would stall on it. The agent sets the sizes before loading.
#[map]
static TIMER_RING: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Records of programs that run while tasks are switched.
#[map]
static SCHEDULER_RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Records of programs that run in a task's own context.
#[map]
static TASK_RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// How often each scratch record was claimed and given back; the agent sets the number before loading.
#[map]
static SLOT_USES: Array<SlotUse> = Array::with_max_entries(1, MMAPABLE);

/// Scratch records for tasks' contexts that are free; the agent fills it before it attaches programs. The kernel takes and gives
/// under a lock of the map's own, which is what makes a claim atomic: BPF has an instruction for that from 5.12 on, and Rust none
/// for this target.
#[map]
static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(1, 0);

/// Set by the agent before loading: one more than the highest possible CPU number.
#[unsafe(no_mangle)]
static POSSIBLE_CPUS: u32 = 1;

/// A context: its ring, and how it comes by a scratch record.
pub(crate) trait Context {
    /// Whether there is time to copy a task's stack, which the agent needs to finish a walk.
    const COPIES_STACKS: bool;

    /// The ring that its records go to.
    fn ring() -> *mut core::ffi::c_void;
    /// A scratch record that nobody else uses until it is given back; `None` when there is none.
    fn claim() -> Option<u32>;
    /// Gives it back.
    fn give_back(slot: u32);
}

/// Timer interrupts.
pub(crate) struct Timer;

impl Context for Timer {
    const COPIES_STACKS: bool = true;

    #[inline(always)]
    fn ring() -> *mut core::ffi::c_void {
        (&raw const TIMER_RING).cast_mut().cast()
    }

    #[inline(always)]
    fn claim() -> Option<u32> {
        // SAFETY: a helper without arguments.
        claim_of_cpu(slot::of_timer(unsafe { bpf_get_smp_processor_id() }))
    }

    #[inline(always)]
    fn give_back(slot: u32) {
        note_end(slot);
    }
}

/// The switch of tasks.
pub(crate) struct Scheduler;

impl Context for Scheduler {
    const COPIES_STACKS: bool = false;

    #[inline(always)]
    fn ring() -> *mut core::ffi::c_void {
        (&raw const SCHEDULER_RING).cast_mut().cast()
    }

    #[inline(always)]
    fn claim() -> Option<u32> {
        // SAFETY: a helper without arguments, and a static in `.rodata`.
        let (cpu, cpus) =
            unsafe { (bpf_get_smp_processor_id(), core::ptr::read_volatile(&raw const POSSIBLE_CPUS)) };
        claim_of_cpu(slot::of_scheduler(cpu, cpus))
    }

    #[inline(always)]
    fn give_back(slot: u32) {
        note_end(slot);
    }
}

/// A task's own context: uprobes.
pub(crate) struct Task;

impl Context for Task {
    const COPIES_STACKS: bool = true;

    #[inline(always)]
    fn ring() -> *mut core::ffi::c_void {
        (&raw const TASK_RING).cast_mut().cast()
    }

    #[inline(always)]
    fn claim() -> Option<u32> {
        let slot = FREE_SLOTS.pop().ok()??;
        let uses = SLOT_USES.get_ptr_mut(slot)?;
        // SAFETY: the element of a record that is this program's now.
        unsafe {
            let begun = &raw mut (*uses).begun;
            core::ptr::write_volatile(begun, core::ptr::read_volatile(begun) + 1);
        }
        Some(slot)
    }

    #[inline(always)]
    fn give_back(slot: u32) {
        note_end(slot);
        // There is room: it was taken from there. Where the kernel gives up on the lock, the record stays out of use.
        let _ = FREE_SLOTS.push(&slot, 0);
    }
}

impl Task {
    /// The use of a record that is claimed.
    #[inline(always)]
    pub(crate) fn uses(slot: u32) -> Option<&'static mut SlotUse> {
        // SAFETY: the program has claimed the record, so nobody else writes its element.
        SLOT_USES.get_ptr_mut(slot).map(|uses| unsafe { &mut *uses })
    }
}

/// Claims a record that only this CPU uses, and only in this context. A plain count is enough: whatever interrupts the program on
/// this CPU has ended when it goes on, so claims nest like brackets.
#[inline(always)]
fn claim_of_cpu(slot: u32) -> Option<u32> {
    let uses = SLOT_USES.get_ptr_mut(slot)?;
    // SAFETY: this CPU's element, which only this CPU writes.
    unsafe {
        let (begun, ended) = (&raw mut (*uses).begun, &raw const (*uses).ended);
        if core::ptr::read_volatile(begun) != core::ptr::read_volatile(ended) {
            return None;
        }
        core::ptr::write_volatile(begun, core::ptr::read_volatile(begun) + 1);
    }
    Some(slot)
}

#[inline(always)]
fn note_end(slot: u32) {
    let Some(uses) = SLOT_USES.get_ptr_mut(slot) else { return };
    // SAFETY: the element of a record that is still claimed.
    unsafe {
        let ended = &raw mut (*uses).ended;
        core::ptr::write_volatile(ended, core::ptr::read_volatile(ended) + 1);
    }
}
