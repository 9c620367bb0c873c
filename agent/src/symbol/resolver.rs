//! The one resolver: every profiler and exporter asks it, nobody has another.
//!
//! It is made once, in the composition root, and handed on as `Arc<Resolver>`. Its [`Readers`] name frames while their processes
//! are alive, different modules at the same time; whoever asks for a name waits for them, and not for a file system
//! that hangs.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use lru::LruCache;

use crate::kernel::sideband::record::KernelCode;
use crate::metrics::{ResolverCounted, SelfMetrics};
use crate::process::module::{Module, ModuleId, ModuleKey, ModuleTable};
use crate::symbol::byte_lru::{ByteLru, CacheCounts};
use crate::symbol::content::canonical;
use crate::symbol::debug_file::DebugFiles;
use crate::symbol::demangle::NameStyle;
use crate::symbol::dwarf::{DwarfCache, DwarfLimits, DwarfUse};
use crate::symbol::frame::Frame;
use crate::symbol::jit::jvm::JvmPerfMap;
use crate::symbol::jit::{JitNames, JitProcessId, JitUse};
use crate::symbol::kernel_names::{KernelName, KernelNames};
use crate::symbol::module_symbols::{DebugSources, ModuleSymbols};
use crate::symbol::readers::{About, ReaderCounts, ReaderLimits, Readers, Subject, Turn};
use crate::symbol::symbols::{FunctionName, ModuleInfo, Symbols};
use crate::symbol::unresolved::UnresolvedReason;
use crate::table_use::TableUse;

/// Modules whose files are open at once: a file for names, and one for lines where that is another.
const OPEN_MODULES: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// Bytes for the names of BPF programs that are loaded while the agent runs: some two thousand.
const LOADED_CODE: usize = 256 << 10;
/// However many file systems are slow, nobody waits longer than this for names.
const MOST_PATIENCE: Duration = Duration::from_mins(2);

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

/// What readers need to know to name a frame.
struct Naming {
    modules: Arc<ModuleTable>,
    debug_files: Arc<DebugFiles>,
    kernel: KernelNames,
    kernel_module: Arc<ModuleInfo>,
    symbols: Mutex<ByteLru<Frame, Arc<Symbols>>>,
    indexed: Mutex<ByteLru<ModuleId, Arc<Slot>>>,
    open_files: Mutex<LruCache<ModuleId, Weak<Slot>>>,
    /// None when nobody wants lines.
    debug: Option<Arc<DwarfCache>>,
    jit: JitNames,
    jit_module: Arc<ModuleInfo>,
    /// What a reader does not want any more is closed by one that may hang over it. Readers do not keep their own kind alive.
    readers: OnceLock<Weak<Readers>>,
    style: NameStyle,
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

/// A module that is being opened or has been: whoever comes second waits for the first.
type Slot = OnceLock<ModuleSymbols>;

/// How full the resolver's caches are and what they did.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResolverUse {
    /// Kernel symbols.
    pub kernel_symbols: usize,
    /// Bytes of the kernel's symbols.
    pub kernel_bytes: usize,
    /// Bytes of names.
    pub symbol_bytes: usize,
    /// What the cache of names did.
    pub symbol_counts: CacheCounts,
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
        let for_lines = if limits.lines { limits.memory / 2 } else { 0 };
        let for_jit = (limits.memory - for_lines) / 6;
        let budget = limits.memory - for_lines - for_jit;
        let debug = limits.lines.then(|| DwarfCache::new(for_lines, DwarfLimits::new(limits.debug_info)));
        let naming = Arc::new(Naming {
            modules,
            debug_files,
            kernel: KernelNames::new(LOADED_CODE, metrics.kallsyms_loads.clone()),
            kernel_module: Arc::new(ModuleInfo::named("[kernel]")),
            symbols: Mutex::new(ByteLru::new(budget / 3)),
            indexed: Mutex::new(ByteLru::new(budget - budget / 3)),
            open_files: Mutex::new(LruCache::new(OPEN_MODULES)),
            debug,
            jit: JitNames::new(for_jit, limits.jvm_perf_map),
            jit_module: Arc::new(ModuleInfo::named("[jit]")),
            readers: OnceLock::new(),
            style: limits.style,
        });
        let readers = Arc::new(Readers::start("symbols", readers)?);
        // Nobody else sets it.
        let _first = naming.readers.set(Arc::downgrade(&readers));
        let of_thread = naming.clone();
        thread::Builder::new().name("kallsyms".into()).spawn(move || of_thread.load_kernel())?;
        Ok(Arc::new(Self { naming, readers, _counted: counted }))
    }

    /// Asks for `frame` to be named soon, while its process and file are still there. Never waits.
    pub fn prefetch(&self, frame: Frame) {
        let Some(about) = self.naming.read_for(frame) else { return };
        let naming = self.naming.clone();
        // What is refused is no loss: the frame is named when it is asked for.
        self.readers.offer(about, move |_| drop(naming.resolve(frame)));
    }

    /// What is known of `frame`.
    pub fn resolve(&self, frame: Frame) -> Arc<Symbols> {
        self.resolve_all(&[frame]).pop().unwrap_or_else(|| Arc::new(self.naming.stalled(frame)))
    }

    /// What is known of each of `frames`. Those whose files' file systems do not answer are `module+0xoffset`; nobody waits for them for
    /// longer than readers do.
    pub fn resolve_all(&self, frames: &[Frame]) -> Vec<Arc<Symbols>> {
        if self.naming.kernel.refresh() {
            lock(&self.naming.symbols).retain(|frame| !matches!(frame, Frame::Kernel { .. }));
        }
        let mut found: Vec<_> = frames.iter().map(|frame| self.naming.known(*frame)).collect();
        let mut unknown: HashMap<Subject, (About, Vec<(usize, Frame)>)> = HashMap::new();
        for (index, (frame, symbols)) in frames.iter().zip(&mut found).enumerate() {
            if symbols.is_some() {
                continue;
            }
            match self.naming.read_for(*frame) {
                Some(about) => {
                    let (_, wanted) = unknown.entry(about.subject()).or_insert_with(|| (about, Vec::new()));
                    wanted.push((index, *frame));
                }
                None => *symbols = Some(self.naming.resolve(*frame)),
            }
        }
        self.read_names(unknown.into_values(), &mut found);
        let named = found.into_iter().zip(frames);
        named.map(|(found, frame)| found.unwrap_or_else(|| Arc::new(self.naming.stalled(*frame)))).collect()
    }

    /// Lets readers find names, all of a module in one go.
    fn read_names(
        &self,
        unknown: impl Iterator<Item = (About, Vec<(usize, Frame)>)>,
        found: &mut [Option<Arc<Symbols>>],
    ) {
        let deadline = Instant::now() + MOST_PATIENCE;
        let (sender, answers) = channel();
        let mut subjects = Vec::new();
        for (about, wanted) in unknown {
            let (naming, sender) = (self.naming.clone(), sender.clone());
            let job = move |turn: &Turn<'_>| {
                for (index, frame) in wanted {
                    // Without the answer nobody is there to hear the next.
                    if sender.send((index, naming.resolve(frame))).is_err() || !turn.goes_on() {
                        return;
                    }
                }
            };
            if self.readers.submit(about.clone(), job).is_ok() {
                subjects.push(about);
            }
        }
        drop(sender);
        while let Some((index, symbols)) = self.readers.next(&answers, &subjects, Some(deadline)) {
            if let Some(place) = found.get_mut(index) {
                *place = Some(symbols);
            }
        }
    }

    /// Notes that the kernel has loaded code, whose name is that of its addresses from now on.
    pub fn kernel_code_loaded(&self, code: KernelCode) {
        let Naming { kernel, symbols, .. } = &*self.naming;
        let place = code.start..code.start.saturating_add(u64::from(code.length));
        kernel.add(code);
        lock(symbols).retain(|frame| !matches!(frame, Frame::Kernel { address } if place.contains(address)));
    }

    /// Where debug files are found.
    pub fn debug_files(&self) -> &Arc<DebugFiles> {
        &self.naming.debug_files
    }

    /// Drops everything that was derived from modules that are retired.
    pub fn forget(&self, retired: &HashSet<ModuleId>) {
        self.naming.forget(retired);
    }

    /// Closes the files of modules that nobody maps at the moment.
    pub fn close(&self, idle: &[ModuleId]) {
        for id in idle {
            if self.naming.modules.is_lent(*id) {
                // It is opened again where another one with the same content is mapped.
                lock(&self.naming.indexed).remove(id);
            }
            let slot = lock(&self.naming.open_files).pop(id).and_then(|slot| slot.upgrade());
            self.naming.close(*id, slot);
        }
    }

    /// What readers did so far.
    pub fn reader_counts(&self) -> ReaderCounts {
        self.readers.counts()
    }

    /// How full each cache is.
    pub fn table_uses(&self) -> [TableUse; 2] {
        let Naming { symbols, indexed, .. } = &*self.naming;
        [lock(symbols).table_use("names"), lock(indexed).table_use("function indexes")]
    }

    /// How full the caches are and what they did.
    pub fn memory_use(&self) -> ResolverUse {
        let naming = &self.naming;
        let (kernel_symbols, kernel_bytes) = naming.kernel.size();
        let (symbols, indexed) = (lock(&naming.symbols), lock(&naming.indexed));
        ResolverUse {
            kernel_symbols,
            kernel_bytes,
            symbol_bytes: symbols.bytes(),
            symbol_counts: symbols.counts(),
            index_bytes: indexed.bytes(),
            index_counts: indexed.counts(),
            debug: naming.debug.as_ref().map(|debug| debug.memory_use()),
            jit: naming.jit.memory_use(),
        }
    }
}

impl Naming {
    /// What readers have to look into for the name of `frame`; `None` when no foreign file is needed.
    fn read_for(&self, frame: Frame) -> Option<About> {
        match frame {
            Frame::User { module, .. } => Some(
                self.modules
                    .get(module)
                    .map_or_else(|| About::retired(module), |module| About::module(&module)),
            ),
            Frame::Anonymous { pid, .. } => Some(About::process(pid)),
            Frame::Kernel { .. } | Frame::Unmapped | Frame::UnknownProcess | Frame::StackTableFull => None,
        }
    }

    fn known(&self, frame: Frame) -> Option<Arc<Symbols>> {
        lock(&self.symbols).get(&frame).cloned()
    }

    /// What is known of `frame`. Reads files where `read_for` says so.
    fn resolve(&self, frame: Frame) -> Arc<Symbols> {
        if let Some(symbols) = self.known(frame) {
            return symbols;
        }
        let symbols = Arc::new(self.look_up(frame).in_style(self.style));
        if let Frame::Anonymous { .. } = frame {
            // What has no name may get one, and what has one may be replaced: it has caches of its own, which know.
            return symbols;
        }
        let bytes = symbols.heap_bytes() + size_of::<Symbols>();
        lock(&self.symbols).insert(frame, symbols.clone(), bytes);
        if let Frame::User { module, .. } = frame
            && !self.modules.has(module)
        {
            // It was retired, before or meanwhile: nothing of it is to stay behind.
            self.forget(&HashSet::from([module]));
        }
        symbols
    }

    /// `frame`, whose file could not be read in time. It is not remembered: another time may be a better one.
    fn stalled(&self, frame: Frame) -> Symbols {
        let (path, offset): (Arc<str>, _) = match frame {
            Frame::User { module, file_offset, .. } => {
                match self.modules.get(module).map(|module| module.key) {
                    Some(ModuleKey::File { path, .. }) => (path, file_offset),
                    Some(_) => ("[memory]".into(), file_offset),
                    None => return Symbols::marker("[retired module]", Some(UnresolvedReason::Gone)),
                }
            }
            Frame::Anonymous { start, address, .. } => ("[anon]".into(), address.saturating_sub(start)),
            _ => return Symbols::marker("[unknown]", Some(UnresolvedReason::Stalled)),
        };
        Symbols::unnamed(Arc::new(ModuleInfo::named(path)), offset, UnresolvedReason::Stalled)
    }

    fn forget(&self, retired: &HashSet<ModuleId>) {
        lock(&self.symbols).retain(|frame| match frame {
            Frame::User { module, .. } => !retired.contains(module),
            _ => true,
        });
        for id in retired {
            lock(&self.open_files).pop(id);
            let slot = lock(&self.indexed).remove(id);
            self.close(*id, slot);
        }
    }

    /// Has the files of the module `id` closed by a reader: a file system that hangs may hang over that too.
    fn close(&self, id: ModuleId, slot: Option<Arc<Slot>>) {
        let Some(slot) = slot else { return };
        let Some(readers) = self.readers.get().and_then(Weak::upgrade) else { return };
        let about = self.modules.get(id).map_or_else(|| About::retired(id), |module| About::module(&module));
        readers.discard(about, move || {
            if let Some(module) = slot.get() {
                module.close();
            }
        });
    }

    fn close_all(&self, gone: Vec<(ModuleId, Arc<Slot>)>) {
        for (id, slot) in gone {
            self.close(id, Some(slot));
        }
    }

    fn load_kernel(&self) {
        match self.kernel.load() {
            Ok(kernel) => tracing::info!(
                kernel_symbols = kernel.len(),
                kernel_symbol_bytes = kernel.heap_bytes(),
                "created shared symbol resolver for all profilers"
            ),
            Err(error) => {
                tracing::info!(kernel_symbols = 0, "created shared symbol resolver for all profilers");
                tracing::warn!("kernel functions will have no names: {error}");
            }
        }
    }

    fn look_up(&self, frame: Frame) -> Symbols {
        match frame {
            Frame::Kernel { address } => self.kernel_symbols(address),
            Frame::User { module, file_offset, .. } => {
                let standing = self.modules.get(canonical(&self.modules, module));
                let (Some(shown), Some(module)) = (self.modules.get(module), standing) else {
                    return Symbols::marker("[retired module]", Some(UnresolvedReason::Gone));
                };
                let slot = self.slot(&module);
                let opened = self.opened(&slot, &module);
                let debug = self.debug.as_ref().map(|cache| DebugSources { files: &self.debug_files, cache });
                let symbols = opened.symbols(&module, &shown.key, file_offset, debug.as_ref());
                if self.debug.is_some() {
                    // What is known of its debug information grows with questions.
                    let gone = lock(&self.indexed).reweigh(&module.id, opened.heap_bytes());
                    self.close_all(gone);
                }
                self.note_open(&slot, module.id);
                symbols
            }
            Frame::Anonymous { pid, image, start, address, .. } => {
                match self.jit.find(JitProcessId { pid, image }, address) {
                    Ok(FunctionName { name, system_name }) => {
                        Symbols::named(self.jit_module.clone(), address, name, system_name)
                    }
                    Err(reason) => {
                        let module = Arc::new(ModuleInfo::named("[anon]"));
                        Symbols::unnamed(module, address.saturating_sub(start), reason)
                    }
                }
            }
            Frame::Unmapped => Symbols::marker("[unmapped]", Some(UnresolvedReason::Unmapped)),
            Frame::UnknownProcess => Symbols::marker("[unknown]", Some(UnresolvedReason::UnknownProcess)),
            Frame::StackTableFull => Symbols::marker("[stack table full]", None),
        }
    }

    fn kernel_symbols(&self, address: u64) -> Symbols {
        match self.kernel.look_up(address) {
            Some(KernelName { name, module }) => {
                let module = match module {
                    Some(module) => Arc::new(ModuleInfo::named(format!("[{module}]"))),
                    None => self.kernel_module.clone(),
                };
                Symbols::named(module, address, name.clone(), name)
            }
            None => Symbols::unnamed(self.kernel_module.clone(), address, UnresolvedReason::KernelHidden),
        }
    }

    fn slot(&self, module: &Module) -> Arc<Slot> {
        let mut indexed = lock(&self.indexed);
        if let Some(slot) = indexed.get(&module.id) {
            return slot.clone();
        }
        let slot = Arc::new(Slot::new());
        let gone = indexed.insert(module.id, slot.clone(), size_of::<Slot>());
        drop(indexed);
        self.close_all(gone);
        slot
    }

    fn opened<'a>(&self, slot: &'a Slot, module: &Module) -> &'a ModuleSymbols {
        slot.get_or_init(|| {
            let opened = ModuleSymbols::open(module, &self.debug_files);
            let gone = lock(&self.indexed).reweigh(&module.id, opened.heap_bytes());
            self.close_all(gone);
            opened
        })
    }

    /// Notes that the module's file is open, and closes the one that was not used for longest if there are too many.
    fn note_open(&self, slot: &Arc<Slot>, id: ModuleId) {
        let pushed_out = lock(&self.open_files).push(id, Arc::downgrade(slot));
        if let Some((other, slot)) = pushed_out
            && other != id
        {
            self.close(other, slot.upgrade());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The caches are whole between any two operations on them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
