//! Every process that is known, kept up to date by side-band events.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use prometheus::IntCounter;

use crate::kernel::sideband::record::{NewMapping, ProcessChange, ProcessEvent};
use crate::metrics::SelfMetrics;
use crate::process::mappings::{Mapping, Mappings};
use crate::process::module::{ModuleId, ModuleTable, Witness};
use crate::process::scan::{self, ProcessSnapshot};
use crate::table_use::TableUse;

/// Nanoseconds between two readings of one process's `/proc/PID/maps` for addresses that no mapping holds.
const REREAD_INTERVAL: u64 = 1_000_000_000;
/// Nanoseconds for which a process that ended is remembered: samples of it may still be on their way.
const REMEMBER_EXITED: u64 = 5_000_000_000;

/// Where an address of a process lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this mapping.
    Mapped(Mapping),
    /// In no executable mapping of the process.
    Unmapped,
    /// Nothing could be learnt about the process before it ended.
    UnknownProcess,
}

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    comm: Arc<str>,
    /// `None` when nothing could be learnt, or when the budget made us forget: see `stale`.
    mappings: Option<Mappings>,
    stale: bool,
    exited: Option<u64>,
    /// Whether `/proc` did not list it the last time that anybody looked.
    missing: bool,
    last_read: u64,
    last_sampled: u64,
}

/// The known processes. Their mappings stay within a byte budget: those that were not sampled for longest are
/// forgotten first, and read again when a sample hits them.
#[derive(Debug)]
pub struct ProcessTable {
    modules: Arc<ModuleTable>,
    budget: usize,
    processes: HashMap<u32, Process>,
    counts: ProcessCounts,
    updates: Vec<ProcessUpdate>,
    /// Scans of all of `/proc`.
    scans: IntCounter,
}

/// Something that whoever keeps a copy of mappings has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessUpdate {
    /// The process's mappings have changed.
    Mappings(u32),
    /// The process has ended, runs another program, or was forgotten.
    Ended(u32),
}

/// What happened in the table; `nodeprof_process_*` in metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Readings of single processes after the scan.
    pub rereads: u64,
    /// Processes that were gone before anything could be learnt.
    pub unknown: u64,
    /// Processes whose mappings were forgotten to stay within the budget.
    pub forgotten: u64,
    /// Processes whose end nothing told of.
    pub ended_unseen: u64,
}

impl ProcessTable {
    /// An empty table whose mappings may take `budget` bytes. Its scans of `/proc` show in `metrics`.
    pub fn new(modules: Arc<ModuleTable>, budget: usize, metrics: &SelfMetrics) -> Self {
        Self {
            modules,
            budget,
            processes: HashMap::new(),
            counts: ProcessCounts::default(),
            scans: metrics.proc_scans.clone(),
            updates: Vec::new(),
        }
    }

    /// Reads all of `/proc`, once, when the agent starts. The side-band must be open already, so that nothing is
    /// missed in between; `now` is the time in `CLOCK_MONOTONIC` nanoseconds.
    pub fn scan(&mut self, now: u64) -> io::Result<()> {
        self.scan_and(now, |_| {})
    }

    /// The same; `each` reads what else somebody wants to know of a process.
    pub fn scan_and(&mut self, now: u64, mut each: impl FnMut(u32)) -> io::Result<()> {
        self.scans.inc();
        for pid in scan::processes()? {
            each(pid);
            // A process that ended since the directory was listed is none of our business.
            let _known = self.read(pid, now);
        }
        self.enforce_budget();
        Ok(())
    }

    /// Takes in what happened to a process.
    pub fn apply(&mut self, event: ProcessEvent) {
        match event.what {
            ProcessChange::Map(new) => self.map(&new),
            ProcessChange::Comm { pid, tid, exec, comm } => self.rename(pid, tid, exec, comm.into()),
            ProcessChange::Fork { pid, parent_pid, .. } if pid != parent_pid => self.fork(pid, parent_pid),
            ProcessChange::Exit { pid, tid } if pid == tid => {
                if let Some(process) = self.processes.get_mut(&pid) {
                    process.exited = Some(event.time);
                }
                self.updates.push(ProcessUpdate::Ended(pid));
            }
            ProcessChange::Fork { .. } | ProcessChange::Exit { .. } => {}
        }
    }

    /// The mappings of a process, as far as they are known.
    pub fn mappings(&self, pid: u32) -> Option<Mappings> {
        self.processes.get(&pid)?.mappings.clone()
    }

    /// Takes what has happened to mappings since the last call, in order.
    pub fn take_updates(&mut self) -> Vec<ProcessUpdate> {
        std::mem::take(&mut self.updates)
    }

    /// The name of a process (of its main thread), as far as it is known.
    pub fn comm(&self, pid: u32) -> Option<Arc<str>> {
        Some(self.processes.get(&pid)?.comm.clone())
    }

    /// Makes sure that `pid`, of which a sample was taken at `time`, is in the table: reads `/proc` if nothing told
    /// of it yet. `comm` is the sampled thread's name, the best there is when the process is gone.
    pub fn sampled(&mut self, pid: u32, comm: impl FnOnce() -> Arc<str>, time: u64) {
        match self.processes.get_mut(&pid) {
            Some(process) if !process.stale => process.last_sampled = time,
            _ => {
                self.counts.rereads += 1;
                if let Err(error) = self.read(pid, time) {
                    self.counts.unknown += 1;
                    // If it is gone, nothing may tell of its end any more.
                    let exited = is_gone(&error).then_some(time);
                    self.processes.insert(pid, Process { exited, ..Process::unknown(comm(), time) });
                }
            }
        }
    }

    /// Where `address` of `pid` lies. An address outside every mapping makes the table read the process again, at most
    /// once a second of sample time.
    pub fn place(&mut self, pid: u32, address: u64, time: u64) -> Place {
        let Some(process) = self.processes.get(&pid) else { return Place::UnknownProcess };
        if let Some(mapping) = process.find(address) {
            return Place::Mapped(mapping);
        }
        if process.exited.is_none() && time.saturating_sub(process.last_read) >= REREAD_INTERVAL {
            self.complete(pid, time);
        }
        match self.processes.get(&pid) {
            Some(Process { mappings: Some(mappings), .. }) => {
                mappings.find(address).map_or(Place::Unmapped, Place::Mapped)
            }
            _ => Place::UnknownProcess,
        }
    }

    /// Forgets processes that ended long before `now`, and keeps the rest within the budget.
    pub fn clean_up(&mut self, now: u64) {
        let Self { processes, updates, .. } = self;
        processes.retain(|pid, process| {
            if process.exited.is_none_or(|exited| now.saturating_sub(exited) < REMEMBER_EXITED) {
                return true;
            }
            if scan::has_other_threads(*pid) {
                // Only its main thread has ended.
                process.exited = None;
                return true;
            }
            // Samples may have come after its end, so whoever keeps a copy is told again.
            updates.push(ProcessUpdate::Ended(*pid));
            false
        });
        if processes.capacity() > 4 * processes.len().max(256) {
            processes.shrink_to_fit();
        }
        self.enforce_budget();
    }

    /// Finds out which processes have ended though nothing told of it, because events were lost: those that `/proc` does not list,
    /// at this call and the one before. What is told of the others is then long known.
    pub fn reconcile(&mut self, now: u64) -> io::Result<()> {
        let there: HashSet<u32> = scan::processes()?.into_iter().collect();
        let Self { processes, updates, counts, .. } = self;
        for (pid, process) in processes.iter_mut().filter(|(_, process)| process.exited.is_none()) {
            let was_missing = std::mem::replace(&mut process.missing, !there.contains(pid));
            if process.missing && was_missing {
                process.exited = Some(now);
                counts.ended_unseen += 1;
                updates.push(ProcessUpdate::Ended(*pid));
            }
        }
        Ok(())
    }

    /// Adds the modules that processes map to `used`.
    pub fn add_modules(&self, used: &mut HashSet<ModuleId>) {
        for mappings in self.processes.values().filter_map(|process| process.mappings.as_ref()) {
            used.extend(mappings.iter().map(|mapping| mapping.module));
        }
    }

    /// The modules that addresses refer to.
    pub fn modules(&self) -> &ModuleTable {
        &self.modules
    }

    /// How full the table is.
    pub fn table_use(&self) -> TableUse {
        let bytes = self.processes.values().map(Process::bytes).sum();
        TableUse { name: "processes", entries: self.processes.len(), bytes, budget: self.budget }
    }

    /// What happened so far.
    pub fn counts(&self) -> ProcessCounts {
        self.counts
    }

    /// The processes that are known, in no order; those that ended lately are among them.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// How many processes are known.
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    fn read(&mut self, pid: u32, now: u64) -> io::Result<()> {
        let snapshot = scan::read(pid, &self.modules)?;
        let process = Process {
            comm: snapshot.comm.into(),
            // A process that is ending has none any more; nothing could be learnt then.
            mappings: (!snapshot.mappings.is_empty()).then_some(snapshot.mappings),
            stale: false,
            exited: None,
            missing: false,
            last_read: now,
            last_sampled: now,
        };
        self.processes.insert(pid, process);
        self.updates.push(ProcessUpdate::Mappings(pid));
        Ok(())
    }

    /// Adds what `/proc` knows of a process's mappings beyond what is known already. That stays: `/proc` shows the process as
    /// it is now, but samples and events are some time behind, and meanwhile it may have executed another program or be ending.
    fn complete(&mut self, pid: u32, now: u64) {
        self.counts.rereads += 1;
        let snapshot = scan::read(pid, &self.modules);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        process.last_read = now;
        if let Ok(ProcessSnapshot { mappings: mut all, .. }) = snapshot
            && !all.is_empty()
        {
            for known in process.mappings.iter().flat_map(Mappings::iter) {
                all.insert(*known);
            }
            process.mappings = Some(all);
            self.updates.push(ProcessUpdate::Mappings(pid));
        }
    }

    fn map(&mut self, new: &NewMapping) {
        let end = new.start.saturating_add(new.length);
        let witness = Witness { pid: new.pid, start: new.start, end };
        let module = self.modules.intern_generation(
            scan::module_key(&new.path, new.file),
            Some(new.generation),
            witness,
        );
        let mapping = Mapping { start: new.start, end, file_offset: new.file_offset, module };
        // A process of which only this is known: its other mappings are read when a sample misses them.
        let process = self.processes.entry(new.pid).or_insert_with(|| Process::partly_known(new.pid));
        process.mappings.get_or_insert_default().insert(mapping);
        self.updates.push(ProcessUpdate::Mappings(new.pid));
    }

    fn rename(&mut self, pid: u32, tid: u32, exec: bool, comm: Arc<str>) {
        if exec {
            let fresh = Process { mappings: Some(Mappings::default()), ..Process::unknown(comm, 0) };
            self.processes.insert(pid, fresh);
            self.updates.push(ProcessUpdate::Ended(pid));
        } else if pid == tid
            && let Some(process) = self.processes.get_mut(&pid)
        {
            process.comm = comm;
        }
    }

    fn fork(&mut self, pid: u32, parent_pid: u32) {
        let parent = self.processes.get(&parent_pid);
        let child = parent.map(|parent| Process { exited: None, missing: false, ..parent.clone() });
        let before = match child {
            Some(child) => self.processes.insert(pid, child),
            None => self.processes.remove(&pid),
        };
        if before.is_some() {
            // Another process had this number.
            self.updates.push(ProcessUpdate::Ended(pid));
        }
    }

    fn enforce_budget(&mut self) {
        let mut used: usize = self.processes.values().map(Process::bytes).sum();
        if used <= self.budget {
            return;
        }
        let mut by_age: Vec<_> =
            self.processes.iter().map(|(pid, process)| (process.last_sampled, *pid)).collect();
        by_age.sort_unstable();
        for (_, pid) in by_age {
            if used <= self.budget {
                break;
            }
            if let Some(process) = self.processes.get_mut(&pid)
                && process.mappings.take().is_some_and(|mappings| {
                    used -= mappings.heap_bytes();
                    true
                })
            {
                process.stale = true;
                self.counts.forgotten += 1;
            }
        }
    }
}

impl Process {
    fn unknown(comm: Arc<str>, time: u64) -> Self {
        let (mappings, stale, exited, missing) = (None, false, None, false);
        Self { comm, mappings, stale, exited, missing, last_read: time, last_sampled: time }
    }

    fn partly_known(pid: u32) -> Self {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        Self::unknown(comm.map_or_else(|_| "[unknown]".into(), |comm| comm.trim_end().into()), 0)
    }

    fn find(&self, address: u64) -> Option<Mapping> {
        self.mappings.as_ref()?.find(address)
    }

    /// Bytes that the process takes, an estimate from above: a place in a hash table that is half full, its name, its mappings.
    fn bytes(&self) -> usize {
        const ENTRY: usize = 2 * (size_of::<(u32, Process)>() + 1) + 2 * size_of::<usize>();
        ENTRY + self.comm.len() + self.mappings.as_ref().map_or(0, Mappings::heap_bytes)
    }
}

/// Whether `/proc` knows no such process.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::sideband::record::FileHint;

    fn table() -> ProcessTable {
        ProcessTable::new(Arc::default(), 1 << 20, &SelfMetrics::new().expect("good names"))
    }

    fn map(pid: u32, start: u64, path: &str) -> ProcessEvent {
        let file = FileHint { device: 1, inode: start };
        let path = path.into();
        let new = NewMapping { pid, start, length: 0x1000, file_offset: 0, file, generation: 0, path };
        ProcessEvent { time: 1, what: ProcessChange::Map(new) }
    }

    fn event(time: u64, what: ProcessChange) -> ProcessEvent {
        ProcessEvent { time, what }
    }

    /// No process has this number, so the table cannot find out more than it was told.
    const PID: u32 = 0x7fff_fff0;

    /// A process that lives only in side-band events is known: fork, exec, map, exit.
    #[test]
    fn a_short_life_is_known() {
        let mut table = table();
        table.apply(map(PID, 0x1000, "/bin/sh"));
        table.apply(event(2, ProcessChange::Fork { pid: PID + 1, parent_pid: PID, tid: PID + 1 }));
        assert!(matches!(table.place(PID + 1, 0x1800, 2), Place::Mapped(_)), "a fork shares mappings");
        table.apply(event(
            3,
            ProcessChange::Comm { pid: PID + 1, tid: PID + 1, exec: true, comm: "job".into() },
        ));
        table.apply(map(PID + 1, 0x5000, "/bin/job"));
        table.apply(event(4, ProcessChange::Exit { pid: PID + 1, tid: PID + 1 }));
        table.sampled(PID + 1, || "wrong".into(), 4);
        assert_eq!(table.comm(PID + 1).as_deref(), Some("job"));
        assert!(matches!(table.place(PID + 1, 0x5800, 4), Place::Mapped(_)));
        assert_eq!(table.place(PID + 1, 0x1800, 4), Place::Unmapped, "exec drops the old image");
        table.clean_up(4 + REMEMBER_EXITED);
        assert_eq!(table.place(PID + 1, 0x5800, 5), Place::UnknownProcess);
        assert_eq!(table.counts().unknown, 0);
    }

    /// A process that ended before anything told of it is kept under its thread's name, and counted.
    #[test]
    fn a_process_nobody_told_of() {
        let mut table = table();
        table.sampled(PID, || "ghost".into(), 1);
        assert_eq!(table.comm(PID).as_deref(), Some("ghost"));
        assert_eq!(table.place(PID, 0x1000, 1), Place::UnknownProcess);
        assert_eq!(table.counts().unknown, 1);
    }

    /// An address outside the known mappings is looked up in `/proc`, but what is known stays: it may be of an image that the
    /// process has replaced since.
    #[test]
    fn known_mappings_survive_another_look() {
        let mut table = table();
        let pid = std::process::id();
        table.apply(map(pid, 0x1000, "/bin/before"));
        let Place::Mapped(before) = table.place(pid, 0x1800, 1) else { panic!("it is known") };
        let here = known_mappings_survive_another_look as *const () as u64;
        assert!(matches!(table.place(pid, here, REREAD_INTERVAL), Place::Mapped(_)), "found in /proc");
        assert_eq!(table.place(pid, 0x1800, REREAD_INTERVAL), Place::Mapped(before));
        assert_eq!(table.counts().rereads, 1);
    }

    /// A process that has ended but was not waited for yet shows no mappings: that is not knowledge, and takes none away.
    #[test]
    fn a_zombie_teaches_nothing() {
        let mut child = std::process::Command::new("true").spawn().expect("a child");
        let pid = child.id();
        let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("not waited for");
        while !stat().contains(") Z ") {
            std::thread::yield_now();
        }
        let mut table = table();
        table.sampled(pid, || "true".into(), 1);
        assert_eq!(table.place(pid, 0x1800, 1), Place::UnknownProcess);
        table.apply(map(pid, 0x1000, "/bin/true"));
        assert_eq!(table.place(pid, 0x9000, 3 * REREAD_INTERVAL), Place::Unmapped);
        assert!(matches!(table.place(pid, 0x1800, 3 * REREAD_INTERVAL), Place::Mapped(_)));
        child.wait().expect("waited for");
    }

    /// A process whose end was lost, one that was gone before it was sampled, and one whose number is given anew: none stays.
    #[test]
    fn nothing_stays_of_processes_that_ended_unseen() {
        let mut table = table();
        table.apply(map(PID, 0x1000, "/bin/sh"));
        table.sampled(PID + 1, || "ghost".into(), 1);
        table.apply(map(PID + 2, 0x1000, "/bin/sh"));
        table.apply(event(2, ProcessChange::Exit { pid: PID + 2, tid: PID + 2 }));
        let fork = ProcessChange::Fork { pid: PID + 2, parent_pid: PID + 3, tid: PID + 2 };
        table.apply(event(3, fork));
        assert_eq!(table.place(PID + 2, 0x1800, 3), Place::UnknownProcess, "the one before had this mapping");
        table.take_updates();
        table.reconcile(4).expect("/proc is there");
        assert_eq!(table.counts().ended_unseen, 0, "its end may still be told");
        table.reconcile(4).expect("/proc is there");
        assert_eq!(table.counts().ended_unseen, 1);
        table.clean_up(4 + REMEMBER_EXITED);
        assert_eq!((table.len(), table.table_use().bytes), (0, 0));
        let told: Vec<_> = table.take_updates();
        assert!(told.contains(&ProcessUpdate::Ended(PID)) && told.contains(&ProcessUpdate::Ended(PID + 1)));
    }

    /// A process whose main thread has ended lives on, for as long as another thread does.
    #[test]
    fn a_main_thread_is_not_the_process() {
        let mut table = table();
        let pid = std::process::id();
        table.scan(1).expect("/proc is there");
        std::thread::scope(|scope| {
            let (end, ended) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || ended.recv());
            table.apply(event(2, ProcessChange::Exit { pid, tid: pid }));
            table.clean_up(2 + REMEMBER_EXITED);
            drop(end);
        });
        assert!(table.comm(pid).is_some());
    }

    /// Over the budget, mappings are forgotten (and counted), and read again when a sample comes.
    #[test]
    fn the_budget_holds() {
        let metrics = SelfMetrics::new().expect("good names");
        let mut table = ProcessTable::new(Arc::default(), 1, &metrics);
        table.scan(1).expect("/proc is there");
        assert!(table.counts().forgotten > 0);
        let pid = std::process::id();
        table.sampled(pid, || "me".into(), 2);
        let here = the_budget_holds as *const () as u64;
        assert!(matches!(table.place(pid, here, 2), Place::Mapped(_)));
        assert_eq!(metrics.proc_scans.get(), 1);
    }

    /// A new thread is not a new process, and a thread's end is not the process's.
    #[test]
    fn threads_are_not_processes() {
        let mut table = table();
        table.apply(map(PID, 0x1000, "/bin/sh"));
        table.apply(event(2, ProcessChange::Fork { pid: PID, parent_pid: PID, tid: PID + 1 }));
        table.apply(event(3, ProcessChange::Exit { pid: PID, tid: PID + 1 }));
        table.clean_up(u64::MAX);
        assert!(matches!(table.place(PID, 0x1000, 4), Place::Mapped(_)));
        assert_eq!(table.len(), 1);
    }
}
