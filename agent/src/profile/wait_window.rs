//! A window of waits: how long tasks were off their CPUs, by stack, and who ended that.
//!
//! Totals of short waits are exact, and come a task and state at a time; stacks were taken of some of these waits only. When the
//! window is finished, what each sampled stack stands for is scaled so that a task's stacks add up to its totals. Long waits are
//! not scaled: each is counted for itself, with its stack or without. Waits that are left out, because they are shorter than was
//! asked for, are in none of that: what comes of them only joins, and goes.
//!
//! A wait comes in up to three parts, in any order: the stack with which it began, its end, and the stack of whoever ended it.

use std::collections::{BTreeMap, HashMap, HashSet};

use agent_ebpf::{TaskWaits, WaitTotal, wait_state};

use crate::process::module::ModuleId;
use crate::profile::accounting::TruncatedCause;
use crate::profile::stack_table::{MAP_OVERHEAD, StackTable, Task};
use crate::profile::waking::{EndedBy, Purpose, WakeSource, Woken};
use crate::symbol::frame::Frame;
use crate::table_use::TableUse;

/// The values of the label `state`, by [`wait_state`].
const STATES: [&str; wait_state::COUNT] = ["runnable", "sleep", "disk", "io", "stopped", "sleep"];

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
    /// One of [`wait_state`].
    pub state: u16,
    /// What the task waited for.
    pub purpose: Purpose,
    /// What ended these waits.
    pub ended: EndedBy,
    /// Who did, where the stack was taken; also for interrupts, which have a marker.
    pub waker: Option<WakerLine<'a>>,
    /// Waits.
    pub count: u64,
    /// How long they were together, until the task ran again.
    pub nanoseconds: u64,
    /// The same until it was woken; 0 where that was not seen.
    pub blocked: u64,
}

impl WaitLine<'_> {
    /// The value of the label `state`.
    pub fn state_name(&self) -> &'static str {
        STATES.get(usize::from(self.state)).copied().unwrap_or("sleep")
    }
}

/// Who ended the waits of a line.
#[derive(Clone, Copy, Debug)]
pub struct WakerLine<'a> {
    /// The task; an interrupt has a name for one.
    pub task: &'a Task,
    /// Indices into [`WaitWindow::frames`], leaf first.
    pub stack: &'a [u32],
    /// Why the stack is not whole, where it is not.
    pub truncated: Option<TruncatedCause>,
}

/// Whose stack, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Place {
    task: u32,
    stack: u32,
    truncated: Option<TruncatedCause>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    stratum: Stratum,
    place: Place,
    purpose: Purpose,
    ended: EndedBy,
    waker: Option<Place>,
}

/// Waits with one stack, one purpose and one end.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    /// Long ones, and how long,
    long: WaitTotal,
    /// of that until they were woken.
    long_blocked: u64,
    /// Short ones whose stack was taken, each as often as the probability of that says,
    sampled: f64,
    /// the sum of the squares of that,
    squares: f64,
    /// their nanoseconds,
    sampled_nanoseconds: f64,
    /// and those until they were woken.
    sampled_blocked: f64,
}

/// A wait of which one half is known.
#[derive(Clone, Copy, Debug)]
enum Half {
    /// The stack with which it began.
    Stack(Place),
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
    /// Whether it is counted for itself, and not in its task's totals.
    pub is_long: bool,
    /// Whether it is left out: neither counted for itself nor in its task's totals.
    pub is_left_out: bool,
    /// What the task waited for.
    pub purpose: Purpose,
    /// How it was woken; `None`: it goes on.
    pub woken: Option<Woken>,
}

/// Waits of one window, within a byte budget.
#[derive(Debug)]
pub struct WaitWindow {
    stacks: StackTable,
    /// By thread id and beginning.
    halves: HashMap<(u32, u64), Half>,
    /// Wakers of whose waits the end is still to come, by the waker's thread id and the time.
    wakers: HashMap<(u32, u64), (WakeSource, Place)>,
    /// Waits whose waker's stack is still to come, likewise; each with its thread id.
    unwoken: HashMap<(u32, u64), (u32, EndedWait, Place)>,
    waits: HashMap<Key, Waits>,
    totals: BTreeMap<Stratum, WaitTotal>,
    /// Whose the totals are: the number of the task.
    tasks: HashMap<u32, u32>,
    /// Nanoseconds below which a wait is left out.
    shortest: u64,
    /// Waits that go on and are left out.
    left_out: WaitTotal,
}

impl WaitWindow {
    /// An empty window that may take `budget` bytes. Beyond it, waits are counted without their stacks. Of waits that go on when it
    /// ends, those shorter than `shortest` nanoseconds are left out; of others, the kernel has decided that.
    pub fn new(budget: usize, shortest: u64) -> Self {
        let (halves, wakers, unwoken, waits, totals, tasks) = Default::default();
        let (stacks, left_out) = (StackTable::new(budget), WaitTotal::default());
        Self { stacks, halves, wakers, unwoken, waits, totals, tasks, shortest, left_out }
    }

    /// Waits that were given to [`add_unended`](Self::add_unended) and are left out.
    pub fn unended_left_out(&self) -> WaitTotal {
        self.left_out
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
        let place = self.place(task, stack, truncated);
        match self.halves.remove(&(tid, began)) {
            Some(Half::End(end)) => self.join(tid, end, place),
            _ => self.keep((tid, began), Half::Stack(place)),
        }
    }

    /// The wait of thread `tid` that began at `began` with a stack is over.
    pub fn add_end(&mut self, (tid, began): (u32, u64), end: EndedWait) {
        match self.halves.remove(&(tid, began)) {
            Some(Half::Stack(place)) => self.join(tid, end, place),
            _ => self.keep((tid, began), Half::End(end)),
        }
    }

    /// Thread `tid` woke another one at `woken` with `stack`, if it was not an interrupt.
    pub fn add_waker(
        &mut self,
        at: (u32, u64),
        source: WakeSource,
        task: &Task,
        stack: &[Frame],
        truncated: Option<TruncatedCause>,
    ) {
        let place = if source.is_interrupt() { self.interrupt() } else { self.place(task, stack, truncated) };
        if let Some((tid, end, sleeper)) = self.unwoken.remove(&at) {
            self.count(tid, end, sleeper, Some((source, place)));
            return;
        }
        charge_growth(&mut self.stacks, &self.wakers);
        self.wakers.insert(at, (source, place));
    }

    /// A long wait of thread `tid` without a stack of its own is over; `kernel` is where it waited.
    pub fn add_without_stack(&mut self, tid: u32, end: EndedWait, task: &Task, kernel: &[Frame]) {
        let stack: Vec<Frame> = kernel.iter().copied().chain([Frame::StackNotSampled]).collect();
        let place = self.place(task, &stack, None);
        self.join(tid, end, place);
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
        let lasted = now.saturating_sub(left);
        let purpose = Purpose::of(state, &task.futex, task.locked);
        let is_left_out = lasted < self.shortest;
        if is_left_out {
            self.left_out.count += 1;
            self.left_out.nanoseconds += lasted;
        }
        let end = EndedWait { state, lasted, every: 1, is_long: true, is_left_out, purpose, woken: None };
        match self.halves.remove(&(tid, left)) {
            Some(Half::Stack(place)) => self.join(tid, end, place),
            _ if is_left_out => {}
            _ => self.add_without_stack(tid, end, whose, &[]),
        }
    }

    /// Every line, with sampled stacks scaled to the totals, and the frames that they refer to. What no stack stands for has a marker.
    pub fn lines(&mut self) -> (Vec<WaitLine<'_>>, &[Frame]) {
        for (_, (tid, end, place)) in std::mem::take(&mut self.unwoken) {
            self.count(tid, end, place, None);
        }
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
            let short = share(total.nanoseconds, waits.sampled_nanoseconds, sum.1, &mut rest.1);
            let nanoseconds = waits.long.nanoseconds + short;
            if count == 0 && nanoseconds == 0 {
                continue;
            }
            let blocked = share(short, waits.sampled_blocked, waits.sampled_nanoseconds, &mut 0.0);
            let Place { task, stack, truncated } = key.place;
            let waker = key.waker.map(|waker| WakerLine {
                task: self.stacks.task_of(waker.task),
                stack: self.stacks.stack_of(waker.stack),
                truncated: waker.truncated,
            });
            lines.push(WaitLine {
                task: self.stacks.task_of(task),
                stack: self.stacks.stack_of(stack),
                truncated,
                state: key.stratum.1,
                purpose: key.purpose,
                ended: key.ended,
                waker,
                count,
                nanoseconds,
                blocked: waits.long_blocked + blocked,
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
        let entries = self.waits.len() + self.halves.len() + self.wakers.len() + self.unwoken.len();
        TableUse { name: "waits' window", entries, bytes, budget }
    }

    fn place(&mut self, task: &Task, stack: &[Frame], truncated: Option<TruncatedCause>) -> Place {
        let (stack, truncated) = self.stacks.stack(stack, truncated);
        Place { task: self.stacks.task(task), stack, truncated }
    }

    /// What stands for interrupts in place of a task and its stack.
    fn interrupt(&mut self) -> Place {
        let task = Task { pid: 0, comm: "[interrupt]".into(), thread: None };
        self.place(&task, &[Frame::Interrupt], None)
    }

    fn keep(&mut self, at: (u32, u64), half: Half) {
        charge_growth(&mut self.stacks, &self.halves);
        self.halves.insert(at, half);
    }

    /// A wait's stack and its end are there; the stack of whoever ended it may be still to come.
    fn join(&mut self, tid: u32, end: EndedWait, place: Place) {
        let waker = match end.woken {
            Some(Woken { by: EndedBy::Idle, .. }) => Some((WakeSource::Interrupt, self.interrupt())),
            Some(Woken { waker, time, has_stack: true, .. }) => {
                let Some(known) = self.wakers.remove(&(waker, time)) else {
                    charge_growth(&mut self.stacks, &self.unwoken);
                    self.unwoken.insert((waker, time), (tid, end, place));
                    return;
                };
                Some(known)
            }
            _ => None,
        };
        self.count(tid, end, place, waker);
    }

    fn count(&mut self, tid: u32, end: EndedWait, place: Place, waker: Option<(WakeSource, Place)>) {
        if end.is_left_out {
            return;
        }
        let by = end.woken.map_or(EndedBy::Nothing, |woken| woken.by);
        let key = Key {
            stratum: (tid, end.state),
            place,
            purpose: end.purpose,
            ended: waker.map_or(by, |(source, _)| by.seen_as(source)),
            waker: waker.map(|(_, place)| place),
        };
        let waits = self.waits.entry(key).or_insert_with(|| {
            self.stacks.charge(size_of::<(Key, Waits)>() + MAP_OVERHEAD);
            Waits::default()
        });
        let blocked = end.woken.map_or(0, |woken| woken.blocked);
        if end.is_long {
            waits.long.count += 1;
            waits.long.nanoseconds += end.lasted;
            waits.long_blocked += blocked;
        } else {
            let weight = f64::from(end.every);
            waits.sampled += weight;
            waits.squares += weight * weight;
            waits.sampled_nanoseconds += weight * end.lasted as f64;
            waits.sampled_blocked += weight * blocked as f64;
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
            let place = Place { task, stack, truncated };
            let (purpose, ended) = (Purpose::Unknown, EndedBy::NotLookedAt);
            let waits = self.waits.entry(Key { stratum, place, purpose, ended, waker: None }).or_default();
            waits.sampled += 1.0;
            waits.sampled_nanoseconds += 1.0;
        }
    }
}

/// Counts the room that another entry of `map` will take. Room is kept by the most that there were at once.
fn charge_growth<K, V>(stacks: &mut StackTable, map: &HashMap<K, V>) {
    if map.len() == map.capacity() {
        stacks.charge(map.capacity().max(4) * (size_of::<(K, V)>() + MAP_OVERHEAD));
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
        EndedWait {
            state: wait_state::SLEEP,
            lasted,
            every,
            is_long: false,
            is_left_out: false,
            purpose: Purpose::Unknown,
            woken: None,
        }
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
        let mut window = WaitWindow::new(1 << 20, 0);
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
        let mut window = WaitWindow::new(1 << 20, 0);
        let long = EndedWait { is_long: true, ..short(2_000_000_000, 64) };
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
        let mut window = WaitWindow::new(1 << 20, 0);
        window.add_end((7, 1), short(100, 1));
        window.add_stack((7, 1), &task(1), &stack(10), None);
        window.add_totals(7, &task(1), &totals(1, 100));
        let (lines, _) = window.lines();
        assert_eq!((lines.len(), lines[0].nanoseconds, lines[0].stack.len()), (1, 100, 1));
    }

    /// Totals without any stack are there, and marked.
    #[test]
    fn totals_without_stacks_are_marked() {
        let mut window = WaitWindow::new(1 << 20, 0);
        window.add_totals(7, &task(1), &totals(5, 500));
        assert_eq!(sums(&mut window), (5, 500));
        assert_eq!(window.frames(), [Frame::StackNotSampled]);
    }

    /// A wait that goes on when the window ends counts until then, with the stack with which it began.
    #[test]
    fn unended_waits_count_until_the_end() {
        let mut window = WaitWindow::new(1 << 20, 0);
        window.add_stack((7, 1000), &task(1), &stack(10), None);
        let waits = |tid, left| TaskWaits { tid, left, state: wait_state::SLEEP, ..TaskWaits::default() };
        window.add_unended(&waits(7, 1000), &task(1), 5000);
        window.add_unended(&waits(8, 2000), &task(1), 5000);
        assert_eq!(sums(&mut window), (2, 7000));
        assert_eq!(window.frames().len(), 2);
    }

    /// The three parts of a wait join in any order; the waker's stack goes with the wait that it ended, and says what it was.
    #[test]
    fn wakers_join_in_any_order() {
        let woken = Woken { by: EndedBy::Futex, waker: 9, time: 80, blocked: 79, has_stack: true };
        let end = EndedWait { woken: Some(woken), ..short(100, 2) };
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut window = WaitWindow::new(1 << 20, 0);
            for part in order {
                match part {
                    0 => window.add_stack((7, 1), &task(1), &stack(10), None),
                    1 => window.add_end((7, 1), end),
                    _ => window.add_waker((9, 80), WakeSource::Task, &task(2), &stack(20), None),
                }
            }
            window.add_totals(7, &task(1), &totals(10, 1000));
            let (lines, frames) = window.lines();
            let [line] = &lines[..] else { panic!("one line") };
            assert_eq!((line.count, line.nanoseconds, line.blocked), (10, 1000, 790), "{order:?}");
            let waker = line.waker.expect("it is known");
            assert_eq!((line.ended, waker.task.pid), (EndedBy::Futex, 2));
            assert_eq!(frames[waker.stack[0] as usize], Frame::Kernel { address: 20 });
        }
    }

    /// An interrupt that hit a task is not that task's doing, even inside futex(2); a waker whose stack does not come is none.
    #[test]
    fn interrupts_are_no_tasks() {
        let woken = |waker| Woken { by: EndedBy::Futex, waker, time: 80, blocked: 79, has_stack: true };
        let mut window = WaitWindow::new(1 << 20, 0);
        for (tid, waker) in [(7, 9), (8, 10)] {
            window.add_stack((tid, 1), &task(1), &stack(10), None);
            window.add_end((tid, 1), EndedWait { woken: Some(woken(waker)), ..short(100, 1) });
            window.add_totals(tid, &task(1), &totals(1, 100));
        }
        window.add_waker((9, 80), WakeSource::Timer, &task(2), &stack(20), None);
        let (lines, frames) = window.lines();
        let found: Vec<_> =
            lines.iter().map(|line| (line.ended, line.waker.map(|waker| waker.stack))).collect();
        let marker = frames.iter().position(|frame| *frame == Frame::Interrupt).expect("a marker") as u32;
        assert_eq!(found, [(EndedBy::Timer, Some(&[marker][..])), (EndedBy::Futex, None)]);
    }
    /// Waits that are left out are in no line, whatever came of them and in which order, and do not change what others stand for. No half of
    /// theirs is kept.
    #[test]
    fn waits_that_are_left_out_leave_nothing() {
        let woken = Woken { by: EndedBy::Futex, waker: 9, time: 80, blocked: 79, has_stack: true };
        let end = EndedWait { is_left_out: true, woken: Some(woken), ..short(100, 64) };
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut window = WaitWindow::new(1 << 20, 1000);
            for part in order {
                match part {
                    0 => window.add_stack((7, 1), &task(1), &stack(10), None),
                    1 => window.add_end((7, 1), end),
                    _ => window.add_waker((9, 80), WakeSource::Task, &task(2), &stack(20), None),
                }
            }
            assert_eq!(window.table_use().entries, 0, "{order:?}");
            window.add_stack((7, 200), &task(1), &stack(30), None);
            window.add_end((7, 200), short(2000, 1));
            window.add_totals(7, &task(1), &totals(3, 6000));
            let (lines, frames) = window.lines();
            let [line] = &lines[..] else { panic!("one line") };
            assert_eq!((line.count, line.nanoseconds), (3, 6000), "{order:?}");
            assert_eq!(frames[line.stack[0] as usize], Frame::Kernel { address: 30 });
        }
        // A long one whose stack was not taken, but its waker's.
        let mut window = WaitWindow::new(1 << 20, 1 << 30);
        window.add_waker((9, 80), WakeSource::Task, &task(2), &stack(20), None);
        window.add_without_stack(7, EndedWait { is_long: true, ..end }, &task(1), &stack(10));
        assert_eq!((window.table_use().entries, sums(&mut window)), (0, (0, 0)));
    }

    /// Waits that go on when the window ends are left out if they have not lasted long enough by then, and counted.
    #[test]
    fn unended_waits_are_left_out_if_short() {
        let mut window = WaitWindow::new(1 << 20, 2000);
        let waits = |tid, left| TaskWaits { tid, left, state: wait_state::SLEEP, ..TaskWaits::default() };
        for (tid, left) in [(7, 3000), (8, 3001), (9, 4500)] {
            if tid < 9 {
                window.add_stack((tid, left), &task(1), &stack(10), None);
            }
            window.add_unended(&waits(tid, left), &task(1), 5000);
        }
        assert_eq!(window.unended_left_out(), WaitTotal { count: 2, nanoseconds: 1999 + 500 });
        assert_eq!(sums(&mut window), (1, 2000));
        assert_eq!(window.table_use().entries, 1);
    }
}
