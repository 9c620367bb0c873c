//! Whether two samples of the same truth have the same call paths, where some of the stacks are cut.
//!
//! The bound of each comparison is that of `compare-perf` (`compare_perf/verdict.rs`): both profilers are independent samples, so
//! both variances count. What is new is that a sample whose stack is cut, or that was lost, belongs to a path that is not known.
//! So a profiler has from `counts` to `counts + maybe` samples of a path, and it agrees with the other if any number in
//! its range does with any in the other's.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::ending::Ending;
use super::stacks::{Path, Stacks};
use crate::compare_perf::leaf::Leaf;
use crate::compare_perf::verdict;

/// Samples by path. Index 0 is perf, 1 the agent, as everywhere.
type Counted<K> = [HashMap<K, u64>; 2];

/// One path in both profiles.
#[derive(Debug, PartialEq)]
pub(crate) struct Row {
    /// Functions, outermost first; empty for samples without a user stack.
    pub(crate) path: Path,
    /// Samples that have it.
    pub(crate) counts: [u64; 2],
    /// Samples that may have it as well: their stack is cut or lost.
    pub(crate) maybe: [u64; 2],
    /// Least difference of the shares, in σ.
    pub(crate) deviation: f64,
}

/// The `top` most frequent whole call paths, from the program's first function to the leaf, of either profile.
pub(crate) fn whole_paths(sides: [&Stacks; 2], top: usize) -> Vec<Row> {
    let counted = sides.map(super::stacks::paths);
    let maybe = |path: &Path| sides.map(|side| side.lost + may_be(side, path));
    rows(&counted, sides, top, maybe, Clone::clone)
}

/// Samples of cut stacks whose frames are the inner end of `path`.
fn may_be(side: &Stacks, path: &Path) -> u64 {
    let cut = side.stacks.iter().filter(|stack| stack.ending == Ending::Cut);
    let inner = cut.filter(|stack| path.len() > stack.frames.len() && path.ends_with(&stack.frames));
    inner.map(|stack| stack.count).sum()
}

/// The `top` largest boxes of a flame graph of either profile: beginnings of call paths, with all that is called from there.
/// Of boxes that stand on one another and are equally wide on both sides the innermost counts.
pub(crate) fn boxes(sides: [&Stacks; 2], top: usize) -> Vec<Row> {
    let mut counted = sides.map(beginnings);
    let equal =
        |path: &[Leaf], parent: &[Leaf]| counted.iter().all(|tally| tally.get(path) == tally.get(parent));
    let all: BTreeSet<&[Leaf]> = counted.iter().flat_map(|tally| tally.keys().copied()).collect();
    let parent = |path: &[Leaf]| path.len().saturating_sub(1);
    let hidden: Vec<&[Leaf]> = all
        .iter()
        .filter(|path| parent(path) > 0 && equal(path, &path[..parent(path)]))
        .map(|path| &path[..parent(path)])
        .collect();
    for tally in &mut counted {
        for path in &hidden {
            tally.remove(path);
        }
    }
    // Whatever is missing of a cut stack may have begun so.
    let maybe = |_: &&[Leaf]| sides.map(|side| side.lost + side.ending(Ending::Cut));
    rows(&counted, sides, top, maybe, |path| path.to_vec())
}

fn beginnings(side: &Stacks) -> HashMap<&[Leaf], u64> {
    let mut tally = HashMap::new();
    for stack in side.stacks.iter().filter(|stack| stack.ending == Ending::Whole) {
        for length in 1..=stack.frames.len() {
            *tally.entry(&stack.frames[..length]).or_default() += stack.count;
        }
    }
    tally
}

fn rows<K: Ord + Hash>(
    counted: &Counted<K>,
    sides: [&Stacks; 2],
    top: usize,
    maybe: impl Fn(&K) -> [u64; 2],
    path: impl Fn(&K) -> Path,
) -> Vec<Row> {
    let fired = sides.map(Stacks::fired);
    if fired.contains(&0) {
        return Vec::new();
    }
    let compared: BTreeSet<&K> =
        counted.iter().flat_map(|tally| verdict::most_frequent(tally, top)).collect();
    let row = |key: &K| {
        let counts = [0, 1].map(|side: usize| counted[side].get(key).copied().unwrap_or(0));
        let maybe = maybe(key);
        Row { path: path(key), counts, maybe, deviation: least_deviation(counts, maybe, fired) }
    };
    let mut rows: Vec<Row> = compared.into_iter().map(row).collect();
    // Stable: paths with equal counts stay in the order of their names.
    rows.sort_by_key(|row| std::cmp::Reverse(row.counts.iter().sum::<u64>()));
    rows
}

fn least_deviation(counts: [u64; 2], maybe: [u64; 2], fired: [u64; 2]) -> f64 {
    let most = [0, 1].map(|side| (counts[side] + maybe[side]).min(fired[side]));
    let share = |counts: [u64; 2], side: usize| counts[side] as f64 / fired[side] as f64;
    // Whoever is ahead for certain has no more than it has; the other has all that it may have.
    if share(counts, 0) > share(most, 1) {
        verdict::deviation([counts[0], most[1]], fired)
    } else if share(counts, 1) > share(most, 0) {
        verdict::deviation([most[0], counts[1]], fired)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::stacks::Stack;
    use super::*;

    fn path(names: &[&str]) -> Path {
        names.iter().map(|name| Leaf::new(Some(name), Some("app"))).collect()
    }

    fn side(whole: &[(&[&str], u64)], cut: &[(&[&str], u64)]) -> Stacks {
        let stack = |ending| {
            move |(names, count): &(&[&str], u64)| Stack { frames: path(names), ending, count: *count }
        };
        let stacks = whole.iter().map(stack(Ending::Whole)).chain(cut.iter().map(stack(Ending::Cut)));
        Stacks { stacks: stacks.collect(), lost: 0 }
    }

    fn row<'a>(rows: &'a [Row], names: &[&str]) -> &'a Row {
        rows.iter().find(|row| row.path == path(names)).unwrap()
    }

    /// Equal shares agree; a path that one profiler has half as often, or only under another caller, does not.
    #[test]
    fn differences_are_seen() {
        let perf = side(&[(&["main", "a"], 600), (&["main", "b"], 400)], &[]);
        let ours = side(&[(&["main", "a"], 300), (&["main", "x", "a"], 300), (&["main", "b"], 410)], &[]);
        let rows = whole_paths([&perf, &ours], 20);
        assert_eq!(rows.len(), 3);
        assert!(row(&rows, &["main", "b"]).deviation < 1.0);
        assert!(row(&rows, &["main", "a"]).deviation > 10.0);
        assert!(row(&rows, &["main", "x", "a"]).deviation > 10.0);
    }

    /// A cut stack may belong to any path that it is the inner end of, and to no other: what is missing beyond that disagrees.
    #[test]
    fn cut_stacks_leave_room() {
        let ours = side(&[(&["main", "a", "copy"], 500), (&["main", "b"], 500)], &[]);
        let perf = side(&[(&["main", "a", "copy"], 300), (&["main", "b"], 500)], &[(&["copy"], 200)]);
        let rows = whole_paths([&perf, &ours], 20);
        let copy = row(&rows, &["main", "a", "copy"]);
        assert_eq!((copy.counts, copy.maybe, copy.deviation), ([300, 500], [200, 0], 0.0));
        let perf = side(&[(&["main", "a", "copy"], 300), (&["main", "b"], 500)], &[(&["other"], 200)]);
        let rows = whole_paths([&perf, &ours], 20);
        assert!(row(&rows, &["main", "a", "copy"]).deviation > 5.0);
    }

    /// Boxes hold all that is called from there; of a chain without branches one is left.
    #[test]
    fn boxes_are_inclusive() {
        let perf = side(&[(&["main", "run", "a"], 60), (&["main", "run", "b", "c"], 40)], &[]);
        let rows = boxes([&perf, &perf.clone()], 20);
        let paths: Vec<_> = rows.iter().map(|row| (row.path.clone(), row.counts[0])).collect();
        let expected =
            [(&["main", "run"][..], 100), (&["main", "run", "a"], 60), (&["main", "run", "b", "c"], 40)];
        assert_eq!(paths, expected.map(|(names, count)| (path(names), count)));
        assert!(boxes([&perf, &side(&[], &[])], 20).is_empty());
    }

    /// Lost samples may be anything.
    #[test]
    fn lost_samples_leave_room() {
        let whole: [(&[&str], u64); 2] = [(&["main", "a"], 500), (&["main", "b"], 500)];
        let ours = side(&whole, &[]);
        let perf = Stacks { lost: 300, ..side(&[whole[1], (&["main", "a"], 200)], &[]) };
        assert!(row(&whole_paths([&perf, &ours], 20), &["main", "a"]).deviation < 0.1);
    }
}
