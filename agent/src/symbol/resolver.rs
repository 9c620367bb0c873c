//! The one resolver: every profiler and exporter asks it, nobody has another.
//!
//! It is made once, in the composition root, and handed on as `Arc<Resolver>`. Its [`Readers`] name frames while their processes
//! are alive, different modules at the same time; whoever asks for a name waits for them, and not for a file system
//! that hangs.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::kernel::sideband::record::KernelCode;
use crate::metrics::{ResolverCounted, SelfMetrics};
use crate::process::module::{ModuleId, ModuleTable};
use crate::symbol::byte_lru::CacheCounts;
use crate::symbol::debug_file::DebugFiles;
use crate::symbol::demangle::NameStyle;
use crate::symbol::dwarf::DwarfUse;
use crate::symbol::frame::Frame;
use crate::symbol::jit::JitUse;
use crate::symbol::jit::jvm::JvmPerfMap;
use crate::symbol::naming::Naming;
use crate::symbol::readers::{About, ReaderCounts, ReaderLimits, Readers, Turn};
use crate::symbol::symbols::Symbols;
use crate::table_use::TableUse;

/// However many file systems are slow, nobody waits longer than this for names.
const MOST_PATIENCE: Duration = Duration::from_mins(2);
/// Frames of a module of which each reader names a part, where they are more: fewer are not worth waking another one.
const PART: usize = 1024;
/// What a reader has found is handed over at least this often: waking somebody costs as much as finding several names.
const HAND_OVER: Duration = Duration::from_millis(1);

/// Who reads modules for their names. A module's index may take seconds to make from a cold disk; what takes longer than that
/// is used when it is done, but nobody waits for it.
pub const READERS: ReaderLimits =
    ReaderLimits { threads: 2, abandoned: 8, patience: Duration::from_secs(5), queue: 1 << 16 };

/// Turns frames into names, from caches that share one byte budget.
pub struct Resolver {
    naming: Arc<Naming>,
    readers: Arc<Readers>,
    _counted: ResolverCounted,
}

/// What the resolver may take, and what it is to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SymbolLimits {
    /// Bytes for all caches together. The kernel's symbols come on top.
    pub memory: usize,
    /// Whether source lines and inlined functions are looked for.
    pub lines: bool,
    /// Bytes of debug information of a file beyond which there are names without lines.
    pub debug_info: u64,
    /// Whether HotSpot JVMs are asked for their maps.
    pub jvm_perf_map: JvmPerfMap,
    /// How functions are called.
    pub style: NameStyle,
}

/// How full the resolver's caches are and what they did.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResolverUse {
    /// Kernel symbols.
    pub kernel_symbols: usize,
    /// Bytes of the kernel's symbols.
    pub kernel_bytes: usize,
    /// Bytes of what is known of frames.
    pub symbol_bytes: usize,
    /// What the cache of frames did.
    pub symbol_counts: CacheCounts,
    /// Bytes of names of functions.
    pub function_bytes: usize,
    /// What the cache of names of functions did.
    pub function_counts: CacheCounts,
    /// Bytes of modules' indexes.
    pub index_bytes: usize,
    /// What the cache of indexes did.
    pub index_counts: CacheCounts,
    /// Debug information; `None` when nobody wants lines.
    pub debug: Option<DwarfUse>,
    /// Generated code.
    pub jit: JitUse,
}

impl Resolver {
    /// Makes the resolver and starts its [`READERS`]. Debug information, if it is wanted, takes half of the memory; of the rest generated
    /// code takes a sixth, then names a third and the indexes of modules two; the kernel's symbols come on top. Stripped modules get
    /// their names from what `debug_files` finds. That there is a resolver, and that it has read kallsyms, shows in `metrics`.
    pub fn new(
        modules: Arc<ModuleTable>,
        debug_files: Arc<DebugFiles>,
        limits: SymbolLimits,
        metrics: &SelfMetrics,
    ) -> io::Result<Arc<Self>> {
        Self::with_readers(modules, debug_files, limits, metrics, READERS)
    }

    /// As [`Resolver::new`], with readers of the caller's choice.
    pub fn with_readers(
        modules: Arc<ModuleTable>,
        debug_files: Arc<DebugFiles>,
        limits: SymbolLimits,
        metrics: &SelfMetrics,
        readers: ReaderLimits,
    ) -> io::Result<Arc<Self>> {
        let counted = ResolverCounted::new();
        let naming = Arc::new(Naming::new(modules, debug_files, &limits, metrics));
        let readers = Arc::new(Readers::start("symbols", readers)?);
        naming.closed_by(&readers);
        let of_thread = naming.clone();
        thread::Builder::new().name("kallsyms".into()).spawn(move || of_thread.load_kernel())?;
        Ok(Arc::new(Self { naming, readers, _counted: counted }))
    }

    /// Asks for `frames` to be named soon, while their processes and files are still there. Never waits. Those that come together
    /// cost less: what is wanted of a module is read in one go.
    pub fn prefetch(&self, frames: impl IntoIterator<Item = Frame>) {
        let mut wanted: Vec<(usize, Frame)> = frames.into_iter().enumerate().collect();
        wanted.sort_unstable_by_key(|(_, frame)| frame.place());
        for wanted in wanted.chunk_by(|(_, one), (_, other)| one.place().subject == other.place().subject) {
            let about = wanted.first().and_then(|(_, frame)| self.naming.read_for(*frame));
            let Some(about) = about else { continue };
            let (naming, wanted) = (self.naming.clone(), wanted.to_vec());
            // What is refused is no loss: the frame is named when it is asked for.
            self.readers.offer(about, move |turn| {
                let mut began = Instant::now();
                naming.resolve_in_order(&wanted, None, |_, _| {
                    if began.elapsed() < HAND_OVER {
                        return true;
                    }
                    began = Instant::now();
                    turn.goes_on()
                });
            });
        }
    }

    /// What is known of `frame`.
    pub fn resolve(&self, frame: Frame) -> Arc<Symbols> {
        self.resolve_all(&[frame]).pop().unwrap_or_else(|| Arc::new(self.naming.stalled(frame)))
    }

    /// What is known of each of `frames`. Those whose files' file systems do not answer are `module+0xoffset`; nobody waits for them for
    /// longer than readers do.
    pub fn resolve_all(&self, frames: &[Frame]) -> Vec<Arc<Symbols>> {
        self.naming.refresh_kernel();
        let mut found = vec![None; frames.len()];
        let mut unknown: Vec<(usize, Frame)> = frames.iter().copied().enumerate().collect();
        // Neighbours share a function, a piece of a string table, a unit of debug information.
        unknown.sort_unstable_by_key(|(_, frame)| frame.place());
        self.naming.tell_from_memory(&mut unknown, &mut found);
        let since = self.naming.remembered();
        let known = self.naming.known(unknown.iter().map(|(_, frame)| *frame));
        for ((index, _), known) in unknown.iter().zip(known) {
            if let Some(place) = found.get_mut(*index) {
                *place = known;
            }
        }
        unknown.retain(|(index, _)| found.get(*index).is_some_and(Option::is_none));
        self.read_names(&unknown, since, &mut found);
        let named = found.into_iter().zip(frames);
        named.map(|(found, frame)| found.unwrap_or_else(|| Arc::new(self.naming.stalled(*frame)))).collect()
    }

    /// Lets readers find names, all of a module in one go. `unknown` is in the order of places, and was not known at `since`.
    fn read_names(&self, unknown: &[(usize, Frame)], since: u64, found: &mut [Option<Arc<Symbols>>]) {
        let deadline = Instant::now() + MOST_PATIENCE;
        let (sender, answers) = channel();
        let mut subjects = Vec::new();
        let mut at_once = Vec::new();
        for wanted in unknown.chunk_by(|(_, one), (_, other)| one.place().subject == other.place().subject) {
            let about = wanted.first().and_then(|(_, frame)| self.naming.read_for(*frame));
            let Some(about) = about else {
                at_once.push(wanted);
                continue;
            };
            for (about, wanted) in self.parts(&about, wanted) {
                let (naming, sender, wanted) = (self.naming.clone(), sender.clone(), wanted.to_vec());
                let job = move |turn: &Turn<'_>| {
                    let mut answers =
                        Answers { sender, turn, ready: Vec::new(), handed_over: Instant::now() };
                    naming
                        .resolve_in_order(&wanted, Some(since), |index, symbols| answers.add(index, symbols));
                    answers.hand_over();
                };
                if self.readers.submit(about.clone(), job).is_ok() {
                    subjects.push(about);
                }
            }
        }
        drop(sender);
        let mut place = |index: usize, symbols| {
            if let Some(place) = found.get_mut(index) {
                *place = Some(symbols);
            }
        };
        for wanted in at_once {
            self.naming.resolve_in_order(wanted, Some(since), |index, symbols| {
                place(index, symbols);
                true
            });
        }
        while let Some(answers) = self.readers.next(&answers, &subjects, Some(deadline)) {
            for (index, symbols) in answers {
                place(index, symbols);
            }
        }
    }

    /// Parts of `wanted`, all about one subject, that may be read at the same time.
    fn parts<'a>(&self, about: &About, wanted: &'a [(usize, Frame)]) -> Vec<(About, &'a [(usize, Frame)])> {
        let parts = (wanted.len() / PART).min(READERS.threads);
        let is_open = wanted.first().is_some_and(|(_, frame)| self.naming.is_open_for_names(*frame));
        if parts < 2 || !is_open || about.part(0).is_none() {
            return vec![(about.clone(), wanted)];
        }
        let pieces = wanted.chunks(wanted.len().div_ceil(parts)).enumerate();
        pieces.filter_map(|(number, piece)| Some((about.part(number)?, piece))).collect()
    }

    /// Notes that the kernel has loaded code, whose name is that of its addresses from now on.
    pub fn kernel_code_loaded(&self, code: KernelCode) {
        self.naming.kernel_code_loaded(code);
    }

    /// Where debug files are found.
    pub fn debug_files(&self) -> &Arc<DebugFiles> {
        self.naming.debug_files()
    }

    /// Drops everything that was derived from modules that are retired.
    pub fn forget(&self, retired: &HashSet<ModuleId>) {
        self.naming.forget(retired);
    }

    /// Closes the files of modules that nobody maps at the moment.
    pub fn close(&self, idle: &[ModuleId]) {
        self.naming.close(idle);
    }

    /// What readers did so far.
    pub fn reader_counts(&self) -> ReaderCounts {
        self.readers.counts()
    }

    /// How full each cache is.
    pub fn table_uses(&self) -> [TableUse; 3] {
        self.naming.table_uses()
    }

    /// How full the caches are and what they did.
    pub fn memory_use(&self) -> ResolverUse {
        self.naming.memory_use()
    }
}

/// What is known of frames, by their numbers.
type Named = Vec<(usize, Arc<Symbols>)>;

/// What a reader has found and somebody waits for.
struct Answers<'a, 't> {
    sender: Sender<Named>,
    turn: &'a Turn<'t>,
    ready: Named,
    handed_over: Instant,
}

impl Answers<'_, '_> {
    /// False when nobody is there to hear the next.
    fn add(&mut self, index: usize, symbols: Arc<Symbols>) -> bool {
        self.ready.push((index, symbols));
        self.handed_over.elapsed() < HAND_OVER || self.hand_over()
    }

    fn hand_over(&mut self) -> bool {
        self.handed_over = Instant::now();
        self.sender.send(std::mem::take(&mut self.ready)).is_ok() && self.turn.goes_on()
    }
}

#[cfg(test)]
mod tests;
