//! One CPU's books: what its timer should have done, what the program counted, and what a sample weighs.

use agent_ebpf::CpuCounters;

use crate::kernel::cpu_time::CpuTime;

/// What one CPU's timer did in a window.
///
/// `ticks == counters.fired + asleep + kernel_skipped + unwatched`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuLedger {
    /// Nanoseconds for which the timer was enabled.
    pub enabled: u64,
    /// How often the timer should have fired: once a period.
    pub ticks: u64,
    /// What the program counted.
    pub counters: CpuCounters,
    /// Ticks that did not fire because the CPU slept through them. Some hypervisors deliver an idle CPU's timer only when
    /// something else wakes it; by the kernel's idle clock nothing ran.
    pub asleep: u64,
    /// Ticks that should have run the program and did not.
    pub kernel_skipped: u64,
    /// Ticks that would have been, for what the CPU did after it had come online and before its timer was started.
    pub unwatched: u64,
    /// Nanoseconds for which tasks and interrupts had the CPU, as the kernel measured it, where it did.
    busy: Option<u64>,
}

impl CpuLedger {
    /// Balances a CPU whose timer was enabled for `enabled` nanoseconds and should have fired every `period`; `time` is what
    /// the kernel says the CPU did meanwhile.
    pub fn new(enabled: u64, period: u64, counters: CpuCounters, time: Option<CpuTime>) -> Self {
        // The first tick comes one period after the start. A timer that fired more often than its clock says (just when
        // the clock was read, or on each side of a restart) was right to.
        let ticks = (enabled / period).max(counters.fired);
        let missing = ticks - counters.fired;
        let idle_ticks = time.map_or(0, |time| (time.idle + period / 2) / period);
        let asleep = idle_ticks.saturating_sub(counters.idle).min(missing);
        let busy = time.map(|time| enabled.saturating_sub(time.idle + time.stolen));
        Self { enabled, ticks, counters, asleep, kernel_skipped: missing - asleep, unwatched: 0, busy }
    }

    /// The same for a CPU that was offline in between, and whose tasks and interrupts had it for `busy` nanoseconds from the first
    /// start of its timer on. Its idle time says nothing; what was busy and is in no run of the program is lost.
    pub fn of_returned(enabled: u64, period: u64, counters: CpuCounters, busy: u64) -> Self {
        let ticks = (enabled / period).max(counters.fired);
        let missing = ticks - counters.fired;
        let lost =
            ((busy + period / 2) / period).saturating_sub(counters.fired - counters.idle.min(counters.fired));
        let kernel_skipped = lost.min(missing);
        let unwatched = lost - kernel_skipped;
        let asleep = missing - kernel_skipped;
        Self { enabled, ticks: ticks + unwatched, counters, asleep, kernel_skipped, unwatched, busy: None }
    }

    /// Nanoseconds that each sample of this CPU stands for.
    ///
    /// All samples together stand for the time for which the CPU was busy, as the kernel measured it: so lost samples
    /// are shared out over those that were not, and a timer that fires late, when its CPU wakes up, does not
    /// make short tasks long. Without such a measure, or where it is too coarse for a CPU that was hardly
    /// busy, a sample stands for a period, and lost ones are taken to have been like the others.
    pub fn weight(&self, period: u64) -> f64 {
        let CpuCounters { fired, idle, ring_full, scratch_busy, .. } = self.counters;
        let known = fired.saturating_sub(ring_full + scratch_busy);
        if known == 0 {
            return period as f64;
        }
        // What nobody watched is told, but not shared out: others may have run then.
        let missing = ring_full + scratch_busy + self.kernel_skipped;
        let lost = (known + missing) as f64 / known as f64;
        let by_ticks = period as f64 * lost;
        let busy_samples = known.saturating_sub(idle);
        match self.busy {
            Some(busy) if busy_samples > 0 && busy > COARSE => busy as f64 / busy_samples as f64,
            Some(busy) if busy_samples > 0 => by_ticks.min(busy.max(COARSE) as f64 / busy_samples as f64),
            _ => by_ticks,
        }
    }
}

/// The kernel prints idle time in units of 10 ms; a busy time below a few of them says little.
const COARSE: u64 = 50_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: u64 = 10_000_000;

    fn idle(milliseconds: u64) -> CpuTime {
        CpuTime { idle: milliseconds * 1_000_000, ..CpuTime::default() }
    }

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1.0
    }

    /// A busy CPU whose program was skipped: the missing ticks are the kernel's, and the samples that are left weigh more.
    #[test]
    fn skipped_ticks_raise_the_weight() {
        let counters = CpuCounters { fired: 80, emitted: 70, ring_full: 10, ..CpuCounters::default() };
        let ledger = CpuLedger::new(100 * PERIOD, PERIOD, counters, Some(idle(0)));
        assert_eq!((ledger.ticks, ledger.asleep, ledger.kernel_skipped), (100, 0, 20));
        assert!(close(ledger.weight(PERIOD), PERIOD as f64 * 100.0 / 70.0));
        let unmeasured = CpuLedger::new(100 * PERIOD, PERIOD, counters, None);
        assert!(close(unmeasured.weight(PERIOD), PERIOD as f64 * 100.0 / 70.0));
    }

    /// A CPU that slept through its ticks lost nothing; what ran when it woke weighs what it ran, not a period a wake-up.
    #[test]
    fn a_sleeping_cpu_loses_nothing() {
        let counters = CpuCounters { fired: 20, emitted: 20, ..CpuCounters::default() };
        let ledger = CpuLedger::new(100 * PERIOD, PERIOD, counters, Some(idle(900)));
        assert_eq!((ledger.asleep, ledger.kernel_skipped), (80, 0));
        assert!(close(ledger.weight(PERIOD), PERIOD as f64 / 2.0));
    }

    /// Idle ticks that fired are not counted a second time as slept through.
    #[test]
    fn idle_ticks_count_once() {
        let counters = CpuCounters { fired: 90, idle: 60, emitted: 30, ..CpuCounters::default() };
        let ledger = CpuLedger::new(100 * PERIOD, PERIOD, counters, Some(idle(650)));
        assert_eq!((ledger.asleep, ledger.kernel_skipped), (5, 5));
        assert_eq!(ledger.ticks, ledger.counters.fired + ledger.asleep + ledger.kernel_skipped);
    }

    /// A CPU that returned and was busy before its timer was started again: that is lost, has a name of its own, and is laid to
    /// no other task's account. What it slept through is none of it.
    #[test]
    fn what_nobody_watched_is_lost() {
        let counters = CpuCounters { fired: 150, idle: 50, emitted: 100, ..CpuCounters::default() };
        let ledger = CpuLedger::of_returned(180 * PERIOD, PERIOD, counters, 180 * PERIOD);
        assert_eq!((ledger.asleep, ledger.kernel_skipped, ledger.unwatched), (0, 30, 50));
        assert_eq!(ledger.ticks, 230);
        assert!(close(ledger.weight(PERIOD), PERIOD as f64 * 180.0 / 150.0));
        let idle = CpuLedger::of_returned(180 * PERIOD, PERIOD, counters, 90 * PERIOD);
        assert_eq!((idle.asleep, idle.kernel_skipped, idle.unwatched, idle.ticks), (30, 0, 0, 180));
    }

    /// A timer never has fewer ticks than runs, and time that the hypervisor stole is nobody's.
    #[test]
    fn corner_cases() {
        let counters = CpuCounters { fired: 100, emitted: 100, ..CpuCounters::default() };
        let time = CpuTime { stolen: 50 * PERIOD, ..CpuTime::default() };
        let ledger = CpuLedger::new(100 * PERIOD - 1, PERIOD, counters, Some(time));
        assert_eq!(ledger.ticks, 100);
        assert!(close(ledger.weight(PERIOD), PERIOD as f64 / 2.0));
        let nothing = CpuLedger::new(0, PERIOD, CpuCounters::default(), None);
        assert!(close(nothing.weight(PERIOD), PERIOD as f64));
    }
}
