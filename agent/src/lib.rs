//! nodeprof: an eBPF continuous-profiling agent for Linux nodes.
//!
//! The modules follow the way of a sample; each depends only on those above it. See
//! `docs/architecture.md`.

pub mod printable;
pub mod time_format;

pub mod symbol;

pub mod profile;

pub mod report;

pub mod export;
