//! What should have been sampled, and what became of it.
//!
//! The expected count is known from *outside* the eBPF program: the perf event's own clock divided by the
//! sampling period. So a sample that the kernel skipped without running the program shows up too.

use std::fmt;
use std::time::Duration;

pub use crate::symbol::unresolved::UnresolvedReason;

/// Why an expected sample is not in the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LostCause {
    /// The timer should have fired, but the program did not run: another BPF program or map operation was
    /// active on that CPU, interrupts were off, or the hypervisor had paused the CPU.
    KernelSkipped,
    /// The ring buffer between the kernel and the agent was full.
    RingFull,
    /// No scratch record was free in the program: it interrupted itself.
    ScratchBusy,
    /// A CPU had come online, and its timer was not started yet.
    CpuReturned,
    /// The kernel's table of tasks was full: waits of others could not be timed.
    TableFull,
    /// The agent read a record that it could not decode, or a sequence number was missing.
    Undecodable,
    /// It was not seen who ended the wait: the waking came before the switch, or the kernel did not run the program.
    WakerUnseen,
    /// The stack that the wait would be charged to was not taken: for want of time or of room in the ring, or because the wait is one of many of
    /// which none was sampled.
    StackNotTaken,
}

impl LostCause {
    /// Every cause, in the order in which reports list them.
    pub const ALL: [Self; 8] = [
        Self::KernelSkipped,
        Self::RingFull,
        Self::ScratchBusy,
        Self::CpuReturned,
        Self::TableFull,
        Self::Undecodable,
        Self::WakerUnseen,
        Self::StackNotTaken,
    ];

    /// The value of the `cause` label in metrics, logs and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::KernelSkipped => "kernel_skipped",
            Self::RingFull => "ring_full",
            Self::ScratchBusy => "scratch_busy",
            Self::CpuReturned => "cpu_returned",
            Self::TableFull => "table_full",
            Self::Undecodable => "undecodable",
            Self::WakerUnseen => "waker_unseen",
            Self::StackNotTaken => "stack_not_taken",
        }
    }
}

/// Why a stack in the profile is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TruncatedCause {
    /// More frames than a record holds.
    Depth,
    /// The stack reaches beyond the slice that a record carries.
    Slice,
    /// Nothing says how to go on, or what does cannot be right.
    Unwind,
    /// Too many stacks had to be finished in user space at once.
    Budget,
    /// A 32-bit process.
    Compat,
    /// The unwind tables of its code were not in the kernel yet, and the thread had gone on before its stack could be read: where tasks are
    /// switched or woken, nothing is copied.
    Cold,
    /// The aggregator's byte budget was used up: the sample is kept under its process, without its stack.
    StackTableFull,
}

impl TruncatedCause {
    /// Every cause, in the order in which reports list them.
    pub const ALL: [Self; 7] = [
        Self::Depth,
        Self::Slice,
        Self::Unwind,
        Self::Budget,
        Self::Compat,
        Self::Cold,
        Self::StackTableFull,
    ];

    /// The value of the `cause` label in metrics, logs and profiles.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Slice => "slice",
            Self::Unwind => "unwind",
            Self::Budget => "budget",
            Self::Compat => "compat",
            Self::Cold => "cold",
            Self::StackTableFull => "stack_table_full",
        }
    }
}

/// Waits that are not in a profile because they were short (`--offcpu-min`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Nanoseconds: those are left out that lasted less. 0: none is.
    pub shorter_than: u64,
    /// How many they were,
    pub count: u64,
    /// and nanoseconds that they were together.
    pub nanoseconds: u64,
}

impl fmt::Display for LeftOut {
    /// Part of a line of books: `left out 510 (shorter than 10ms), `; nothing where none could be left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shorter_than, count, .. } = *self;
        if shorter_than == 0 {
            return Ok(());
        }
        write!(f, "left out {count} (shorter than {:?}), ", Duration::from_nanos(shorter_than))
    }
}

/// The books of one profile over one window.
///
/// `expected == emitted + Σ lost` always holds; [`Accounting::balances`] says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounting {
    /// How often the timer should have fired, over all CPUs: the event's clock ÷ the period. Of waits: switches of tasks, by the
    /// kernel's own count; in profiles that are made from waits, these. Of page faults: firings of their events, by their counts ÷ their
    /// periods, but for those that chance passed over.
    pub ticks: u64,
    /// Ticks that found the CPU idle; switches from the idle task.
    pub idle: u64,
    /// Ticks that hit a process that was not selected (`--pid`, `--cgroup`); switches from one, from the agent, and from tasks that
    /// ended.
    pub not_selected: u64,
    /// Waits that are shorter than was asked for. Profiles that are made from waits have those of all kinds here and in `ticks`: what they
    /// were for is not looked at.
    pub left_out: LeftOut,
    /// Ticks that should have given a sample: `ticks - idle - not_selected - left_out.count`.
    pub expected: u64,
    /// Samples, or waits, in the profile.
    pub emitted: u64,
    /// Samples that should be in the profile and are not, by cause (index: position in [`LostCause::ALL`]).
    pub lost: [u64; LostCause::ALL.len()],
    /// Samples in the profile whose stack is cut short, by cause.
    pub truncated: [u64; TruncatedCause::ALL.len()],
    /// Frames of the profile's samples, weighted by samples.
    pub frames: u64,
    /// Frames without a function name, weighted by samples, by reason.
    pub unresolved: [u64; UnresolvedReason::ALL.len()],
}

impl Accounting {
    /// Samples lost for `cause`.
    pub fn lost(&self, cause: LostCause) -> u64 {
        self.lost[cause as usize]
    }

    /// Samples lost, whatever the cause.
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Samples whose stack was cut short, whatever the cause.
    pub fn truncated_total(&self) -> u64 {
        self.truncated.iter().sum()
    }

    /// Frames without a function name, whatever the reason.
    pub fn unresolved_total(&self) -> u64 {
        self.unresolved.iter().sum()
    }

    /// The books of a profile that is made from waits of which some had been left out before.
    #[must_use]
    pub fn with_left_out(self, left_out: LeftOut) -> Self {
        Self { ticks: self.ticks + left_out.count, left_out, ..self }
    }

    /// Whether nothing is missing from the books.
    pub fn balances(&self) -> bool {
        self.expected == self.emitted + self.lost_total()
            && self.ticks == self.expected + self.idle + self.not_selected + self.left_out.count
    }
}

impl fmt::Display for Accounting {
    /// One line, for people: `expected 1980, emitted 1975, lost 5 (kernel_skipped 5), …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, emitted {}, {}", self.expected, self.emitted, self.left_out)?;
        let lost = LostCause::ALL.map(LostCause::name);
        write_by_cause(f, "lost", &self.lost, &lost)?;
        f.write_str(", ")?;
        let truncated = TruncatedCause::ALL.map(TruncatedCause::name);
        write_by_cause(f, "truncated", &self.truncated, &truncated)?;
        write!(f, ", ")?;
        let unresolved = UnresolvedReason::ALL.map(UnresolvedReason::name);
        write_by_cause(f, "unresolved frames", &self.unresolved, &unresolved)?;
        write!(f, " of {}", self.frames)
    }
}

fn write_by_cause(f: &mut fmt::Formatter<'_>, what: &str, counts: &[u64], names: &[&str]) -> fmt::Result {
    write!(f, "{what} {}", counts.iter().sum::<u64>())?;
    let mut separator = " (";
    for (count, name) in counts.iter().zip(names).filter(|(count, _)| **count > 0) {
        write!(f, "{separator}{name} {count}")?;
        separator = ", ";
    }
    if separator == ", " { f.write_str(")") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The enum's discriminants are the indices that `lost`, `truncated` and `unresolved` use.
    #[test]
    fn causes_index_their_arrays() {
        for (index, cause) in LostCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
        for (index, cause) in TruncatedCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
        for (index, reason) in UnresolvedReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    /// The line of honesty names only causes that occurred.
    #[test]
    fn the_line_names_what_occurred() {
        let mut books =
            Accounting { ticks: 20, idle: 8, expected: 12, emitted: 10, frames: 50, ..Accounting::default() };
        books.lost[LostCause::RingFull as usize] = 2;
        assert!(books.balances());
        assert_eq!(
            books.to_string(),
            "expected 12, emitted 10, lost 2 (ring_full 2), truncated 0, unresolved frames 0 of 50"
        );
    }

    /// What is left out is no loss: it is in the books by itself, and the line has it where something could be left out.
    #[test]
    fn what_is_left_out_is_in_the_books() {
        let left_out = LeftOut { shorter_than: 10_000_000, count: 7, nanoseconds: 7_000_000 };
        let books = Accounting { ticks: 20, expected: 13, emitted: 13, left_out, ..Accounting::default() };
        assert!(books.balances());
        assert!(!Accounting { ticks: 13, ..books.clone() }.balances());
        let line = books.to_string();
        assert!(
            line.starts_with("expected 13, emitted 13, left out 7 (shorter than 10ms), lost 0, "),
            "{line}"
        );
    }
}
