//! One profiler's user stacks of one program, under names that do not depend on which profiler gave them.

use std::collections::{HashMap, HashSet};

use super::ending::{Ending, is_entry_name};
use crate::compare_perf::aliases;
use crate::compare_perf::leaf::{self, Leaf, Tally};

/// A call path: functions from the first one of the program to the leaf. Empty for a sample without a user stack.
pub(crate) type Path = Vec<Leaf>;

/// Stacks that are alike.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stack {
    /// Functions, outermost first.
    pub(crate) frames: Path,
    /// How it ends, on the outer side.
    pub(crate) ending: Ending,
    /// Samples.
    pub(crate) count: u64,
}

/// What one profiler has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stacks {
    /// The samples.
    pub(crate) stacks: Vec<Stack>,
    /// Samples that fired and are not there: the program's share of the machine's.
    pub(crate) lost: u64,
}

impl Stacks {
    /// Samples that fired: with what was lost.
    pub(crate) fn fired(&self) -> u64 {
        self.lost + self.stacks.iter().map(|stack| stack.count).sum::<u64>()
    }

    /// Samples whose stack ends so.
    pub(crate) fn ending(&self, ending: Ending) -> u64 {
        self.stacks.iter().filter(|stack| stack.ending == ending).map(|stack| stack.count).sum()
    }

    /// The outermost functions of stacks that are cut.
    pub(crate) fn cuts(&self) -> Tally {
        let mut tally = Tally::new();
        for stack in self.stacks.iter().filter(|stack| stack.ending == Ending::Cut) {
            if let Some(outermost) = stack.frames.first() {
                *tally.entry(outermost.clone()).or_default() += stack.count;
            }
        }
        tally
    }

    fn frames(&self) -> Tally {
        let mut tally = Tally::new();
        for stack in &self.stacks {
            for frame in &stack.frames {
                *tally.entry(frame.clone()).or_default() += stack.count;
            }
        }
        tally
    }

    fn rename(&mut self, rename: impl Fn(&Leaf) -> Option<Leaf>) {
        for frame in self.stacks.iter_mut().flat_map(|stack| &mut stack.frames) {
            if let Some(renamed) = rename(frame) {
                *frame = renamed;
            }
        }
    }
}

/// Gives both profilers' functions the same names: one of those that share an address, and none where only one of them has a
/// source of names for a module. What is in front of a program's first function goes: how much of the C library's start is
/// shown depends on who has names for it, and not on unwinding.
pub(crate) fn reconcile(sides: [&mut Stacks; 2]) {
    let [perf, agent] = sides;
    let frames = [perf.frames(), agent.frames()];
    let modules: HashSet<&str> =
        frames.iter().flat_map(|tally| tally.keys()).map(|frame| &*frame.module).collect();
    let aliases = aliases::find([&frames[0], &frames[1]], &modules);
    let frames = [&frames[0], &frames[1]].map(|tally| leaf::merge_aliases(tally.clone(), &aliases));
    let forgotten = [
        leaf::forget_names_unknown_to(&frames[1], &mut frames[0].clone(), &modules),
        leaf::forget_names_unknown_to(&frames[0], &mut frames[1].clone(), &modules),
    ];
    for (side, forgotten) in [perf, agent].into_iter().zip(&forgotten) {
        for stack in side.stacks.iter_mut().filter(|stack| stack.ending == Ending::Whole) {
            strip_start(&mut stack.frames);
        }
        side.rename(|frame| {
            let frame = aliases.get(frame).unwrap_or(frame);
            let symbol = if forgotten.contains_key(frame) { None } else { frame.symbol.clone() };
            Some(Leaf { module: frame.module.clone(), symbol })
        });
    }
}

/// Takes off the functions that threads and processes begin in, named or not, but leaves one frame at least.
fn strip_start(frames: &mut Path) {
    let named = |frame: &Leaf| frame.symbol.as_deref().is_some_and(is_entry_name);
    let is_start = |(index, frame): (usize, &Leaf)| {
        // The outermost frame is known to be a start whatever it is called.
        index == 0 || named(frame) || (frame.symbol.is_none() && is_c_library(&frame.module))
    };
    let start = frames.iter().enumerate().take_while(|frame| is_start(*frame)).count();
    frames.drain(..start.min(frames.len().saturating_sub(1)));
}

fn is_c_library(module: &str) -> bool {
    module.rsplit('/').next().is_some_and(|file| file.starts_with("libc.so") || file.starts_with("ld-linux"))
}

/// Samples of each whole call path.
pub(crate) fn paths(stacks: &Stacks) -> HashMap<Path, u64> {
    let mut tally = HashMap::new();
    for stack in stacks.stacks.iter().filter(|stack| stack.ending != Ending::Cut) {
        *tally.entry(stack.frames.clone()).or_default() += stack.count;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str]) -> Path {
        let frame = |name: &&str| match name.split_once('/') {
            Some((name, module)) => Leaf::new((!name.is_empty()).then_some(name), Some(module)),
            None => Leaf::new((!name.is_empty()).then_some(name), Some("app")),
        };
        names.iter().map(frame).collect()
    }

    fn side(stacks: &[(&[&str], Ending, u64)], lost: u64) -> Stacks {
        let stack = |(names, ending, count): &(&[&str], Ending, u64)| Stack {
            frames: path(names),
            ending: *ending,
            count: *count,
        };
        Stacks { stacks: stacks.iter().map(stack).collect(), lost }
    }

    /// What fired is what is there and what was lost; endings are counted apart, and cut stacks by where they end.
    #[test]
    fn fired_samples_are_counted() {
        let stacks = side(
            &[
                (&["_start", "main"], Ending::Whole, 5),
                (&["f", "g"], Ending::Cut, 2),
                (&["f"], Ending::Cut, 1),
                (&[], Ending::NoStack, 4),
            ],
            10,
        );
        assert_eq!(stacks.fired(), 22);
        let endings = [Ending::Whole, Ending::Cut, Ending::NoStack].map(|ending| stacks.ending(ending));
        assert_eq!(endings, [5, 3, 4]);
        assert_eq!(stacks.cuts(), Tally::from([(path(&["f"]).remove(0), 3)]));
        assert_eq!(paths(&stacks), HashMap::from([(path(&["_start", "main"]), 5), (vec![], 4)]));
    }

    /// However much of the C library's start a profiler shows and names, the paths are the same; cut stacks stay as they are.
    #[test]
    fn starts_are_taken_off() {
        let starts: [&[&str]; 4] = [
            &["_start", "__libc_start_main/libc.so.6", "/libc.so.6", "main", "f"],
            &["__libc_start_call_main/libc.so.6", "main", "f"],
            &["", "__libc_start_main/libc.so.6", "main", "f"],
            &["clone3/libc.so.6", "start_thread/libc.so.6", "main", "f"],
        ];
        for start in starts {
            let mut frames = path(start);
            strip_start(&mut frames);
            assert_eq!(frames, path(&["main", "f"]), "{start:?}");
        }
        let mut only = path(&["_start/ld-linux-x86-64.so.2"]);
        strip_start(&mut only);
        assert_eq!(only.len(), 1);
    }

    /// A name that one profiler alone knows goes where the other has frames without names; a wrong name stays, and is seen.
    #[test]
    fn names_of_one_profiler_go() {
        let mut perf =
            side(&[(&["main", "static_f", "g"], Ending::Cut, 1), (&["main/n", "x/n"], Ending::Cut, 1)], 0);
        let mut agent =
            side(&[(&["main", "", "g"], Ending::Cut, 1), (&["main/n", "y/n"], Ending::Cut, 1)], 0);
        reconcile([&mut perf, &mut agent]);
        assert_eq!(perf.stacks[0].frames, path(&["main", "", "g"]));
        assert_eq!(perf.stacks[0].frames, agent.stacks[0].frames);
        assert_ne!(perf.stacks[1].frames, agent.stacks[1].frames);
    }
}
