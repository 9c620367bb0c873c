//! All that speaks to the kernel: perf events, the eBPF object, rings, CPUs.

pub mod btf;
pub mod capabilities;
pub mod counters;
pub mod cpu_time;
pub mod cpus;
pub mod perf_event;
pub mod programs;
pub mod readiness;
pub mod release;
pub mod sample_ring;
pub mod shared_array;
pub mod sideband;
pub mod unwind_tables;
pub mod uprobe;
