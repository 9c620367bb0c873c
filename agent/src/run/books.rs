//! Balancing the books of a CPU profile: what the timers should have done against what arrived.

use agent_ebpf::{SwitchCounters, WaitTotal, kind};

use crate::profile::accounting::{Accounting, LeftOut, LostCause};
use crate::profile::finish::Finished;
use crate::profiler::collector::Collector;
use crate::profiler::cpu_ledger::CpuLedger;
use crate::profiler::faults::FaultLedger;
use crate::profiler::offcpu::SwitchLedger;

/// The waits that are shorter than `shorter_than` nanoseconds: those that have ended, which the program counted, and those that went on,
/// which are `unended`.
pub fn left_out(shorter_than: u64, ledger: &SwitchLedger, unended: WaitTotal) -> LeftOut {
    let SwitchCounters { left_out, left_out_nanoseconds, .. } = ledger.counters;
    LeftOut {
        shorter_than,
        count: left_out + unended.count,
        nanoseconds: left_out_nanoseconds + unended.nanoseconds,
    }
}

/// The books of a window of waits that is over: what the kernel's own count says, what the program made of it, and what is in the
/// profile.
pub fn balance_waits(ledger: &SwitchLedger, left_out: LeftOut, finished: &Finished) -> Accounting {
    let SwitchLedger { switches, counters, sleepers, .. } = ledger;
    // Waits that had begun before are not switches of this window.
    let asleep = sleepers.len() as u64;
    let mut books = Accounting {
        ticks: switches + asleep,
        idle: counters.idle,
        not_selected: counters.not_selected + counters.ended,
        left_out,
        emitted: finished.samples.iter().map(|sample| sample.value(0).cast_unsigned()).sum(),
        frames: finished.frames,
        truncated: finished.truncated,
        unresolved: finished.unresolved,
        ..Accounting::default()
    };
    // Where the kernel skips the program, one task's wait does not begin and another's does not end.
    let unended = (counters.begun + asleep).saturating_sub(books.emitted + left_out.count);
    books.lost[LostCause::KernelSkipped as usize] = switches.saturating_sub(counters.switches) + unended;
    books.lost[LostCause::TableFull as usize] = counters.table_full;
    books.expected = books.ticks - books.idle - books.not_selected - left_out.count;
    books
}

/// The books of a window of page faults that is over.
pub fn balance_faults<'a>(
    ledgers: impl IntoIterator<Item = &'a FaultLedger>,
    collector: &Collector,
    finished: &Finished,
) -> Accounting {
    let mut books = Accounting {
        frames: finished.frames,
        truncated: finished.truncated,
        unresolved: finished.unresolved,
        ..Accounting::default()
    };
    let mut written = 0;
    for FaultLedger { due, counters, kernel_skipped, .. } in ledgers {
        books.ticks += due - counters.passed_over;
        books.not_selected += counters.not_selected;
        books.lost[LostCause::KernelSkipped as usize] += kernel_skipped;
        books.lost[LostCause::RingFull as usize] += counters.ring_full;
        books.lost[LostCause::ScratchBusy as usize] += counters.scratch_busy;
        written += counters.emitted;
    }
    books.emitted = collector.received(kind::PAGE_FAULT);
    books.lost[LostCause::Undecodable as usize] = written.saturating_sub(books.emitted);
    books.expected = books.ticks - books.not_selected;
    books
}

/// The books of a window that is over, from each CPU's ledger and from what the collector read.
pub fn balance<'a>(
    ledgers: impl IntoIterator<Item = &'a CpuLedger>,
    collector: &Collector,
    finished: &Finished,
) -> Accounting {
    let mut books = Accounting {
        frames: finished.frames,
        truncated: finished.truncated,
        unresolved: finished.unresolved,
        ..Accounting::default()
    };
    let mut written = 0;
    for CpuLedger { ticks, counters, asleep, kernel_skipped, unwatched, .. } in ledgers {
        books.ticks += ticks;
        books.idle += counters.idle + asleep;
        books.not_selected += counters.not_selected;
        books.lost[LostCause::KernelSkipped as usize] += kernel_skipped;
        books.lost[LostCause::RingFull as usize] += counters.ring_full;
        books.lost[LostCause::ScratchBusy as usize] += counters.scratch_busy;
        books.lost[LostCause::CpuReturned as usize] += unwatched;
        written += counters.emitted;
    }
    books.emitted = collector.received(kind::CPU);
    books.lost[LostCause::Undecodable as usize] = written.saturating_sub(books.emitted);
    books.expected = books.ticks - books.idle - books.not_selected;
    books
}
