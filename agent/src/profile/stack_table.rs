//! Stacks and tasks, each held once and called by a number.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use crate::process::module::ModuleId;
use crate::profile::accounting::TruncatedCause;
use crate::symbol::frame::Frame;

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

/// Stacks and tasks of one window, within a byte budget.
#[derive(Debug)]
pub struct StackTable {
    budget: usize,
    used: usize,
    frames: Interner<Frame>,
    stacks: Interner<Arc<[u32]>>,
    tasks: Interner<Task>,
    scratch: Vec<u32>,
}

/// Bytes that an entry of a hash map costs besides its content: control byte, free slots, a second copy of the key.
pub(super) const MAP_OVERHEAD: usize = 16;
/// Bytes that a distinct frame costs.
const FRAME_BYTES: usize = 2 * size_of::<Frame>() + size_of::<u32>() + MAP_OVERHEAD;

impl StackTable {
    /// An empty table that may take `budget` bytes. Beyond it, new stacks become one that says so.
    pub fn new(budget: usize) -> Self {
        let (frames, stacks, tasks) = Default::default();
        Self { budget, used: 0, frames, stacks, tasks, scratch: Vec::new() }
    }

    /// The number of `stack`, leaf first, which is cut short for `truncated`; and what it is cut short for here.
    pub fn stack(
        &mut self,
        stack: &[Frame],
        truncated: Option<TruncatedCause>,
    ) -> (u32, Option<TruncatedCause>) {
        match self.intern_stack(stack) {
            Some(stack) => (stack, truncated),
            None => (self.full_stack(), Some(TruncatedCause::StackTableFull)),
        }
    }

    /// The number of `task`.
    pub fn task(&mut self, task: &Task) -> u32 {
        self.tasks.find(task).unwrap_or_else(|| {
            self.used += size_of::<Task>() * 2 + task.comm.len() + MAP_OVERHEAD;
            self.tasks.insert(task.clone())
        })
    }

    /// Distinct frames, by the index that stacks use.
    pub fn frames(&self) -> &[Frame] {
        &self.frames.values
    }

    /// The stack with this number, as indices into [`StackTable::frames`], leaf first.
    pub fn stack_of(&self, number: u32) -> &[u32] {
        &self.stacks.values[number as usize]
    }

    /// The task with this number.
    pub fn task_of(&self, number: u32) -> &Task {
        &self.tasks.values[number as usize]
    }

    /// Adds the modules that frames lie in to `used`.
    pub fn add_modules(&self, used: &mut HashSet<ModuleId>) {
        used.extend(self.frames().iter().filter_map(|frame| match frame {
            Frame::User { module, .. } => Some(*module),
            _ => None,
        }));
    }

    /// Counts `bytes` that somebody keeps for these stacks.
    pub fn charge(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// Bytes used, an estimate from above.
    pub fn bytes(&self) -> usize {
        self.used
    }

    /// Bytes that may be used.
    pub fn budget(&self) -> usize {
        self.budget
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
