//! Names of code that runtimes make while they run, from the maps that they write: perf maps and jitdumps.
//!
//! A map is another user's file in another container. It is opened through the process's own root, is a regular file of the
//! process's user or root's, and is read by `pread`, a bounded piece at a time, from where the last look ended. What is kept of it
//! is 16 bytes a function; names are read when a sample asks for them.

mod code_map;
mod code_table;
mod jitdump;
pub mod jvm;
mod name;
mod perf_map;
mod process;
mod process_view;
mod runtime;
mod source;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use lru::LruCache;

pub use code_map::{CodeMap, MapFormat};
pub use jitdump::JitdumpError;
pub use name::WrittenName;

use crate::symbol::byte_lru::ByteLru;
use crate::symbol::function_name::FunctionName;
use crate::symbol::jit::jvm::{JvmPerfMap, PerfMapRequests};
use crate::symbol::jit::name::readable;
use crate::symbol::jit::process::JitProcess;
use crate::symbol::jit::source::NamePlace;
use crate::symbol::unresolved::UnresolvedReason;

/// Processes whose maps are open at once.
const OPEN_PROCESSES: NonZeroUsize = NonZeroUsize::new(5).unwrap();

/// A process, as samples tell it apart from others that had or will have its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JitProcessId {
    /// Process id.
    pub pid: u32,
    /// Which address space the sample was taken in.
    pub image: u64,
}

/// Names generated code. What is cached stays within a byte budget.
#[derive(Debug)]
pub struct JitNames {
    processes: Mutex<ByteLru<JitProcessId, Arc<Mutex<JitProcess>>>>,
    open: Mutex<LruCache<JitProcessId, Weak<Mutex<JitProcess>>>>,
    names: Mutex<ByteLru<NamePlace, FunctionName>>,
    /// Bytes that the tables of one process may take.
    limit: usize,
    requests: Option<PerfMapRequests>,
}

/// What is known of generated code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitUse {
    /// Processes that have been looked at.
    pub processes: usize,
    /// Bytes of tables and names.
    pub bytes: usize,
}

impl JitNames {
    /// Nothing is known yet. `budget` bytes are shared by the tables of all processes (three quarters) and names (the rest).
    pub fn new(budget: usize, jvm_perf_map: JvmPerfMap) -> Self {
        let for_names = budget / 4;
        let for_tables = budget - for_names;
        Self {
            processes: Mutex::new(ByteLru::new(for_tables)),
            open: Mutex::new(LruCache::new(OPEN_PROCESSES)),
            names: Mutex::new(ByteLru::new(for_names)),
            limit: for_tables / 2,
            requests: PerfMapRequests::new(jvm_perf_map),
        }
    }

    /// The function whose code is at `address` of `process` now; else why that is not known. The answer may be another one a second
    /// later: code is made and replaced all the time.
    pub fn find(&self, process: JitProcessId, address: u64) -> Result<FunctionName, UnresolvedReason> {
        self.find_at(process, address, Instant::now())
    }

    fn find_at(
        &self,
        id: JitProcessId,
        address: u64,
        now: Instant,
    ) -> Result<FunctionName, UnresolvedReason> {
        let entry = self.process(id);
        let mut process = lock(&entry);
        process.look(now, self.limit);
        let found = match process.find(address) {
            Ok(place) => self.name(&mut process, place),
            Err(reason) => {
                if let Some(requests) = &self.requests {
                    requests.consider(id.pid, &process, now);
                }
                Err(reason)
            }
        };
        let bytes = process.heap_bytes() + size_of::<Mutex<JitProcess>>();
        drop(process);
        lock(&self.processes).reweigh(&id, bytes);
        self.note_open(id, &entry);
        found
    }

    fn name(&self, process: &mut JitProcess, place: NamePlace) -> Result<FunctionName, UnresolvedReason> {
        if let Some(name) = lock(&self.names).get(&place) {
            return Ok(name.clone());
        }
        let written =
            process.name(place).filter(|name| !name.text.is_empty()).ok_or(UnresolvedReason::Gone)?;
        let name = FunctionName::new(readable(&written.text), &written.text);
        // More of a name without an end may be written yet.
        if written.is_whole {
            lock(&self.names).insert(place, name.clone(), name.heap_bytes());
        }
        Ok(name)
    }

    fn process(&self, id: JitProcessId) -> Arc<Mutex<JitProcess>> {
        let mut processes = lock(&self.processes);
        if let Some(process) = processes.get(&id) {
            return process.clone();
        }
        let process = Arc::new(Mutex::new(JitProcess::new(id.pid)));
        processes.insert(id, process.clone(), size_of::<Mutex<JitProcess>>());
        process
    }

    /// Notes that the process's maps are open, and closes those that were not used for longest if there are too many.
    fn note_open(&self, id: JitProcessId, process: &Arc<Mutex<JitProcess>>) {
        let pushed_out = lock(&self.open).push(id, Arc::downgrade(process));
        if let Some((other, process)) = pushed_out
            && other != id
            && let Some(process) = process.upgrade()
        {
            lock(&process).close();
        }
    }

    /// How much is known, and what it takes.
    pub fn memory_use(&self) -> JitUse {
        let (processes, names) = (lock(&self.processes), lock(&self.names));
        JitUse { processes: processes.len(), bytes: processes.bytes() + names.bytes() }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is being read at a panic is read again from where it was.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
