//! How the program's walks of user stacks ended, second by second: how many were left to the agent, and why.
//!
//! The slow path is for what is new. Its share says whether the unwind tables serve the machine's present work.

use agent_ebpf::{SampleHeader, flag, walk};

const SECOND: u64 = 1_000_000_000;

/// How many walks ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WalkCounts {
    /// Samples with a user stack.
    pub walked: u64,
    /// Of these: the process's mappings were not in the arena, or those of another address space.
    pub new_process: u64,
    /// The address lay in none of the mappings in the arena.
    pub unmapped: u64,
    /// The text page's rows were not in the arena.
    pub cold_page: u64,
    /// Rows cannot express the unwind information.
    pub slow_rule: u64,
    /// There was neither unwind information nor a plausible frame pointer.
    pub no_rule: u64,
    /// The frame pointer was wanted, and not known any more.
    pub lost_fp: u64,
    /// Of those six: the stack was not sent along, because the CPU's budget for that second was used up.
    pub over_budget: u64,
}

impl WalkCounts {
    /// Walks that were left to the agent.
    pub fn slow(&self) -> u64 {
        self.new_process + self.unmapped + self.cold_page + self.slow_rule + self.no_rule + self.lost_fp
    }

    fn count(&mut self, header: &SampleHeader) {
        let cause = match header.walk {
            walk::NONE => return,
            walk::NEW_PROCESS => Some(&mut self.new_process),
            walk::UNMAPPED => Some(&mut self.unmapped),
            walk::COLD_PAGE => Some(&mut self.cold_page),
            walk::SLOW_RULE => Some(&mut self.slow_rule),
            walk::NO_RULE => Some(&mut self.no_rule),
            walk::LOST_FP => Some(&mut self.lost_fp),
            _ => None,
        };
        if let Some(cause) = cause {
            *cause += 1;
        }
        self.walked += 1;
        self.over_budget += u64::from(header.flags & flag::NO_SLICE != 0);
    }
}

/// Counts by the second.
#[derive(Debug, Default)]
pub(super) struct WalkTally {
    /// Time of the present second's first sample, `CLOCK_MONOTONIC` nanoseconds.
    began: Option<u64>,
    present: WalkCounts,
}

impl WalkTally {
    /// Takes in a sample, in the order of time; what is a little late counts to the present second. Returns a second that
    /// is over.
    pub(super) fn count(&mut self, header: &SampleHeader) -> Option<WalkCounts> {
        let began = *self.began.get_or_insert(header.timestamp);
        let over = header.timestamp.saturating_sub(began) >= SECOND;
        let past = over.then(|| {
            self.began = Some(header.timestamp);
            std::mem::take(&mut self.present)
        });
        self.present.count(header);
        past
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(timestamp: u64, walk: u16, flags: u16) -> SampleHeader {
        SampleHeader { timestamp, walk, flags, ..SampleHeader::default() }
    }

    /// Each way of leaving a walk to the agent is slow, is counted by its cause, and no other is.
    #[test]
    fn causes_are_told_apart() {
        let mut counts = WalkCounts::default();
        for walk in 0..=walk::LOST_FP {
            let before = counts;
            counts.count(&sample(0, walk, 0));
            assert_eq!(counts.slow() - before.slow(), u64::from(walk::resumes(walk)), "{walk}");
            assert_eq!(counts.walked - before.walked, u64::from(walk != walk::NONE), "{walk}");
        }
        counts.count(&sample(0, walk::COLD_PAGE, flag::NO_SLICE));
        let each = WalkCounts { cold_page: 2, over_budget: 1, walked: counts.walked, ..counts };
        assert_eq!((counts, counts.slow()), (each, 7));
    }

    /// A second is over with the first sample that is not in it; kernel threads have no user stack.
    #[test]
    fn seconds_are_told_apart() {
        let mut tally = WalkTally::default();
        assert_eq!(tally.count(&sample(5, walk::COMPLETE, 0)), None);
        assert_eq!(tally.count(&sample(4, walk::NONE, 0)), None, "a little late");
        assert_eq!(tally.count(&sample(4 + SECOND, walk::NEW_PROCESS, 0)), None);
        let past = tally.count(&sample(5 + SECOND, walk::COLD_PAGE, 0));
        assert_eq!(past, Some(WalkCounts { walked: 2, new_process: 1, ..WalkCounts::default() }));
        let past = tally.count(&sample(5 + 9 * SECOND, walk::COMPLETE, 0));
        assert_eq!(past, Some(WalkCounts { walked: 1, cold_page: 1, ..WalkCounts::default() }));
    }
}
