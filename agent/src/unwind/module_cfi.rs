//! Unwind information of modules: opened when a walk first meets one, kept within a byte budget.

use std::io;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use agent_ebpf::rule::{Rule, TEXT_PAGE};
use lru::LruCache;

use crate::process::module::{Module, ModuleId, ModuleTable};
use crate::symbol::byte_lru::ByteLru;
use crate::symbol::content::canonical;
use crate::symbol::debug_file::DebugFiles;
use crate::symbol::elf::{ElfError, ElfFile, ElfImage, ElfLimits};
use crate::symbol::gopclntab::{GoLimits, GoTable};
use crate::symbol::module_source::ModuleSource;
use crate::symbol::read_at::ReadAt;
use crate::symbol::readers::{About, ReaderLimits, Readers, Refused};
use crate::symbol::unresolved::UnresolvedReason;
use crate::table_use::TableUse;
use crate::unwind::supplement::Supplement;
use crate::unwind::{
    CfiError, CfiIndex, CfiLimits, FullStep, FullStepError, Page, Registers, add_go_rows, add_known_code,
    build_page, full_step,
};

/// Files of modules that are open at once for their unwind information.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(6).unwrap();

/// A module whose code can be read, with its unwind information if it has any.
pub struct ModuleCfi {
    module: Module,
    source: ModuleSource,
    image: ElfImage,
    index: Option<CfiIndex>,
    debug_files: Arc<DebugFiles>,
    /// Looked for when code is met that `index` does not cover.
    supplement: OnceLock<Option<Supplement>>,
    /// Of a Go program.
    go: Option<GoTable>,
}

/// Why a module has no unwind information.
#[derive(Debug, thiserror::Error)]
pub enum NoCfi {
    /// Its file cannot be opened.
    #[error("the file cannot be opened: {}", .0.name())]
    File(UnresolvedReason),
    /// It is not an ELF file that makes sense, or has no unwind information.
    #[error(transparent)]
    Cfi(#[from] CfiError),
    /// It is not an ELF file that makes sense.
    #[error(transparent)]
    Elf(#[from] ElfError),
}

impl ModuleCfi {
    fn open(module: Module, debug_files: Arc<DebugFiles>) -> Result<Self, NoCfi> {
        let source = ModuleSource::open(&module).map_err(NoCfi::File)?;
        let (image, index, go) = source
            .with(&module, |bytes| -> Result<_, NoCfi> {
                let image = ElfImage::parse(bytes, &ElfLimits::default())?;
                let go = GoTable::open(bytes, &image, &GoLimits::default()).unwrap_or_else(|error| {
                    tracing::debug!(module = ?module.key, %error, "cannot use Go's tables");
                    None
                });
                // The `.debug_frame` of a Go program would have to be inflated and indexed, and says nothing that these do not.
                if go.is_some() && image.unwind_header().is_none() {
                    return Ok((image, None, go));
                }
                let index = CfiIndex::open(bytes, &image, &CfiLimits::default());
                if let Err(error) = &index {
                    tracing::debug!(module = ?module.key, %error, "no unwind information");
                }
                Ok((image, index.ok(), go))
            })
            .map_err(NoCfi::File)??;
        Ok(Self { module, source, image, index, debug_files, supplement: OnceLock::new(), go })
    }

    /// The rows of text page `page`.
    pub fn page(&self, page: u32) -> Result<Page, NoCfi> {
        let build = |bytes: &dyn ReadAt| -> Result<Page, CfiError> {
            let mut rows = match &self.index {
                Some(index) => build_page(bytes, index, &self.image, page.into())?,
                // All of it is a gap.
                None => Page { rows: vec![(0, Rule::default())], ..Page::default() },
            };
            if let Some(go) = &self.go {
                add_go_rows(bytes, &self.image, go, page.into(), &mut rows)?;
            }
            Ok(rows)
        };
        let mut rows = self.source.with(&self.module, build).map_err(NoCfi::File)??;
        if rows.has_gap()
            && let Some(supplement) = self.supplement()
        {
            let build =
                |bytes: &dyn ReadAt, index: &CfiIndex| build_page(bytes, index, &self.image, page.into());
            match supplement.with(&self.module, &self.source, build) {
                Some(Ok(other)) => rows.fill_from(&other),
                Some(Err(error)) => tracing::debug!(module = ?self.module.key, page, %error, "no supplement"),
                None => {}
            }
        }
        let mark = |bytes: &dyn ReadAt| add_known_code(bytes, &self.image, page.into(), &mut rows);
        self.source.with(&self.module, mark).map_err(NoCfi::File)??;
        Ok(rows)
    }

    /// Numbers of the text pages that have code, a range a segment.
    pub fn code_pages(&self) -> Vec<RangeInclusive<u32>> {
        let segments = self.image.executable_segments().filter(|segment| segment.file_size > 0);
        let page = |offset: u64| u32::try_from(offset / TEXT_PAGE).ok();
        segments
            .filter_map(|segment| {
                let last = segment.file_offset.checked_add(segment.file_size - 1)?;
                Some(page(segment.file_offset)?..=page(last)?)
            })
            .collect()
    }

    /// A step from a frame in this module, with everything that its unwind information can say. `file_offset` is
    /// where the frame's code lies, `pc` at which address.
    pub fn full_step(
        &self,
        file_offset: u64,
        pc: u64,
        registers: &Registers,
        read_stack: &dyn Fn(u64) -> Option<u64>,
    ) -> Option<Result<FullStep, FullStepError>> {
        let address = self.image.file_offset_to_address(file_offset)?;
        let bias = pc.wrapping_sub(address);
        let evaluate = |bytes: &dyn ReadAt, index: &CfiIndex| {
            full_step(bytes, index, address, bias, registers, read_stack)
        };
        let own = match &self.index {
            Some(index) => Some(self.source.with(&self.module, |bytes| evaluate(bytes, index)).ok()?),
            None => None,
        };
        match own {
            None | Some(Err(FullStepError::NoInformation)) => self
                .supplement()
                .and_then(|supplement| supplement.with(&self.module, &self.source, evaluate))
                .or(own),
            stepped => stepped,
        }
    }

    fn supplement(&self) -> Option<&Supplement> {
        let find = |bytes: &dyn ReadAt| {
            let own = ElfFile { source: bytes, image: &self.image };
            Supplement::find(&self.module, own, &self.debug_files)
        };
        self.supplement.get_or_init(|| self.source.with(&self.module, find).ok().flatten()).as_ref()
    }

    /// Up to `N` bytes of code that end at `file_offset`; `None` when the file cannot be read.
    pub fn code_before<const N: usize>(&self, file_offset: u64) -> Option<[u8; N]> {
        let mut code = [0; N];
        let start = file_offset.checked_sub(N as u64)?;
        self.source.with(&self.module, |bytes| bytes.read_exact_at(start, &mut code)).ok()?.ok()?;
        Some(code)
    }

    fn heap_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, CfiIndex::heap_bytes);
        let supplement = self.supplement.get().and_then(Option::as_ref).map_or(0, Supplement::heap_bytes);
        size_of::<Self>() + self.image.heap_bytes() + index + supplement + self.source.heap_bytes()
    }
}

/// The modules that walks have met. Their files are read by a thread of its own, so that a walk may go through a module
/// whose file system hangs.
pub struct ModuleCfiCache {
    opened: Arc<OpenedModules>,
    readers: Arc<Readers>,
}

/// What that thread knows.
struct OpenedModules {
    modules: Arc<ModuleTable>,
    debug_files: Arc<DebugFiles>,
    known: Mutex<ByteLru<ModuleId, Option<Arc<ModuleCfi>>>>,
    open: Mutex<LruCache<ModuleId, Arc<ModuleCfi>>>,
    /// Readers do not keep their own kind alive.
    readers: OnceLock<Weak<Readers>>,
}

impl ModuleCfiCache {
    /// An empty cache of at most `budget` bytes. What a module lacks may be in what `debug_files` finds.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn new(
        modules: Arc<ModuleTable>,
        debug_files: Arc<DebugFiles>,
        budget: usize,
        readers: ReaderLimits,
    ) -> io::Result<Self> {
        let opened = Arc::new(OpenedModules {
            modules,
            debug_files,
            known: Mutex::new(ByteLru::new(budget)),
            open: Mutex::new(LruCache::new(OPEN_FILES)),
            readers: OnceLock::new(),
        });
        let readers = Arc::new(Readers::start("unwind-files", readers)?);
        // Nobody else sets it.
        let _first = opened.readers.set(Arc::downgrade(&readers));
        Ok(Self { opened, readers })
    }

    /// The module that stands for `id` and all others with the same content: it has the rows of all. One whose file system does not
    /// answer stands for itself.
    pub fn canonical(&self, id: ModuleId) -> ModuleId {
        let modules = &self.opened.modules;
        if let Some(known) = modules.canonical(id) {
            return known;
        }
        let Some(module) = modules.get(id) else { return id };
        let modules = modules.clone();
        self.readers
            .ask(&About::module(&module), move |_| Some(canonical(&modules, id)))
            .ok()
            .flatten()
            .unwrap_or(id)
    }

    /// The table of modules.
    pub fn modules(&self) -> &ModuleTable {
        &self.opened.modules
    }

    /// Asks the module; `None` when it has no unwind information that can be read, which is remembered.
    ///
    /// # Errors
    /// When its file system does not answer in time.
    pub fn ask<T: Send + 'static>(
        &self,
        id: ModuleId,
        question: impl FnOnce(&ModuleCfi) -> T + Send + 'static,
    ) -> Result<Option<T>, Refused> {
        if let Some(None) = lock(&self.opened.known).peek(&id) {
            return Ok(None);
        }
        let Some(module) = self.opened.modules.get(id) else { return Ok(None) };
        let opened = self.opened.clone();
        self.readers.ask(&About::module(&module), move |_| {
            let module = opened.get(&module)?;
            let answer = question(&module);
            // A supplement may have been found meanwhile.
            opened.weigh(id, &module);
            Some(answer)
        })
    }

    /// Numbers of the text pages that have code, a range a segment, if the module was asked anything lately.
    pub fn code_pages(&self, id: ModuleId) -> Option<Vec<RangeInclusive<u32>>> {
        Some(lock(&self.opened.known).peek(&id)?.as_ref()?.code_pages())
    }

    /// Drops what is known of a module that is retired.
    pub fn forget(&self, retired: ModuleId) {
        lock(&self.opened.open).pop(&retired);
        let gone = lock(&self.opened.known).remove(&retired);
        self.opened.close(gone.flatten());
    }

    /// Closes the file of a module that nobody maps at the moment.
    pub fn close(&self, idle: ModuleId) {
        if self.opened.modules.is_lent(idle) {
            // It is opened again where another one with the same content is mapped.
            self.forget(idle);
            return;
        }
        let open = lock(&self.opened.open).pop(&idle);
        self.opened.close(open);
    }

    /// How full the cache is.
    pub fn table_use(&self) -> TableUse {
        lock(&self.opened.known).table_use("unwind information")
    }
}

impl OpenedModules {
    /// The module's unwind information, which is read here and now.
    fn get(&self, module: &Module) -> Option<Arc<ModuleCfi>> {
        let id = module.id;
        let known = lock(&self.known).get(&id).cloned();
        let opened = known.unwrap_or_else(|| {
            let opened = match ModuleCfi::open(module.clone(), self.debug_files.clone()) {
                Ok(opened) => Some(Arc::new(opened)),
                Err(error) => {
                    tracing::debug!(module = ?module.key, %error, "no unwind information");
                    None
                }
            };
            let bytes = opened.as_ref().map_or(0, |opened| opened.heap_bytes());
            let gone = lock(&self.known).insert(id, opened.clone(), bytes);
            self.close_all(gone);
            opened
        })?;
        self.keep_open(id, &opened);
        Some(opened)
    }

    fn weigh(&self, id: ModuleId, module: &ModuleCfi) {
        let gone = lock(&self.known).reweigh(&id, module.heap_bytes());
        self.close_all(gone);
    }

    /// Closes the file that was not used for longest if too many are open.
    fn keep_open(&self, id: ModuleId, module: &Arc<ModuleCfi>) {
        let pushed_out = lock(&self.open).push(id, module.clone());
        if let Some((other, pushed_out)) = pushed_out
            && other != id
        {
            self.close(Some(pushed_out));
        }
    }

    /// Has the module's file closed by a reader: a file system that hangs may hang over that too.
    fn close(&self, module: Option<Arc<ModuleCfi>>) {
        let Some(module) = module else { return };
        let Some(readers) = self.readers.get().and_then(Weak::upgrade) else { return };
        readers.discard(About::module(&module.module), move || module.source.close());
    }

    fn close_all(&self, gone: Vec<(ModuleId, Option<Arc<ModuleCfi>>)>) {
        for (_, module) in gone {
            self.close(module);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The caches are whole between any two operations on them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
