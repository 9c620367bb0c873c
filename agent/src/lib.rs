//! nodeprof: an eBPF continuous-profiling agent for Linux nodes.
//!
//! The modules follow the way of a sample; each depends only on those above it. See
//! `docs/architecture.md`.

pub mod build_id;
pub mod metrics;
pub mod printable;
pub mod table_use;
pub mod time_format;

#[cfg(test)]
mod corruption;

pub mod governor;
pub mod kernel;

pub mod process;

pub mod symbol;

pub mod unwind;

pub mod profile;
pub mod profiler;

pub mod report;

pub mod export;

pub mod cli;
pub mod run;
