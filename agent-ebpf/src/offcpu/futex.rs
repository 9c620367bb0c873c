//! Futex system calls, from the registers with which the current task entered the kernel. No tracepoint of system calls is needed, which
//! would cost every system call of the machine.

use agent_ebpf::{FutexCall, futex};

use crate::unwind::{KernelSupport, SystemCall, current_system_call};

/// The calls that came later have the same numbers on all machines (`include/uapi/asm-generic/unistd.h`).
const FUTEX_WAITV: u64 = 449;
const FUTEX_WAKE: u64 = 454;
const FUTEX_WAIT: u64 = 455;
const FUTEX_REQUEUE: u64 = 456;

/// The futex call that the current task sleeps in, if it does.
#[inline(always)]
pub(super) fn waiting<K: KernelSupport>() -> Option<FutexCall> {
    let SystemCall { number, arguments: [address, second, third] } = current_system_call::<K>()?;
    match number {
        SystemCall::FUTEX => Some(FutexCall { address, operation: second as u32, value: third as u32 }),
        FUTEX_WAIT => Some(FutexCall { address, operation: futex::WAIT_BITSET, value: second as u32 }),
        FUTEX_WAITV => Some(FutexCall { address, operation: futex::WAITV, value: second as u32 }),
        _ => None,
    }
}

/// Whether the current task is in a futex call that wakes others.
///
/// Addresses are not compared. A sleeper may have been moved to another word than that of its call, and two processes have one word at
/// different addresses; and such a call wakes nobody who sleeps in one but on its words.
#[inline(always)]
pub(super) fn is_waking<K: KernelSupport>() -> bool {
    let Some(SystemCall { number, arguments }) = current_system_call::<K>() else { return false };
    match number {
        SystemCall::FUTEX => matches!(
            arguments[1] as u32 & futex::COMMAND,
            futex::WAKE
                | futex::REQUEUE
                | futex::CMP_REQUEUE
                | futex::WAKE_OP
                | futex::UNLOCK_PI
                | futex::WAKE_BITSET
                | futex::CMP_REQUEUE_PI
        ),
        FUTEX_WAKE | FUTEX_REQUEUE => true,
        _ => false,
    }
}
