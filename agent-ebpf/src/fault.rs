//! Page faults: the kernel's event counts them on every CPU, and this program samples one in so many.
//!
//! Two events with periods that are prime numbers run the program, and chance decides whether it takes a sample. So a task whose
//! faults come in a pattern is hit at all places of it alike, and all faults with the same probability.
//!
//! The event fires before the kernel has mapped the page (`do_user_addr_fault` in `arch/x86/mm/fault.c`), with interrupts on and no lock
//! held. So it can be told whether the page was there already: then it can be read, and nothing becomes resident. What was mapped in the
//! end the agent looks up when it reads the sample.

use agent_ebpf::{FaultCounters, FaultedPage, about_page, flag, kind};
use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_user,
};
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::PerfEventContext;

use crate::context::Timer;
use crate::record::ClaimedScratch;
use crate::sample::Moment;
use crate::unwind::{KernelSupport, Legacy, Modern};
use crate::vma::VmaSupport;
use crate::{sample, select};

/// `BPF_F_MMAPABLE` (5.5+): the agent reads the counters without a system call.
const MMAPABLE: u32 = 1 << 10;

/// One element for each possible CPU; the agent sets the number before loading.
#[map]
static FAULT_COUNTERS: Array<FaultCounters> = Array::with_max_entries(1, MMAPABLE);

/// Set by the agent before loading: of 2³² runs, how many take a sample.
#[unsafe(no_mangle)]
static FAULTS_KEPT: u64 = 1 << 32;

/// Bytes of a small page.
const PAGE: u64 = 4096;

/// For kernels from 5.17 on.
#[perf_event]
fn page_fault(context: PerfEventContext) -> u32 {
    on_fault::<Modern>(&context)
}

/// For kernels from 5.10 on: they do not tell which mapping an address lies in.
#[perf_event]
fn page_fault_legacy(context: PerfEventContext) -> u32 {
    on_fault::<Legacy>(&context)
}

#[inline(always)]
fn on_fault<K: KernelSupport + PageSupport>(context: &PerfEventContext) -> u32 {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counters) = FAULT_COUNTERS.get_ptr_mut(cpu) else { return 0 };
    // SAFETY: only this program writes the element, only on this CPU, and with preemption off; the agent only reads it.
    let counters = unsafe { &mut *counters };
    counters.fired += 1;
    // SAFETY: a helper without arguments, and a static in `.rodata`.
    let (chance, kept) = unsafe { (bpf_get_prandom_u32(), core::ptr::read_volatile(&raw const FAULTS_KEPT)) };
    let (pid, tid) = sample::current_ids();
    if u64::from(chance as u32) >= kept {
        counters.passed_over += 1;
    } else if !select::current_task_is_selected(pid) {
        counters.not_selected += 1;
    } else {
        take_sample::<K>(context, counters, cpu, pid, tid);
    }
    0
}

#[inline(always)]
fn take_sample<K: KernelSupport + PageSupport>(
    context: &PerfEventContext,
    counters: &mut FaultCounters,
    cpu: u32,
    pid: u32,
    tid: u32,
) {
    // SAFETY: a helper without arguments.
    let timestamp = unsafe { bpf_ktime_get_ns() };
    let Some(mut scratch) = ClaimedScratch::<Timer>::claim() else {
        counters.scratch_busy += 1;
        return;
    };
    let sequence = counters.emitted + counters.ring_full;
    // SAFETY: the context is the program's own; the kernel puts the fault's address there.
    let address = unsafe { core::ptr::read_volatile(&raw const (*context.ctx).addr) };
    let about = K::about(address);
    let slot = scratch.slot().index() as u16;
    // SAFETY: the body has room for the structure, aligned as it is.
    unsafe {
        let page = scratch.body_at(0).cast::<FaultedPage>();
        (*page).sequence = sequence;
        (*page).timestamp = timestamp;
        (*page).address = address;
        (*page).about = about;
        (*page).pid = pid;
        (*page).tid = tid;
        (*page).cpu = cpu;
        (*page).kind = kind::FAULTED_PAGE;
        (*page).slot = slot;
    }
    // One without the other is of no use.
    if !scratch.emit_body(0, size_of::<FaultedPage>()) {
        counters.ring_full += 1;
        return;
    }
    let moment = Moment { kind: kind::PAGE_FAULT, sequence, timestamp, cpu, pid, tid };
    let body_bytes = sample::fill::<K, _, _>(context, &mut scratch, &moment);
    if about & about_page::MAYBE_HUGE != 0 {
        scratch.header().flags |= flag::URGENT;
    }
    if scratch.emit(body_bytes) {
        counters.emitted += 1;
    } else {
        counters.ring_full += 1;
    }
}

/// What a kernel tells of a page before it maps it: bits of [`about_page`].
trait PageSupport {
    fn about(address: u64) -> u64;
}

impl PageSupport for Modern {
    #[inline(always)]
    fn about(address: u64) -> u64 {
        page_about(address)
    }
}

impl PageSupport for Legacy {
    #[inline(always)]
    fn about(address: u64) -> u64 {
        page_about_legacy(address)
    }
}

/// A global function, as `unwind_step` is: the verifier looks at it by itself, and does not follow the rest of the program once for
/// each result.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn page_about(address: u64) -> u64 {
    about::<Modern>(address)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn page_about_legacy(address: u64) -> u64 {
    about::<Legacy>(address)
}

#[inline(always)]
fn about<K: VmaSupport>(address: u64) -> u64 {
    let about = K::about(address);
    let otherwise = about & !about_page::MAYBE_HUGE;
    if is_readable(address) {
        otherwise | about_page::PRESENT
    } else if is_readable(address ^ PAGE) {
        otherwise
    } else {
        about | about_page::ALONE
    }
}

/// Whether the byte can be read without a fault: its page is mapped. (`copy_from_user_nofault`: page faults are off, so that none is
/// handled, or counted.)
#[inline(always)]
fn is_readable(address: u64) -> bool {
    let mut byte = 0u8;
    // SAFETY: the destination has the size that is passed; the source is read with fault handling.
    unsafe { bpf_probe_read_user((&raw mut byte).cast(), 1, address as *const core::ffi::c_void) == 0 }
}
