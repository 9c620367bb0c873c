//! A window: the samples of a stretch of time, counted by (task, stack), with everything held once.

use std::collections::{HashMap, HashSet};

use crate::process::module::ModuleId;
use crate::profile::accounting::TruncatedCause;
use crate::profile::stack_table::{MAP_OVERHEAD, StackTable, Task};
use crate::symbol::frame::Frame;
use crate::table_use::TableUse;

/// What samples with one (task, stack) add up to: how many came from each CPU. CPUs are kept apart because each has
/// a weight of its own: the share of its ticks that were lost is known per CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountByCpu(Vec<(u32, u32)>);

/// One line of a finished window.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Whose.
    pub task: &'a Task,
    /// Indices into [`Window::frames`], leaf first.
    pub stack: &'a [u32],
    /// Why the stack is not whole, where it is not.
    pub truncated: Option<TruncatedCause>,
    /// How often.
    pub count: &'a CountByCpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    task: u32,
    stack: u32,
    truncated: Option<TruncatedCause>,
}

/// Samples of one window, within a byte budget.
#[derive(Debug)]
pub struct Window {
    name: &'static str,
    stacks: StackTable,
    counts: HashMap<Key, CountByCpu>,
    samples: u64,
}

impl Window {
    /// An empty window that may take `budget` bytes. Beyond it, new stacks are counted without their frames. `name` is for
    /// [`Window::table_use`].
    pub fn new(name: &'static str, budget: usize) -> Self {
        Self { name, stacks: StackTable::new(budget), counts: HashMap::new(), samples: 0 }
    }

    /// Counts one sample of `task` on `cpu` with `stack`, leaf first.
    pub fn add(&mut self, task: &Task, stack: &[Frame], truncated: Option<TruncatedCause>, cpu: u32) {
        let (stack, truncated) = self.stacks.stack(stack, truncated);
        let task = self.stacks.task(task);
        let key = Key { task, stack, truncated };
        if !self.counts.contains_key(&key) {
            self.stacks.charge(size_of::<(Key, CountByCpu)>() + size_of::<(u32, u32)>() + MAP_OVERHEAD);
        }
        let count = self.counts.entry(key).or_default();
        count.add(cpu);
        self.samples += 1;
    }

    /// Distinct frames, by the index that stacks use.
    pub fn frames(&self) -> &[Frame] {
        self.stacks.frames()
    }

    /// Every (task, stack) with its count.
    pub fn counted(&self) -> impl Iterator<Item = Counted<'_>> {
        self.counts.iter().map(|(key, count)| Counted {
            task: self.stacks.task_of(key.task),
            stack: self.stacks.stack_of(key.stack),
            truncated: key.truncated,
            count,
        })
    }

    /// Samples counted.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Adds the modules that frames lie in to `used`.
    pub fn add_modules(&self, used: &mut HashSet<ModuleId>) {
        self.stacks.add_modules(used);
    }

    /// How full the window is.
    pub fn table_use(&self) -> TableUse {
        TableUse {
            name: self.name,
            entries: self.counts.len(),
            bytes: self.stacks.bytes(),
            budget: self.stacks.budget(),
        }
    }

    /// Bytes used, an estimate from above.
    pub fn bytes(&self) -> usize {
        self.stacks.bytes()
    }
}

impl CountByCpu {
    fn add(&mut self, cpu: u32) {
        match self.0.iter_mut().find(|(on, _)| *on == cpu) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.0.push((cpu, 1)),
        }
    }

    /// Samples, over all CPUs.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// The sum of each CPU's count times that CPU's weight.
    pub fn weighted(&self, weight: impl Fn(u32) -> f64) -> f64 {
        self.0.iter().map(|(cpu, count)| f64::from(*count) * weight(*cpu)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32) -> Task {
        Task { pid, comm: "test".into(), thread: None }
    }

    fn stack(addresses: impl IntoIterator<Item = u64>) -> Vec<Frame> {
        addresses.into_iter().map(|address| Frame::Kernel { address }).collect()
    }

    /// Equal samples are counted together, by CPU; different ones apart.
    #[test]
    fn samples_are_counted() {
        let mut window = Window::new("window", 1 << 20);
        for cpu in [0, 1, 0] {
            window.add(&task(1), &stack([1, 2]), None, cpu);
        }
        window.add(&task(2), &stack([1, 2]), None, 0);
        window.add(&task(1), &stack([2, 1]), Some(TruncatedCause::Depth), 0);
        assert_eq!((window.samples(), window.counted().count(), window.frames().len()), (5, 3, 2));
        let most = window.counted().max_by_key(|line| line.count.total()).expect("there are lines");
        assert_eq!(most.count.total(), 3);
        let weighted = most.count.weighted(|cpu| if cpu == 0 { 10.0 } else { 100.0 });
        assert!((weighted - 120.0).abs() < 1e-9);
    }

    /// Over the budget no sample is lost: it keeps its task and says that its stack is missing.
    #[test]
    fn a_full_window_keeps_counting() {
        let mut window = Window::new("window", 20_000);
        for index in 0..1000 {
            window.add(&task(1), &stack([index, index + 1, index + 2]), None, 0);
        }
        assert_eq!(window.samples(), 1000);
        assert_eq!(window.counted().map(|line| line.count.total()).sum::<u64>(), 1000);
        let full: Vec<_> = window.counted().filter(|line| line.truncated.is_some()).collect();
        assert_eq!(full.len(), 1);
        assert_eq!(full[0].truncated, Some(TruncatedCause::StackTableFull));
        assert_eq!(window.frames()[full[0].stack[0] as usize], Frame::StackTableFull);
        assert!(full[0].count.total() > 500);
    }
}
