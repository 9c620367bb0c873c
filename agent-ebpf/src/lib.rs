//! The ABI between the eBPF programs and the agent.
//!
//! Built for both targets, without dependencies. Every type is `#[repr(C)]` without padding, and its size
//! and offsets are asserted here, so both sides fail to compile together when it changes. Nothing in it
//! names a machine register.

#![no_std]

pub mod rule;

/// Most kernel frames in a record; `perf_event_max_stack` is 127 by default.
pub const MAX_KERNEL_FRAMES: usize = 127;
/// Most user frames in a record.
pub const MAX_USER_FRAMES: usize = 127;
/// Length of a task's name (`TASK_COMM_LEN`), terminating NUL included.
pub const COMM_LEN: usize = 16;
/// Bytes that a full run of frames takes in a record: one more than [`MAX_KERNEL_FRAMES`], so that
/// it is a power of two and a mask bounds it for the verifier.
pub const FRAMES_BYTES: usize = 1024;
/// Cgroups that `--cgroup` can name at once.
pub const MAX_CGROUPS: u32 = 8;
/// Processes that `--pid` can name at once.
pub const MAX_PIDS: u32 = 1024;

/// What made a record.
pub mod kind {
    /// The CPU profiler's timer.
    pub const CPU: u16 = 1;
}

/// Bits of [`SampleHeader::flags`].
pub mod flag {
    /// The kernel stack has more frames than the record.
    pub const KERNEL_DEPTH: u16 = 1 << 0;
    /// The user stack has more frames than the record.
    pub const USER_DEPTH: u16 = 1 << 1;
}

/// Begins every record in a sample ring. `kernel_frames`, then `user_frames` addresses (`u64`, leaf
/// first) follow it at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleHeader {
    /// Number of this sample among all that the program made on this CPU, from 0 and without gaps,
    /// lost ones included.
    pub sequence: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub timestamp: u64,
    /// Cgroup v2 id of the task; 1 is the root.
    pub cgroup: u64,
    /// Process id (kernel: tgid) in the initial PID namespace.
    pub pid: u32,
    /// Thread id (kernel: pid) in the initial PID namespace.
    pub tid: u32,
    /// CPU that the sample was taken on.
    pub cpu: u32,
    /// One of [`kind`].
    pub kind: u16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Kernel addresses that follow the header.
    pub kernel_frames: u16,
    /// User addresses that follow the kernel's.
    pub user_frames: u16,
    /// Keeps `comm` aligned; 0.
    pub reserved: u32,
    /// The thread's name, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// What the CPU profiler's program counted on one CPU. One element for each possible CPU, mmapped by the
/// agent: reading it by system call would itself make the kernel skip the program.
///
/// `fired == idle + not_selected + emitted + ring_full + scratch_busy`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// Runs of the program.
    pub fired: u64,
    /// Runs that found the CPU idle.
    pub idle: u64,
    /// Runs that hit a task outside the selection.
    pub not_selected: u64,
    /// Records written to the ring.
    pub emitted: u64,
    /// Records that the ring had no room for.
    pub ring_full: u64,
    /// Runs that found the CPU's scratch record in use.
    pub scratch_busy: u64,
    /// `CLOCK_MONOTONIC` time of the first run that was not idle, nanoseconds.
    pub first_timestamp: u64,
    /// Makes the size explicit; 0.
    pub reserved: u64,
}

/// One CPU's scratch record: a record is put together here and then copied into the ring, because a
/// record is larger than the 512-byte BPF stack and `bpf_ringbuf_reserve` wants a constant size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    /// Not 0 while a program uses the record.
    pub busy: u64,
    /// The record's header.
    pub header: SampleHeader,
    /// Kernel frames, then user frames without a gap; room for two full runs.
    pub frames: [u8; 2 * FRAMES_BYTES],
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<SampleHeader>() == 64);
    assert!(offset_of!(SampleHeader, pid) == 24);
    assert!(offset_of!(SampleHeader, kind) == 36);
    assert!(offset_of!(SampleHeader, kernel_frames) == 40);
    assert!(offset_of!(SampleHeader, comm) == 48);
    assert!(size_of::<CpuCounters>() == 64);
    assert!(offset_of!(CpuCounters, first_timestamp) == 48);
    assert!(offset_of!(Scratch, header) == 8);
    assert!(offset_of!(Scratch, frames) == 72);
    assert!(size_of::<Scratch>() == 72 + 2 * FRAMES_BYTES);
};
