//! Where a module's bytes come from: its file, which may be closed in between, or memory.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::module::{Module, ModuleKey};
use crate::symbol::module_file;
use crate::symbol::read_at::{FileAt, ReadAt};
use crate::symbol::unresolved::UnresolvedReason;
use crate::symbol::vdso;

/// A module's bytes.
pub(crate) struct ModuleSource(Kind);

enum Kind {
    /// `None` while the file is closed because other modules needed the descriptor.
    File(Mutex<Option<FileAt>>),
    Memory(Vec<u8>),
}

impl ModuleSource {
    /// Opens `module`'s file, or copies the vDSO.
    pub(crate) fn open(module: &Module) -> Result<Self, UnresolvedReason> {
        match &module.key {
            ModuleKey::File { .. } => Ok(Self(Kind::File(Mutex::new(Some(open_file(module)?))))),
            ModuleKey::Vdso => match vdso::read_own() {
                Ok(Some(image)) => Ok(Self(Kind::Memory(image))),
                Ok(None) => Err(UnresolvedReason::Gone),
                Err(_) => Err(UnresolvedReason::Unreadable),
            },
            ModuleKey::Anonymous => Err(UnresolvedReason::Anonymous),
        }
    }

    /// Lets `read` at the bytes. A closed file is opened again by what `module` says now.
    pub(crate) fn with<T>(
        &self,
        module: &Module,
        read: impl FnOnce(&dyn ReadAt) -> T,
    ) -> Result<T, UnresolvedReason> {
        match &self.0 {
            Kind::Memory(bytes) => Ok(read(bytes)),
            Kind::File(file) => {
                let mut file = lock(file);
                let file = match &mut *file {
                    Some(file) => file,
                    closed => closed.insert(open_file(module)?),
                };
                Ok(read(file))
            }
        }
    }

    /// Closes the file until it is needed again.
    pub(crate) fn close(&self) {
        if let Kind::File(file) = &self.0 {
            *lock(file) = None;
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match &self.0 {
            Kind::File(_) => 0,
            Kind::Memory(bytes) => bytes.capacity(),
        }
    }
}

fn open_file(module: &Module) -> Result<FileAt, UnresolvedReason> {
    match &module.key {
        ModuleKey::File { path, hint } => module_file::open(path, *hint, module.witness),
        ModuleKey::Vdso | ModuleKey::Anonymous => Err(UnresolvedReason::Unreadable),
    }
}

fn lock(file: &Mutex<Option<FileAt>>) -> MutexGuard<'_, Option<FileAt>> {
    // A reader that panicked has not changed the file.
    file.lock().unwrap_or_else(PoisonError::into_inner)
}
