//! Files with bytes changed at random, repeatably: for tests of what reads foreign files.
//!
//! A few thousand of them, in every test run. `agent/fuzz` looks further, guided by coverage.

use std::time::{Duration, Instant};

/// A small generator (Knuth's MMIX constants), so that a failure can be repeated.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Gives `read` as many copies of `good`, each with one to eight bytes changed where `place` says, which must take it less than
/// 30 seconds in all. How many of them it accepted.
pub(crate) fn accepted_when_corrupted(
    good: &[u8],
    copies: u64,
    place: impl Fn(&mut Random) -> usize,
    read: impl Fn(&[u8]) -> bool,
) -> usize {
    let start = Instant::now();
    let mut file = good.to_vec();
    let mut accepted = 0;
    for seed in 0..copies {
        let mut random = Random::new(seed);
        for _ in 0..=random.below(8) {
            let at = place(&mut random);
            file[at] = [0, 0xff, 0x80, random.below(256) as u8][random.below(4)];
        }
        accepted += usize::from(read(&file));
        file.copy_from_slice(good);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    accepted
}
