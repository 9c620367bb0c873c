//! What a reader must know before believing a profile's numbers, in plain words.

use std::time::Duration;

use super::quantity::{amount, length};
use crate::profile::accounting::{Accounting, LeftOut, LostCause, TruncatedCause, UnresolvedReason};

/// Share of the expected samples that may be lost before the report warns: 1 %.
const LOST_WARNING: f64 = 1.0;
/// Lost samples below which a share says nothing: the kernel's idle clock is good to a tick or two per CPU.
const LOST_NOISE: u64 = 10;
/// Share of the samples that may be cut short before the report says so: 1 %.
const TRUNCATED_NOTICE: f64 = 1.0;

/// One statement about a profile's quality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// Nothing wrong, but good to know.
    Notice(String),
    /// The numbers are off by more than people expect.
    Warning(String),
    /// The books do not balance: the agent has a bug.
    Bug(String),
}

/// What there is to say about these books; nothing if all is well.
pub fn remarks(books: &Accounting) -> Vec<Remark> {
    let all = [imbalance(books), left_out(books), losses(books), truncation(books), unresolved(books)];
    all.into_iter().flatten().collect()
}

fn imbalance(books: &Accounting) -> Option<Remark> {
    (!books.balances()).then(|| {
        Remark::Bug(format!(
            "BUG: the books do not balance ({} ticks, {} idle, {} not selected, {} left out, {} expected, \
             {} emitted, {} lost). Do not trust this profile, and please report this.",
            books.ticks,
            books.idle,
            books.not_selected,
            books.left_out.count,
            books.expected,
            books.emitted,
            books.lost_total()
        ))
    })
}

fn left_out(books: &Accounting) -> Option<Remark> {
    let LeftOut { shorter_than, count, nanoseconds } = books.left_out;
    (count > 0).then(|| {
        let (shorter_than, time) =
            (length(Duration::from_nanos(shorter_than)), amount(nanoseconds.cast_signed(), "nanoseconds"));
        let waits = if count == 1 { "wait of whatever kind is" } else { "waits of whatever kind are" };
        Remark::Notice(format!(
            "{count} {waits} left out: shorter than {shorter_than} (--offcpu-min), {time} together."
        ))
    })
}

fn losses(books: &Accounting) -> Option<Remark> {
    let share = percent(books.lost_total(), books.expected);
    (share > LOST_WARNING && books.lost_total() > LOST_NOISE).then(|| {
        let cause = largest(LostCause::ALL, &books.lost).map_or("", explain_loss);
        Remark::Warning(format!(
            "Warning: {share:.1} % of the samples that should be here are missing; the others were scaled up \
             to make up for them. Main cause: {cause}."
        ))
    })
}

fn truncation(books: &Accounting) -> Option<Remark> {
    let share = percent(books.truncated_total(), books.emitted);
    (share > TRUNCATED_NOTICE).then(|| {
        let cause = largest(TruncatedCause::ALL, &books.truncated).map_or("", explain_truncation);
        Remark::Notice(format!(
            "{share:.1} % of the stacks are cut short, so callers get too little total time. \
             Main cause: {cause}."
        ))
    })
}

fn unresolved(books: &Accounting) -> Option<Remark> {
    (books.unresolved_total() > 0).then(|| {
        let share = percent(books.unresolved_total(), books.frames);
        let reason = largest(UnresolvedReason::ALL, &books.unresolved).map_or("", explain_unresolved);
        Remark::Notice(format!("{share:.1} % of the frames have no function name. Main reason: {reason}."))
    })
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// The cause that occurred most; the first one of equals.
fn largest<T: Copy, const N: usize>(causes: [T; N], counts: &[u64; N]) -> Option<T> {
    causes.into_iter().zip(counts).rev().max_by_key(|(_, count)| **count).map(|(cause, _)| cause)
}

fn explain_loss(cause: LostCause) -> &'static str {
    match cause {
        LostCause::KernelSkipped => {
            "the kernel did not run the sampler (interrupts off, another BPF program active, or the virtual \
             CPU paused)"
        }
        LostCause::TableFull => "there were more tasks than --offcpu-memory has room for",
        LostCause::RingFull => {
            "the agent did not read the ring buffer fast enough (give it more CPU or a larger buffer)"
        }
        LostCause::ScratchBusy => "the sampler interrupted itself",
        LostCause::CpuReturned => "a CPU came online, and was not sampled at once",
        LostCause::Undecodable => "records could not be read",
        LostCause::WakerUnseen => "who ended a wait was not seen",
        LostCause::StackNotTaken => "no stack was taken, to stay within --offcpu-budget",
    }
}

fn explain_truncation(cause: TruncatedCause) -> &'static str {
    match cause {
        TruncatedCause::Depth => "stacks deeper than a record holds",
        TruncatedCause::Slice => "stacks with frames larger than the piece of stack that a record carries",
        TruncatedCause::Unwind => "code without unwind information",
        TruncatedCause::Cold => "code was new, and the thread had gone on before its stack could be read",
        TruncatedCause::Budget => "too many stacks had to be finished in user space at once",
        TruncatedCause::Compat => "32-bit processes",
        TruncatedCause::StackTableFull => "the byte budget for distinct stacks was used up",
    }
}

fn explain_unresolved(reason: UnresolvedReason) -> &'static str {
    match reason {
        UnresolvedReason::Stripped => "files without symbols there",
        UnresolvedReason::Gone => "the file or process was gone",
        UnresolvedReason::Unreadable => "the file could not be read",
        UnresolvedReason::Malformed => "the file is not a valid ELF file",
        UnresolvedReason::OverBudget => "the file has more symbols than fit the budget",
        UnresolvedReason::Anonymous => {
            "code in memory that no file holds, in processes without a known runtime"
        }
        UnresolvedReason::JitWithoutMap => {
            "generated code that no perf map names (node --perf-basic-prof, java: see --jvm-perf-map, \
             DOTNET_PerfMapEnabled=1, -Xjit:perfTool)"
        }
        UnresolvedReason::UnknownProcess => "the process ended before it was known",
        UnresolvedReason::Unmapped => "addresses outside every known mapping",
        UnresolvedReason::KernelHidden => "the kernel hides its addresses",
        UnresolvedReason::ModuleTableFull => "more files are mapped than the table of modules holds",
        UnresolvedReason::Stalled => "the file systems of their files did not answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books(expected: u64, lost: u64) -> Accounting {
        let mut books = Accounting {
            ticks: expected,
            expected,
            emitted: expected - lost,
            frames: 1000,
            ..Accounting::default()
        };
        books.lost[LostCause::RingFull as usize] = lost;
        books
    }

    /// A profile with nothing wrong draws no remark; nor does one per cent of loss.
    #[test]
    fn silence_when_all_is_well() {
        assert_eq!(remarks(&Accounting::default()), []);
        assert_eq!(remarks(&books(1000, 0)), []);
        assert_eq!(remarks(&books(1000, 10)), []);
    }

    /// More than one per cent is a warning that names the main cause.
    #[test]
    fn losses_are_a_warning() {
        let mut books = books(1000, 11);
        books.lost[LostCause::ScratchBusy as usize] = 4;
        books.emitted -= 4;
        let remarks = remarks(&books);
        let [Remark::Warning(text)] = remarks.as_slice() else { panic!("one warning") };
        assert!(text.starts_with("Warning: 1.5 % of the samples"), "{text}");
        assert!(text.contains("ring buffer"), "{text}");
    }

    /// Books that do not balance are called a bug, whichever of the two sums is off.
    #[test]
    fn imbalance_is_a_bug() {
        for broken in
            [Accounting { emitted: 999, ..books(1000, 0) }, Accounting { ticks: 1001, ..books(1000, 0) }]
        {
            let remarks = remarks(&broken);
            let [Remark::Bug(text)] = remarks.as_slice() else { panic!("one bug") };
            assert!(text.starts_with("BUG: "), "{text}");
        }
    }

    /// Waits that are left out are noticed, with how long they were, and are no losses.
    #[test]
    fn what_is_left_out_is_noticed() {
        let left_out = LeftOut { shorter_than: 10_000_000, count: 510, nanoseconds: 543_210_000 };
        let all = books(1000, 0).with_left_out(left_out);
        let text =
            "510 waits of whatever kind are left out: shorter than 10.0 ms (--offcpu-min), 543 ms together.";
        assert_eq!(remarks(&all), [Remark::Notice(text.into())]);
        let none = LeftOut { count: 0, nanoseconds: 0, ..left_out };
        assert_eq!(remarks(&books(1000, 0).with_left_out(none)), []);
    }

    /// Unnamed frames and cut stacks are noticed with their share and main cause.
    #[test]
    fn holes_are_noticed() {
        let mut books = books(1000, 0);
        books.truncated[TruncatedCause::Depth as usize] = 25;
        books.unresolved[UnresolvedReason::Stripped as usize] = 80;
        books.unresolved[UnresolvedReason::Gone as usize] = 3;
        assert_eq!(
            remarks(&books),
            [
                Remark::Notice(
                    "2.5 % of the stacks are cut short, so callers get too little total time. \
                     Main cause: stacks deeper than a record holds."
                        .into()
                ),
                Remark::Notice(
                    "8.3 % of the frames have no function name. \
                     Main reason: files without symbols there."
                        .into()
                ),
            ]
        );
    }
}
