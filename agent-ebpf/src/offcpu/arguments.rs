//! The tracepoint's arguments, which have changed places: a program for each order. The verifier wants each of them read at a constant
//! place of the context, and LLVM makes one computed place of two constant ones.
//!
//! ```text
//! to 5.17      preempt, prev, next
//! 5.18, 5.19   preempt, prev_state, prev, next
//! from 6.0     preempt, prev, next, prev_state
//! ```

use aya_ebpf::bindings::task_struct;
use aya_ebpf::programs::BtfTracePointContext;

use super::task;

/// An order of arguments.
pub(super) trait Arguments {
    /// The task that comes.
    fn next(context: &BtfTracePointContext) -> *mut task_struct;
    /// The state of the task that leaves.
    fn state(context: &BtfTracePointContext) -> u32;
}

/// From 6.0.
pub(super) struct StateLast;

impl Arguments for StateLast {
    #[inline(always)]
    fn next(context: &BtfTracePointContext) -> *mut task_struct {
        context.arg(2)
    }

    #[inline(always)]
    fn state(context: &BtfTracePointContext) -> u32 {
        context.arg(3)
    }
}

/// 5.18 and 5.19.
pub(super) struct StateFirst;

impl Arguments for StateFirst {
    #[inline(always)]
    fn next(context: &BtfTracePointContext) -> *mut task_struct {
        context.arg(3)
    }

    #[inline(always)]
    fn state(context: &BtfTracePointContext) -> u32 {
        context.arg(1)
    }
}

/// To 5.17; also where the state is last.
pub(super) struct NoState;

impl Arguments for NoState {
    #[inline(always)]
    fn next(context: &BtfTracePointContext) -> *mut task_struct {
        context.arg(2)
    }

    #[inline(always)]
    fn state(_context: &BtfTracePointContext) -> u32 {
        task::current_state()
    }
}

/// The state of the task that leaves, as the scheduler saw it. A task that is preempted is about to run on, whatever it was about
/// to do.
#[inline(always)]
pub(super) fn leaving_state<A: Arguments>(context: &BtfTracePointContext) -> u32 {
    let is_preempted = context.arg::<u64>(0) as u8 != 0;
    if is_preempted { 0 } else { A::state(context) }
}
