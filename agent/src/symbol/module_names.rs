//! The names of a module's functions, from the best source that there is: its own `.symtab`; its debug file's; MiniDebugInfo
//! together with `.dynsym`; `.dynsym` alone. A source that cannot be used is passed over, so it costs no name that is known
//! without it.

use std::io;
use std::sync::Arc;

use crate::process::module::Module;
use crate::symbol::debug_file::{DebugFile, DebugFiles};
use crate::symbol::elf::{
    ElfError, ElfFile, ElfImage, ElfLimits, FunctionIndex, NameOrigin, SymbolRef, SymtabKind, mini_debug_info,
};
use crate::symbol::function_names::FunctionNames;
use crate::symbol::module_source::ModuleSource;
use crate::symbol::packed_names::PackedNames;
use crate::symbol::read_at::ReadAt;
use crate::symbol::symbols::FunctionName;
use crate::symbol::unresolved::UnresolvedReason;

/// Bytes of names that may be kept of a module's MiniDebugInfo.
const MAX_KEPT_NAMES: usize = 4 << 20;

/// An index of a module's functions, and where their names are.
pub(super) struct ModuleNames {
    index: FunctionIndex,
    symtab: Symtab,
    /// Why a function that the index does not have has no name.
    absent: UnresolvedReason,
}

/// Where the names of `.symtab` are.
enum Symtab {
    Own,
    DebugFile(DebugFile),
    Mini(PackedNames),
}

impl ModuleNames {
    /// Indexes the functions of `module`, whose own file is `own`.
    ///
    /// # Errors
    /// When not even the module's own tables can be used.
    pub(super) fn open(
        module: &Module,
        own: ElfFile<'_>,
        debug_files: &DebugFiles,
    ) -> Result<Self, ElfError> {
        let of_own = FunctionIndex::build(own.source, own.image, &ElfLimits::default());
        let mut absent = UnresolvedReason::Stripped;
        if of_own.as_ref().is_ok_and(FunctionIndex::has_symtab) {
            return Ok(Self { index: of_own?, symtab: Symtab::Own, absent });
        }
        let sources = [Self::of_debug_file, Self::of_mini_debug_info];
        for source in sources {
            match source(module, own, debug_files) {
                Ok(Some(names)) => return Ok(names),
                Ok(None) => {}
                Err(reason) => absent = reason,
            }
        }
        Ok(Self { index: of_own?, symtab: Symtab::Own, absent })
    }

    fn of_debug_file(
        module: &Module,
        own: ElfFile<'_>,
        debug_files: &DebugFiles,
    ) -> Result<Option<Self>, UnresolvedReason> {
        let Some(found) = debug_files.find(module, own) else { return Ok(None) };
        let index = found.file.with(module, |source| {
            let symtab = ElfFile { source, image: &found.image };
            FunctionIndex::build_with_symtab(own, symtab, SymtabKind::Whole, &ElfLimits::default())
        })?;
        let index = index.map_err(|error| reason(module, &error))?;
        // The kind that has debug information only is no better than the module itself.
        Ok(index.has_symtab().then(|| Self {
            index,
            symtab: Symtab::DebugFile(found.file),
            absent: UnresolvedReason::Stripped,
        }))
    }

    fn of_mini_debug_info(
        module: &Module,
        own: ElfFile<'_>,
        _debug_files: &DebugFiles,
    ) -> Result<Option<Self>, UnresolvedReason> {
        let read = || -> Result<_, ElfError> {
            let limits = ElfLimits::default();
            let Some(mini) = mini_debug_info(own.source, own.image, &limits)? else { return Ok(None) };
            let image = ElfImage::parse(&mini, &limits)?;
            let symtab = ElfFile { source: &mini, image: &image };
            let index = FunctionIndex::build_with_symtab(own, symtab, SymtabKind::Rest, &limits)?;
            Ok(Some((mini, index)))
        };
        let Some((mini, index)) = read().map_err(|error| reason(module, &error))? else { return Ok(None) };
        let (offset, size) = index.symtab_names();
        let names = PackedNames::new(&mini, offset, size).map_err(|_| UnresolvedReason::Unreadable)?;
        if names.heap_bytes() > MAX_KEPT_NAMES {
            return Err(UnresolvedReason::OverBudget);
        }
        Ok(index.has_symtab().then_some(Self {
            index,
            symtab: Symtab::Mini(names),
            absent: UnresolvedReason::Stripped,
        }))
    }

    /// The names of the functions at `addresses`, which ascend, in their order. `own` is the module's file and `image` its headers.
    /// What is in `known` is not read again, and what was read is there then.
    ///
    /// Of the module's file and its debug file one is open at a time.
    pub(super) fn names(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        addresses: &[u64],
        known: &FunctionNames,
    ) -> Vec<Result<Arc<FunctionName>, UnresolvedReason>> {
        let found: Vec<_> = addresses.iter().map(|address| self.index.lookup(*address)).collect();
        let mut functions: Vec<SymbolRef> = found.iter().flatten().copied().collect();
        functions.sort_unstable_by_key(|function| function.start);
        functions.dedup_by_key(|function| function.start);
        let names = known.get(module.id, functions.iter().map(|function| function.start));
        let mut names: Vec<_> = names.into_iter().map(|name| name.map(Ok)).collect();
        for origin in [NameOrigin::Symtab, NameOrigin::Own] {
            let missing = functions
                .iter()
                .zip(&names)
                .filter(|(function, name)| name.is_none() && function.origin() == origin);
            let mut missing: Vec<SymbolRef> = missing.map(|(function, _)| *function).collect();
            if missing.is_empty() {
                continue;
            }
            let read = self.read(module, own, image, origin, &mut missing);
            let fresh: Vec<_> =
                missing.iter().map(|function| function.start).zip(read.into_iter().map(named)).collect();
            known.insert(
                module.id,
                fresh.iter().filter_map(|(start, name)| Some((*start, name.clone().ok()?))),
            );
            for (start, name) in fresh {
                if let Ok(place) = functions.binary_search_by_key(&start, |function| function.start)
                    && let Some(place) = names.get_mut(place)
                {
                    *place = Some(name);
                }
            }
        }
        let name = |function: Option<SymbolRef>| {
            let start = function.ok_or(self.absent)?.start;
            let place = functions.binary_search_by_key(&start, |function| function.start);
            let name = place.ok().and_then(|place| names.get(place)?.clone());
            name.unwrap_or(Err(UnresolvedReason::Unreadable))
        };
        found.into_iter().map(name).collect()
    }

    /// Reads the names of `functions`, all of one origin, which are brought into the order of what is returned.
    fn read(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        origin: NameOrigin,
        functions: &mut [SymbolRef],
    ) -> Vec<Result<String, UnresolvedReason>> {
        let mut read = |source: &dyn ReadAt| self.index.names(source, functions);
        let names = match (&self.symtab, origin) {
            (Symtab::DebugFile(file), NameOrigin::Symtab) => {
                own.close();
                let names = file.with(module, read);
                return self.or_own_names(module, own, image, functions, names.unwrap_or_default());
            }
            (Symtab::Mini(names), NameOrigin::Symtab) => Ok(read(names)),
            (Symtab::DebugFile(file), NameOrigin::Own) => {
                file.close();
                own.with(module, read)
            }
            (Symtab::Own | Symtab::Mini(_), _) => own.with(module, read),
        };
        match names {
            Ok(names) => {
                names.into_iter().map(|name| name.map_err(|_| UnresolvedReason::Unreadable)).collect()
            }
            Err(reason) => functions.iter().map(|_| Err(reason)).collect(),
        }
    }

    /// `names` of `functions`; for those that are missing because the debug file was taken away the names that the module's own file
    /// has. That is indexed anew: it is seldom, and each name is remembered.
    fn or_own_names(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        functions: &[SymbolRef],
        names: Vec<io::Result<String>>,
    ) -> Vec<Result<String, UnresolvedReason>> {
        if names.len() == functions.len() && names.iter().all(Result::is_ok) {
            return names.into_iter().map(|name| name.map_err(|_| UnresolvedReason::Gone)).collect();
        }
        self.close();
        let mut names = names.into_iter().map(Result::ok);
        let found = own.with(module, |source| {
            let index = FunctionIndex::build(source, image, &ElfLimits::default()).ok();
            let own_name = |function: &SymbolRef| {
                let index = index.as_ref()?;
                index.name(source, &index.lookup(function.start)?).ok()
            };
            let mut name = |function| names.next().flatten().or_else(|| own_name(function));
            functions.iter().map(|function| name(function).ok_or(UnresolvedReason::Gone)).collect()
        });
        found.unwrap_or_else(|reason| functions.iter().map(|_| Err(reason)).collect())
    }

    /// Whether names are in a file beside the module's own.
    pub(super) fn has_debug_file(&self) -> bool {
        matches!(self.symtab, Symtab::DebugFile(_))
    }

    /// Closes the debug file until a name is needed.
    pub(super) fn close(&self) {
        if let Symtab::DebugFile(file) = &self.symtab {
            file.close();
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let symtab = match &self.symtab {
            Symtab::Own => 0,
            Symtab::DebugFile(file) => file.heap_bytes(),
            Symtab::Mini(names) => names.heap_bytes(),
        };
        self.index.heap_bytes() + symtab
    }
}

fn named(raw: Result<String, UnresolvedReason>) -> Result<Arc<FunctionName>, UnresolvedReason> {
    raw.map(|raw| Arc::new(FunctionName::of(raw)))
}

/// Why `error` leaves frames without a name.
pub(super) fn reason(module: &Module, error: &ElfError) -> UnresolvedReason {
    tracing::debug!(module = ?module.key, %error, "cannot index a module");
    match error {
        ElfError::Read { .. } => UnresolvedReason::Unreadable,
        ElfError::TooLarge { .. } => UnresolvedReason::OverBudget,
        _ => UnresolvedReason::Malformed,
    }
}
