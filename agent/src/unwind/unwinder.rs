//! The unwinder's thread: finishes walks and keeps the arena, so that neither the collector nor a program ever waits for a
//! file.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::mappings::{Mapping, Mappings};
use crate::process::module::{ModuleId, ModuleTable, Unneeded};
use crate::symbol::debug_file::DebugFiles;
use crate::symbol::readers::ReaderLimits;
use crate::table_use::TableUse;
use crate::unwind::arena::{Arena, ArenaUse};
use crate::unwind::finish::{FinishedWalk, Finisher, FoundFrame, UnfinishedWalk};
use crate::unwind::module_cfi::ModuleCfiCache;
use crate::unwind::read_ahead::ReadAhead;

/// Commands that wait.
pub const QUEUE: usize = 256;
/// Bytes of stack in the walks that wait to be finished.
const QUEUE_BYTES: usize = 4 << 20;
/// Length of an epoch, by which the arena tells what was used lately.
const EPOCH: Duration = Duration::from_secs(1);
/// Pages that are read ahead in an epoch at most, so that a machine on which everything is new is not kept busy by us.
const AHEAD: u32 = 1024;

/// Who reads modules for their unwind information. Walks wait for them, so they are given up soon.
const READERS: ReaderLimits =
    ReaderLimits { threads: 1, abandoned: 8, patience: Duration::from_secs(1), queue: 64 };

/// A walk to be finished, and for whom.
#[derive(Clone, Debug)]
pub struct WalkRequest {
    /// Comes back with the answer.
    pub token: u64,
    /// Process id.
    pub pid: u32,
    /// The process's address space, as the program saw it.
    pub image: u64,
    /// Whether the process's mappings are to be put into the arena.
    pub publish: bool,
    /// What is to be done.
    pub walk: UnfinishedWalk,
}

enum Command {
    Walk(Box<WalkRequest>),
    Mappings(u32, Mappings),
    Forget(u32),
    Unneeded(Unneeded),
}

/// Hands walks to the unwinder's thread and takes them back.
pub struct Unwinder {
    commands: SyncSender<Command>,
    finished: Receiver<(u64, FinishedWalk)>,
    queued_bytes: Arc<AtomicUsize>,
    usage: Arc<Mutex<Usage>>,
}

/// What is in use of the arena and of the thread's own tables.
#[derive(Clone, Debug)]
struct Usage {
    arena: ArenaUse,
    tables: Vec<TableUse>,
}

impl Unwinder {
    /// Starts the thread. `budget` bytes are for modules' unwind information in user space.
    pub fn start(
        arena: Arena,
        modules: Arc<ModuleTable>,
        debug_files: Arc<DebugFiles>,
        budget: usize,
    ) -> io::Result<Self> {
        let (commands, requests) = sync_channel(QUEUE);
        let (answers, finished) = channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let mut worker = Worker {
            queued_bytes: queued_bytes.clone(),
            arena,
            modules: ModuleCfiCache::new(modules, debug_files, budget, READERS)?,
            read_ahead: ReadAhead::default(),
            processes: HashMap::new(),
            usage: Arc::new(Mutex::new(Usage { arena: ArenaUse::default(), tables: Vec::new() })),
        };
        worker.tell_usage();
        let usage = worker.usage.clone();
        let run = move || worker.run(&requests, |token, walk| answers.send((token, walk)).is_ok());
        thread::Builder::new().name("unwinder".into()).spawn(run)?;
        Ok(Self { commands, finished, queued_bytes, usage })
    }

    /// Has a walk finished; gives it back when the queue is full.
    pub fn request(&self, request: WalkRequest) -> Result<(), Box<WalkRequest>> {
        let bytes = request.walk.slice.len();
        if self.queued_bytes.load(Ordering::Relaxed) + bytes > QUEUE_BYTES {
            return Err(Box::new(request));
        }
        // Before the thread can take it off again.
        self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        match self.commands.try_send(Command::Walk(Box::new(request))) {
            Ok(()) => Ok(()),
            Err(
                TrySendError::Full(Command::Walk(request))
                | TrySendError::Disconnected(Command::Walk(request)),
            ) => {
                self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(request)
            }
            Err(_) => unreachable!("what comes back is what was sent"),
        }
    }

    /// The mappings of a process have changed. False when the queue is full: try again.
    pub fn update(&self, pid: u32, mappings: Mappings) -> bool {
        self.send(Command::Mappings(pid, mappings))
    }

    /// A process has ended, or runs another program. False when the queue is full: try again.
    pub fn forget(&self, pid: u32) -> bool {
        self.send(Command::Forget(pid))
    }

    /// Modules that nobody needs. False when the queue is full: try again.
    pub fn retire(&self, unneeded: Unneeded) -> bool {
        self.send(Command::Unneeded(unneeded))
    }

    /// Never waits: the thread may be held up by a file, the collector must not be. A thread that is gone needs nothing.
    fn send(&self, command: Command) -> bool {
        !matches!(self.commands.try_send(command), Err(TrySendError::Full(_)))
    }

    /// A finished walk, if there is one.
    pub fn poll(&self) -> Option<(u64, FinishedWalk)> {
        self.finished.try_recv().ok()
    }

    /// The next finished walk, if it comes within `patience`.
    pub fn wait(&self, patience: Duration) -> Option<(u64, FinishedWalk)> {
        self.finished.recv_timeout(patience).ok()
    }

    /// How full the arena was lately.
    pub fn memory_use(&self) -> ArenaUse {
        lock(&self.usage).arena
    }

    /// How full the arena, its tables and the thread's own were lately.
    pub fn table_uses(&self) -> Vec<TableUse> {
        lock(&self.usage).tables.clone()
    }
}

fn lock(usage: &Mutex<Usage>) -> MutexGuard<'_, Usage> {
    // It is replaced as a whole.
    usage.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    queued_bytes: Arc<AtomicUsize>,
    arena: Arena,
    modules: ModuleCfiCache,
    read_ahead: ReadAhead,
    /// Processes whose mappings are in the arena, or would be if there were room.
    processes: HashMap<u32, Published>,
    usage: Arc<Mutex<Usage>>,
}

struct Published {
    image: u64,
    /// [`ModuleTable::joined`] when they were put there.
    joined: u64,
    /// Of a process with more mappings than the arena takes: those that walks met.
    hot: Vec<Mapping>,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Command>, answer: impl Fn(u64, FinishedWalk) -> bool) {
        let mut epoch_ends = Instant::now() + EPOCH;
        let mut ahead = AHEAD;
        loop {
            let may_read_ahead = ahead > 0 && !self.read_ahead.is_idle();
            let until = if may_read_ahead { Instant::now() } else { epoch_ends };
            match requests.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Command::Walk(request)) => {
                    let walk = self.finish(&request);
                    self.queued_bytes.fetch_sub(request.walk.slice.len(), Ordering::Relaxed);
                    if !answer(request.token, walk) {
                        return;
                    }
                }
                Ok(Command::Mappings(pid, mappings)) => self.update(pid, &mappings),
                Ok(Command::Forget(pid)) => {
                    self.processes.remove(&pid);
                    self.arena.remove_process(pid);
                }
                Ok(Command::Unneeded(unneeded)) => self.retire(&unneeded),
                // Only when nobody waits.
                Err(RecvTimeoutError::Timeout) if may_read_ahead => {
                    ahead -= u32::from(self.read_ahead.step(&mut self.arena, &self.modules));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= epoch_ends {
                self.arena.begin_epoch();
                tracing::debug!(usage = ?self.arena.memory_use(), "unwind tables");
                self.tell_usage();
                epoch_ends = Instant::now() + EPOCH;
                ahead = AHEAD;
            }
        }
    }

    fn retire(&mut self, Unneeded { idle, retired }: &Unneeded) {
        for id in idle {
            self.modules.close(*id);
        }
        if !retired.is_empty() {
            for id in retired {
                self.modules.forget(*id);
            }
            self.read_ahead.forget(retired);
            self.arena.remove_modules(&retired.iter().copied().collect::<HashSet<ModuleId>>());
        }
    }

    fn tell_usage(&mut self) {
        let mut tables = self.arena.table_uses().to_vec();
        tables.push(self.modules.table_use());
        tables.push(self.published_use());
        *lock(&self.usage) = Usage { arena: self.arena.memory_use(), tables };
    }

    /// The processes whose mappings are in the arena, or would be: as many as are known, and so bounded by what those may take.
    fn published_use(&self) -> TableUse {
        let each = 2 * (size_of::<(u32, Published)>() + 1);
        let hot = self.processes.values().map(|published| published.hot.capacity() * size_of::<Mapping>());
        let entries = self.processes.len();
        let budget = entries * (each + self.arena.most_mappings() * size_of::<Mapping>());
        TableUse {
            name: "unwind process mappings",
            entries,
            bytes: entries * each + hot.sum::<usize>(),
            budget,
        }
    }

    fn finish(&mut self, request: &WalkRequest) -> FinishedWalk {
        let WalkRequest { pid, image, publish, walk, .. } = request;
        let UnfinishedWalk { mappings, .. } = walk;
        let fits = mappings.len() <= self.arena.most_mappings();
        // Before anything is read: the process runs on, and each of its samples comes here until its mappings are there.
        if *publish && fits {
            self.publish(*pid, *image, mappings, &[]);
        }
        let Self { arena, modules, read_ahead, .. } = self;
        let mut finisher = Finisher { arena, modules, read_ahead };
        let finished = finisher.finish(walk);
        if *publish && !fits {
            self.publish(*pid, *image, mappings, &finished.frames);
        } else if self.is_outdated(*pid, *image) {
            self.install(*pid, mappings);
        }
        finished
    }

    /// Puts a process's mappings into the arena; of one that has too many, those that were met at `frames` by now.
    fn publish(&mut self, pid: u32, image: u64, mappings: &Mappings, frames: &[FoundFrame]) {
        let published =
            self.processes.entry(pid).or_insert_with(|| Published { image, joined: 0, hot: Vec::new() });
        if published.image != image {
            *published = Published { image, joined: 0, hot: Vec::new() };
        }
        let pc = |frame: &FoundFrame| frame.ip.wrapping_sub(u64::from(frame.returned));
        published
            .add_hot(frames.iter().filter_map(|frame| mappings.find(pc(frame))), self.arena.most_mappings());
        self.install(pid, mappings);
    }

    fn update(&mut self, pid: u32, mappings: &Mappings) {
        if let Some(published) = self.processes.get_mut(&pid) {
            published.hot.retain(|hot| mappings.find(hot.start) == Some(*hot));
            self.install(pid, mappings);
        }
    }

    /// Puts a process's mappings into the arena. Modules are those that stand for all with the same content, as far as that is
    /// known: their rows serve every process.
    fn install(&mut self, pid: u32, mappings: &Mappings) {
        let modules = self.modules.modules();
        let Some(Published { image, joined, hot }) = self.processes.get_mut(&pid) else { return };
        *joined = modules.joined();
        let shared = |mapping: &Mapping| Mapping {
            module: modules.canonical(mapping.module).unwrap_or(mapping.module),
            ..*mapping
        };
        let what: Vec<_> = if mappings.len() > self.arena.most_mappings() {
            hot.iter().map(shared).collect()
        } else {
            mappings.iter().map(shared).collect()
        };
        if self.arena.install_process(pid, *image, &what).is_err() {
            self.arena.remove_process(pid);
        }
    }

    /// Whether modules have been found to be others since the process's mappings were put into the arena.
    fn is_outdated(&self, pid: u32, image: u64) -> bool {
        let published = self.processes.get(&pid).filter(|published| published.image == image);
        published.is_some_and(|published| published.joined != self.modules.modules().joined())
    }
}

impl Published {
    fn add_hot(&mut self, met: impl Iterator<Item = Mapping>, most: usize) {
        for mapping in met {
            if let Err(place) = self.hot.binary_search_by_key(&mapping.start, |hot| hot.start) {
                if self.hot.len() >= most {
                    // Which ones are hot has changed: they are found anew.
                    self.hot.clear();
                    self.hot.push(mapping);
                } else {
                    self.hot.insert(place, mapping);
                }
            }
        }
    }
}
