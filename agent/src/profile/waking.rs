//! What a task waited for, and what woke it.

use agent_ebpf::{FutexCall, ended, wait_state};

/// What a task waited for, as far as the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// Anything.
    Unknown,
    /// A futex: the operation with its flags, and the value that the word was to have ([`Purpose::futex`]).
    Futex {
        /// One of [`agent_ebpf::futex`], with flags.
        operation: u32,
        /// What tells causes apart.
        value: u32,
    },
    /// A lock of the kernel's own.
    KernelLock,
}

impl Purpose {
    /// What the program noted of a wait in `state`.
    pub fn of(state: u16, call: &FutexCall, locked: u16) -> Self {
        if state == wait_state::FUTEX {
            Self::futex(call)
        } else if locked != 0 {
            Self::KernelLock
        } else {
            Self::Unknown
        }
    }

    /// A futex call. Of values, what rules ask for is kept: small ones, all ones, the highest bit alone and with others. Round counters of
    /// barriers and conditions, and holders' thread ids, would else make each wait another one.
    pub fn futex(call: &FutexCall) -> Self {
        const HIGHEST: u32 = 1 << 31;
        const SMALL: u32 = 4;
        let value = match call.value {
            value if value < SMALL || value == u32::MAX || value == HIGHEST => value,
            value if value & HIGHEST != 0 => HIGHEST | 1,
            _ => SMALL,
        };
        Self::Futex { operation: call.operation, value }
    }
}

/// What ended a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndedBy {
    /// Nothing yet.
    Nothing,
    /// The waking was not seen.
    Unseen,
    /// Nobody looked: the wait stands for others, of which no stack was taken.
    NotLookedAt,
    /// A task inside futex(2).
    Futex,
    /// A task otherwise.
    Task,
    /// A task that sent a signal, or a timer that did.
    Signal,
    /// A timer.
    Timer,
    /// An interrupt otherwise: a device, another CPU.
    Interrupt,
    /// The same on an idle CPU: a timer perhaps.
    Idle,
}

impl EndedBy {
    /// What the program noted: one of [`ended`].
    pub fn of(ended: u16) -> Self {
        match ended {
            ended::FUTEX => Self::Futex,
            ended::TASK => Self::Task,
            ended::IDLE => Self::Idle,
            _ => Self::Unseen,
        }
    }

    /// The same when the waker's kernel stack is known: an interrupt may have hit the task.
    #[must_use]
    pub fn seen_as(self, source: WakeSource) -> Self {
        match source {
            WakeSource::Task => self,
            WakeSource::Interrupt if self == Self::Idle => self,
            WakeSource::Signal => Self::Signal,
            WakeSource::Timer => Self::Timer,
            WakeSource::Interrupt => Self::Interrupt,
        }
    }

    /// Whether it was an interrupt.
    pub fn is_interrupt(self) -> bool {
        matches!(self, Self::Timer | Self::Interrupt | Self::Idle)
    }
}

/// What a waker's kernel stack says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeSource {
    /// The task did it.
    Task,
    /// It sent a signal.
    Signal,
    /// A timer's interrupt.
    Timer,
    /// Another interrupt.
    Interrupt,
}

impl WakeSource {
    /// Whether the task that was hit has nothing to do with it.
    pub fn is_interrupt(self) -> bool {
        matches!(self, Self::Timer | Self::Interrupt)
    }
}

/// How a wait was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// By what, as far as the program tells.
    pub by: EndedBy,
    /// The waker's thread id.
    pub waker: u32,
    /// When, `CLOCK_MONOTONIC` nanoseconds.
    pub time: u64,
    /// Nanoseconds since the wait began.
    pub blocked: u64,
    /// Whether the waker's stack was taken.
    pub has_stack: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that rules tell apart stay; the others become one of few.
    #[test]
    fn values_are_few() {
        let kept = |value| match Purpose::futex(&FutexCall { value, operation: 128, address: 1 }) {
            Purpose::Futex { value, operation: 128 } => value,
            other => panic!("{other:?}"),
        };
        for value in [0, 1, 2, 3, u32::MAX, 1 << 31] {
            assert_eq!(kept(value), value);
        }
        assert_eq!([4, 5, 1 << 30].map(kept), [4; 3]);
        assert_eq!([(1 << 31) + 77, (1 << 31) + 78].map(kept), [(1 << 31) | 1; 2]);
    }
}
