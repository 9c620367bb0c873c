//! From frames to what is known of them: what readers look into, and what is remembered.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kernel::sideband::record::KernelCode;
use crate::metrics::SelfMetrics;
use crate::process::module::{ModuleId, ModuleKey, ModuleTable};
use crate::symbol::byte_lru::ByteLru;
use crate::symbol::content::canonical;
use crate::symbol::debug_file::DebugFiles;
use crate::symbol::demangle::NameStyle;
use crate::symbol::dwarf::{DwarfCache, DwarfLimits};
use crate::symbol::frame::Frame;
use crate::symbol::function_name::FunctionName;
use crate::symbol::function_names::FunctionNames;
use crate::symbol::jit::{JitNames, JitProcessId};
use crate::symbol::kernel_names::{KernelName, KernelNames};
use crate::symbol::module_symbols::{DebugSources, NameSources};
use crate::symbol::opened_modules::OpenedModules;
use crate::symbol::readers::{About, Readers};
use crate::symbol::resolver::{ResolverUse, SymbolLimits};
use crate::symbol::symbols::{ModuleInfo, Symbols};
use crate::symbol::unresolved::UnresolvedReason;
use crate::table_use::TableUse;

/// Bytes for the names of BPF programs that are loaded while the agent runs: some two thousand.
const LOADED_CODE: usize = 256 << 10;
/// Frames of a module that are named together: enough that names which lie close together are read together and that locks and
/// look-ups of the module cost little, and few enough that a slow disk is not taken for one that hangs.
const TOGETHER: usize = 128;

/// What readers need to know to name a frame.
pub(super) struct Naming {
    modules: Arc<ModuleTable>,
    debug_files: Arc<DebugFiles>,
    kernel: KernelNames,
    kernel_module: Arc<ModuleInfo>,
    symbols: Mutex<ByteLru<Frame, Arc<Symbols>>>,
    /// How often something was remembered.
    remembered: AtomicU64,
    functions: FunctionNames,
    opened: OpenedModules,
    /// None when nobody wants lines.
    debug: Option<Arc<DwarfCache>>,
    jit: JitNames,
    jit_module: Arc<ModuleInfo>,
    style: NameStyle,
}

impl Naming {
    /// Knows nothing yet. Debug information, if it is wanted, takes half of the memory; of the rest generated code takes a sixth, then
    /// the indexes of modules two thirds; of what is left, three quarters are for frames and one for the names of functions, or the
    /// other way round where no lines are wanted: then a function's name is all that is to be known of its frames.
    pub(super) fn new(
        modules: Arc<ModuleTable>,
        debug_files: Arc<DebugFiles>,
        limits: &SymbolLimits,
        metrics: &SelfMetrics,
    ) -> Self {
        let for_lines = if limits.lines { limits.memory / 2 } else { 0 };
        let for_jit = (limits.memory - for_lines) / 6;
        let budget = limits.memory - for_lines - for_jit;
        let for_names = budget / 3;
        let for_functions = if limits.lines { for_names / 4 } else { for_names / 4 * 3 };
        Self {
            kernel: KernelNames::new(LOADED_CODE, metrics.kallsyms_loads.clone()),
            kernel_module: Arc::new(ModuleInfo::named("[kernel]")),
            symbols: Mutex::new(ByteLru::new(for_names - for_functions)),
            remembered: AtomicU64::new(0),
            functions: FunctionNames::new(for_functions),
            opened: OpenedModules::new(modules.clone(), debug_files.clone(), budget - for_names),
            debug: limits.lines.then(|| DwarfCache::new(for_lines, DwarfLimits::new(limits.debug_info))),
            jit: JitNames::new(for_jit, limits.jvm_perf_map),
            jit_module: Arc::new(ModuleInfo::named("[jit]")),
            style: limits.style,
            modules,
            debug_files,
        }
    }

    /// Says who closes files.
    pub(super) fn closed_by(&self, readers: &Arc<Readers>) {
        self.opened.closed_by(readers);
    }

    /// Where debug files are found.
    pub(super) fn debug_files(&self) -> &Arc<DebugFiles> {
        &self.debug_files
    }

    /// What readers have to look into for the name of `frame`; `None` when no foreign file is needed.
    pub(super) fn read_for(&self, frame: Frame) -> Option<About> {
        match frame {
            Frame::User { module, .. } => Some(
                self.modules
                    .get(module)
                    .map_or_else(|| About::retired(module), |module| About::module(&module)),
            ),
            Frame::Anonymous { pid, .. } => Some(About::process(pid)),
            Frame::Kernel { .. }
            | Frame::Unmapped
            | Frame::UnknownProcess
            | Frame::StackTableFull
            | Frame::StackNotSampled
            | Frame::Interrupt => None,
        }
    }

    /// How often something was remembered so far: as long as that stays so, what is not known does not become known.
    pub(super) fn remembered(&self) -> u64 {
        self.remembered.load(Ordering::Relaxed)
    }

    /// What is remembered of each of `frames`.
    pub(super) fn known(&self, frames: impl Iterator<Item = Frame>) -> Vec<Option<Arc<Symbols>>> {
        let mut symbols = lock(&self.symbols);
        frames.map(|frame| symbols.get(&frame).cloned()).collect()
    }

    /// Puts in its place in `found` what can be told of each of `frames` without reading anything and without lines, and takes it out of
    /// `frames`, which are in the order of places.
    ///
    /// None of it is remembered, for telling it again costs no more than remembering it.
    pub(super) fn tell_from_memory(
        &self,
        frames: &mut Vec<(usize, Frame)>,
        found: &mut [Option<Arc<Symbols>>],
    ) {
        if self.debug.is_some() {
            return;
        }
        for of_module in frames.chunk_by(|(_, one), (_, other)| one.module() == other.module()) {
            let Some(module) = of_module.first().and_then(|(_, frame)| frame.module()) else { continue };
            // Finding out what it stands for would be reading.
            let (Some(shown), Some(standing)) = (self.modules.get(module), self.modules.canonical(module))
            else {
                continue;
            };
            let offsets: Vec<u64> = of_module.iter().map(|(_, frame)| frame.file_offset()).collect();
            let _is_open = self.opened.with_open(standing, |opened| {
                opened.symbols_in_memory(
                    standing,
                    &shown.key,
                    &offsets,
                    &self.functions,
                    &mut |at, symbols| {
                        let place = of_module.get(at).and_then(|(index, _)| found.get_mut(*index));
                        if let Some(place) = place {
                            *place = Some(Arc::new(symbols.in_style(self.style)));
                        }
                    },
                );
            });
        }
        frames.retain(|(index, _)| found.get(*index).is_some_and(Option::is_none));
    }

    /// Whether names of the module of `frame` may be read in several parts at a time: it is open, and no lines are wanted.
    pub(super) fn is_open_for_names(&self, frame: Frame) -> bool {
        let standing = frame.module().and_then(|module| self.modules.canonical(module));
        self.debug.is_none() && standing.and_then(|module| self.opened.with_open(module, |_| ())).is_some()
    }

    /// Tells `answer` what is known of each of `frames`, by the number that stands with it, until it says that nobody listens.
    /// Frames of one module are to follow each other in the order of their addresses. None of them was known when the caller looked
    /// at [`remembered`](Self::remembered) and saw `since`. Reads files where `read_for` says so.
    pub(super) fn resolve_in_order(
        &self,
        frames: &[(usize, Frame)],
        mut since: Option<u64>,
        mut answer: impl FnMut(usize, Arc<Symbols>) -> bool,
    ) {
        let mut missing = Vec::new();
        for piece in frames.chunks(TOGETHER) {
            missing.clear();
            if since == Some(self.remembered()) {
                missing.extend_from_slice(piece);
            } else if !self.split_known(piece, &mut missing, &mut answer) {
                return;
            }
            for same in missing.chunk_by(|(_, one), (_, other)| one.module() == other.module()) {
                // Whoever asks at the end of a window had the frame named when it was new. If not, the function's name is kept.
                let is_of_module = same.first().is_some_and(|(_, frame)| frame.module().is_some());
                let remembers = since.is_none() || self.debug.is_some() || !is_of_module;
                if !self.find(same, remembers, &mut answer) {
                    return;
                }
                // Its own turn.
                since = since.map(|since| since.wrapping_add(u64::from(remembers)));
            }
        }
    }

    /// Tells `answer` what is known of `frames` by now and puts the others into `missing`; false when nobody listens any more.
    fn split_known(
        &self,
        frames: &[(usize, Frame)],
        missing: &mut Vec<(usize, Frame)>,
        answer: &mut impl FnMut(usize, Arc<Symbols>) -> bool,
    ) -> bool {
        let known = self.known(frames.iter().map(|(_, frame)| *frame));
        frames.iter().zip(known).all(|((index, frame), known)| {
            let Some(symbols) = known else {
                missing.push((*index, *frame));
                return true;
            };
            answer(*index, symbols)
        })
    }

    /// Finds out what is known of `frames`, all of one module or of none, and remembers it if it is to; false when nobody listens any
    /// more.
    fn find(
        &self,
        frames: &[(usize, Frame)],
        remembers: bool,
        answer: &mut impl FnMut(usize, Arc<Symbols>) -> bool,
    ) -> bool {
        let mut fresh = Vec::new();
        let mut listens = true;
        self.look_up(frames, &mut |(index, frame), symbols| {
            let symbols = Arc::new(symbols.in_style(self.style));
            if remembers {
                fresh.push((frame, symbols.clone()));
            }
            listens = answer(index, symbols);
            listens
        });
        if remembers {
            self.remember(fresh);
        }
        if let Some(module) = frames.first().and_then(|(_, frame)| frame.module())
            && !self.modules.has(module)
        {
            // It was retired, before or meanwhile: nothing of it is to stay behind.
            self.forget(&HashSet::from([module]));
        }
        listens
    }

    fn remember(&self, fresh: Vec<(Frame, Arc<Symbols>)>) {
        let mut symbols = lock(&self.symbols);
        self.remembered.fetch_add(1, Ordering::Relaxed);
        for (frame, found) in fresh {
            // What generated code has no name may get one, and what has one may be replaced: it has caches of its own, which know.
            if !matches!(frame, Frame::Anonymous { .. }) {
                let bytes = found.heap_bytes() + size_of::<Symbols>();
                symbols.insert(frame, found, bytes);
            }
        }
    }

    /// `frame`, whose file could not be read in time. It is not remembered: another time may be a better one.
    pub(super) fn stalled(&self, frame: Frame) -> Symbols {
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

    /// Tells `found` what is known of each of `frames`, all of one module or of none, until it says that nobody listens.
    fn look_up(&self, frames: &[(usize, Frame)], found: &mut dyn FnMut((usize, Frame), Symbols) -> bool) {
        if let Some((_, Frame::User { module, .. })) = frames.first() {
            return self.look_up_in(*module, frames, found);
        }
        for (index, frame) in frames {
            if !found((*index, *frame), self.symbols_of(*frame)) {
                return;
            }
        }
    }

    fn look_up_in(
        &self,
        module: ModuleId,
        frames: &[(usize, Frame)],
        found: &mut dyn FnMut((usize, Frame), Symbols) -> bool,
    ) {
        let standing = self.modules.get(canonical(&self.modules, module));
        let (Some(shown), Some(module)) = (self.modules.get(module), standing) else {
            let gone = || Symbols::marker("[retired module]", Some(UnresolvedReason::Gone));
            let _listens = frames.iter().all(|frame| found(*frame, gone()));
            return;
        };
        let offsets: Vec<u64> = frames.iter().map(|(_, frame)| frame.file_offset()).collect();
        let debug = self.debug.as_ref().map(|cache| DebugSources { files: &self.debug_files, cache });
        let sources = NameSources { functions: &self.functions, debug: debug.as_ref() };
        self.opened.with(&module, |opened| {
            let mut frames = frames.iter();
            opened.symbols(&module, &shown.key, &offsets, &sources, &mut |symbols| {
                frames.next().is_some_and(|frame| found(*frame, symbols))
            });
        });
    }

    /// What is known of a frame of no module.
    fn symbols_of(&self, frame: Frame) -> Symbols {
        match frame {
            Frame::Kernel { address } => self.kernel_symbols(address),
            Frame::Anonymous { pid, image, start, address, .. } => {
                match self.jit.find(JitProcessId { pid, image }, address) {
                    Ok(function) => Symbols::named(self.jit_module.clone(), address, function),
                    Err(reason) => {
                        let module = Arc::new(ModuleInfo::named("[anon]"));
                        Symbols::unnamed(module, address.saturating_sub(start), reason)
                    }
                }
            }
            Frame::StackTableFull => Symbols::marker("[stack table full]", None),
            Frame::StackNotSampled => Symbols::marker("[stack not sampled]", None),
            Frame::Interrupt => Symbols::marker("[interrupt]", None),
            Frame::Unmapped => Symbols::marker("[unmapped]", Some(UnresolvedReason::Unmapped)),
            Frame::UnknownProcess | Frame::User { .. } => {
                Symbols::marker("[unknown]", Some(UnresolvedReason::UnknownProcess))
            }
        }
    }

    fn kernel_symbols(&self, address: u64) -> Symbols {
        match self.kernel.look_up(address) {
            Some(KernelName { name, module }) => {
                let module = match module {
                    Some(module) => Arc::new(ModuleInfo::named(format!("[{module}]"))),
                    None => self.kernel_module.clone(),
                };
                Symbols::named(module, address, FunctionName::new(&*name, &name))
            }
            None => Symbols::unnamed(self.kernel_module.clone(), address, UnresolvedReason::KernelHidden),
        }
    }

    /// Reads the kernel's symbols.
    pub(super) fn load_kernel(&self) {
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

    /// Reads the kernel's symbols again where its modules have changed.
    pub(super) fn refresh_kernel(&self) {
        if self.kernel.refresh() {
            lock(&self.symbols).retain(|frame| !matches!(frame, Frame::Kernel { .. }));
        }
    }

    /// Notes that the kernel has loaded code, whose name is that of its addresses from now on.
    pub(super) fn kernel_code_loaded(&self, code: KernelCode) {
        let place = code.start..code.start.saturating_add(u64::from(code.length));
        self.kernel.add(code);
        lock(&self.symbols)
            .retain(|frame| !matches!(frame, Frame::Kernel { address } if place.contains(address)));
    }

    /// Drops everything that was derived from modules that are retired.
    pub(super) fn forget(&self, retired: &HashSet<ModuleId>) {
        lock(&self.symbols).retain(|frame| frame.module().is_none_or(|module| !retired.contains(&module)));
        self.functions.forget(retired);
        for id in retired {
            self.opened.forget(*id);
        }
    }

    /// Closes the files of modules that nobody maps at the moment.
    pub(super) fn close(&self, idle: &[ModuleId]) {
        for id in idle {
            self.opened.close_idle(*id);
        }
    }

    /// How full each cache is.
    pub(super) fn table_uses(&self) -> [TableUse; 3] {
        [lock(&self.symbols).table_use("names"), self.functions.table_use(), self.opened.table_use()]
    }

    /// How full the caches are and what they did.
    pub(super) fn memory_use(&self) -> ResolverUse {
        let (kernel_symbols, kernel_bytes) = self.kernel.size();
        let (index_bytes, index_counts) = self.opened.usage();
        let (function_bytes, function_counts) = self.functions.usage();
        let symbols = lock(&self.symbols);
        ResolverUse {
            kernel_symbols,
            kernel_bytes,
            symbol_bytes: symbols.bytes(),
            symbol_counts: symbols.counts(),
            function_bytes,
            function_counts,
            index_bytes,
            index_counts,
            debug: self.debug.as_ref().map(|debug| debug.memory_use()),
            jit: self.jit.memory_use(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The caches are whole between any two operations on them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
