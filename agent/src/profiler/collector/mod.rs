//! The collector: reads rings and side-band, in the order of time, and turns addresses into frames at once,
//! because the process may be gone a millisecond later.

mod faults;
mod upkeep;
mod waits;
mod wake_source;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_ebpf::{COMM_LEN, FaultedPage, Resume, SampleHeader, flag, kind, walk};
use nix::time::{ClockId, clock_gettime};

use self::waits::stack_of_waiting;
use crate::kernel::programs::TaskTable;
use crate::kernel::sample_ring::{RawSample, SampleBatch, SampleRing};
use crate::kernel::sideband::Sideband;
use crate::kernel::sideband::record::ProcessEvent;
use crate::process::mappings::Mappings;
use crate::process::module::Unneeded;
use crate::process::page::PageLooks;
use crate::process::table::{Place, ProcessTable};
use crate::profile::accounting::TruncatedCause;
use crate::profile::stack_table::Task;
use crate::profile::windows::Windows;
use crate::profiler::pending::{Pending, PendingWalks};
use crate::profiler::stack::StackBuilder;
use crate::profiler::walk_tally::{WalkCounts, WalkTally};
use crate::symbol::frame::Frame;
use crate::symbol::resolver::Resolver;
use crate::unwind::finish::{FinishedWalk, UnfinishedWalk, WalkEnd};
use crate::unwind::stack_slice::StackSlice;
use crate::unwind::unwinder::{Unwinder, WalkRequest};

/// Records read from a ring in one go: the rest waits for the side-band to be read once more.
const BATCH: usize = 4096;
/// How long the end of a window waits for walks that are being finished.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the collector reads from and hands on to.
pub struct Sources {
    /// Samples, a ring for each context that programs run in.
    pub rings: Vec<SampleRing>,
    /// What happens to processes.
    pub sideband: Sideband,
    /// What is known of processes; the scan has been done.
    pub processes: ProcessTable,
    /// Finishes walks of user stacks.
    pub unwinder: Unwinder,
    /// Names frames.
    pub resolver: Arc<Resolver>,
}

/// Reads samples and process events into windows.
pub struct Collector {
    sources: Sources,
    per_thread: bool,
    batch: SampleBatch,
    events: Vec<ProcessEvent>,
    stack: StackBuilder,
    /// Frames that are new in their window, whose names nobody was asked for yet.
    fresh: Vec<Frame>,
    pending: PendingWalks,
    walks: WalkTally,
    /// Processes whose mappings the unwinder has,
    published: HashSet<u32>,
    /// those of them whose mappings have changed since,
    changed: HashSet<u32>,
    /// and those that have ended; both as long as the unwinder has not been told.
    ended: HashSet<u32>,
    /// What the unwinder has not been told of yet.
    unneeded: VecDeque<Unneeded>,
    /// Where the scheduler's program has its tasks, if it runs.
    tasks: Option<Arc<TaskTable>>,
    /// Looks at the pages of page faults, if they are sampled.
    pages: Option<PageLooks>,
    /// Faults whose pages were not there yet.
    early: Vec<FaultedPage>,
    tidied: u64,
    received: HashMap<u16, u64>,
    undecodable: u64,
    finished_here: u64,
}

impl Collector {
    /// Reads from `sources`. With `per_thread`, threads are counted apart.
    pub fn new(sources: Sources, per_thread: bool) -> Self {
        Self {
            sources,
            per_thread,
            batch: SampleBatch::default(),
            events: Vec::new(),
            stack: StackBuilder::default(),
            fresh: Vec::new(),
            pending: PendingWalks::default(),
            walks: WalkTally::default(),
            published: HashSet::new(),
            changed: HashSet::new(),
            ended: HashSet::new(),
            unneeded: VecDeque::new(),
            tasks: None,
            pages: None,
            early: Vec::new(),
            tidied: monotonic_now(),
            received: HashMap::new(),
            undecodable: 0,
            finished_here: 0,
        }
    }

    /// Reads everything that is there now into `windows`.
    pub fn turn(&mut self, windows: &mut Windows) {
        self.look_again(windows);
        loop {
            let emptied = self.turn_once(windows);
            if emptied {
                break;
            }
        }
        if let Some(pages) = &mut self.pages {
            pages.close();
        }
        let now = monotonic_now();
        self.sources.processes.clean_up(now);
        self.tidy(windows, now);
        self.pass_on_updates();
    }

    /// Takes in the walks that are still being finished; those that take too long are kept as they are.
    pub fn settle(&mut self, windows: &mut Windows) {
        let deadline = Instant::now() + PATIENCE;
        while !self.pending.is_empty() {
            let patience = deadline.saturating_duration_since(Instant::now());
            let Some((token, walk)) = self.sources.unwinder.wait(patience) else { break };
            self.take_in_finished(token, &walk, windows);
        }
        for pending in self.pending.take_all() {
            self.add_unfinished(&pending, windows);
        }
        self.look_again(windows);
        self.ask_for_names();
    }

    /// Descriptors that become readable when it is high time for a turn.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sources.rings.iter().map(AsFd::as_fd).chain(self.sources.sideband.descriptors())
    }

    /// The side-band, to follow CPUs that come and go.
    pub fn sideband_mut(&mut self) -> &mut Sideband {
        &mut self.sources.sideband
    }

    /// The side-band.
    pub fn sideband(&self) -> &Sideband {
        &self.sources.sideband
    }

    /// What is known of processes.
    pub fn processes(&self) -> &ProcessTable {
        &self.sources.processes
    }

    /// The unwinder.
    pub fn unwinder(&self) -> &Unwinder {
        &self.sources.unwinder
    }

    /// Samples of `kind` (one of [`agent_ebpf::kind`]) that were read.
    pub fn received(&self, kind: u16) -> u64 {
        self.received.get(&kind).copied().unwrap_or(0)
    }

    /// Records that could not be decoded.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Samples whose user stack was finished in user space.
    pub fn finished_in_user_space(&self) -> u64 {
        self.finished_here
    }

    /// One batch. Samples are read first: whatever a process did before one of them is in the side-band by
    /// then. Events that are younger than the batch wait, because samples between them may still come.
    fn turn_once(&mut self, windows: &mut Windows) -> bool {
        let read_at = monotonic_now();
        let mut batch = std::mem::take(&mut self.batch);
        batch.clear();
        let mut emptied = true;
        for ring in &mut self.sources.rings {
            emptied &= ring.drain(&mut batch, BATCH);
        }
        batch.sort_by_time();
        self.undecodable += batch.undecodable();
        self.sources.sideband.drain(&mut self.events);
        for code in self.sources.sideband.take_kernel_code() {
            self.sources.resolver.kernel_code_loaded(code);
        }
        self.events.sort_by_key(|event| event.time);
        let events = std::mem::take(&mut self.events);
        let mut events = events.into_iter().peekable();
        for sample in batch.samples() {
            while let Some(event) = events.next_if(|event| event.time <= sample.header.timestamp) {
                self.sources.processes.apply(event);
            }
            self.take_in(sample, windows);
        }
        for wait in batch.waits() {
            self.take_in_wait(wait, windows);
        }
        while let Some(event) = events.next_if(|event| event.time <= read_at) {
            self.sources.processes.apply(event);
        }
        self.events = events.collect();
        self.batch = batch;
        self.pass_on_updates();
        while let Some((token, walk)) = self.sources.unwinder.poll() {
            self.take_in_finished(token, &walk, windows);
        }
        self.ask_for_names();
        emptied
    }

    fn take_in(&mut self, sample: RawSample<'_>, windows: &mut Windows) {
        let header = sample.header;
        // A page is looked at first: it may not be there for long.
        let fault = self.effect(sample.page);
        let counts = match header.kind {
            kind::LEAVE | kind::WAKE => true,
            kind::PAGE_FAULT => fault.is_some(),
            kind => windows.counting(kind).is_some(),
        };
        if !counts {
            self.undecodable += 1;
            return;
        }
        *self.received.entry(header.kind).or_default() += 1;
        if let Some(past) = self.walks.count(header) {
            log_walks(&past);
        }
        self.sources.processes.sampled(header.pid, || thread_name(&header.comm), header.timestamp);
        let pending = Pending {
            header: *header,
            task: self.task(header),
            kernel: self.without_tracing(header.kind, sample.kernel).to_vec(),
            user: sample.user.to_vec(),
            mappings: self.mappings_for(&sample),
            fault,
        };
        let read = sample.resume.filter(|_| header.kind == kind::LEAVE).and_then(|(resume, _)| {
            let tasks = self.tasks.as_deref()?;
            stack_of_waiting(tasks, header, resume)
        });
        let resume = match &read {
            Some(read) => sample.resume.map(|(resume, _)| (resume, read.as_slice())),
            None => sample.resume,
        };
        match resume {
            Some(resume) if pending.mappings.is_some() => self.request(pending, resume, windows),
            _ => self.add_unfinished(&pending, windows),
        }
    }

    /// The process's mappings, read anew if they do not hold the sample's addresses.
    fn mappings_for(&mut self, sample: &RawSample<'_>) -> Option<Mappings> {
        let SampleHeader { pid, timestamp, .. } = *sample.header;
        for (index, ip) in sample.user.iter().enumerate() {
            let address = ip.wrapping_sub(u64::from(index > 0));
            if self.sources.processes.place(pid, address, timestamp) == Place::UnknownProcess {
                return None;
            }
        }
        self.sources.processes.mappings(pid)
    }

    fn request(&mut self, pending: Pending, (resume, slice): (&Resume, &[u8]), windows: &mut Windows) {
        let SampleHeader { pid, image, walk, .. } = pending.header;
        let publish = matches!(walk, walk::NEW_PROCESS | walk::UNMAPPED);
        let unfinished = UnfinishedWalk {
            resume: *resume,
            slice: StackSlice::new(resume.slice_start, slice.to_vec()),
            frames: pending.user.clone(),
            mappings: pending.mappings.clone().unwrap_or_default(),
        };
        // An exec that comes before the sample must not take away what the sample brings.
        self.pass_on_updates();
        let token = self.pending.add(pending);
        match self.sources.unwinder.request(WalkRequest { token, pid, image, publish, walk: unfinished }) {
            Ok(()) if publish => {
                self.published.insert(pid);
            }
            Ok(()) => {}
            Err(_) => {
                if let Some(pending) = self.pending.take(token) {
                    self.add_unfinished(&pending, windows);
                }
            }
        }
    }

    /// Counts a sample with the frames that the program found.
    fn add_unfinished(&mut self, pending: &Pending, windows: &mut Windows) {
        self.stack.begin(&pending.kernel);
        for (index, ip) in pending.user.iter().enumerate() {
            let address = ip.wrapping_sub(u64::from(index > 0));
            self.stack.push_user(&pending.header, pending.mappings.as_ref(), address, false);
        }
        let truncated = kernel_depth(&pending.header).or(match pending.header.walk {
            walk::NONE | walk::COMPLETE => None,
            walk::DEPTH => Some(TruncatedCause::Depth),
            walk::COMPAT => Some(TruncatedCause::Compat),
            walk::UNREADABLE | walk::BROKEN => Some(TruncatedCause::Unwind),
            _ if matches!(pending.header.kind, kind::LEAVE | kind::WAKE) => Some(TruncatedCause::Cold),
            _ => Some(TruncatedCause::Budget),
        });
        self.add(pending, truncated, windows);
    }

    fn take_in_finished(&mut self, token: u64, walk: &FinishedWalk, windows: &mut Windows) {
        let Some(pending) = self.pending.take(token) else { return };
        self.finished_here += 1;
        self.stack.begin(&pending.kernel);
        for frame in &walk.frames {
            let address = frame.ip.wrapping_sub(u64::from(frame.returned));
            self.stack.push_user(&pending.header, pending.mappings.as_ref(), address, frame.guessed);
        }
        let truncated = kernel_depth(&pending.header).or(match walk.end {
            WalkEnd::Complete => None,
            WalkEnd::Depth => Some(TruncatedCause::Depth),
            WalkEnd::Slice => Some(TruncatedCause::Slice),
            WalkEnd::NoInformation | WalkEnd::Unmapped | WalkEnd::Broken => Some(TruncatedCause::Unwind),
        });
        self.add(&pending, truncated, windows);
    }

    fn add(&mut self, pending: &Pending, truncated: Option<TruncatedCause>, windows: &mut Windows) {
        let SampleHeader { kind, tid, timestamp, cpu, .. } = pending.header;
        let (known, frames) = if kind == kind::LEAVE {
            let known = windows.offcpu.frames().len();
            windows.offcpu.add_stack((tid, timestamp), &pending.task, self.stack.frames(), truncated);
            (known, windows.offcpu.frames())
        } else if let Some(effect) = pending.fault {
            let known = windows.faults.frames().len();
            windows.faults.add(&pending.task, self.stack.frames(), truncated, cpu, effect);
            (known, windows.faults.frames())
        } else if kind == kind::WAKE {
            let (known, source) = (windows.offcpu.frames().len(), self.wake_source(&pending.kernel));
            let stack = self.stack.frames();
            windows.offcpu.add_waker((tid, timestamp), source, &pending.task, stack, truncated);
            (known, windows.offcpu.frames())
        } else if let Some(window) = windows.counting(kind) {
            let known = window.frames().len();
            window.add(&pending.task, self.stack.frames(), truncated, cpu);
            (known, window.frames())
        } else {
            return;
        };
        self.fresh.extend_from_slice(&frames[known..]);
    }

    /// Has new frames named, those of a turn together.
    fn ask_for_names(&mut self) {
        self.sources.resolver.prefetch(self.fresh.drain(..));
    }

    fn task(&self, header: &SampleHeader) -> Task {
        self.task_of(header.pid, header.tid, &header.comm)
    }

    fn task_of(&self, pid: u32, tid: u32, comm: &[u8; COMM_LEN]) -> Task {
        let name = thread_name(comm);
        Task {
            pid,
            comm: self.sources.processes.comm(pid).unwrap_or_else(|| name.clone()),
            thread: self.per_thread.then_some((tid, name)),
        }
    }
}

/// What a second's walks came to. `cargo xtask bench unwind` reads it.
fn log_walks(walks: &WalkCounts) {
    let WalkCounts { walked, new_process, unmapped, cold_page, slow_rule, no_rule, lost_fp, over_budget } =
        *walks;
    let slow = walks.slow();
    tracing::debug!(
        walked,
        slow,
        new_process,
        unmapped,
        cold_page,
        slow_rule,
        no_rule,
        lost_fp,
        over_budget,
        "user stacks in a second"
    );
}

fn kernel_depth(header: &SampleHeader) -> Option<TruncatedCause> {
    (header.flags & flag::KERNEL_DEPTH != 0).then_some(TruncatedCause::Depth)
}

fn thread_name(comm: &[u8; COMM_LEN]) -> Arc<str> {
    let length = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&comm[..length]).into()
}

/// The clock of samples and side-band events, in nanoseconds.
pub fn monotonic_now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec().unsigned_abs() * 1_000_000_000 + now.tv_nsec().unsigned_abs())
}
