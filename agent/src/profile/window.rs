//! A window: the samples of a stretch of time, counted by (task, stack), with everything held once.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::process::module::ModuleId;
use crate::profile::accounting::TruncatedCause;
use crate::symbol::frame::Frame;
use crate::table_use::TableUse;

/// Whose samples are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// Process id.
    pub pid: u32,
    /// Name of the process.
    pub comm: Arc<str>,
    /// Thread id and name, when threads are told apart.
    pub thread: Option<(u32, Arc<str>)>,
}

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
    budget: usize,
    used: usize,
    frames: Interner<Frame>,
    stacks: Interner<Arc<[u32]>>,
    tasks: Interner<Task>,
    counts: HashMap<Key, CountByCpu>,
    samples: u64,
    scratch: Vec<u32>,
}

/// Bytes that an entry of a hash map costs besides its content: control byte, free slots, a second copy of the key.
const MAP_OVERHEAD: usize = 16;
/// Bytes that a distinct frame costs.
const FRAME_BYTES: usize = 2 * size_of::<Frame>() + size_of::<u32>() + MAP_OVERHEAD;

impl Window {
    /// An empty window that may take `budget` bytes. Beyond it, new stacks are counted without their frames. `name` is for
    /// [`Window::table_use`].
    pub fn new(name: &'static str, budget: usize) -> Self {
        Self {
            name,
            budget,
            used: 0,
            frames: Interner::default(),
            stacks: Interner::default(),
            tasks: Interner::default(),
            counts: HashMap::new(),
            samples: 0,
            scratch: Vec::new(),
        }
    }

    /// Counts one sample of `task` on `cpu` with `stack`, leaf first.
    pub fn add(&mut self, task: &Task, stack: &[Frame], truncated: Option<TruncatedCause>, cpu: u32) {
        let (stack, truncated) = match self.intern_stack(stack) {
            Some(stack) => (stack, truncated),
            None => (self.full_stack(), Some(TruncatedCause::StackTableFull)),
        };
        let task = self.tasks.find(task).unwrap_or_else(|| {
            self.used += size_of::<Task>() * 2 + task.comm.len() + MAP_OVERHEAD;
            self.tasks.insert(task.clone())
        });
        let count = self.counts.entry(Key { task, stack, truncated }).or_insert_with(|| {
            self.used += size_of::<(Key, CountByCpu)>() + size_of::<(u32, u32)>() + MAP_OVERHEAD;
            CountByCpu::default()
        });
        count.add(cpu);
        self.samples += 1;
    }

    /// Distinct frames, by the index that stacks use.
    pub fn frames(&self) -> &[Frame] {
        &self.frames.values
    }

    /// Every (task, stack) with its count.
    pub fn counted(&self) -> impl Iterator<Item = Counted<'_>> {
        self.counts.iter().map(|(key, count)| Counted {
            task: &self.tasks.values[key.task as usize],
            stack: &self.stacks.values[key.stack as usize],
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
        used.extend(self.frames().iter().filter_map(|frame| match frame {
            Frame::User { module, .. } => Some(*module),
            _ => None,
        }));
    }

    /// How full the window is.
    pub fn table_use(&self) -> TableUse {
        TableUse { name: self.name, entries: self.counts.len(), bytes: self.used, budget: self.budget }
    }

    /// Bytes used, an estimate from above.
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// The number of `stack`; `None` when it is new and there is no room for it.
    fn intern_stack(&mut self, stack: &[Frame]) -> Option<u32> {
        let mut indices = std::mem::take(&mut self.scratch);
        indices.clear();
        indices.extend(stack.iter().map_while(|frame| self.frames.find(frame)));
        let number = self.intern_with_known_frames(stack, &mut indices);
        self.scratch = indices;
        number
    }

    /// `known` holds the numbers of the frames that `stack` begins with.
    fn intern_with_known_frames(&mut self, stack: &[Frame], known: &mut Vec<u32>) -> Option<u32> {
        if known.len() == stack.len()
            && let Some(number) = self.stacks.find(known.as_slice())
        {
            return Some(number);
        }
        let unknown = &stack[known.len()..];
        let cost = stack.len() * size_of::<u32>() + 3 * size_of::<Arc<[u32]>>() + MAP_OVERHEAD;
        if self.used + cost + unknown.len() * FRAME_BYTES > self.budget {
            return None;
        }
        self.used += cost;
        for frame in unknown {
            known.push(self.intern_frame(*frame));
        }
        Some(self.stacks.insert(known.as_slice().into()))
    }

    fn intern_frame(&mut self, frame: Frame) -> u32 {
        self.frames.find(&frame).unwrap_or_else(|| {
            self.used += FRAME_BYTES;
            self.frames.insert(frame)
        })
    }

    fn full_stack(&mut self) -> u32 {
        let marker = [self.intern_frame(Frame::StackTableFull)];
        self.stacks.find(marker.as_slice()).unwrap_or_else(|| self.stacks.insert(marker.as_slice().into()))
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

/// Gives each distinct value a number, in the order of first appearance.
#[derive(Debug)]
struct Interner<T> {
    numbers: HashMap<T, u32>,
    values: Vec<T>,
}

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), values: Vec::new() }
    }
}

impl<T: Clone + Eq + Hash> Interner<T> {
    fn find<Q: Eq + Hash + ?Sized>(&self, value: &Q) -> Option<u32>
    where
        T: std::borrow::Borrow<Q>,
    {
        self.numbers.get(value).copied()
    }

    fn insert(&mut self, value: T) -> u32 {
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
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
