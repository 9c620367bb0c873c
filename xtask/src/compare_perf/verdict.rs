//! Whether two samples of the same truth may differ as they do.
//!
//! Two profilers sample the same window with `n1` and `n2` samples and give a function the shares `p1` and `p2`. If
//! both are fair, `p1 - p2` is normal around 0 with σ = √(p(1−p)(1/n1+1/n2)), p being the share in both together;
//! with n1 = n2 that is √2 times the σ of one profiler. One comparison is accepted up to 3σ (3√2 of one profiler's).
//! With m functions compared, each gets the bound z(m)·σ at which the chance of a false alarm among all of them is
//! at most that of 3σ alone, 0.27 % (Bonferroni): the tail beyond z(m) is that beyond 3, divided by m.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Standard deviations that one comparison is given.
const SIGMAS: f64 = 3.0;

/// One function, or whatever `K` names, in both profiles.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row<K> {
    pub(crate) key: K,
    /// Samples.
    pub(crate) counts: [u64; 2],
    /// Shares of all samples.
    pub(crate) shares: [f64; 2],
    /// Difference of the shares, in σ.
    pub(crate) deviation: f64,
}

/// The keys in the top `top` of either profile, the most frequent first. Empty if one has no samples.
pub(crate) fn rows<K: Clone + Ord + Hash>(tallies: [&HashMap<K, u64>; 2], top: usize) -> Vec<Row<K>> {
    let totals = tallies.map(|tally| tally.values().sum::<u64>());
    if totals.contains(&0) {
        return Vec::new();
    }
    let compared: BTreeSet<&K> = tallies.iter().flat_map(|tally| most_frequent(tally, top)).collect();
    let mut rows: Vec<Row<K>> = compared
        .into_iter()
        .map(|key| row(key, tallies.map(|tally| tally.get(key).copied().unwrap_or(0)), totals))
        .collect();
    // Stable: functions with equal counts stay in the order of their names.
    rows.sort_by_key(|row| std::cmp::Reverse(row.counts.iter().sum::<u64>()));
    rows
}

/// The `top` most frequent keys.
pub(crate) fn most_frequent<K: Ord + Hash>(tally: &HashMap<K, u64>, top: usize) -> impl Iterator<Item = &K> {
    let mut keys: Vec<_> = tally.iter().collect();
    keys.sort_by(|(key, count), (other, other_count)| other_count.cmp(count).then(key.cmp(other)));
    keys.into_iter().take(top).map(|(key, _)| key)
}

fn row<K: Clone>(key: &K, counts: [u64; 2], totals: [u64; 2]) -> Row<K> {
    let shares = [0, 1].map(|profile| counts[profile] as f64 / totals[profile] as f64);
    Row { key: key.clone(), counts, shares, deviation: deviation(counts, totals) }
}

/// How far the shares `counts / totals` lie apart, in σ.
pub(crate) fn deviation(counts: [u64; 2], totals: [u64; 2]) -> f64 {
    let share = |count, total| count as f64 / total as f64;
    let both = share(counts[0] + counts[1], totals[0] + totals[1]);
    let sigma = (both * (1.0 - both) * (1.0 / totals[0] as f64 + 1.0 / totals[1] as f64)).sqrt();
    let difference = share(counts[0], totals[0]) - share(counts[1], totals[1]);
    // σ is 0 if the function has all samples of both, and the shares are equal then.
    if sigma > 0.0 { difference.abs() / sigma } else { 0.0 }
}

/// z(m): how many σ each of `comparisons` comparisons is given.
pub(crate) fn bound(comparisons: usize) -> f64 {
    let tail = upper_tail(SIGMAS) / comparisons.max(1) as f64;
    let (mut low, mut high) = (SIGMAS, 2.0 * SIGMAS);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if upper_tail(middle) > tail { low = middle } else { high = middle }
    }
    low
}

/// The chance that a standard normal variable is above `z` ≥ 2: the density times Mills' ratio as Laplace's
/// continued fraction 1/(z+1/(z+2/(z+3/(z+…)))) (Abramowitz & Stegun 26.2.14).
fn upper_tail(z: f64) -> f64 {
    let fraction = (1..=100).rev().fold(z, |below, number| z + f64::from(number) / below);
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() / fraction
}

#[cfg(test)]
mod tests {
    use super::super::leaf::{Leaf, Tally};
    use super::*;

    fn leaf(symbol: &str) -> Leaf {
        Leaf::new(Some(symbol), Some("/m"))
    }

    /// Bounds against tables of the normal distribution: none for one comparison, then wider.
    #[test]
    fn bounds_are_those_of_bonferroni() {
        assert!((upper_tail(3.0) - 0.001_349_898_031_630).abs() < 1e-14);
        for (comparisons, expected) in [(1, 3.0), (10, 3.642_522_276), (20, 3.817_172_483)] {
            assert!((bound(comparisons) - expected).abs() < 1e-6, "{comparisons}: {}", bound(comparisons));
        }
    }

    /// 60 of 1000 against 30 of 1000: the two-proportion z test gives 3.2359.
    #[test]
    fn deviation_is_the_two_proportion_z() {
        let row = row(&leaf("a"), [60, 30], [1000, 1000]);
        assert!((row.deviation - 3.235_9).abs() < 1e-4, "{}", row.deviation);
        assert!((row.shares[0] - 0.06).abs() < 1e-12 && (row.shares[1] - 0.03).abs() < 1e-12);
    }

    /// A function that leads on one side only is compared as well; ones in neither top are not.
    #[test]
    fn both_tops_are_compared() {
        let perf = Tally::from([(leaf("a"), 50), (leaf("b"), 40), (leaf("c"), 10)]);
        let ours = Tally::from([(leaf("a"), 50), (leaf("d"), 30), (leaf("c"), 20)]);
        let rows = rows([&perf, &ours], 2);
        let names: Vec<_> = rows.iter().map(|row| row.key.symbol.clone().unwrap()).collect();
        assert_eq!(names, ["a", "b", "d"]);
        assert_eq!((rows[2].counts, rows[2].shares), ([0, 30], [0.0, 0.3]));
    }

    /// Profiles without samples give nothing to compare; one function that is everything agrees.
    #[test]
    fn extremes_do_not_divide_by_zero() {
        let all = Tally::from([(leaf("a"), 7)]);
        assert_eq!(rows([&all, &Tally::new()], 10), []);
        assert!(rows([&all, &all], 10)[0].deviation.abs() < f64::EPSILON);
    }
}
