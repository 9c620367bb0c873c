//! Who has which part of the arena: a first-fit allocator of runs, and the quarantine of what was given back.

use agent_ebpf::tables::{BLOCK_WORDS, RUN_WORDS};

/// Runs of a block.
const BLOCK_RUNS: u32 = BLOCK_WORDS / RUN_WORDS;

/// A part of the arena: whole runs, all in one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First word.
    pub first: u32,
    /// Runs.
    pub runs: u32,
}

impl Extent {
    /// Bytes.
    pub fn bytes(self) -> usize {
        self.runs as usize * RUN_WORDS as usize * 4
    }
}

/// Which runs are free.
#[derive(Debug)]
pub struct Space {
    /// One bit a run; set: taken.
    taken: Vec<u64>,
    free_runs: u32,
    /// For each block, where the last search ended: the next one begins there.
    cursor: u32,
}

impl Space {
    /// `blocks` blocks, all free.
    pub fn new(blocks: u32) -> Self {
        let runs = blocks * BLOCK_RUNS;
        Self { taken: vec![0; runs.div_ceil(64) as usize], free_runs: runs, cursor: 0 }
    }

    /// Runs that are free.
    pub fn free_runs(&self) -> u32 {
        self.free_runs
    }

    /// Runs in all.
    pub fn runs(&self) -> u32 {
        self.total_runs()
    }

    /// Takes room for `words` words; `None` when no gap is large enough.
    pub fn allocate(&mut self, words: u32) -> Option<Extent> {
        let runs = words.div_ceil(RUN_WORDS).max(1);
        if runs > BLOCK_RUNS || runs > self.free_runs {
            return None;
        }
        let total = self.total_runs();
        let start = self.find(self.cursor, total, runs).or_else(|| self.find(0, total, runs))?;
        self.mark(start, runs, true);
        self.cursor = start + runs;
        Some(Extent { first: start * RUN_WORDS, runs })
    }

    /// Gives room back.
    pub fn free(&mut self, extent: Extent) {
        self.mark(extent.first / RUN_WORDS, extent.runs, false);
    }

    fn total_runs(&self) -> u32 {
        self.taken.len() as u32 * 64
    }

    /// The first gap of `runs` free runs in one block within `from..to`.
    fn find(&self, from: u32, to: u32, runs: u32) -> Option<u32> {
        let (mut start, mut length) = (from, 0);
        let mut run = from;
        while run < to {
            if run.is_multiple_of(64) && self.taken[run as usize / 64] == u64::MAX {
                run += 64;
                (start, length) = (run, 0);
                continue;
            }
            if run.is_multiple_of(BLOCK_RUNS) {
                (start, length) = (run, 0);
            }
            if self.is_taken(run) {
                (start, length) = (run + 1, 0);
            } else {
                length += 1;
                if length == runs {
                    return Some(start);
                }
            }
            run += 1;
        }
        None
    }

    fn is_taken(&self, run: u32) -> bool {
        self.taken[run as usize / 64] & (1 << (run % 64)) != 0
    }

    fn mark(&mut self, start: u32, runs: u32, taken: bool) {
        for run in start..start + runs {
            debug_assert_ne!(self.is_taken(run), taken, "run {run} was in that state already");
            self.taken[run as usize / 64] ^= 1 << (run % 64);
        }
        self.free_runs = if taken { self.free_runs - runs } else { self.free_runs + runs };
    }
}

/// What a program may still be reading, until it is certain that none is.
///
/// Programs count the runs they begin and end. Something that no table leads to any more is safe to use for
/// something else when every CPU has ended as many runs as it had begun at that time.
#[derive(Debug)]
pub struct Quarantine<T> {
    waiting: Vec<(T, Vec<u64>)>,
}

impl<T> Default for Quarantine<T> {
    fn default() -> Self {
        Self { waiting: Vec::new() }
    }
}

impl<T> Quarantine<T> {
    /// Takes in what no table leads to any more. `begun` is how many runs each CPU has begun, read after that.
    pub fn admit(&mut self, what: T, begun: Vec<u64>) {
        self.waiting.push((what, begun));
    }

    /// Lets out what no program can be reading any more. `ended` is how many runs each CPU has ended by now.
    pub fn release(&mut self, ended: &[u64]) -> Vec<T> {
        let is_safe = |begun: &Vec<u64>| begun.iter().zip(ended).all(|(begun, ended)| ended >= begun);
        self.waiting.extract_if(.., |(_, begun)| is_safe(begun)).map(|(what, _)| what).collect()
    }

    /// How many are waiting.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none is waiting.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random allocations never overlap, never cross a block, and all of the space comes back.
    #[test]
    fn allocations_do_not_overlap() {
        let mut space = Space::new(2);
        let whole = space.free_runs();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut live: Vec<Extent> = Vec::new();
        for _ in 0..20_000 {
            if random(100) < 55 {
                if let Some(new) = space.allocate(1 + random(2000) as u32) {
                    let block = |word| word / BLOCK_WORDS;
                    assert_eq!(block(new.first), block(new.first + new.runs * RUN_WORDS - 1));
                    let end = |extent: &Extent| extent.first + extent.runs * RUN_WORDS;
                    assert!(live.iter().all(|old| end(old) <= new.first || end(&new) <= old.first));
                    live.push(new);
                }
            } else if !live.is_empty() {
                let index = random(live.len() as u64) as usize;
                space.free(live.swap_remove(index));
            }
        }
        for extent in live {
            space.free(extent);
        }
        assert_eq!(space.free_runs(), whole);
    }

    /// A full space refuses, and serves again what came back; more than a block is never served.
    #[test]
    fn a_full_space_refuses() {
        let mut space = Space::new(1);
        let all = space.allocate(BLOCK_WORDS).expect("a whole block");
        assert_eq!(space.allocate(1), None);
        space.free(all);
        assert_eq!(space.allocate(BLOCK_WORDS + 1), None);
        assert!(space.allocate(1).is_some());
    }

    /// What is in quarantine comes out when every CPU has ended what it had begun, not earlier.
    #[test]
    fn quarantine_waits_for_every_cpu() {
        let mut quarantine = Quarantine::default();
        quarantine.admit("first", vec![5, 7]);
        quarantine.admit("second", vec![6, 7]);
        assert!(quarantine.release(&[5, 6]).is_empty());
        assert_eq!(quarantine.release(&[5, 7]), ["first"]);
        assert_eq!(quarantine.release(&[9, 9]), ["second"]);
        assert!(quarantine.is_empty());
    }
}
