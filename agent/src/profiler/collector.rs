//! The collector: reads rings and side-band, in the order of time, and turns addresses into frames at once,
//! because the process may be gone a millisecond later.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use agent_ebpf::{COMM_LEN, SampleHeader, flag};
use nix::time::{ClockId, clock_gettime};

use crate::kernel::sample_ring::{RawSample, SampleBatch, SampleRing};
use crate::kernel::sideband::Sideband;
use crate::kernel::sideband::record::ProcessEvent;
use crate::process::module::ModuleId;
use crate::process::table::{Place, ProcessTable};
use crate::profile::accounting::TruncatedCause;
use crate::profile::window::{Task, Window};
use crate::symbol::frame::Frame;
use crate::symbol::resolver::Resolver;

/// Records read from a ring in one go: the rest waits for the side-band to be read once more.
const BATCH: usize = 4096;

/// Reads samples and process events into a window.
pub struct Collector {
    ring: SampleRing,
    sideband: Sideband,
    processes: ProcessTable,
    resolver: Arc<Resolver>,
    per_thread: bool,
    batch: SampleBatch,
    events: Vec<ProcessEvent>,
    stack: Vec<Frame>,
    received: BTreeMap<u32, u64>,
    undecodable: u64,
}

impl Collector {
    /// Reads `ring` and `sideband`. `processes` has done its scan. With `per_thread`, threads are counted apart.
    pub fn new(
        ring: SampleRing,
        sideband: Sideband,
        processes: ProcessTable,
        resolver: Arc<Resolver>,
        per_thread: bool,
    ) -> Self {
        Self {
            ring,
            sideband,
            processes,
            resolver,
            per_thread,
            batch: SampleBatch::default(),
            events: Vec::new(),
            stack: Vec::new(),
            received: BTreeMap::new(),
            undecodable: 0,
        }
    }

    /// Reads everything that is there now into `window`.
    pub fn turn(&mut self, window: &mut Window) {
        loop {
            let emptied = self.turn_once(window);
            if emptied {
                break;
            }
        }
        self.processes.clean_up(monotonic_now());
    }

    /// Descriptors that become readable when it is high time for a turn.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.ring.as_fd()).chain(self.sideband.descriptors())
    }

    /// The side-band, to follow CPUs that come and go.
    pub fn sideband_mut(&mut self) -> &mut Sideband {
        &mut self.sideband
    }

    /// The side-band.
    pub fn sideband(&self) -> &Sideband {
        &self.sideband
    }

    /// What is known of processes.
    pub fn processes(&self) -> &ProcessTable {
        &self.processes
    }

    /// Samples that were read, by CPU.
    pub fn received(&self) -> &BTreeMap<u32, u64> {
        &self.received
    }

    /// Records that could not be decoded.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// One batch. Samples are read first: whatever a process did before one of them is in the side-band by
    /// then. Events that are younger than the batch wait, because samples between them may still come.
    fn turn_once(&mut self, window: &mut Window) -> bool {
        let read_at = monotonic_now();
        let mut batch = std::mem::take(&mut self.batch);
        let emptied = self.ring.drain(&mut batch, BATCH);
        batch.sort_by_time();
        self.undecodable += batch.undecodable();
        self.sideband.drain(&mut self.events);
        self.events.sort_by_key(|event| event.time);
        let events = std::mem::take(&mut self.events);
        let mut events = events.into_iter().peekable();
        for sample in batch.samples() {
            while let Some(event) = events.next_if(|event| event.time <= sample.header.timestamp) {
                self.processes.apply(event);
            }
            self.take_in(sample, window);
        }
        while let Some(event) = events.next_if(|event| event.time <= read_at) {
            self.processes.apply(event);
        }
        self.events = events.collect();
        self.batch = batch;
        emptied
    }

    fn take_in(&mut self, sample: RawSample<'_>, window: &mut Window) {
        let header = sample.header;
        *self.received.entry(header.cpu).or_default() += 1;
        self.processes.sampled(header.pid, || thread_name(header), header.timestamp);
        let mut stack = std::mem::take(&mut self.stack);
        stack.clear();
        for (index, address) in sample.kernel.iter().enumerate() {
            stack.push(Frame::Kernel { address: code_address(index, *address) });
        }
        for (index, address) in sample.user.iter().enumerate() {
            stack.push(self.user_frame(header, code_address(index, *address)));
        }
        let known = window.frames().len();
        window.add(&self.task(header), &stack, truncation(header), header.cpu);
        for frame in &window.frames()[known..] {
            self.resolver.prefetch(*frame);
        }
        self.stack = stack;
    }

    fn user_frame(&mut self, header: &SampleHeader, address: u64) -> Frame {
        let pid = header.pid;
        match self.processes.place(pid, address, header.timestamp) {
            Place::UnknownProcess => Frame::UnknownProcess,
            Place::Unmapped => Frame::Unmapped,
            Place::Mapped(mapping) if mapping.module == ModuleId::ANONYMOUS => {
                Frame::Anonymous { pid, start: mapping.start, address }
            }
            Place::Mapped(mapping) => Frame::User {
                module: mapping.module,
                file_offset: (address - mapping.start).wrapping_add(mapping.file_offset),
            },
        }
    }

    fn task(&self, header: &SampleHeader) -> Task {
        let name = thread_name(header);
        Task {
            pid: header.pid,
            comm: self.processes.comm(header.pid).unwrap_or_else(|| name.clone()),
            thread: self.per_thread.then_some((header.tid, name)),
        }
    }
}

/// The leaf's address is the instruction itself; the others are return addresses, and the call lies before.
fn code_address(index: usize, address: u64) -> u64 {
    if index == 0 { address } else { address.saturating_sub(1) }
}

fn truncation(header: &SampleHeader) -> Option<TruncatedCause> {
    (header.flags & (flag::KERNEL_DEPTH | flag::USER_DEPTH) != 0).then_some(TruncatedCause::Depth)
}

fn thread_name(header: &SampleHeader) -> Arc<str> {
    let length = header.comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&header.comm[..length]).into()
}

/// The clock of samples and side-band events, in nanoseconds.
pub fn monotonic_now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}
