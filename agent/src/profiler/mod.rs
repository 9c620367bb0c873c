//! The profilers: which programs run, which weights their samples have; and the collector that reads them all.

pub mod collector;
pub mod cpu;
pub mod cpu_ledger;
pub mod faults;
pub mod mutex;
pub mod offcpu;
mod pending;
pub mod probe;
mod stack;
pub mod wait_profiles;
pub mod walk_tally;
