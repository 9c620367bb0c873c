//! `.debug_frame`, for code that `.eh_frame` does not cover: programs that were built with
//! `-fno-asynchronous-unwind-tables` have an `.eh_frame` all the same, with what the C library's start files bring along.
//! Stripped programs have theirs in a debug file.

use crate::process::module::Module;
use crate::symbol::debug_file::{DebugFile, DebugFiles};
use crate::symbol::elf::ElfFile;
use crate::symbol::module_source::ModuleSource;
use crate::symbol::read_at::ReadAt;
use crate::unwind::{CfiError, CfiIndex, CfiLimits};

/// A supplement stands beside other modules' unwind information in one budget of a few MiB.
const LIMITS: CfiLimits = CfiLimits { index_bytes: 1 << 20, scan_bytes: 128 << 20, inflated_bytes: 2 << 20 };

/// The `.debug_frame` of a module or of its debug file.
pub(super) struct Supplement {
    index: CfiIndex,
    /// `None`: it is in the module's own file.
    file: Option<DebugFile>,
}

impl Supplement {
    /// That of `module`, whose own file is `own`; `None` when there is none that can be used.
    pub(super) fn find(module: &Module, own: ElfFile<'_>, debug_files: &DebugFiles) -> Option<Self> {
        match CfiIndex::open_debug_frame(own.source, own.image, &LIMITS) {
            Ok(index) => return Some(Self { index, file: None }),
            Err(CfiError::Absent) => {}
            Err(error) => tracing::debug!(module = ?module.key, %error, "no use of .debug_frame"),
        }
        let found = debug_files.find(module, own)?;
        let open = |source: &dyn ReadAt| CfiIndex::open_debug_frame(source, &found.image, &LIMITS);
        let index = found.file.with(module, open).ok()?;
        found.file.close();
        match index {
            Ok(index) => Some(Self { index, file: Some(found.file) }),
            Err(error) => {
                tracing::debug!(module = ?module.key, %error, "no use of a debug file's .debug_frame");
                None
            }
        }
    }

    /// Lets `read` at the entries. `None` when their file cannot be read any more. A debug file is open only meanwhile.
    pub(super) fn with<T>(
        &self,
        module: &Module,
        own: &ModuleSource,
        read: impl FnOnce(&dyn ReadAt, &CfiIndex) -> T,
    ) -> Option<T> {
        let Some(file) = &self.file else { return own.with(module, |bytes| read(bytes, &self.index)).ok() };
        own.close();
        let result = file.with(module, |bytes| read(bytes, &self.index)).ok();
        file.close();
        result
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.index.heap_bytes() + self.file.as_ref().map_or(0, DebugFile::heap_bytes)
    }
}
