//! The one resolver: every profiler and exporter asks it, nobody has another.
//!
//! It is made once, in the composition root, and handed on as `Arc<Resolver>`. A thread of its own reads the
//! kernel's symbols first and then names frames while their processes are alive; whoever needs a name earlier than that takes
//! part in the work.

use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::{io, thread};

use lru::LruCache;

use crate::process::module::{Module, ModuleId, ModuleTable};
use crate::symbol::byte_lru::{ByteLru, CacheCounts};
use crate::symbol::frame::Frame;
use crate::symbol::kallsyms::{Kallsyms, KallsymsError};
use crate::symbol::module_symbols::ModuleSymbols;
use crate::symbol::symbols::{ModuleInfo, Symbols};
use crate::symbol::unresolved::UnresolvedReason;

/// Frames that wait for the resolver's thread; those beyond are named when they are asked for.
const QUEUE: usize = 1 << 16;
/// Files that are open at once.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Turns frames into names, from caches that share one byte budget.
pub struct Resolver {
    modules: Arc<ModuleTable>,
    kernel: OnceLock<Result<Kallsyms, KallsymsError>>,
    kernel_module: Arc<ModuleInfo>,
    symbols: Mutex<ByteLru<Frame, Arc<Symbols>>>,
    indexed: Mutex<ByteLru<ModuleId, Arc<Slot>>>,
    open_files: Mutex<LruCache<ModuleId, Weak<Slot>>>,
    queue: SyncSender<Frame>,
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
}

impl Resolver {
    /// Makes the resolver and starts its thread. `budget` bytes are shared by the cache of names (a third) and the
    /// indexes of modules (the rest); the kernel's symbols come on top.
    pub fn new(modules: Arc<ModuleTable>, budget: usize) -> io::Result<Arc<Self>> {
        let (queue, requests) = sync_channel(QUEUE);
        let resolver = Arc::new(Self {
            modules,
            kernel: OnceLock::new(),
            kernel_module: Arc::new(ModuleInfo::named("[kernel]")),
            symbols: Mutex::new(ByteLru::new(budget / 3)),
            indexed: Mutex::new(ByteLru::new(budget - budget / 3)),
            open_files: Mutex::new(LruCache::new(OPEN_FILES)),
            queue,
        });
        // The thread must not keep the resolver alive: it ends when the queue's sender is dropped with it.
        let weak = Arc::downgrade(&resolver);
        thread::Builder::new().name("resolver".into()).spawn(move || work(&weak, &requests))?;
        Ok(resolver)
    }

    /// Asks for `frame` to be named soon, while its process and file are still there. Never waits.
    pub fn prefetch(&self, frame: Frame) {
        // A full queue is no loss: the frame is named when it is asked for.
        let _full = self.queue.try_send(frame);
    }

    /// What is known of `frame`.
    pub fn resolve(&self, frame: Frame) -> Arc<Symbols> {
        if let Some(symbols) = lock(&self.symbols).get(&frame) {
            return symbols.clone();
        }
        let symbols = Arc::new(self.look_up(frame));
        let bytes = symbols.heap_bytes() + size_of::<Symbols>();
        lock(&self.symbols).insert(frame, symbols.clone(), bytes);
        symbols
    }

    /// How full the caches are and what they did.
    pub fn memory_use(&self) -> ResolverUse {
        let kernel = self.kernel.get().and_then(|kernel| kernel.as_ref().ok());
        let (symbols, indexed) = (lock(&self.symbols), lock(&self.indexed));
        ResolverUse {
            kernel_symbols: kernel.map_or(0, Kallsyms::len),
            kernel_bytes: kernel.map_or(0, Kallsyms::heap_bytes),
            symbol_bytes: symbols.bytes(),
            symbol_counts: symbols.counts(),
            index_bytes: indexed.bytes(),
            index_counts: indexed.counts(),
        }
    }

    fn look_up(&self, frame: Frame) -> Symbols {
        match frame {
            Frame::Kernel { address } => self.kernel_symbols(address),
            Frame::User { module, file_offset, .. } => {
                let module = self.modules.get(module);
                let slot = self.slot(&module);
                let symbols = self.opened(&slot, &module).symbols(&module, file_offset);
                self.note_open(&slot, module.id);
                symbols
            }
            Frame::Anonymous { start, address, .. } => {
                let module = Arc::new(ModuleInfo::named("[anon]"));
                Symbols::unnamed(module, address.saturating_sub(start), UnresolvedReason::Anonymous)
            }
            Frame::Unmapped => Symbols::marker("[unmapped]", Some(UnresolvedReason::Unmapped)),
            Frame::UnknownProcess => Symbols::marker("[unknown]", Some(UnresolvedReason::UnknownProcess)),
            Frame::StackTableFull => Symbols::marker("[stack table full]", None),
        }
    }

    fn kernel_symbols(&self, address: u64) -> Symbols {
        // The resolver's thread reads them first thing; this waits for it at most once.
        let found = self.kernel.wait().as_ref().ok().and_then(|kernel| kernel.lookup(address));
        match found {
            Some(symbol) => {
                let module = match symbol.module {
                    Some(module) => Arc::new(ModuleInfo::named(format!("[{module}]"))),
                    None => self.kernel_module.clone(),
                };
                Symbols::named(module, address, symbol.name.clone(), symbol.name)
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
        indexed.insert(module.id, slot.clone(), size_of::<Slot>());
        slot
    }

    fn opened<'a>(&self, slot: &'a Slot, module: &Module) -> &'a ModuleSymbols {
        slot.get_or_init(|| {
            let opened = ModuleSymbols::open(module);
            lock(&self.indexed).reweigh(&module.id, opened.heap_bytes());
            opened
        })
    }

    /// Notes that the module's file is open, and closes the one that was not used for longest if there are too many.
    fn note_open(&self, slot: &Arc<Slot>, id: ModuleId) {
        let pushed_out = lock(&self.open_files).push(id, Arc::downgrade(slot));
        if let Some((other, slot)) = pushed_out
            && other != id
            && let Some(module) = slot.upgrade()
            && let Some(module) = module.get()
        {
            module.close();
        }
    }
}

fn work(resolver: &Weak<Resolver>, requests: &Receiver<Frame>) {
    if let Some(resolver) = resolver.upgrade() {
        let kernel = Kallsyms::load();
        match &kernel {
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
        // Nobody else sets it.
        let _first = resolver.kernel.set(kernel);
    }
    while let Ok(frame) = requests.recv() {
        let Some(resolver) = resolver.upgrade() else { break };
        resolver.resolve(frame);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The caches are whole between any two operations on them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
