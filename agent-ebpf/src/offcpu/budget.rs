//! Which waits have their stacks taken: rare ones all, frequent ones some, so that stacks stay within a share of the CPU's time.
//!
//! Time is cut into epochs of 2²⁷ ns. A task whose waits in the last epoch were no more than the quota has all its stacks taken, one with
//! k times as many one in k. The quota is the CPU's: it halves when stacks took more time than they may, and doubles when they took
//! less than half of that.

use agent_ebpf::{SwitchCounters, TaskWaits};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_ns};

/// An epoch is 2^27 ns, 134 ms.
const EPOCH_BITS: u64 = 27;
/// The quota that a CPU begins with, and the most that it can come to.
const FIRST_QUOTA: u64 = 64;
const MOST_QUOTA: u64 = 1 << 20;

/// Set by the agent before loading: nanoseconds of an epoch that may go into stacks.
#[unsafe(no_mangle)]
static STACK_BUDGET: u64 = 1_342_177;

/// Whether the wait that begins has its stack taken. Chance decides, so that no rhythm of the task's does.
#[inline(always)]
pub(super) fn wants_stack(counters: &mut SwitchCounters, task: &mut TaskWaits, now: u64) -> bool {
    // SAFETY: a static in `.rodata`.
    let budget = unsafe { core::ptr::read_volatile(&raw const STACK_BUDGET) };
    let epoch = now >> EPOCH_BITS;
    if counters.epoch != epoch {
        adapt(counters, budget, epoch);
    }
    if task.epoch != epoch as u32 {
        // One that was away for longer has had no waits meanwhile.
        let passed = (epoch as u32).wrapping_sub(task.epoch).max(1);
        // Checked: where a division could fail, a call of the panic handler would be a program's last instruction, and the verifier
        // refuses that.
        let share = (counters.quota as u32).saturating_mul(passed);
        task.every = task.switches.checked_div(share).unwrap_or(1).max(1);
        task.epoch = epoch as u32;
        task.switches = 0;
    }
    task.switches += 1;
    // A burst does not wait for the next epoch.
    if u64::from(task.switches) > 2 * counters.quota * u64::from(task.every) {
        task.every *= 2;
    }
    // SAFETY: a helper without arguments.
    if task.every > 1 && unsafe { bpf_get_prandom_u32() }.checked_rem(task.every) != Some(0) {
        return false;
    }
    let affordable = counters.epoch_nanoseconds < 4 * budget;
    counters.over_budget += u64::from(!affordable);
    affordable
}

/// Whether there is time for the stack of a waker. Which wakers are asked for was decided when their waits began.
#[inline(always)]
pub(super) fn affords_waker(counters: &mut SwitchCounters, now: u64) -> bool {
    // SAFETY: a static in `.rodata`.
    let budget = unsafe { core::ptr::read_volatile(&raw const STACK_BUDGET) };
    let epoch = now >> EPOCH_BITS;
    if counters.epoch != epoch {
        adapt(counters, budget, epoch);
    }
    let affordable = counters.epoch_nanoseconds < 4 * budget;
    counters.wakers_over_budget += u64::from(!affordable);
    affordable
}

/// Counts the time since `began` as gone into a stack.
#[inline(always)]
pub(super) fn spend(counters: &mut SwitchCounters, began: u64) {
    // SAFETY: a helper without arguments.
    let spent = unsafe { bpf_ktime_get_ns() } - began;
    counters.stack_nanoseconds += spent;
    counters.epoch_nanoseconds += spent;
}

/// Stacks that were taken on this CPU, lost ones included.
#[inline(always)]
pub(super) fn records(counters: &SwitchCounters) -> u64 {
    counters.stacks + counters.stacks_ring_full + counters.wakers + counters.wakers_ring_full
}

#[inline(always)]
fn adapt(counters: &mut SwitchCounters, budget: u64, epoch: u64) {
    let spent = counters.epoch_nanoseconds;
    counters.quota = if counters.quota == 0 {
        FIRST_QUOTA
    } else if spent > budget {
        (counters.quota / 2).max(1)
    } else if spent < budget / 2 {
        (counters.quota * 2).min(MOST_QUOTA)
    } else {
        counters.quota
    };
    counters.epoch = epoch;
    counters.epoch_nanoseconds = 0;
}
