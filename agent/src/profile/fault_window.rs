//! A window of page faults: how many, and how much memory they made resident, by stack and kind of memory.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::process::module::ModuleId;
use crate::profile::accounting::TruncatedCause;
use crate::profile::stack_table::{MAP_OVERHEAD, StackTable, Task};
use crate::symbol::frame::Frame;
use crate::table_use::TableUse;

/// Bytes of a small page.
const PAGE: f64 = 4096.0;

/// What a fault made resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// Memory of the process's own.
    Anon,
    /// Pages of a file.
    File,
    /// Shared memory.
    Shmem,
    /// Something; the process had ended before anybody could look, and the kernel does not tell programs.
    Unknown,
    /// Nothing: the page was there already and was made writable or copied, or it is in none of the kernel's counts.
    Unchanged,
}

impl Memory {
    /// The value of the label `memory`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::File => "file",
            Self::Shmem => "shmem",
            Self::Unknown => "unknown",
            Self::Unchanged => "unchanged",
        }
    }
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultEffect {
    /// The kind of memory.
    pub memory: Memory,
    /// Small pages that it made resident. `None`: it may have been a huge page, and was not there when somebody looked: gone again, or
    /// not there yet.
    pub pages: Option<u32>,
    /// Whether it may have been a huge page when it began.
    pub maybe_huge: bool,
}

/// A line of a finished window.
#[derive(Clone, Debug)]
pub struct FaultLine<'a> {
    /// Whose.
    pub task: &'a Task,
    /// Indices into [`FaultWindow::frames`], leaf first.
    pub stack: &'a [u32],
    /// Why the stack is not whole, where it is not.
    pub truncated: Option<TruncatedCause>,
    /// What was made resident.
    pub memory: Memory,
    /// Samples that it was made of.
    pub samples: u64,
    /// Faults that they stand for.
    pub faults: f64,
    /// Bytes that these made resident.
    pub bytes: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    task: u32,
    stack: u32,
    truncated: Option<TruncatedCause>,
    memory: Memory,
}

/// Samples with one key on one CPU.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    cpu: u32,
    samples: u32,
    pages: u64,
    /// Those of unknown size.
    unsized_: u32,
}

/// How many pages faults brought that might have brought a huge one.
#[derive(Clone, Copy, Debug, Default)]
struct MaybeHuge {
    samples: u64,
    pages: u64,
}

/// Page faults of one window, within a byte budget.
#[derive(Debug)]
pub struct FaultWindow {
    stacks: StackTable,
    sums: HashMap<Key, Vec<Sum>>,
    /// By process; under `None` all together.
    maybe_huge: HashMap<Option<u32>, MaybeHuge>,
    samples: u64,
    of_unknown_size: u64,
}

impl FaultWindow {
    /// An empty window that may take `budget` bytes. Beyond it, faults are counted without their stacks.
    pub fn new(budget: usize) -> Self {
        let (sums, maybe_huge) = Default::default();
        Self { stacks: StackTable::new(budget), sums, maybe_huge, samples: 0, of_unknown_size: 0 }
    }

    /// Counts a sampled fault of `task` on `cpu` with `stack`, leaf first.
    pub fn add(
        &mut self,
        task: &Task,
        stack: &[Frame],
        truncated: Option<TruncatedCause>,
        cpu: u32,
        effect: FaultEffect,
    ) {
        self.learn(task.pid, effect);
        let (stack, truncated) = self.stacks.stack(stack, truncated);
        let task = self.stacks.task(task);
        let key = Key { task, stack, truncated, memory: effect.memory };
        let sums = self.sums.entry(key).or_insert_with(|| {
            self.stacks.charge(size_of::<(Key, Vec<Sum>)>() + size_of::<Sum>() + MAP_OVERHEAD);
            Vec::with_capacity(1)
        });
        let index = sums.iter().position(|sum| sum.cpu == cpu).unwrap_or_else(|| {
            sums.push(Sum { cpu, ..Sum::default() });
            sums.len() - 1
        });
        let sum = &mut sums[index];
        sum.samples = sum.samples.saturating_add(1);
        match effect.pages {
            Some(pages) => sum.pages += u64::from(pages),
            None => sum.unsized_ += 1,
        }
        self.samples += 1;
        self.of_unknown_size += u64::from(effect.pages.is_none());
    }

    /// Learns from a fault of process `pid` what those brought that may have brought a huge page, if that is known of it.
    pub fn learn(&mut self, pid: u32, effect: FaultEffect) {
        let FaultEffect { pages: Some(pages), maybe_huge: true, .. } = effect else { return };
        for whose in [Some(pid), None] {
            let seen = self.maybe_huge.entry(whose).or_insert_with(|| {
                self.stacks.charge(size_of::<(Option<u32>, MaybeHuge)>() + MAP_OVERHEAD);
                MaybeHuge::default()
            });
            seen.samples += 1;
            seen.pages += u64::from(pages);
        }
    }

    /// Distinct frames, by the index that stacks use.
    pub fn frames(&self) -> &[Frame] {
        self.stacks.frames()
    }

    /// Every line. A sample on a CPU stands for as many faults as `weight` says.
    ///
    /// A fault of unknown size counts as others did of its process that might have brought a huge page, else of any process.
    pub fn lines(&self, weight: impl Fn(u32) -> f64) -> Vec<FaultLine<'_>> {
        let mut all: Vec<_> = self.sums.iter().collect();
        all.sort_by_key(|(key, _)| **key);
        let lines = all.into_iter().map(|(key, sums)| {
            let task = self.stacks.task_of(key.task);
            let usual = self.usual_pages(task.pid);
            let pages = |sum: &Sum| sum.pages as f64 + f64::from(sum.unsized_) * usual;
            FaultLine {
                task,
                stack: self.stacks.stack_of(key.stack),
                truncated: key.truncated,
                memory: key.memory,
                samples: sums.iter().map(|sum| u64::from(sum.samples)).sum(),
                faults: sums.iter().map(|sum| f64::from(sum.samples) * weight(sum.cpu)).sum(),
                bytes: sums.iter().map(|sum| pages(sum) * PAGE * weight(sum.cpu)).sum(),
            }
        });
        lines.collect()
    }

    /// Estimated bytes that became resident, by process and kind of memory.
    pub fn estimates(&self, weight: impl Fn(u32) -> f64) -> BTreeMap<u32, BTreeMap<Memory, f64>> {
        let mut estimates: BTreeMap<u32, BTreeMap<Memory, f64>> = BTreeMap::new();
        for line in self.lines(weight) {
            *estimates.entry(line.task.pid).or_default().entry(line.memory).or_default() += line.bytes;
        }
        estimates
    }

    /// The processes that were sampled.
    pub fn pids(&self) -> HashSet<u32> {
        self.sums.keys().map(|key| self.stacks.task_of(key.task).pid).collect()
    }

    /// Samples counted.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples that may have been huge pages, and whose page was gone before anybody looked.
    pub fn of_unknown_size(&self) -> u64 {
        self.of_unknown_size
    }

    /// Adds the modules that frames lie in to `used`.
    pub fn add_modules(&self, used: &mut HashSet<ModuleId>) {
        self.stacks.add_modules(used);
    }

    /// How full the window is.
    pub fn table_use(&self) -> TableUse {
        let (bytes, budget) = (self.stacks.bytes(), self.stacks.budget());
        TableUse { name: "page faults' window", entries: self.sums.len(), bytes, budget }
    }

    fn usual_pages(&self, pid: u32) -> f64 {
        let seen = self.maybe_huge.get(&Some(pid)).or_else(|| self.maybe_huge.get(&None));
        seen.map_or(1.0, |seen| seen.pages as f64 / seen.samples as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Faults of unknown size count as what was learned of their process later.
    #[test]
    fn sizes_are_learned_later() {
        let mut window = FaultWindow::new(1 << 20);
        let effect = |pages| FaultEffect { memory: Memory::Anon, pages, maybe_huge: true };
        window.add(&task(7), &[Frame::Kernel { address: 1 }], None, 0, effect(None));
        let bytes = |window: &FaultWindow| window.lines(|_| 1.0)[0].bytes;
        assert!((bytes(&window) - PAGE).abs() < 0.5);
        window.learn(7, effect(Some(512)));
        assert!((bytes(&window) - 512.0 * PAGE).abs() < 0.5);
        window.learn(7, effect(None));
        assert!((bytes(&window) - 512.0 * PAGE).abs() < 0.5);
    }

    fn task(pid: u32) -> Task {
        Task { pid, comm: "test".into(), thread: None }
    }

    fn stack(address: u64) -> [Frame; 1] {
        [Frame::Kernel { address }]
    }

    fn effect(memory: Memory, pages: Option<u32>) -> FaultEffect {
        FaultEffect { memory, pages, maybe_huge: pages != Some(1) }
    }

    /// Faults and bytes are weighted by CPU; kinds of memory are apart; what was there already makes nothing resident.
    #[test]
    fn faults_are_weighted() {
        let mut window = FaultWindow::new(1 << 20);
        for (cpu, memory, pages) in
            [(0, Memory::Anon, 1), (1, Memory::Anon, 512), (0, Memory::Unchanged, 0), (0, Memory::File, 16)]
        {
            window.add(&task(1), &stack(10), None, cpu, effect(memory, Some(pages)));
        }
        let weight = |cpu| if cpu == 0 { 10.0 } else { 100.0 };
        let lines = window.lines(weight);
        let found: Vec<_> =
            lines.iter().map(|line| (line.memory, line.samples, line.faults, line.bytes / PAGE)).collect();
        let expected = [
            (Memory::Anon, 2, 110.0, 10.0 + 51_200.0),
            (Memory::File, 1, 10.0, 160.0),
            (Memory::Unchanged, 1, 10.0, 0.0),
        ];
        assert_eq!(found, expected);
        let estimates = window.estimates(weight);
        assert_eq!(estimates[&1][&Memory::File].to_bits(), (160.0 * PAGE).to_bits());
        assert_eq!((window.samples(), window.pids()), (4, HashSet::from([1])));
    }

    /// A fault whose size nobody could look at counts as its process's others did, else as anybody's, else as a page.
    #[test]
    fn unknown_sizes_are_as_usual() {
        let mut window = FaultWindow::new(1 << 20);
        window.add(&task(1), &stack(1), None, 0, effect(Memory::Anon, None));
        let bytes = |window: &FaultWindow, pid: u32| {
            let estimates = window.estimates(|_| 1.0);
            estimates[&pid].values().sum::<f64>() / PAGE
        };
        assert!((bytes(&window, 1) - 1.0).abs() < 1e-9);
        let sized = |pages| FaultEffect { memory: Memory::Anon, pages: Some(pages), maybe_huge: true };
        window.add(&task(2), &stack(1), None, 0, sized(512));
        window.add(&task(2), &stack(1), None, 0, sized(2));
        assert!((bytes(&window, 1) - 257.0).abs() < 1e-9);
        window.add(&task(1), &stack(1), None, 0, sized(4));
        assert!((bytes(&window, 1) - 8.0).abs() < 1e-9);
        assert_eq!(window.of_unknown_size(), 1);
    }

    /// Over the budget no fault is lost: it keeps its process and says that its stack is missing.
    #[test]
    fn a_full_window_keeps_counting() {
        let mut window = FaultWindow::new(20_000);
        for index in 0..1000 {
            window.add(&task(1), &stack(index), None, 0, effect(Memory::Anon, Some(1)));
        }
        let lines = window.lines(|_| 1.0);
        assert_eq!(lines.iter().map(|line| line.samples).sum::<u64>(), 1000);
        assert!(lines.iter().any(|line| line.truncated == Some(TruncatedCause::StackTableFull)));
    }
}
