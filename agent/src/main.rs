//! Parse, compose, run.

fn main() {}
