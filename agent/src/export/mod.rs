//! File formats that a profile is written in. Each is a plain walk over the tables of the neutral model.

pub mod flamegraph;
pub mod folded;
pub mod json;
pub mod pprof;
mod stacks;
