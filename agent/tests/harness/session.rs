//! A profiling session inside the test's own process, so that the test can look into its tables.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::cli::Cli;
use agent::kernel::programs::Selection;
use agent::metrics::SelfMetrics;
use agent::process::module::ModuleTable;
use agent::process::scan;
use agent::profile::windows::Windows;
use agent::profiler::probe::ProbePoint;
use agent::run::session::Session;
use agent::symbol::debug_file::DebugFiles;
use agent::symbol::demangle::NameStyle;
use agent::symbol::jit::jvm::JvmPerfMap;
use agent::symbol::resolver::{Resolver, SymbolLimits};
use agent::table_use::TableUse;
use clap::Parser as _;
use tokio::runtime::Runtime;

/// Bytes for names and modules' indexes.
const SYMBOL_BUDGET: usize = 24 << 20;
/// Bytes for which modules' debug files are where.
const DEBUG_FILE_BUDGET: usize = 256 << 10;

/// A running session.
pub(crate) struct InProcess {
    runtime: Runtime,
    session: Option<Session>,
    pub(crate) modules: Arc<ModuleTable>,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) metrics: SelfMetrics,
}

impl InProcess {
    /// Starts one with the agent's `arguments` and a table of modules of `module_bytes`.
    pub(crate) fn start(arguments: &[&str], module_bytes: usize) -> Self {
        Self::start_with_probes(arguments, module_bytes, &[])
    }

    /// The same, with `probes`.
    pub(crate) fn start_with_probes(arguments: &[&str], module_bytes: usize, probes: &[ProbePoint]) -> Self {
        let cpu: &[&str] = if arguments.contains(&"--profilers") { &[] } else { &["--profilers", "cpu"] };
        let arguments = ["agent", "--once"].iter().chain(cpu).chain(arguments);
        let args = Cli::try_parse_from(arguments).expect("good arguments").profile;
        let modules = Arc::new(ModuleTable::new(module_bytes));
        let limits = SymbolLimits {
            memory: SYMBOL_BUDGET,
            lines: true,
            debug_info: 4 << 30,
            jvm_perf_map: JvmPerfMap::Off,
            style: NameStyle::Full,
        };
        let directories = vec!["/usr/lib/debug".into()];
        let debug_files = Arc::new(DebugFiles::new(directories, DEBUG_FILE_BUDGET));
        let metrics = SelfMetrics::new().expect("good names");
        let resolver =
            Resolver::new(modules.clone(), debug_files, limits, &metrics).expect("a thread can be started");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let session = runtime
            .block_on(async {
                Session::start(
                    &args,
                    &Selection::default(),
                    probes,
                    modules.clone(),
                    resolver.clone(),
                    &metrics,
                )
            })
            .expect("the session starts");
        Self { runtime, session: Some(session), modules, resolver, metrics }
    }

    /// Collects samples for `time`.
    pub(crate) fn collect(&mut self, time: Duration) {
        let session = self.session.as_mut().expect("it runs");
        let ended =
            self.runtime.block_on(async { tokio::time::timeout(time, session.collect(|_| {})).await });
        if let Ok(broken) = ended {
            broken.expect("the session works");
        }
    }

    /// Ends the windows and begins others.
    pub(crate) fn end_windows(&mut self) -> Windows {
        self.session.as_mut().expect("it runs").end_windows()
    }

    pub(crate) fn session(&self) -> &Session {
        self.session.as_ref().expect("it runs")
    }

    /// The session's tables by name.
    pub(crate) fn tables(&self) -> BTreeMap<&'static str, TableUse> {
        self.session().table_uses().into_iter().map(|table| (table.name, table)).collect()
    }

    /// Collects until nothing is left of processes that have ended: of those of `gone`, nor of any that had ended before the
    /// first look (a machine has processes of its own); until the programs' tables hold mappings of no others, and the arena is as
    /// large as what is in it, to the byte.
    pub(crate) fn settle(&mut self, gone: &HashSet<u32>) {
        let mut lasting = self.ghosts();
        let mut why = Vec::new();
        for _ in 0..60 {
            self.collect(Duration::from_secs(1));
            let ghosts = self.ghosts();
            lasting.retain(|pid| ghosts.contains(pid));
            why = self.leftovers();
            let theirs = gone.intersection(&ghosts).count();
            if lasting.is_empty() && theirs == 0 && why.is_empty() {
                return;
            }
            why.push(format!(
                "{theirs} of the test's own processes and {} others are not forgotten",
                lasting.len()
            ));
        }
        panic!("{why:#?}\n{:#?}", self.tables());
    }

    /// Processes that are in the table and have ended.
    fn ghosts(&self) -> HashSet<u32> {
        let there: HashSet<u32> = scan::processes().expect("/proc is there").into_iter().collect();
        self.session().collector().processes().pids().filter(|pid| !there.contains(pid)).collect()
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let collector = self.session().collector();
        let mut check = |holds: bool, what: String| {
            if !holds {
                left.push(what);
            }
        };
        let tables = self.tables();
        let entries = |name| tables[name].entries;
        let published = ["published processes", "unwind process mappings", "unwind processes"].map(entries);
        check(published[0] == published[1], format!("published, by collector and unwinder: {published:?}"));
        check(published[2] <= published[1], format!("published, by unwinder and programs: {published:?}"));
        let arena = collector.unwinder().memory_use();
        check(arena.bytes == arena.occupied, format!("arena: {arena:?}"));
        check(arena.processes == published[2], format!("arena and process table: {arena:?} {published:?}"));
        check(arena.pages == entries("unwind pages"), format!("arena and page table: {arena:?}"));
        for table in tables.values() {
            check(table.bytes <= table.budget, format!("over its budget: {table:?}"));
        }
        left
    }
}

/// Descriptors of this process: how many are files on a disk, as modules are, and how many anything else.
pub(crate) fn descriptors() -> (Vec<String>, usize) {
    let links = fs::read_dir("/proc/self/fd").expect("/proc is there");
    let targets = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    let elsewhere = ["/proc", "/dev", "/sys"];
    let on_disk = |target: &String| {
        target.starts_with('/') && !elsewhere.iter().any(|root| Path::new(target).starts_with(root))
    };
    let (files, others): (Vec<_>, Vec<_>) =
        targets.map(|target| target.display().to_string()).partition(on_disk);
    (files, others.len())
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").expect("/proc is there").count()
}
