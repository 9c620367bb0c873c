//! Waits: their ends, their stacks, and threads that sleep all the time.

use std::sync::Arc;

use agent_ebpf::{REGISTERS, Resume, SampleHeader, TaskWaits, Wait, flag, kind, wait_state, walk};

use super::{Collector, monotonic_now, thread_name};
use crate::kernel::programs::TaskTable;
use crate::kernel::sample_ring::{RawSample, WaitEnd};
use crate::process::sleeper::{self, Sleeper};
use crate::profile::wait_window::EndedWait;
use crate::profile::waking::{EndedBy, Purpose, Woken};
use crate::profile::windows::Windows;
use crate::profiler::offcpu::LONG_WAIT;
use crate::profiler::pending::Pending;
use crate::symbol::frame::Frame;

/// Bytes of a waiting task's stack that are read at most.
const MOST_STACK: usize = 64 << 10;

impl Collector {
    /// A wait, or a task, has ended.
    pub(super) fn take_in_wait(&mut self, end: &WaitEnd, windows: &mut Windows) {
        let WaitEnd { wait, kernel, totals } = end;
        if let Some(totals) = totals {
            let task = self.task_of(wait.pid, wait.tid, &wait.comm);
            windows.offcpu.add_totals(wait.tid, &task, totals);
            return;
        }
        let Wait { tid, began, every, state, .. } = *wait;
        let lasted = wait.timestamp.saturating_sub(began);
        let purpose = Purpose::of(state, &wait.futex, wait.locked);
        let woken = Some(Woken {
            by: EndedBy::of(wait.ended),
            waker: wait.waker_tid,
            time: wait.woken,
            blocked: wait.woken.saturating_sub(began).min(lasted),
            has_stack: wait.waker_sampled != 0,
        });
        let is_left_out = wait.flags & flag::LEFT_OUT != 0;
        let is_long = lasted >= LONG_WAIT;
        let ended = EndedWait { state, lasted, every, is_long, is_left_out, purpose, woken };
        if every > 0 {
            windows.offcpu.add_end((tid, began), ended);
        } else {
            let task = self.task_of(wait.pid, tid, &wait.comm);
            self.stack.begin(kernel);
            windows.offcpu.add_without_stack(tid, ended, &task, self.stack.frames());
        }
    }

    /// From now on, stacks that could not be copied while tasks were switched are read from those of `tasks` that still wait.
    pub fn read_stacks_of(&mut self, tasks: Arc<TaskTable>) {
        self.tasks = Some(tasks);
    }

    /// Adds threads that were asleep all the time since `began` and still are, at `now`.
    pub fn add_sleepers(&mut self, sleepers: &[Sleeper], (began, now): (u64, u64), windows: &mut Windows) {
        /// Walks under way at once: what is read for them lies in memory.
        const AT_ONCE: usize = 32;
        for some in sleepers.chunks(AT_ONCE) {
            for sleeper in some {
                self.walk_sleeper(sleeper, began, windows);
            }
            self.settle(windows);
        }
        for sleeper in sleepers {
            let Sleeper { pid, tid, state, comm, futex, .. } = *sleeper;
            let task = self.task_of(pid, tid, &comm);
            let state = if futex.is_some() { wait_state::FUTEX } else { state };
            let futex = futex.unwrap_or_default();
            let waits = TaskWaits { left: began, pid, tid, state, futex, ..TaskWaits::default() };
            windows.offcpu.add_unended(&waits, &task, now);
        }
    }

    /// Walks a sleeping thread's stack from what `/proc` says of its registers: where it is, and its stack pointer.
    fn walk_sleeper(&mut self, sleeper: &Sleeper, began: u64, windows: &mut Windows) {
        let Sleeper { pid, tid, comm, ip, sp, .. } = *sleeper;
        let header = SampleHeader {
            timestamp: began,
            pid,
            tid,
            kind: kind::LEAVE,
            user_frames: 1,
            walk: walk::SLOW_RULE,
            comm,
            ..SampleHeader::default()
        };
        let mut registers = [0; REGISTERS];
        (registers[7], registers[16]) = (sp, ip);
        let start = stack_start(sp);
        let slice = sleeper::read_stack(pid, start, MOST_STACK);
        let resume = Resume {
            ip,
            sp,
            fp: 0,
            slice_start: start,
            returned: 0,
            slice_bytes: slice.len() as u32,
            registers,
        };
        let sample = RawSample { header: &header, kernel: &[], user: &[ip], resume: None, page: None };
        self.sources.processes.sampled(pid, || thread_name(&comm), monotonic_now());
        let (task, mappings) = (self.task(&header), self.mappings_for(&sample));
        let pending = Pending { header, task, kernel: Vec::new(), user: vec![ip], mappings, fault: None };
        if pending.mappings.is_some() {
            self.request(pending, (&resume, &slice), windows);
        } else {
            self.add_unfinished(&pending, windows);
        }
    }

    /// Adds what the scheduler's program still has of `tasks` when the window ends, at `now`.
    pub fn end_waits(&mut self, tasks: &[TaskWaits], now: u64, windows: &mut Windows) {
        for waits in tasks {
            let task = self.task_of(waits.pid, waits.tid, &waits.comm);
            windows.offcpu.add_totals(waits.tid, &task, &waits.totals);
            if waits.left > 0 {
                windows.offcpu.add_unended(waits, &task, now);
            }
        }
    }

    /// The kernel frames of a sample of `kind`, without those of the program that took it, which a tracepoint runs as a function that
    /// the scheduler calls.
    pub(super) fn without_tracing<'a>(&self, kind: u16, kernel: &'a [u64]) -> &'a [u64] {
        /// What the scheduler's function calls for a tracepoint is five frames at most.
        const MOST: usize = 8;
        let scheduler = match kind {
            kind::LEAVE => "__schedule",
            kind::WAKE => "try_to_wake_up",
            _ => return kernel,
        };
        let is_scheduler = |address: &u64| {
            let symbols = self.sources.resolver.resolve(Frame::Kernel { address: address.saturating_sub(1) });
            symbols.frames.first().is_some_and(|frame| frame.function.name() == scheduler)
        };
        let first = kernel.iter().take(MOST).position(is_scheduler).unwrap_or(0);
        &kernel[first..]
    }
}

/// The stack with which the task of `header` waits, if it still does: reading it is not for the program that saw it leave.
pub(super) fn stack_of_waiting(tasks: &TaskTable, header: &SampleHeader, resume: &Resume) -> Option<Vec<u8>> {
    let SampleHeader { pid, tid, timestamp, .. } = *header;
    if resume.slice_bytes > 0 || !tasks.still_waits(tid, timestamp) {
        return None;
    }
    let stack = sleeper::read_stack(pid, resume.slice_start, MOST_STACK);
    // What was read while it ran on is not that stack.
    (!stack.is_empty() && tasks.still_waits(tid, timestamp)).then_some(stack)
}

/// Where a stack is read from: the red zone below `sp` is the function's own (System V ABI, AMD64, section 3.2.2).
fn stack_start(sp: u64) -> u64 {
    const RED_ZONE: u64 = 128;
    const PAGE: u64 = 4096;
    let sp = sp & !7;
    sp - RED_ZONE.min(sp % PAGE)
}
