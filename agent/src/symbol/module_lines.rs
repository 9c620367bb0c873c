//! Lines and inlined functions of a module: in which file its debug information is, and asking it.

use std::sync::Arc;

use crate::process::module::{Module, ModuleKey};
use crate::symbol::debug_file::{DebugFile, DebugFiles, DebugInfo};
use crate::symbol::dwarf::{DebugLines, DwarfCache, LinesRefused, SharedSource, SourceLine, SplitFiles};
use crate::symbol::elf::{ElfFile, ElfImage};
use crate::symbol::module_file;
use crate::symbol::module_source::ModuleSource;

/// A module's debug information, or why there is none.
pub(super) struct ModuleLines(Result<Found, LinesRefused>);

struct Found {
    lines: DebugLines,
    /// Where it is, if not in the module itself.
    separate: Option<DebugFile>,
}

impl ModuleLines {
    /// Looks for the debug information of `module`, whose own file is `own` with the headers `image`: there, else in its debug file.
    pub(super) fn open(
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        debug_files: &DebugFiles,
        cache: &Arc<DwarfCache>,
    ) -> Self {
        Self(find(module, own, image, debug_files, cache))
    }

    /// The functions at the ELF address `address`, innermost first; `None` when there is nothing to say, which is counted by cause.
    pub(super) fn lines(
        &self,
        module: &Module,
        own: &ModuleSource,
        address: u64,
        cache: &DwarfCache,
    ) -> Option<Vec<SourceLine>> {
        let Found { lines, separate } = match &self.0 {
            Ok(found) => found,
            Err(cause) => {
                DebugLines::count(cache, *cause);
                return None;
            }
        };
        let source = match separate {
            Some(file) => file.shared(module).ok()?,
            None => own.shared(module).ok()?,
        };
        lines.lines(source, &Beside(module), address).ok()
    }

    /// Closes the debug file until a line is needed.
    pub(super) fn close(&self) {
        if let Ok(Found { separate: Some(file), .. }) = &self.0 {
            file.close();
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |Found { lines, separate }| {
            lines.heap_bytes() + separate.as_ref().map_or(0, DebugFile::heap_bytes)
        })
    }
}

fn find(
    module: &Module,
    own: &ModuleSource,
    image: &ElfImage,
    debug_files: &DebugFiles,
    cache: &Arc<DwarfCache>,
) -> Result<Found, LinesRefused> {
    let source = own.shared(module).map_err(|_| LinesRefused::NoDebugInfo)?;
    match debug_files.debug_info(module, ElfFile { source: &*source, image }) {
        Some(DebugInfo::Own) => {
            Ok(Found { lines: DebugLines::open(&*source, image, cache)?, separate: None })
        }
        Some(DebugInfo::Separate(found)) => {
            let source = found.file.shared(module).map_err(|_| LinesRefused::NoDebugInfo)?;
            let lines = DebugLines::open(&*source, &found.image, cache)?;
            Ok(Found { lines, separate: Some(found.file) })
        }
        None => Err(LinesRefused::NoDebugInfo),
    }
}

/// Files of split debug information, as a process that maps the module sees them.
struct Beside<'a>(&'a Module);

impl SplitFiles for Beside<'_> {
    fn package(&self) -> Option<(Arc<str>, SharedSource)> {
        let ModuleKey::File { path, .. } = &self.0.key else { return None };
        let path = format!("{path}.dwp");
        Some((path.as_str().into(), self.open(&path)?))
    }

    fn open(&self, path: &str) -> Option<SharedSource> {
        Some(Arc::new(module_file::open_beside(path, self.0.witness)?))
    }
}
