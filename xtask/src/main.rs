//! nodeprof's development tasks.

fn main() {}
