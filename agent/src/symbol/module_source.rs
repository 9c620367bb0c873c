//! Where a module's bytes come from: its file, which may be closed in between, or memory.

use std::sync::Arc;

use crate::process::module::{Module, ModuleKey};
use crate::symbol::closable_file::ClosableFile;
use crate::symbol::dwarf::SharedSource;
use crate::symbol::edition::Edition;
use crate::symbol::module_file;
use crate::symbol::read_at::{FileAt, ReadAt};
use crate::symbol::unresolved::UnresolvedReason;
use crate::symbol::vdso;

/// A module's bytes.
pub(crate) struct ModuleSource(Kind);

enum Kind {
    /// With what it was when it was first opened.
    File(ClosableFile, Edition),
    Memory(Arc<Vec<u8>>),
}

impl ModuleSource {
    /// Opens `module`'s file, or copies the vDSO.
    pub(crate) fn open(module: &Module) -> Result<Self, UnresolvedReason> {
        match &module.key {
            ModuleKey::File { .. } => {
                let file = open_file(module, None)?;
                let edition = Edition::of(&file).map_err(|_| UnresolvedReason::Unreadable)?;
                Ok(Self(Kind::File(ClosableFile::new(file), edition)))
            }
            ModuleKey::Vdso => match vdso::read_own() {
                Ok(Some(image)) => Ok(Self(Kind::Memory(image.into()))),
                Ok(None) => Err(UnresolvedReason::Gone),
                Err(_) => Err(UnresolvedReason::Unreadable),
            },
            ModuleKey::Anonymous => Err(UnresolvedReason::Anonymous),
            ModuleKey::TableFull => Err(UnresolvedReason::ModuleTableFull),
        }
    }

    /// Lets `read` at the bytes. A closed file is opened again by what `module` says now; `Gone` when nothing
    /// there is what it was.
    pub(crate) fn with<T>(
        &self,
        module: &Module,
        read: impl FnOnce(&dyn ReadAt) -> T,
    ) -> Result<T, UnresolvedReason> {
        match &self.0 {
            Kind::Memory(bytes) => Ok(read(&**bytes)),
            Kind::File(file, edition) => file.with(|| open_file(module, Some(edition)), read),
        }
    }

    /// The bytes, to be handed on to somebody who reads them now and lets go of them then.
    pub(crate) fn shared(&self, module: &Module) -> Result<SharedSource, UnresolvedReason> {
        match &self.0 {
            Kind::Memory(bytes) => Ok(bytes.clone()),
            Kind::File(file, edition) => Ok(file.shared(|| open_file(module, Some(edition)))?),
        }
    }

    /// Closes the file until it is needed again.
    pub(crate) fn close(&self) {
        if let Kind::File(file, _) = &self.0 {
            file.close();
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Kind::File(..) => 0,
            Kind::Memory(bytes) => bytes.capacity(),
        }
    }
}

fn open_file(module: &Module, edition: Option<&Edition>) -> Result<FileAt, UnresolvedReason> {
    match &module.key {
        ModuleKey::File { path, hint } => {
            module_file::open(path, *hint, module.generation, module.witness, edition)
        }
        ModuleKey::Vdso | ModuleKey::Anonymous | ModuleKey::TableFull => Err(UnresolvedReason::Unreadable),
    }
}
