//! One module, opened: its identity, its segments, its index of functions, and its debug information.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::process::module::{Module, ModuleId, ModuleKey};
use crate::symbol::debug_file::DebugFiles;
use crate::symbol::demangle::demangle;
use crate::symbol::dwarf::{DwarfCache, SourceLine};
use crate::symbol::elf::{ElfError, ElfFile, ElfImage, ElfLimits};
use crate::symbol::function_name::FunctionName;
use crate::symbol::function_names::FunctionNames;
use crate::symbol::gopclntab::{GoFunction, GoLimits, GoLine, GoTable, shown_name};
use crate::symbol::module_lines::ModuleLines;
use crate::symbol::module_names::{ModuleNames, reason};
use crate::symbol::module_source::ModuleSource;
use crate::symbol::symbols::{ModuleInfo, Symbols};
use crate::symbol::unresolved::UnresolvedReason;

/// Bytes of an entry of a hash table of pointers, with its room, and of the counters of what it points to.
const MAP_ENTRY: usize = 96;

/// What opening a module led to.
pub(super) struct ModuleSymbols {
    info: Arc<ModuleInfo>,
    /// The same under other paths, where files of the same content are.
    elsewhere: Mutex<HashMap<Arc<str>, Arc<ModuleInfo>>>,
    contents: Result<Contents, UnresolvedReason>,
}

struct Contents {
    source: ModuleSource,
    image: ElfImage,
    names: ModuleNames,
    /// Of a Go program.
    go: Option<GoTable>,
    /// Found when the first line is asked for.
    lines: OnceLock<ModuleLines>,
}

impl ModuleSymbols {
    /// Opens `module` and indexes its functions. Never fails: a module that cannot be used says why, frame by frame.
    /// Where it is stripped, names come from what `debug_files` finds.
    pub(super) fn open(module: &Module, debug_files: &DebugFiles) -> Self {
        let contents =
            ModuleSource::open(module).and_then(|source| Contents::index(source, module, debug_files));
        let path: Arc<str> = match &module.key {
            ModuleKey::File { path, .. } => path.clone(),
            ModuleKey::Vdso => "[vdso]".into(),
            ModuleKey::Anonymous => "[anon]".into(),
            ModuleKey::TableFull => "[module table full]".into(),
        };
        let info = contents
            .as_ref()
            .map_or_else(|_| ModuleInfo::named(path.clone()), |contents| contents.info(path.clone()));
        Self { info: Arc::new(info), elsewhere: Mutex::default(), contents }
    }

    /// Tells `found` what `module`, which was opened as this, has at each of `file_offsets`, which ascend, in their order, until it
    /// says that nobody listens; with lines and inlined functions if there is a cache for debug information. The module is shown as
    /// `shown`, which is another path where two files have the same content.
    pub(super) fn symbols(
        &self,
        module: &Module,
        shown: &ModuleKey,
        file_offsets: &[u64],
        sources: &NameSources<'_>,
        found: &mut dyn FnMut(Symbols) -> bool,
    ) {
        let info = self.info_as(shown);
        let unnamed = |offset, reason| Symbols::unnamed(info.clone(), offset, reason);
        let contents = match &self.contents {
            Ok(contents) => contents,
            Err(reason) => {
                let _listens = file_offsets.iter().all(|offset| found(unnamed(*offset, *reason)));
                return;
            }
        };
        let to_address = |offset: &u64| contents.image.file_offset_to_address(*offset);
        let addresses: Vec<_> = file_offsets.iter().map(to_address).collect();
        let mapped: Vec<u64> = addresses.iter().flatten().copied().collect();
        let mut names = contents.names(module, &mapped, sources.functions).into_iter();
        for (offset, address) in file_offsets.iter().zip(addresses) {
            let symbols = match address.map(|address| (address, names.next())) {
                None => unnamed(*offset, UnresolvedReason::Malformed),
                Some((address, name)) => {
                    let symbols = match name.unwrap_or(Err(UnresolvedReason::Unreadable)) {
                        Ok(function) => Symbols::named(info.clone(), address, function),
                        Err(reason) => unnamed(address, reason),
                    };
                    match sources.debug.and_then(|debug| contents.lines(module, address, debug)) {
                        Some(lines) => symbols.with_lines(lines),
                        None => symbols,
                    }
                }
            };
            if !found(symbols) {
                return;
            }
        }
    }

    /// Tells `found`, by place in `file_offsets`, what can be told of them without reading anything: not of functions whose names were
    /// not read yet. As [`symbols`](Self::symbols) else, without lines.
    pub(super) fn symbols_in_memory(
        &self,
        module: ModuleId,
        shown: &ModuleKey,
        file_offsets: &[u64],
        functions: &FunctionNames,
        found: &mut dyn FnMut(usize, Symbols),
    ) {
        let Ok(contents) = &self.contents else { return };
        // Go's tables are read each time.
        if contents.go.is_some() {
            return;
        }
        let to_address = |offset: &u64| contents.image.file_offset_to_address(*offset);
        let addresses: Option<Vec<_>> = file_offsets.iter().map(to_address).collect();
        let Some(addresses) = addresses else { return };
        let info = self.info_as(shown);
        let mut places = addresses.iter().enumerate();
        contents.names.tell_from_memory(module, &addresses, functions, |name| {
            let (Some((place, address)), Some(name)) = (places.next(), name) else { return };
            found(
                place,
                match name {
                    Ok(function) => Symbols::named(info.clone(), *address, function),
                    Err(reason) => Symbols::unnamed(info.clone(), *address, reason),
                },
            );
        });
    }

    fn info_as(&self, shown: &ModuleKey) -> Arc<ModuleInfo> {
        match shown {
            ModuleKey::File { path, .. } if *path != self.info.path => {
                let info = || Arc::new(ModuleInfo { path: path.clone(), ..(*self.info).clone() });
                self.elsewhere().entry(path.clone()).or_insert_with(info).clone()
            }
            _ => self.info.clone(),
        }
    }

    /// Closes the module's files until a name is needed.
    pub(super) fn close(&self) {
        if let Ok(contents) = &self.contents {
            contents.source.close();
            contents.names.close();
            contents.lines.get().into_iter().for_each(ModuleLines::close);
        }
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let contents =
            self.contents.as_ref().map_or(0, |Contents { source, image, names, lines, .. }| {
                let lines = lines.get().map_or(0, ModuleLines::heap_bytes);
                source.heap_bytes() + image.heap_bytes() + names.heap_bytes() + lines
            });
        let elsewhere = self.elsewhere();
        let paths: usize = elsewhere.keys().map(|path| path.len()).sum();
        let infos =
            (1 + elsewhere.len()) * (size_of::<ModuleInfo>() + MAP_ENTRY) + self.info.path.len() + paths;
        size_of::<Self>() + infos + contents
    }

    fn elsewhere(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<ModuleInfo>>> {
        // The map is whole between any two operations on it.
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Contents {
    fn index(
        source: ModuleSource,
        module: &Module,
        debug_files: &DebugFiles,
    ) -> Result<Self, UnresolvedReason> {
        let parsed = source.with(module, |bytes| -> Result<_, ElfError> {
            let image = ElfImage::parse(bytes, &ElfLimits::default())?;
            let own = ElfFile { source: bytes, image: &image };
            let names = ModuleNames::open(module, own, debug_files)?;
            let go = GoTable::open(bytes, &image, &GoLimits::default()).unwrap_or_else(|error| {
                tracing::debug!(module = ?module.key, %error, "cannot use Go's tables");
                None
            });
            Ok((image, names, go))
        })?;
        let (image, names, go) = parsed.map_err(|error| reason(module, &error))?;
        if names.has_debug_file() {
            // One file a module stays open for names: the one that most of them are in.
            source.close();
        }
        Ok(Self { source, image, names, go, lines: OnceLock::new() })
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

    /// The names of the functions at `addresses`, in their order.
    fn names(
        &self,
        module: &Module,
        addresses: &[u64],
        known: &FunctionNames,
    ) -> Vec<Result<FunctionName, UnresolvedReason>> {
        let native =
            |addresses: &[u64]| self.names.names(module, &self.source, &self.image, addresses, known);
        if self.go.is_none() {
            return native(addresses);
        }
        let go = self.go_names(module, addresses);
        let others: Vec<u64> = addresses
            .iter()
            .zip(&go)
            .filter(|(_, name)| name.is_none())
            .map(|(address, _)| *address)
            .collect();
        let mut others = native(&others).into_iter();
        let other = |name: Option<_>| name.map(Ok).or_else(|| others.next());
        go.into_iter().map(other).map(|name| name.unwrap_or(Err(UnresolvedReason::Unreadable))).collect()
    }

    /// What Go's own tables say, which are there in stripped programs too: the same names then, and those that Go's tools show.
    fn go_names(&self, module: &Module, addresses: &[u64]) -> Vec<Option<FunctionName>> {
        // Of the function that was found last.
        let mut last: Option<(Range<u64>, FunctionName)> = None;
        let name = |address: &u64| {
            if last.as_ref().is_none_or(|(range, _)| !range.contains(address)) {
                last = self.go_function(module, *address).map(|GoFunction { entry, end, name: raw }| {
                    let name = FunctionName::new(shown_name(&demangle(&raw)), &raw);
                    (entry..end, name)
                });
            }
            last.as_ref().map(|(_, name)| name.clone())
        };
        addresses.iter().map(name).collect()
    }

    fn go_function(&self, module: &Module, address: u64) -> Option<GoFunction> {
        let go = self.go.as_ref()?;
        match self.source.with(module, |bytes| go.function_at(bytes, address)).ok()? {
            Ok(function) => function.filter(|function| !function.name.is_empty()),
            Err(error) => {
                tracing::debug!(module = ?module.key, address, %error, "cannot use Go's tables");
                None
            }
        }
    }

    /// Lines and inlined functions, innermost first: of Go code from Go's own tables, else from debug information.
    fn lines(&self, module: &Module, address: u64, debug: &DebugSources<'_>) -> Option<Vec<SourceLine>> {
        if let Some(go) = &self.go {
            let lines = self.source.with(module, |bytes| go.lines(bytes, &self.image, address));
            if let Ok(Ok(lines)) = lines
                && !lines.is_empty()
            {
                return Some(lines.into_iter().map(go_line).collect());
            }
        }
        let lines = self
            .lines
            .get_or_init(|| ModuleLines::open(module, &self.source, &self.image, debug.files, debug.cache));
        lines.lines(module, &self.source, address, debug.cache)
    }
}

/// Where names and lines come from and are kept.
pub(super) struct NameSources<'a> {
    pub(super) functions: &'a FunctionNames,
    /// None when nobody wants lines.
    pub(super) debug: Option<&'a DebugSources<'a>>,
}

/// Where debug information comes from and is kept.
pub(super) struct DebugSources<'a> {
    pub(super) files: &'a DebugFiles,
    pub(super) cache: &'a Arc<DwarfCache>,
}

fn go_line(line: GoLine) -> SourceLine {
    let GoLine { function, file, line } = line;
    let file = (!file.is_empty()).then(|| file.into());
    SourceLine { function: Some(shown_name(&function).into_owned()), file, line, column: 0 }
}
