//! What a thread asks of futex(2).

/// Bits of futex(2)'s second argument beside the command (`include/uapi/linux/futex.h`).
const PRIVATE_FLAG: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

/// What futex(2) is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FutexCommand {
    /// `FUTEX_WAIT`, and each of the words of futex_waitv(2).
    Wait,
    /// `FUTEX_WAKE`.
    Wake,
    /// `FUTEX_REQUEUE`.
    Requeue,
    /// `FUTEX_CMP_REQUEUE`.
    CompareRequeue,
    /// `FUTEX_WAKE_OP`.
    WakeOperation,
    /// `FUTEX_LOCK_PI`: the kernel itself takes the lock for the caller, who inherits priority to the holder.
    LockPi,
    /// `FUTEX_UNLOCK_PI`.
    UnlockPi,
    /// `FUTEX_TRYLOCK_PI`.
    TryLockPi,
    /// `FUTEX_WAIT_BITSET`, and futex_wait(2).
    WaitBitset,
    /// `FUTEX_WAKE_BITSET`, and futex_wake(2).
    WakeBitset,
    /// `FUTEX_WAIT_REQUEUE_PI`: a condition whose waiters move on to a lock of the kernel's.
    WaitRequeuePi,
    /// `FUTEX_CMP_REQUEUE_PI`.
    CompareRequeuePi,
    /// `FUTEX_LOCK_PI2`, since Linux 5.14.
    LockPi2,
}

impl FutexCommand {
    /// The command with this number.
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Wait,
            1 => Self::Wake,
            3 => Self::Requeue,
            4 => Self::CompareRequeue,
            5 => Self::WakeOperation,
            6 => Self::LockPi,
            7 => Self::UnlockPi,
            8 => Self::TryLockPi,
            9 => Self::WaitBitset,
            10 => Self::WakeBitset,
            11 => Self::WaitRequeuePi,
            12 => Self::CompareRequeuePi,
            13 => Self::LockPi2,
            _ => return None,
        })
    }
}

/// futex(2)'s second argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FutexOperation {
    /// What is asked for.
    pub command: FutexCommand,
    /// Whether the futex is of this process only.
    pub is_private: bool,
    /// Whether the timeout is of the wall clock.
    pub is_realtime: bool,
}

impl FutexOperation {
    /// Reads the argument; `None` for a command that no kernel knows (2 was `FUTEX_FD`, until 2.6.25), or none of its flags.
    pub fn parse(word: u32) -> Option<Self> {
        let command = FutexCommand::from_number(word & !(PRIVATE_FLAG | CLOCK_REALTIME))?;
        let has = |flag| word & flag != 0;
        Some(Self { command, is_private: has(PRIVATE_FLAG), is_realtime: has(CLOCK_REALTIME) })
    }

    /// Whether a thread that asks for this may sleep until somebody wakes it.
    pub fn waits(self) -> bool {
        use FutexCommand::{LockPi, LockPi2, Wait, WaitBitset, WaitRequeuePi};
        matches!(self.command, Wait | WaitBitset | WaitRequeuePi | LockPi | LockPi2)
    }

    /// Whether a thread that asks for this may wake others: it lets something go.
    pub fn wakes(self) -> bool {
        !self.waits() && self.command != FutexCommand::TryLockPi
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flags are told from the command, and numbers that are no command are refused.
    #[test]
    fn words_are_parsed() {
        let parsed = |word| FutexOperation::parse(word).map(|op| (op.command, op.is_private, op.is_realtime));
        assert_eq!(parsed(0), Some((FutexCommand::Wait, false, false)));
        assert_eq!(parsed(PRIVATE_FLAG), Some((FutexCommand::Wait, true, false)));
        assert_eq!(parsed(PRIVATE_FLAG + CLOCK_REALTIME + 9), Some((FutexCommand::WaitBitset, true, true)));
        assert_eq!(parsed(PRIVATE_FLAG + 13), Some((FutexCommand::LockPi2, true, false)));
        for word in [2, 14, 127, 512, u32::MAX] {
            assert_eq!(parsed(word), None, "{word}");
        }
    }

    /// Every command waits, wakes, or is an attempt that does neither.
    #[test]
    fn waiting_and_waking_are_apart() {
        let all = (0..14).filter_map(FutexOperation::parse);
        let sides: Vec<_> = all.map(|op| (op.waits(), op.wakes())).collect();
        assert_eq!(sides.iter().filter(|side| **side == (true, false)).count(), 5);
        assert_eq!(sides.iter().filter(|side| **side == (false, true)).count(), 7);
        assert_eq!(sides.iter().filter(|side| **side == (false, false)).count(), 1);
    }
}
