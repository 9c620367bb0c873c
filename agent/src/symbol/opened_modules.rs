//! Modules that were opened: their indexes within a byte budget, and few of their files open at a time.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use lru::LruCache;

use crate::process::module::{Module, ModuleId, ModuleTable};
use crate::symbol::byte_lru::{ByteLru, CacheCounts};
use crate::symbol::debug_file::DebugFiles;
use crate::symbol::module_symbols::ModuleSymbols;
use crate::symbol::readers::{About, Readers};
use crate::table_use::TableUse;

/// Modules whose files are open at once: a file for names, and one for lines where that is another.
const OPEN_MODULES: NonZeroUsize = NonZeroUsize::new(8).unwrap();

/// A module that is being opened or has been: whoever comes second waits for the first.
pub(super) type Slot = OnceLock<ModuleSymbols>;

/// What was derived from modules.
pub(super) struct OpenedModules {
    modules: Arc<ModuleTable>,
    debug_files: Arc<DebugFiles>,
    indexed: Mutex<ByteLru<ModuleId, Arc<Slot>>>,
    open_files: Mutex<LruCache<ModuleId, Weak<Slot>>>,
    /// What is not wanted any more is closed by a reader, who may hang over it. Readers do not keep their own kind alive.
    readers: OnceLock<Weak<Readers>>,
}

impl OpenedModules {
    /// Indexes of `modules` within `budget` bytes. Stripped modules get their names from what `debug_files` finds.
    pub(super) fn new(modules: Arc<ModuleTable>, debug_files: Arc<DebugFiles>, budget: usize) -> Self {
        Self {
            modules,
            debug_files,
            indexed: Mutex::new(ByteLru::new(budget)),
            open_files: Mutex::new(LruCache::new(OPEN_MODULES)),
            readers: OnceLock::new(),
        }
    }

    /// Says who closes files.
    pub(super) fn closed_by(&self, readers: &Arc<Readers>) {
        // Nobody else sets it.
        let _first = self.readers.set(Arc::downgrade(readers));
    }

    /// Lets `ask` at `module`, which is opened if it was not. It reads files.
    pub(super) fn with<T>(&self, module: &Module, ask: impl FnOnce(&ModuleSymbols) -> T) -> T {
        let slot = self.slot(module);
        let opened = slot.get_or_init(|| {
            let opened = ModuleSymbols::open(module, &self.debug_files);
            self.reweigh(module.id, &opened);
            opened
        });
        let answer = ask(opened);
        // What is known of its debug information grows with questions.
        self.reweigh(module.id, opened);
        self.note_open(&slot, module.id);
        answer
    }

    /// Lets `ask` at the module `id`, if it is open; nothing is read for that.
    pub(super) fn with_open<T>(&self, id: ModuleId, ask: impl FnOnce(&ModuleSymbols) -> T) -> Option<T> {
        let slot = lock(&self.indexed).get(&id).cloned();
        slot.as_ref().and_then(|slot| slot.get()).map(ask)
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

    fn reweigh(&self, id: ModuleId, opened: &ModuleSymbols) {
        let gone = lock(&self.indexed).reweigh(&id, opened.heap_bytes());
        self.close_all(gone);
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

    /// Drops what was derived from the module `id`, which is retired.
    pub(super) fn forget(&self, id: ModuleId) {
        lock(&self.open_files).pop(&id);
        let slot = lock(&self.indexed).remove(&id);
        self.close(id, slot);
    }

    /// Closes the files of the module `id`, which nobody maps at the moment.
    pub(super) fn close_idle(&self, id: ModuleId) {
        // A lent one is opened again where another one with the same content is mapped.
        let lent = if self.modules.is_lent(id) { lock(&self.indexed).remove(&id) } else { None };
        let open = lock(&self.open_files).pop(&id).and_then(|slot| slot.upgrade());
        self.close(id, lent.or(open));
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

    /// Bytes of indexes, and what their cache did.
    pub(super) fn usage(&self) -> (usize, CacheCounts) {
        let indexed = lock(&self.indexed);
        (indexed.bytes(), indexed.counts())
    }

    /// How full the cache of indexes is.
    pub(super) fn table_use(&self) -> TableUse {
        lock(&self.indexed).table_use("function indexes")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The caches are whole between any two operations on them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
