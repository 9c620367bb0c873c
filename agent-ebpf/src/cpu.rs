//! The CPU profiler: one `cpu-clock` perf event per CPU runs this program at the sampling rate.

use agent_ebpf::{CpuCounters, kind};
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::PerfEventContext;

use crate::context::Timer;
use crate::record::ClaimedScratch;
use crate::sample::Moment;
use crate::unwind::{KernelSupport, Legacy, Modern};
use crate::{sample, select};

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
    let (pid, tid) = sample::current_ids();
    // The idle task of every CPU has thread id 0.
    if tid == 0 {
        counters.idle += 1;
    } else if !select::current_task_is_selected(pid) {
        counters.not_selected += 1;
    } else {
        take_sample::<K>(context, counters, cpu, pid, tid);
    }
    // The event itself has no ring to write to.
    0
}

#[inline(always)]
fn take_sample<K: KernelSupport>(
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
    let Some(mut scratch) = ClaimedScratch::<Timer>::claim() else {
        counters.scratch_busy += 1;
        return;
    };
    let sequence = counters.emitted + counters.ring_full;
    let moment = Moment { kind: kind::CPU, sequence, timestamp, cpu, pid, tid };
    let body_bytes = sample::fill::<K, _, _>(context, &mut scratch, &moment);
    if scratch.emit(body_bytes) {
        counters.emitted += 1;
    } else {
        counters.ring_full += 1;
    }
}
