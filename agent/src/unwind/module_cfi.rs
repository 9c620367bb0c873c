//! Unwind information of modules: opened when a walk first meets one, kept within a byte budget.

use std::num::NonZeroUsize;
use std::sync::Arc;

use agent_ebpf::rule::Rule;
use lru::LruCache;

use crate::process::module::{Module, ModuleId, ModuleTable};
use crate::symbol::byte_lru::ByteLru;
use crate::symbol::elf::{ElfError, ElfImage, ElfLimits};
use crate::symbol::module_source::ModuleSource;
use crate::symbol::read_at::ReadAt;
use crate::symbol::unresolved::UnresolvedReason;
use crate::unwind::{
    CfiError, CfiIndex, CfiLimits, FullStep, FullStepError, Page, Registers, add_known_code, build_page,
    full_step,
};

/// Files of modules that are open at once for their unwind information.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// A module whose code can be read, with its unwind information if it has any.
pub struct ModuleCfi {
    module: Module,
    source: ModuleSource,
    image: ElfImage,
    index: Option<CfiIndex>,
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
    fn open(module: Module) -> Result<Self, NoCfi> {
        let source = ModuleSource::open(&module).map_err(NoCfi::File)?;
        let (image, index) = source
            .with(&module, |bytes| -> Result<_, NoCfi> {
                let image = ElfImage::parse(bytes, &ElfLimits::default())?;
                let index = CfiIndex::open(bytes, &image, &CfiLimits::default());
                if let Err(error) = &index {
                    tracing::debug!(module = ?module.key, %error, "no unwind information");
                }
                Ok((image, index.ok()))
            })
            .map_err(NoCfi::File)??;
        Ok(Self { module, source, image, index })
    }

    /// The rows of text page `page`.
    pub fn page(&self, page: u32) -> Result<Page, NoCfi> {
        let build = |bytes: &dyn ReadAt| -> Result<Page, CfiError> {
            let mut rows = match &self.index {
                Some(index) => build_page(bytes, index, &self.image, page.into())?,
                // All of it is a gap, in which trampolines may lie.
                None => Page { rows: vec![(0, Rule::default())], ..Page::default() },
            };
            add_known_code(bytes, &self.image, page.into(), &mut rows)?;
            Ok(rows)
        };
        Ok(self.source.with(&self.module, build).map_err(NoCfi::File)??)
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
        let index = self.index.as_ref()?;
        let address = self.image.file_offset_to_address(file_offset)?;
        let bias = pc.wrapping_sub(address);
        let evaluate = |bytes: &dyn ReadAt| full_step(bytes, index, address, bias, registers, read_stack);
        self.source.with(&self.module, evaluate).ok()
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
        size_of::<Self>() + self.image.heap_bytes() + index + self.source.heap_bytes()
    }
}

/// The modules that walks have met.
pub struct ModuleCfiCache {
    modules: Arc<ModuleTable>,
    known: ByteLru<ModuleId, Option<Arc<ModuleCfi>>>,
    open: LruCache<ModuleId, Arc<ModuleCfi>>,
}

impl ModuleCfiCache {
    /// An empty cache of at most `budget` bytes.
    pub fn new(modules: Arc<ModuleTable>, budget: usize) -> Self {
        Self { modules, known: ByteLru::new(budget), open: LruCache::new(OPEN_FILES) }
    }

    /// The module's unwind information; `None` when it has none that can be read, which is remembered.
    pub fn get(&mut self, id: ModuleId) -> Option<Arc<ModuleCfi>> {
        if let Some(known) = self.known.get(&id) {
            let known = known.clone();
            if let Some(module) = &known {
                self.keep_open(id, module);
            }
            return known;
        }
        let module = self.modules.get(id);
        let opened = match ModuleCfi::open(module) {
            Ok(opened) => Some(Arc::new(opened)),
            Err(error) => {
                tracing::debug!(module = ?self.modules.get(id).key, %error, "no unwind information");
                None
            }
        };
        let bytes = opened.as_ref().map_or(0, |opened| opened.heap_bytes());
        self.known.insert(id, opened.clone(), bytes);
        if let Some(module) = &opened {
            self.keep_open(id, module);
        }
        opened
    }

    /// The module's unwind information if it was asked for before.
    pub fn peek(&self, id: ModuleId) -> Option<&ModuleCfi> {
        self.known.peek(&id)?.as_deref()
    }

    /// Bytes in use.
    pub fn bytes(&self) -> usize {
        self.known.bytes()
    }

    /// Closes the file that was not used for longest if too many are open.
    fn keep_open(&mut self, id: ModuleId, module: &Arc<ModuleCfi>) {
        if let Some((other, pushed_out)) = self.open.push(id, module.clone())
            && other != id
        {
            pushed_out.source.close();
        }
    }
}
