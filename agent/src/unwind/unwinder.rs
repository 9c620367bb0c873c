//! The unwinder's thread: finishes walks and keeps the arena, so that neither the collector nor a program ever waits for a
//! file.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use agent_ebpf::tables::MAX_MAPPINGS;

use crate::process::mappings::{Mapping, Mappings};
use crate::process::module::ModuleTable;
use crate::unwind::arena::{Arena, ArenaUse};
use crate::unwind::finish::{FinishedWalk, Finisher, UnfinishedWalk};
use crate::unwind::module_cfi::ModuleCfiCache;

/// Walks that wait to be finished: with whole slices, 4 MiB.
const QUEUE: usize = 256;
/// Length of an epoch, by which the arena tells what was used lately.
const EPOCH: Duration = Duration::from_secs(1);

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
}

/// Hands walks to the unwinder's thread and takes them back.
pub struct Unwinder {
    commands: SyncSender<Command>,
    finished: Receiver<(u64, FinishedWalk)>,
    usage: Arc<std::sync::Mutex<ArenaUse>>,
}

impl Unwinder {
    /// Starts the thread. `budget` bytes are for modules' unwind information in user space.
    pub fn start(arena: Arena, modules: Arc<ModuleTable>, budget: usize) -> io::Result<Self> {
        let (commands, requests) = sync_channel(QUEUE);
        let (answers, finished) = channel();
        let usage = Arc::new(std::sync::Mutex::new(arena.memory_use()));
        let worker = Worker {
            arena,
            modules: ModuleCfiCache::new(modules, budget),
            processes: HashMap::new(),
            usage: usage.clone(),
        };
        let run = move || worker.run(&requests, |token, walk| answers.send((token, walk)).is_ok());
        thread::Builder::new().name("unwinder".into()).spawn(run)?;
        Ok(Self { commands, finished, usage })
    }

    /// Has a walk finished; gives it back when the queue is full.
    pub fn request(&self, request: WalkRequest) -> Result<(), Box<WalkRequest>> {
        match self.commands.try_send(Command::Walk(Box::new(request))) {
            Ok(()) => Ok(()),
            Err(
                TrySendError::Full(Command::Walk(request))
                | TrySendError::Disconnected(Command::Walk(request)),
            ) => Err(request),
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
        *self.usage.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

struct Worker {
    arena: Arena,
    modules: ModuleCfiCache,
    /// Processes whose mappings are in the arena, or would be if there were room.
    processes: HashMap<u32, Published>,
    usage: Arc<std::sync::Mutex<ArenaUse>>,
}

struct Published {
    image: u64,
    /// Of a process with more mappings than the arena takes: those that walks met.
    hot: Vec<Mapping>,
}

impl Worker {
    fn run(mut self, requests: &Receiver<Command>, answer: impl Fn(u64, FinishedWalk) -> bool) {
        let mut epoch_ends = Instant::now() + EPOCH;
        loop {
            match requests.recv_timeout(epoch_ends.saturating_duration_since(Instant::now())) {
                Ok(Command::Walk(request)) => {
                    let walk = self.finish(&request);
                    if !answer(request.token, walk) {
                        return;
                    }
                }
                Ok(Command::Mappings(pid, mappings)) => self.update(pid, &mappings),
                Ok(Command::Forget(pid)) => {
                    self.processes.remove(&pid);
                    self.arena.remove_process(pid);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if Instant::now() >= epoch_ends {
                self.arena.begin_epoch();
                *self.usage.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                    self.arena.memory_use();
                epoch_ends = Instant::now() + EPOCH;
            }
        }
    }

    fn finish(&mut self, request: &WalkRequest) -> FinishedWalk {
        let WalkRequest { pid, image, publish, walk, .. } = request;
        let mut finisher = Finisher { arena: &mut self.arena, modules: &mut self.modules };
        let finished = finisher.finish(walk);
        if *publish {
            self.publish(*pid, *image, &walk.mappings, &finished);
        }
        finished
    }

    fn publish(&mut self, pid: u32, image: u64, mappings: &Mappings, walk: &FinishedWalk) {
        let published = self.processes.entry(pid).or_insert_with(|| Published { image, hot: Vec::new() });
        if published.image != image {
            *published = Published { image, hot: Vec::new() };
        }
        if mappings.len() > MAX_MAPPINGS as usize {
            let met = walk
                .frames
                .iter()
                .filter_map(|frame| mappings.find(frame.ip.wrapping_sub(u64::from(frame.returned))));
            published.add_hot(met);
        }
        self.install(pid, mappings);
    }

    fn update(&mut self, pid: u32, mappings: &Mappings) {
        if let Some(published) = self.processes.get_mut(&pid) {
            published.hot.retain(|hot| mappings.find(hot.start) == Some(*hot));
            self.install(pid, mappings);
        }
    }

    fn install(&mut self, pid: u32, mappings: &Mappings) {
        let Some(Published { image, hot }) = self.processes.get(&pid) else { return };
        let all = mappings.as_slice();
        let what = if all.len() > MAX_MAPPINGS as usize { hot } else { all };
        if self.arena.install_process(pid, *image, what).is_err() {
            self.arena.remove_process(pid);
        }
    }
}

impl Published {
    fn add_hot(&mut self, met: impl Iterator<Item = Mapping>) {
        for mapping in met {
            if let Err(place) = self.hot.binary_search_by_key(&mapping.start, |hot| hot.start) {
                if self.hot.len() == MAX_MAPPINGS as usize {
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
