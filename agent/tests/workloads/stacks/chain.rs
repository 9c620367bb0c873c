//! A chain of functions, as a release build has it.

use std::hint::black_box;

#[inline(never)]
fn leaf(turns: u64) -> u64 {
    let mut sum = 0_u64;
    for turn in 0..turns {
        sum = black_box(sum.wrapping_add(turn));
    }
    sum
}

#[inline(never)]
fn middle(turns: u64) -> u64 {
    black_box(leaf(turns)) ^ black_box(turns)
}

#[inline(never)]
fn outer(names: &[String]) -> u64 {
    names.iter().map(|name| black_box(middle(name.len() as u64 * 1000))).sum()
}

fn main() {
    let names = ["one".to_owned(), "three".to_owned()];
    loop {
        black_box(outer(black_box(&names)));
    }
}
