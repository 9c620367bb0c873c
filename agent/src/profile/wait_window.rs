//! A window of waits: how long tasks were off their CPUs, by stack.
//!
//! Totals of short waits are exact, and come a task and state at a time; stacks were taken of some of these waits only. When the
//! window is finished, what each sampled stack stands for is scaled so that a task's stacks add up to its totals. Long waits are
//! not scaled: each is counted for itself, with its stack or without.

use std::collections::{BTreeMap, HashMap, HashSet};

use agent_ebpf::{TaskWaits, WaitTotal, wait_state};

use crate::process::module::ModuleId;
use crate::profile::accounting::TruncatedCause;
use crate::profile::stack_table::{MAP_OVERHEAD, StackTable, Task};
use crate::symbol::frame::Frame;
use crate::table_use::TableUse;

/// The values of the label `state`, by [`wait_state`].
const STATES: [&str; wait_state::COUNT] = ["runnable", "sleep", "disk", "io", "stopped"];

/// A task's thread id and why it waits: what totals are about.
type Stratum = (u32, u16);

/// A line of a finished window.
#[derive(Clone, Debug)]
pub struct WaitLine<'a> {
    /// Whose.
    pub task: &'a Task,
    /// Indices into [`WaitWindow::frames`], leaf first.
    pub stack: &'a [u32],
    /// Why the stack is not whole, where it is not.
    pub truncated: Option<TruncatedCause>,
    /// Why the task did not run.
    pub state: &'static str,
    /// Waits.
    pub count: u64,
    /// How long they were together.
    pub nanoseconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    stratum: Stratum,
    task: u32,
    stack: u32,
    truncated: Option<TruncatedCause>,
}

/// Waits with one stack.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    /// Long ones, and how long.
    long: WaitTotal,
    /// Short ones whose stack was taken, each as often as the probability of that says,
    sampled: f64,
    /// the sum of the squares of that,
    squares: f64,
    /// and their nanoseconds.
    sampled_nanoseconds: f64,
}

/// A wait of which one half is known.
#[derive(Clone, Copy, Debug)]
enum Half {
    /// The stack with which it began.
    Stack { task: u32, stack: u32, truncated: Option<TruncatedCause> },
    /// Its end.
    End(EndedWait),
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedWait {
    /// One of [`wait_state`].
    pub state: u16,
    /// Nanoseconds.
    pub lasted: u64,
    /// The stack was taken with a probability of one in so many.
    pub every: u32,
    /// Whether it is not in its task's totals.
    pub is_long: bool,
}

/// Waits of one window, within a byte budget.
#[derive(Debug)]
pub struct WaitWindow {
    stacks: StackTable,
    /// By thread id and beginning.
    halves: HashMap<(u32, u64), Half>,
    waits: HashMap<Key, Waits>,
    totals: BTreeMap<Stratum, WaitTotal>,
    /// Whose the totals are: the number of the task.
    tasks: HashMap<u32, u32>,
}

impl WaitWindow {
    /// An empty window that may take `budget` bytes. Beyond it, waits are counted without their stacks.
    pub fn new(budget: usize) -> Self {
        let (halves, waits, totals, tasks) = Default::default();
        Self { stacks: StackTable::new(budget), halves, waits, totals, tasks }
    }

    /// Distinct frames, by the index that stacks use.
    pub fn frames(&self) -> &[Frame] {
        self.stacks.frames()
    }

    /// Thread `tid` left its CPU at `began` with `stack`.
    pub fn add_stack(
        &mut self,
        (tid, began): (u32, u64),
        task: &Task,
        stack: &[Frame],
        truncated: Option<TruncatedCause>,
    ) {
        let (stack, truncated) = self.stacks.stack(stack, truncated);
        let task = self.stacks.task(task);
        match self.halves.remove(&(tid, began)) {
            Some(Half::End(end)) => self.join(tid, end, task, stack, truncated),
            _ => self.keep((tid, began), Half::Stack { task, stack, truncated }),
        }
    }

    /// The wait of thread `tid` that began at `began` with a stack is over.
    pub fn add_end(&mut self, (tid, began): (u32, u64), end: EndedWait) {
        match self.halves.remove(&(tid, began)) {
            Some(Half::Stack { task, stack, truncated }) => self.join(tid, end, task, stack, truncated),
            _ => self.keep((tid, began), Half::End(end)),
        }
    }

    /// A long wait of thread `tid` without a stack of its own is over; `kernel` is where it waited.
    pub fn add_without_stack(&mut self, tid: u32, end: EndedWait, task: &Task, kernel: &[Frame]) {
        let stack: Vec<Frame> = kernel.iter().copied().chain([Frame::StackNotSampled]).collect();
        let (stack, truncated) = self.stacks.stack(&stack, None);
        let task = self.stacks.task(task);
        self.join(tid, end, task, stack, truncated);
    }

    /// Adds the short waits of a thread, which has ended or is still there when the window ends.
    pub fn add_totals(&mut self, tid: u32, task: &Task, totals: &[WaitTotal; wait_state::COUNT]) {
        let task = self.stacks.task(task);
        for (state, total) in (0..).zip(totals).filter(|(_, total)| total.count > 0) {
            let sum = self.totals.entry((tid, state)).or_insert_with(|| {
                self.stacks.charge(size_of::<(Stratum, WaitTotal)>() + MAP_OVERHEAD);
                WaitTotal::default()
            });
            sum.count += total.count;
            sum.nanoseconds += total.nanoseconds;
            self.tasks.insert(tid, task);
        }
    }

    /// Adds the wait of a task that is still off its CPU when the window ends, at `now`.
    pub fn add_unended(&mut self, task: &TaskWaits, whose: &Task, now: u64) {
        let TaskWaits { tid, left, state, .. } = *task;
        let end = EndedWait { state, lasted: now.saturating_sub(left), every: 1, is_long: true };
        match self.halves.remove(&(tid, left)) {
            Some(Half::Stack { task, stack, truncated }) => self.join(tid, end, task, stack, truncated),
            _ => self.add_without_stack(tid, end, whose, &[]),
        }
    }

    /// Every line, with sampled stacks scaled to the totals, and the frames that they refer to. What no stack stands for has a marker.
    pub fn lines(&mut self) -> (Vec<WaitLine<'_>>, &[Frame]) {
        self.mark_unsampled();
        let stacks = self.halves.values().filter(|half| matches!(half, Half::Stack { .. })).count();
        tracing::debug!(stacks, ends = self.halves.len() - stacks, "halves of waits without the other");
        // As many sleeps of equal weight would say as much as those whose stacks were taken.
        let sleeps = self.waits.iter().filter(|(key, _)| key.stratum.1 == wait_state::SLEEP);
        let (sampled, squares) =
            sleeps.fold((0.0, 0.0), |sum, (_, waits)| (sum.0 + waits.sampled, sum.1 + waits.squares));
        tracing::debug!(effective = (sampled * sampled / f64::max(squares, 1.0)) as u64, "sampled sleeps");
        let mut sums: HashMap<Stratum, (f64, f64)> = HashMap::new();
        for (key, waits) in &self.waits {
            let sum = sums.entry(key.stratum).or_default();
            sum.0 += waits.sampled;
            sum.1 += waits.sampled_nanoseconds;
        }
        let mut waits: Vec<_> = self.waits.iter().collect();
        waits.sort_by_key(|(key, _)| **key);
        let mut rest: HashMap<Stratum, (f64, f64)> = HashMap::new();
        let mut lines = Vec::new();
        for (key, waits) in waits {
            let total = self.totals.get(&key.stratum).copied().unwrap_or_default();
            let sum = sums.get(&key.stratum).copied().unwrap_or_default();
            let rest = rest.entry(key.stratum).or_default();
            let count = waits.long.count + share(total.count, waits.sampled, sum.0, &mut rest.0);
            let nanoseconds = waits.long.nanoseconds
                + share(total.nanoseconds, waits.sampled_nanoseconds, sum.1, &mut rest.1);
            if count == 0 && nanoseconds == 0 {
                continue;
            }
            lines.push(WaitLine {
                task: self.stacks.task_of(key.task),
                stack: self.stacks.stack_of(key.stack),
                truncated: key.truncated,
                state: STATES.get(usize::from(key.stratum.1)).copied().unwrap_or("sleep"),
                count,
                nanoseconds,
            });
        }
        (lines, self.stacks.frames())
    }

    /// Adds the modules that frames lie in to `used`.
    pub fn add_modules(&self, used: &mut HashSet<ModuleId>) {
        self.stacks.add_modules(used);
    }

    /// How full the window is.
    pub fn table_use(&self) -> TableUse {
        let (bytes, budget) = (self.stacks.bytes(), self.stacks.budget());
        TableUse { name: "waits' window", entries: self.waits.len() + self.halves.len(), bytes, budget }
    }

    fn keep(&mut self, at: (u32, u64), half: Half) {
        const EACH: usize = size_of::<((u32, u64), Half)>() + MAP_OVERHEAD;
        // Room is kept by the most that there were at once.
        if self.halves.len() == self.halves.capacity() {
            self.stacks.charge(self.halves.capacity().max(4) * EACH);
        }
        self.halves.insert(at, half);
    }

    fn join(&mut self, tid: u32, end: EndedWait, task: u32, stack: u32, truncated: Option<TruncatedCause>) {
        let key = Key { stratum: (tid, end.state), task, stack, truncated };
        let waits = self.waits.entry(key).or_insert_with(|| {
            self.stacks.charge(size_of::<(Key, Waits)>() + MAP_OVERHEAD);
            Waits::default()
        });
        if end.is_long {
            waits.long.count += 1;
            waits.long.nanoseconds += end.lasted;
        } else {
            waits.sampled += f64::from(end.every);
            waits.squares += f64::from(end.every) * f64::from(end.every);
            waits.sampled_nanoseconds += f64::from(end.every) * end.lasted as f64;
        }
    }

    /// Totals that no stack stands for get a line of their own.
    fn mark_unsampled(&mut self) {
        let sampled: HashSet<Stratum> =
            self.waits.iter().filter(|(_, waits)| waits.sampled > 0.0).map(|(key, _)| key.stratum).collect();
        let missing: Vec<Stratum> =
            self.totals.keys().filter(|stratum| !sampled.contains(stratum)).copied().collect();
        for stratum in missing {
            let (stack, truncated) = self.stacks.stack(&[Frame::StackNotSampled], None);
            let task = self.tasks.get(&stratum.0).copied().unwrap_or_default();
            let waits = self.waits.entry(Key { stratum, task, stack, truncated }).or_default();
            waits.sampled += 1.0;
            waits.sampled_nanoseconds += 1.0;
        }
    }
}

/// The part of `total` that `weight` of `sum` has, as a whole number. What rounding leaves over goes into `rest` and from there to
/// the next, so that the parts add up to the total.
fn share(total: u64, weight: f64, sum: f64, rest: &mut f64) -> u64 {
    if sum <= 0.0 {
        return 0;
    }
    let exact = total as f64 * (weight / sum) + *rest;
    let whole = exact.round().max(0.0);
    *rest = exact - whole;
    whole as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: u32) -> Task {
        Task { pid, comm: "test".into(), thread: None }
    }

    fn stack(address: u64) -> [Frame; 1] {
        [Frame::Kernel { address }]
    }

    fn short(lasted: u64, every: u32) -> EndedWait {
        EndedWait { state: wait_state::SLEEP, lasted, every, is_long: false }
    }

    fn totals(count: u64, nanoseconds: u64) -> [WaitTotal; wait_state::COUNT] {
        let mut totals = [WaitTotal::default(); wait_state::COUNT];
        totals[usize::from(wait_state::SLEEP)] = WaitTotal { count, nanoseconds };
        totals
    }

    fn sums(window: &mut WaitWindow) -> (u64, u64) {
        let (lines, _) = window.lines();
        (lines.iter().map(|line| line.count).sum(), lines.iter().map(|line| line.nanoseconds).sum())
    }

    /// Sampled stacks share their task's totals as their waits do, each as often as it stands for; the sums are the totals.
    #[test]
    fn sampled_stacks_are_scaled_to_the_totals() {
        let mut window = WaitWindow::new(1 << 20);
        for (began, address, lasted, every) in [(1, 10, 100, 1), (2, 20, 300, 1), (3, 10, 100, 2)] {
            window.add_stack((7, began), &task(1), &stack(address), None);
            window.add_end((7, began), short(lasted, every));
        }
        window.add_totals(7, &task(1), &totals(101, 60_000));
        assert_eq!(sums(&mut window), (101, 60_000));
        let (lines, _) = window.lines();
        // 100 + 2 × 100 against 300.
        assert_eq!(lines.iter().map(|line| line.nanoseconds).collect::<Vec<_>>(), [30_000, 30_000]);
    }

    /// A long wait is counted for itself: it does not stand for others, whatever the task's totals.
    #[test]
    fn long_waits_are_not_scaled() {
        let mut window = WaitWindow::new(1 << 20);
        let long = EndedWait { state: wait_state::SLEEP, lasted: 2_000_000_000, every: 64, is_long: true };
        window.add_stack((7, 1), &task(1), &stack(10), None);
        window.add_end((7, 1), long);
        window.add_without_stack(7, long, &task(1), &stack(20));
        window.add_stack((7, 2), &task(1), &stack(30), None);
        window.add_end((7, 2), short(50, 64));
        window.add_totals(7, &task(1), &totals(6400, 1_000_000));
        assert_eq!(sums(&mut window), (6402, 4_001_000_000));
    }

    /// A stack that arrives after the end of its wait, as those do that the agent has to finish, is joined all the same.
    #[test]
    fn halves_join_in_either_order() {
        let mut window = WaitWindow::new(1 << 20);
        window.add_end((7, 1), short(100, 1));
        window.add_stack((7, 1), &task(1), &stack(10), None);
        window.add_totals(7, &task(1), &totals(1, 100));
        let (lines, _) = window.lines();
        assert_eq!((lines.len(), lines[0].nanoseconds, lines[0].stack.len()), (1, 100, 1));
    }

    /// Totals without any stack are there, and marked.
    #[test]
    fn totals_without_stacks_are_marked() {
        let mut window = WaitWindow::new(1 << 20);
        window.add_totals(7, &task(1), &totals(5, 500));
        assert_eq!(sums(&mut window), (5, 500));
        assert_eq!(window.frames(), [Frame::StackNotSampled]);
    }

    /// A wait that goes on when the window ends counts until then, with the stack with which it began.
    #[test]
    fn unended_waits_count_until_the_end() {
        let mut window = WaitWindow::new(1 << 20);
        window.add_stack((7, 1000), &task(1), &stack(10), None);
        let waits = |tid, left| TaskWaits { tid, left, state: wait_state::SLEEP, ..TaskWaits::default() };
        window.add_unended(&waits(7, 1000), &task(1), 5000);
        window.add_unended(&waits(8, 2000), &task(1), 5000);
        assert_eq!(sums(&mut window), (2, 7000));
        assert_eq!(window.frames().len(), 2);
    }
}
