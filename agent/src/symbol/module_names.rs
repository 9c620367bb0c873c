//! The names of a module's functions, from the best source that there is: its own `.symtab`; its debug file's; MiniDebugInfo
//! together with `.dynsym`; `.dynsym` alone. A source that cannot be used is passed over, so it costs no name that is known
//! without it.

use crate::process::module::{Module, ModuleId};
use crate::symbol::debug_file::{DebugFile, DebugFiles};
use crate::symbol::elf::{
    ElfError, ElfFile, ElfImage, ElfLimits, FunctionIndex, NameOrigin, SymbolRef, SymtabKind, mini_debug_info,
};
use crate::symbol::function_name::FunctionName;
use crate::symbol::function_names::FunctionNames;
use crate::symbol::module_source::ModuleSource;
use crate::symbol::packed_names::PackedNames;
use crate::symbol::read_at::ReadAt;
use crate::symbol::unresolved::UnresolvedReason;

/// Bytes of names that may be kept of a module's MiniDebugInfo.
const MAX_KEPT_NAMES: usize = 4 << 20;

/// A function and its name, or why it has none.
type NamedFunction = (SymbolRef, Result<FunctionName, UnresolvedReason>);

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
    ) -> Vec<Result<FunctionName, UnresolvedReason>> {
        let found = self.index.lookup_all(addresses);
        let mut names = Vec::with_capacity(found.len());
        self.tell_known(module.id, &found, known, |name| names.push(name));
        let is_missing = |(function, name): (&Option<SymbolRef>, &Option<_>)| {
            if name.is_none() { *function } else { None }
        };
        let mut missing: Vec<SymbolRef> = found.iter().zip(&names).filter_map(is_missing).collect();
        if !missing.is_empty() {
            missing.dedup_by_key(|function| function.start);
            let fresh = self.read_all(module, own, image, missing);
            known.insert(
                module.id,
                fresh.iter().filter_map(|(function, name)| Some((function.start, name.clone().ok()?))),
            );
            for (function, name) in found.iter().zip(&mut names) {
                if let (Some(function), None) = (function, &name) {
                    let place = fresh.binary_search_by_key(&function.start, |(function, _)| function.start);
                    *name = place.ok().and_then(|place| Some(fresh.get(place)?.1.clone()));
                }
            }
        }
        names.into_iter().map(|name| name.unwrap_or(Err(UnresolvedReason::Unreadable))).collect()
    }

    /// Tells `found` the name of the function at each of `addresses`, which ascend, in their order, if it can be told without reading
    /// anything.
    pub(super) fn tell_from_memory(
        &self,
        module: ModuleId,
        addresses: &[u64],
        known: &FunctionNames,
        found: impl FnMut(Option<Result<FunctionName, UnresolvedReason>>),
    ) {
        self.tell_known(module, &self.index.lookup_all(addresses), known, found);
    }

    fn tell_known(
        &self,
        module: ModuleId,
        functions: &[Option<SymbolRef>],
        known: &FunctionNames,
        mut found: impl FnMut(Option<Result<FunctionName, UnresolvedReason>>),
    ) {
        let starts = functions.iter().map(|function| function.map(|function| function.start));
        let mut functions = functions.iter();
        known.get(module, starts, |name| match functions.next() {
            Some(Some(_)) => found(name.cloned().map(Ok)),
            _ => found(Some(Err(self.absent))),
        });
    }

    /// Reads the names of `functions`, which come back in the order of their addresses.
    fn read_all(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        mut functions: Vec<SymbolRef>,
    ) -> Vec<NamedFunction> {
        SymbolRef::in_order_of_names(&mut functions);
        let mut fresh = Vec::with_capacity(functions.len());
        for of_origin in functions.chunk_by(|one, other| one.origin() == other.origin()) {
            self.read(module, own, image, of_origin, &mut fresh);
        }
        fresh.sort_unstable_by_key(|(function, _)| function.start);
        fresh
    }

    /// Appends to `names` those of `functions`, all of one origin.
    fn read(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        functions: &[SymbolRef],
        names: &mut Vec<NamedFunction>,
    ) {
        let Some(origin) = functions.first().map(SymbolRef::origin) else { return };
        let before = names.len();
        let mut read = |source: &dyn ReadAt| {
            self.index.names(source, functions, &mut |function, name| {
                names.push((*function, name.map(FunctionName::of).map_err(|_| UnresolvedReason::Unreadable)));
            });
        };
        let was_read = match (&self.symtab, origin) {
            (Symtab::DebugFile(file), NameOrigin::Symtab) => {
                own.close();
                let was_read = file.with(module, read);
                let is_all_there = names.iter().skip(before).all(|(_, name)| name.is_ok());
                if was_read.is_err() || !is_all_there {
                    names.truncate(before);
                    names.extend(self.own_names(module, own, image, functions));
                }
                return;
            }
            (Symtab::Mini(packed), NameOrigin::Symtab) => {
                read(packed);
                Ok(())
            }
            (Symtab::DebugFile(file), NameOrigin::Own) => {
                file.close();
                own.with(module, read)
            }
            (Symtab::Own | Symtab::Mini(_), _) => own.with(module, read),
        };
        if let Err(reason) = was_read {
            names.extend(functions.iter().map(|function| (*function, Err(reason))));
        }
    }

    /// The names of `functions` as the module's own file has them, for the debug file was taken away. The file is indexed anew: it is
    /// seldom, and each name is remembered.
    fn own_names(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        functions: &[SymbolRef],
    ) -> Vec<NamedFunction> {
        self.close();
        let name = |source: &dyn ReadAt, index: Option<&FunctionIndex>, function: &SymbolRef| {
            let index = index?;
            index.name(source, &index.lookup(function.start)?).ok()
        };
        let found = own.with(module, |source| {
            let index = FunctionIndex::build(source, image, &ElfLimits::default()).ok();
            functions.iter().map(|function| name(source, index.as_ref(), function)).collect::<Vec<_>>()
        });
        let found = found.unwrap_or_else(|_| functions.iter().map(|_| None).collect());
        let named = |(function, name): (&SymbolRef, Option<String>)| {
            (*function, name.map(|name| FunctionName::of(&name)).ok_or(UnresolvedReason::Gone))
        };
        functions.iter().zip(found).map(named).collect()
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

/// Why `error` leaves frames without a name.
pub(super) fn reason(module: &Module, error: &ElfError) -> UnresolvedReason {
    tracing::debug!(module = ?module.key, %error, "cannot index a module");
    match error {
        ElfError::Read { .. } => UnresolvedReason::Unreadable,
        ElfError::TooLarge { .. } => UnresolvedReason::OverBudget,
        _ => UnresolvedReason::Malformed,
    }
}
