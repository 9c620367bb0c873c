//! The collector: reads rings and side-band, in the order of time, and turns addresses into frames at once,
//! because the process may be gone a millisecond later.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_ebpf::{COMM_LEN, REGISTERS, Resume, SampleHeader, TaskWaits, Wait, flag, kind, walk};
use nix::time::{ClockId, clock_gettime};

use crate::kernel::programs::TaskTable;
use crate::kernel::sample_ring::{RawSample, SampleBatch, SampleRing, WaitEnd};
use crate::kernel::sideband::Sideband;
use crate::kernel::sideband::record::ProcessEvent;
use crate::process::mappings::Mappings;
use crate::process::module::Unneeded;
use crate::process::sleeper::{self, Sleeper};
use crate::process::table::{Place, ProcessTable, ProcessUpdate};
use crate::profile::accounting::TruncatedCause;
use crate::profile::stack_table::Task;
use crate::profile::wait_window::EndedWait;
use crate::profile::windows::Windows;
use crate::profiler::offcpu::LONG_WAIT;
use crate::profiler::pending::{Pending, PendingWalks};
use crate::profiler::stack::StackBuilder;
use crate::profiler::walk_tally::{WalkCounts, WalkTally};
use crate::symbol::frame::Frame;
use crate::symbol::resolver::Resolver;
use crate::table_use::TableUse;
use crate::unwind::finish::{FinishedWalk, UnfinishedWalk, WalkEnd};
use crate::unwind::stack_slice::StackSlice;
use crate::unwind::unwinder::{Unwinder, WalkRequest};

/// Records read from a ring in one go: the rest waits for the side-band to be read once more.
const BATCH: usize = 4096;
/// Nanoseconds between two looks at what is not needed any more.
const TIDY_INTERVAL: u64 = 10_000_000_000;
/// The same while there is hardly room for another module.
const URGENT_INTERVAL: u64 = 1_000_000_000;
/// Bytes of a waiting task's stack that are read at most.
const MOST_STACK: usize = 64 << 10;
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
            pending: PendingWalks::default(),
            walks: WalkTally::default(),
            published: HashSet::new(),
            changed: HashSet::new(),
            ended: HashSet::new(),
            unneeded: VecDeque::new(),
            tasks: None,
            tidied: monotonic_now(),
            received: HashMap::new(),
            undecodable: 0,
            finished_here: 0,
        }
    }

    /// Reads everything that is there now into `windows`.
    pub fn turn(&mut self, windows: &mut Windows) {
        loop {
            let emptied = self.turn_once(windows);
            if emptied {
                break;
            }
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

    /// From time to time: processes whose end nothing told of, and modules that nothing refers to, in `windows` or elsewhere. No
    /// other window may have frames whose names are still to be looked up.
    fn tidy(&mut self, windows: &Windows, now: u64) {
        let Self { sources: Sources { processes, resolver, .. }, pending, unneeded, tidied, .. } = self;
        let urgent = processes.modules().is_nearly_full();
        let interval = if urgent { URGENT_INTERVAL } else { TIDY_INTERVAL };
        if now.saturating_sub(*tidied) < interval {
            return;
        }
        *tidied = now;
        if let Err(error) = processes.reconcile(now) {
            tracing::warn!("cannot list /proc: {error}");
        }
        let mut used = HashSet::new();
        processes.add_modules(&mut used);
        pending.add_modules(&mut used);
        windows.add_modules(&mut used);
        let found = processes.modules().retire(&used, now);
        if found == Unneeded::default() {
            return;
        }
        resolver.close(&found.idle);
        if !found.retired.is_empty() {
            resolver.forget(&found.retired.iter().copied().collect());
        }
        unneeded.push_back(found);
    }

    /// How full every table is that grows with what happens on the machine, the windows' excepted.
    pub fn table_uses(&self) -> Vec<TableUse> {
        let Sources { processes, unwinder, resolver, .. } = &self.sources;
        let mut all = vec![processes.table_use(), processes.modules().table_use()];
        all.push(self.pending.table_use(BATCH));
        // Three sets of process ids: no more than there are processes, but for those that the unwinder is not told of yet.
        let told = self.published.len() + self.changed.len() + self.ended.len();
        let budget = (3 * processes.len()).max(told);
        let each = 2 * (size_of::<u32>() + 1);
        let name = "published processes";
        all.push(TableUse { name, entries: told, bytes: told * each, budget: budget * each });
        all.extend(unwinder.table_uses());
        all.extend(resolver.table_uses());
        all
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
        emptied
    }

    fn take_in(&mut self, sample: RawSample<'_>, windows: &mut Windows) {
        let header = sample.header;
        if header.kind != kind::LEAVE && windows.counting(header.kind).is_none() {
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

    /// The kernel frames of a sample of `kind`, without those of the program that took it, which a tracepoint runs as a function that
    /// the scheduler calls.
    fn without_tracing<'a>(&self, kind: u16, kernel: &'a [u64]) -> &'a [u64] {
        /// The scheduler's function; what it calls for a tracepoint is five frames at most.
        const SCHEDULER: &str = "__schedule";
        const MOST: usize = 8;
        if kind != kind::LEAVE {
            return kernel;
        }
        let is_scheduler = |address: &u64| {
            let symbols = self.sources.resolver.resolve(Frame::Kernel { address: address.saturating_sub(1) });
            symbols.frames.first().is_some_and(|frame| &*frame.function.name == SCHEDULER)
        };
        let first = kernel.iter().take(MOST).position(is_scheduler).unwrap_or(0);
        &kernel[first..]
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
        } else if let Some(window) = windows.counting(kind) {
            let known = window.frames().len();
            window.add(&pending.task, self.stack.frames(), truncated, cpu);
            (known, window.frames())
        } else {
            return;
        };
        for frame in &frames[known..] {
            self.sources.resolver.prefetch(*frame);
        }
    }

    /// A wait, or a task, has ended.
    fn take_in_wait(&mut self, end: &WaitEnd, windows: &mut Windows) {
        let WaitEnd { wait, kernel, totals } = end;
        if let Some(totals) = totals {
            let task = self.task_of(wait.pid, wait.tid, &wait.comm);
            windows.offcpu.add_totals(wait.tid, &task, totals);
            return;
        }
        let Wait { tid, began, every, state, .. } = *wait;
        let lasted = wait.timestamp.saturating_sub(began);
        let ended = EndedWait { state, lasted, every, is_long: lasted >= LONG_WAIT };
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
            let Sleeper { pid, tid, state, comm, .. } = *sleeper;
            let task = self.task_of(pid, tid, &comm);
            let waits = TaskWaits { left: began, pid, tid, state, ..TaskWaits::default() };
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
        let sample = RawSample { header: &header, kernel: &[], user: &[ip], resume: None };
        self.sources.processes.sampled(pid, || thread_name(&comm), monotonic_now());
        let (task, mappings) = (self.task(&header), self.mappings_for(&sample));
        let pending = Pending { header, task, kernel: Vec::new(), user: vec![ip], mappings };
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

    /// Lets the unwinder know what has become of processes whose mappings it has.
    fn pass_on_updates(&mut self) {
        let Self { sources, published, changed, ended, unneeded, .. } = self;
        let Sources { processes, unwinder, .. } = sources;
        for update in processes.take_updates() {
            match update {
                ProcessUpdate::Mappings(pid) if published.contains(&pid) => {
                    changed.insert(pid);
                }
                ProcessUpdate::Ended(pid) if published.remove(&pid) => {
                    changed.remove(&pid);
                    ended.insert(pid);
                }
                ProcessUpdate::Mappings(_) | ProcessUpdate::Ended(_) => {}
            }
        }
        while let Some(found) = unneeded.pop_front() {
            if !unwinder.retire(found.clone()) {
                unneeded.push_front(found);
                break;
            }
        }
        ended.retain(|pid| !unwinder.forget(*pid));
        changed
            .retain(|pid| processes.mappings(*pid).is_some_and(|mappings| !unwinder.update(*pid, mappings)));
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

/// The stack with which the task of `header` waits, if it still does: reading it is not for the program that saw it leave.
fn stack_of_waiting(tasks: &TaskTable, header: &SampleHeader, resume: &Resume) -> Option<Vec<u8>> {
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
