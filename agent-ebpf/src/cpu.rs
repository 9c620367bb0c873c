//! The CPU profiler: one `cpu-clock` perf event per CPU runs this program at the sampling rate.

use agent_ebpf::{CpuCounters, flag, kind};
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid};
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::PerfEventContext;

use crate::record::{ClaimedScratch, ScratchSlot};
use crate::unwind::{KernelSupport, Legacy, Modern};
use crate::{select, unwind};

/// `BPF_F_MMAPABLE` (5.5+): the agent reads the counters without a system call.
const MMAPABLE: u32 = 1 << 10;

/// One element for each possible CPU; the agent sets the number before loading.
#[map]
static CPU_COUNTERS: Array<CpuCounters> = Array::with_max_entries(1, MMAPABLE);

/// Samples the task that the timer interrupted. For kernels from 5.17 on.
#[perf_event]
fn cpu_sample(context: PerfEventContext) -> u32 {
    on_tick::<Modern>(&context)
}

/// Samples the task that the timer interrupted. For kernels from 5.10 on.
#[perf_event]
fn cpu_sample_legacy(context: PerfEventContext) -> u32 {
    on_tick::<Legacy>(&context)
}

#[inline(always)]
fn on_tick<K: KernelSupport>(context: &PerfEventContext) -> u32 {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counters) = CPU_COUNTERS.get_ptr_mut(cpu) else { return 0 };
    // SAFETY: only this program writes the element, only on this CPU, and it cannot interrupt itself there
    // (`bpf_prog_active`); the agent only reads it.
    let counters = unsafe { &mut *counters };
    counters.fired += 1;
    let (pid, tid) = split(bpf_get_current_pid_tgid());
    // The idle task of every CPU has thread id 0.
    if tid == 0 {
        counters.idle += 1;
    } else if !select::current_task_is_selected(pid) {
        counters.not_selected += 1;
    } else {
        sample::<K>(context, counters, cpu, pid, tid);
    }
    counters.finished += 1;
    // The event itself has no ring to write to.
    0
}

#[inline(always)]
fn sample<K: KernelSupport>(
    context: &PerfEventContext,
    counters: &mut CpuCounters,
    cpu: u32,
    pid: u32,
    tid: u32,
) {
    // SAFETY: a helper without arguments.
    let timestamp = unsafe { bpf_ktime_get_ns() };
    if counters.first_timestamp == 0 {
        counters.first_timestamp = timestamp;
    }
    let Some(mut scratch) = ClaimedScratch::claim(ScratchSlot::TIMER) else {
        counters.scratch_busy += 1;
        return;
    };
    let kernel = unwind::kernel_stack(context, &mut scratch);
    let header = scratch.header();
    header.timestamp = timestamp;
    header.flags = if kernel.depth { flag::KERNEL_DEPTH } else { 0 };
    header.sequence = counters.emitted + counters.ring_full;
    header.pid = pid;
    header.tid = tid;
    header.cpu = cpu;
    header.kind = kind::CPU;
    let user_bytes = unwind::user_stack::<K>(&mut scratch, kernel.bytes, pid);
    let header = scratch.header();
    // SAFETY: a helper without arguments.
    header.cgroup = unsafe { bpf_get_current_cgroup_id() };
    header.kernel_frames = (kernel.bytes / 8) as u16;
    header.reserved = 0;
    header.comm = bpf_get_current_comm().unwrap_or_default();
    if scratch.emit(kernel.bytes + user_bytes) {
        counters.emitted += 1;
    } else {
        counters.ring_full += 1;
    }
}

/// `bpf_get_current_pid_tgid` as (process id, thread id).
#[inline(always)]
fn split(pid_tgid: u64) -> (u32, u32) {
    ((pid_tgid >> 32) as u32, pid_tgid as u32)
}
