//! Lines and inlined functions of a module: in which file its debug information is, and asking it.

use std::sync::Arc;

use crate::process::module::{Module, ModuleKey};
use crate::symbol::debug_file::{DebugFile, DebugFiles, DebugInfo};
use crate::symbol::dwarf::{DebugLines, DwarfCache, LinesRefused, LinkedFiles, SharedSource, SourceLine};
use crate::symbol::elf::{ElfFile, ElfImage};
use crate::symbol::module_file;
use crate::symbol::module_source::ModuleSource;

/// A module's debug information, or why there is none.
pub(super) struct ModuleLines(Result<Found, LinesRefused>);

struct Found {
    lines: DebugLines,
    /// Where it is, if not in the module itself.
    separate: Option<DebugFile>,
    /// The supplementary file that it refers to.
    supplement: Option<DebugFile>,
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
        let Found { lines, separate, supplement } = match &self.0 {
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
        let beside = Beside { module, supplement: supplement.as_ref() };
        lines.lines(source, &beside, address).ok()
    }

    /// Closes debug files until a line is needed.
    pub(super) fn close(&self) {
        if let Ok(Found { separate, supplement, .. }) = &self.0 {
            separate.iter().chain(supplement).for_each(DebugFile::close);
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |Found { lines, separate, supplement }| {
            let files = separate.iter().chain(supplement).map(DebugFile::heap_bytes);
            lines.heap_bytes() + files.sum::<usize>()
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
            let lines = DebugLines::open(&*source, image, cache)?;
            let supplement = debug_files.supplementary(module, ElfFile { source: &*source, image }, None);
            Ok(Found { lines, separate: None, supplement: supplement.map(|found| found.file) })
        }
        Some(DebugInfo::Separate(found)) => {
            let source = found.file.shared(module).map_err(|_| LinesRefused::NoDebugInfo)?;
            let lines = DebugLines::open(&*source, &found.image, cache)?;
            let of = ElfFile { source: &*source, image: &found.image };
            let supplement = debug_files.supplementary(module, of, Some(&found.file));
            Ok(Found { lines, separate: Some(found.file), supplement: supplement.map(|found| found.file) })
        }
        None => Err(LinesRefused::NoDebugInfo),
    }
}

/// Files of split debug information, as a process that maps the module sees them, and the supplementary file.
struct Beside<'a> {
    module: &'a Module,
    supplement: Option<&'a DebugFile>,
}

impl LinkedFiles for Beside<'_> {
    fn package(&self) -> Option<(Arc<str>, SharedSource)> {
        let ModuleKey::File { path, .. } = &self.module.key else { return None };
        let path = format!("{path}.dwp");
        Some((path.as_str().into(), self.open(&path)?))
    }

    fn open(&self, path: &str) -> Option<SharedSource> {
        Some(Arc::new(module_file::open_beside(path, self.module.witness)?))
    }

    fn supplement(&self) -> Option<SharedSource> {
        self.supplement?.shared(self.module).ok()
    }
}
