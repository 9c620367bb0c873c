//! One module, opened: its identity, its segments and its index of functions.

use std::sync::Arc;

use crate::process::module::{Module, ModuleKey};
use crate::symbol::demangle::demangle;
use crate::symbol::elf::{ElfError, ElfImage, ElfLimits, FunctionIndex};
use crate::symbol::module_source::ModuleSource;
use crate::symbol::symbols::{ModuleInfo, Symbols};
use crate::symbol::unresolved::UnresolvedReason;

/// What opening a module led to.
pub(super) struct ModuleSymbols {
    info: Arc<ModuleInfo>,
    contents: Result<Contents, UnresolvedReason>,
}

struct Contents {
    source: ModuleSource,
    image: ElfImage,
    index: FunctionIndex,
}

impl ModuleSymbols {
    /// Opens `module` and indexes its functions. Never fails: a module that cannot be used says why, frame by frame.
    pub(super) fn open(module: &Module) -> Self {
        let contents = ModuleSource::open(module).and_then(|source| Contents::index(source, module));
        let path: Arc<str> = match &module.key {
            ModuleKey::File { path, .. } => path.clone(),
            ModuleKey::Vdso => "[vdso]".into(),
            ModuleKey::Anonymous => "[anon]".into(),
        };
        let info = contents
            .as_ref()
            .map_or_else(|_| ModuleInfo::named(path.clone()), |contents| contents.info(path.clone()));
        Self { info: Arc::new(info), contents }
    }

    /// What `module`, which was opened as this, has at `file_offset`.
    pub(super) fn symbols(&self, module: &Module, file_offset: u64) -> Symbols {
        let unnamed = |offset, reason| Symbols::unnamed(self.info.clone(), offset, reason);
        let contents = match &self.contents {
            Ok(contents) => contents,
            Err(reason) => return unnamed(file_offset, *reason),
        };
        let Some(address) = contents.image.file_offset_to_address(file_offset) else {
            return unnamed(file_offset, UnresolvedReason::Malformed);
        };
        match contents.raw_name(module, address) {
            Ok(raw) => Symbols::named(self.info.clone(), address, demangle(&raw).into_owned(), raw),
            Err(reason) => unnamed(address, reason),
        }
    }

    /// Closes the module's file until a name is needed.
    pub(super) fn close(&self) {
        if let Ok(contents) = &self.contents {
            contents.source.close();
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let contents = self.contents.as_ref().map_or(0, |Contents { source, image, index }| {
            source.heap_bytes() + image.heap_bytes() + index.heap_bytes()
        });
        size_of::<Self>() + size_of::<ModuleInfo>() + self.info.path.len() + contents
    }
}

impl Contents {
    fn index(source: ModuleSource, module: &Module) -> Result<Self, UnresolvedReason> {
        let limits = ElfLimits::default();
        let parsed = source.with(module, |bytes| {
            let image = ElfImage::parse(bytes, &limits)?;
            let index = FunctionIndex::build(bytes, &image, &limits)?;
            Ok((image, index))
        })?;
        match parsed {
            Ok((image, index)) => Ok(Self { source, image, index }),
            Err(error) => Err(reason(module, &error)),
        }
    }

    fn info(&self, path: Arc<str>) -> ModuleInfo {
        let mut info = ModuleInfo::named(path);
        info.build_id = self.image.build_id().cloned();
        if let Some(text) = self.image.text_segment() {
            info.start = text.address;
            info.limit = text.address.saturating_add(text.memory_size);
            info.file_offset = text.file_offset;
        }
        info
    }

    fn raw_name(&self, module: &Module, address: u64) -> Result<String, UnresolvedReason> {
        let function = self.index.lookup(address).ok_or(UnresolvedReason::Stripped)?;
        let name = self.source.with(module, |bytes| self.index.name(bytes, &function))?;
        name.map_err(|_| UnresolvedReason::Unreadable)
    }
}

fn reason(module: &Module, error: &ElfError) -> UnresolvedReason {
    tracing::debug!(module = ?module.key, %error, "cannot index a module");
    match error {
        ElfError::Read { .. } => UnresolvedReason::Unreadable,
        _ => UnresolvedReason::Malformed,
    }
}
