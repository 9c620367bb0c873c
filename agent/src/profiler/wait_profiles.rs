//! The profiles that a window of waits gives: who waited, who ended that, who waited for locks, who held them.
//!
//! All four come from the same lines, so what is scaled in one is scaled alike in the others. What a wait was for is decided here, when functions
//! have names.

use agent_ebpf::wait_state;

use crate::profile::accounting::{Accounting, LostCause};
use crate::profile::finish::{Finished, Line, LineLabels, NamedFrames};
use crate::profile::wait_window::{WaitLine, WakerLine};
use crate::profile::waking::{EndedBy, Purpose};
use crate::profiler::mutex::{Evidence, FutexOperation, LockClass, classify};

/// Time off the CPUs. The values are the number of waits, and nanoseconds until the task ran again.
pub fn offcpu(lines: &[WaitLine<'_>], named: &NamedFrames<'_>) -> Finished {
    named.lay_out(lines.iter().map(|line| {
        let labels = LineLabels { state: Some(line.state_name()), ..LineLabels::default() };
        of_waiter(line, labels)
    }))
}

/// The same waits by who ended them, but for those that nobody had to end.
pub fn wakers(lines: &[WaitLine<'_>], named: &NamedFrames<'_>) -> (Finished, Accounting) {
    let mut tally = Tally::default();
    let mut charged = Vec::new();
    for line in lines {
        tally.waits += line.count;
        match line.waker {
            _ if line.state == wait_state::RUNNABLE || line.ended == EndedBy::Nothing => {
                tally.left_out += line.count;
            }
            Some(waker) => {
                let state = Some(line.state_name());
                let labels = LineLabels { state, woken: Some(line.task), ..LineLabels::default() };
                charged.push(of_waker(&waker, labels, line.count, line.nanoseconds));
            }
            None => tally.lose(line),
        }
    }
    tally.finish(named.lay_out(charged.into_iter()))
}

/// Waits for locks: contention, or with `all` everything that is done with futexes. The values are the number of waits, and nanoseconds
/// until the task ran again.
pub fn mutex(lines: &[WaitLine<'_>], named: &NamedFrames<'_>, all: bool) -> (Finished, Accounting) {
    let mut tally = Tally::default();
    let mut charged = Vec::new();
    for line in lines {
        if let Some(class) = tally.class(line, named, all) {
            let labels =
                LineLabels { lock: Some(class.name()), ended: end_of(line), ..LineLabels::default() };
            charged.push(of_waiter(line, labels));
        }
    }
    tally.finish(named.lay_out(charged.into_iter()))
}

/// The same waits by who let go of the lock, where somebody did. The nanoseconds are those until the task was woken.
pub fn mutex_holders(lines: &[WaitLine<'_>], named: &NamedFrames<'_>, all: bool) -> (Finished, Accounting) {
    let mut tally = Tally::default();
    let mut charged = Vec::new();
    for line in lines {
        let Some(class) = tally.class(line, named, all) else { continue };
        let nobody = matches!(line.ended, EndedBy::Nothing | EndedBy::Signal) || line.ended.is_interrupt();
        match line.waker {
            _ if nobody => tally.left_out += line.count,
            Some(waker) => {
                let lock = Some(class.name());
                let labels = LineLabels { lock, woken: Some(line.task), ..LineLabels::default() };
                charged.push(of_waker(&waker, labels, line.count, line.blocked));
            }
            None => tally.lose(line),
        }
    }
    tally.finish(named.lay_out(charged.into_iter()))
}

fn of_waiter<'l>(line: &WaitLine<'l>, labels: LineLabels<'l>) -> Line<'l> {
    let WaitLine { task, stack, truncated, count, nanoseconds, .. } = *line;
    let values = vec![count.cast_signed(), nanoseconds.cast_signed()];
    Line { task, stack, truncated, labels, count, values }
}

fn of_waker<'l>(waker: &WakerLine<'l>, labels: LineLabels<'l>, count: u64, nanoseconds: u64) -> Line<'l> {
    let WakerLine { task, stack, truncated } = *waker;
    let values = vec![count.cast_signed(), nanoseconds.cast_signed()];
    Line { task, stack, truncated, labels, count, values }
}

/// The label for waits on futexes that no holder ended. An interrupt that ends one is a timer's.
fn end_of(line: &WaitLine<'_>) -> Option<&'static str> {
    match line.ended {
        _ if line.purpose == Purpose::KernelLock => None,
        EndedBy::Signal => Some("signal"),
        ended if ended.is_interrupt() => Some("timer"),
        _ => None,
    }
}

/// What became of the waits that a profile is made from.
#[derive(Default)]
struct Tally {
    /// All that it could have.
    waits: u64,
    /// Those that are not meant.
    left_out: u64,
    /// Those that should be there and are not, by cause.
    lost: [u64; LostCause::ALL.len()],
}

impl Tally {
    /// What the waits of `line` were for, if that belongs into a profile of locks; counts them.
    fn class(&mut self, line: &WaitLine<'_>, named: &NamedFrames<'_>, all: bool) -> Option<LockClass> {
        let (operation, value) = match line.purpose {
            Purpose::Futex { operation, value } => (FutexOperation::parse(operation), value),
            Purpose::KernelLock => (None, 0),
            Purpose::Unknown if line.state == wait_state::FUTEX => {
                self.waits += line.count;
                self.lost[LostCause::StackNotTaken as usize] += line.count;
                return None;
            }
            Purpose::Unknown => return None,
        };
        self.waits += line.count;
        let frames = named.user_functions(line.stack);
        let kernel_lock = line.purpose == Purpose::KernelLock;
        let class = classify(&Evidence { operation, value, frames: &frames, kernel_lock });
        let meant = all || class.is_contention();
        self.left_out += if meant { 0 } else { line.count };
        meant.then_some(class)
    }

    /// Nobody can be charged with the waits of `line`.
    fn lose(&mut self, line: &WaitLine<'_>) {
        let cause = match line.ended {
            EndedBy::Unseen => LostCause::WakerUnseen,
            _ => LostCause::StackNotTaken,
        };
        self.lost[cause as usize] += line.count;
    }

    fn finish(self, finished: Finished) -> (Finished, Accounting) {
        let emitted = finished.samples.iter().map(|sample| sample.value(0).cast_unsigned()).sum();
        let books = Accounting {
            ticks: self.waits,
            not_selected: self.left_out,
            expected: self.waits - self.left_out,
            emitted,
            lost: self.lost,
            frames: finished.frames,
            truncated: finished.truncated,
            unresolved: finished.unresolved,
            ..Accounting::default()
        };
        (finished, books)
    }
}
