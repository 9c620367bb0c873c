//! Filling a record: whose it is, and both stacks. Every profiler's samples look alike.

use agent_ebpf::flag;
use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};

use crate::context::Context;
use crate::record::ClaimedScratch;
use crate::unwind::{self, KernelSupport};

/// What a profiler knows of a sample before the stacks are walked. The members are those of
/// [`SampleHeader`](agent_ebpf::SampleHeader).
pub(crate) struct Moment {
    pub(crate) kind: u16,
    pub(crate) sequence: u64,
    pub(crate) timestamp: u64,
    pub(crate) cpu: u32,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
}

/// Fills the record for the current task. The result is the number of bytes in the body.
#[inline(always)]
pub(crate) fn fill<K: KernelSupport, C: Context, E: EbpfContext>(
    context: &E,
    scratch: &mut ClaimedScratch<C>,
    moment: &Moment,
) -> usize {
    let kernel = unwind::kernel_stack(context, scratch);
    let slot = scratch.slot().index() as u16;
    let header = scratch.header();
    header.timestamp = moment.timestamp;
    header.flags = if kernel.depth { flag::KERNEL_DEPTH } else { 0 };
    header.sequence = moment.sequence;
    header.pid = moment.pid;
    header.tid = moment.tid;
    header.cpu = moment.cpu;
    header.kind = moment.kind;
    header.slot = slot;
    let user_bytes = unwind::user_stack::<K, C>(scratch, kernel.bytes, moment.pid);
    let header = scratch.header();
    // SAFETY: a helper without arguments.
    header.cgroup = unsafe { bpf_get_current_cgroup_id() };
    header.kernel_frames = (kernel.bytes / 8) as u16;
    header.comm = bpf_get_current_comm().unwrap_or_default();
    kernel.bytes + user_bytes
}

/// The current task's process id and thread id. The idle task of every CPU has thread id 0.
#[inline(always)]
pub(crate) fn current_ids() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}
