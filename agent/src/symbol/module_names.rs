//! The names of a module's functions, from the best source that there is: its own `.symtab`; its debug file's; MiniDebugInfo
//! together with `.dynsym`; `.dynsym` alone. A source that cannot be used is passed over, so it costs no name that is known
//! without it.

use crate::process::module::Module;
use crate::symbol::debug_file::{DebugFile, DebugFiles};
use crate::symbol::elf::{
    ElfError, ElfFile, ElfImage, ElfLimits, FunctionIndex, NameOrigin, SymtabKind, mini_debug_info,
};
use crate::symbol::module_source::ModuleSource;
use crate::symbol::packed_names::PackedNames;
use crate::symbol::read_at::ReadAt;
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

    /// The name of the function at `address` as its file has it. `own` is the module's file and `image` its headers.
    ///
    /// Of the module's file and its debug file one is open at a time.
    pub(super) fn name(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        address: u64,
    ) -> Result<String, UnresolvedReason> {
        let function = self.index.lookup(address).ok_or(self.absent)?;
        let read = |source: &dyn ReadAt| self.index.name(source, &function);
        let name = match (&self.symtab, function.origin()) {
            (Symtab::DebugFile(file), NameOrigin::Symtab) => {
                own.close();
                match file.with(module, read) {
                    Ok(Ok(name)) => return Ok(name),
                    Ok(Err(_)) | Err(_) => return self.own_name(module, own, image, address),
                }
            }
            (Symtab::Mini(names), NameOrigin::Symtab) => read(names),
            (Symtab::DebugFile(file), NameOrigin::Own) => {
                file.close();
                own.with(module, read)?
            }
            (Symtab::Own | Symtab::Mini(_), _) => own.with(module, read)?,
        };
        name.map_err(|_| UnresolvedReason::Unreadable)
    }

    /// The name that the module's own file has, for when the debug file was taken away. It is indexed anew for each name:
    /// that is seldom, and each name is remembered.
    fn own_name(
        &self,
        module: &Module,
        own: &ModuleSource,
        image: &ElfImage,
        address: u64,
    ) -> Result<String, UnresolvedReason> {
        self.close();
        let name = own.with(module, |source| {
            let index = FunctionIndex::build(source, image, &ElfLimits::default()).ok()?;
            index.name(source, &index.lookup(address)?).ok()
        })?;
        name.ok_or(UnresolvedReason::Gone)
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
