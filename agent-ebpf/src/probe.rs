//! Samples of tasks that come by an instruction that is watched: a runtime's own sampling point, for example. Every hit is a sample.

use agent_ebpf::kind;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use aya_ebpf::macros::{map, uprobe};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::ProbeContext;

use crate::context::Task;
use crate::record::ClaimedScratch;
use crate::sample::{self, Moment};
use crate::select;
use crate::unwind::{KernelSupport, Legacy, Modern};

/// Hits that found no free scratch record. A task that is preempted between reading and writing can hide another one's; the
/// kernel's own count of the program's runs cannot.
#[map]
static PROBE_SCRATCH_BUSY: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// For kernels from 5.17 on.
#[uprobe]
fn probe_sample(context: ProbeContext) -> u32 {
    on_hit::<Modern>(&context)
}

/// For kernels from 5.10 on.
#[uprobe]
fn probe_sample_legacy(context: ProbeContext) -> u32 {
    on_hit::<Legacy>(&context)
}

#[inline(always)]
fn on_hit<K: KernelSupport>(context: &ProbeContext) -> u32 {
    let (pid, tid) = sample::current_ids();
    if !select::current_task_is_selected(pid) {
        return 0;
    }
    let Some(mut scratch) = ClaimedScratch::<Task>::claim() else {
        if let Some(busy) = PROBE_SCRATCH_BUSY.get_ptr_mut(0) {
            // SAFETY: this CPU's element.
            unsafe { *busy += 1 };
        }
        return 0;
    };
    let Some(uses) = Task::uses(scratch.slot().index()) else { return 0 };
    // SAFETY: helpers without arguments.
    let (timestamp, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let sequence = uses.emitted + uses.ring_full;
    let moment = Moment { kind: kind::PROBE, sequence, timestamp, cpu, pid, tid };
    let body_bytes = sample::fill::<K, _, _>(context, &mut scratch, &moment);
    if scratch.emit(body_bytes) {
        uses.emitted += 1;
    } else {
        uses.ring_full += 1;
    }
    0
}
