//! What the resolver answers: a frame's module, its function and what is inlined there.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::build_id::BuildId;
use crate::symbol::demangle::NameStyle;
use crate::symbol::dwarf::SourceLine;
use crate::symbol::function_name::FunctionName;
use crate::symbol::unresolved::UnresolvedReason;

/// A module as people and tools know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModuleInfo {
    /// Path in the mount namespace of a process that maps it, or `[kernel]`, `[vdso]`, `[jit]`, `[anon]`, `[nf_tables]`, ….
    pub path: Arc<str>,
    /// The file's GNU build id.
    pub build_id: Option<BuildId>,
    /// ELF address at which the executable segment begins; 0 where it is not known.
    pub start: u64,
    /// First ELF address behind the executable segment; 0 where it is not known.
    pub limit: u64,
    /// File offset of the executable segment.
    pub file_offset: u64,
}

impl ModuleInfo {
    /// A module of which only the name is known.
    pub fn named(path: impl Into<Arc<str>>) -> Self {
        Self { path: path.into(), build_id: None, start: 0, limit: 0, file_offset: 0 }
    }

    /// The last component of the path.
    pub fn short_name(&self) -> &str {
        match self.path.rsplit_once('/') {
            Some((_, name)) if !name.is_empty() => name,
            _ => &self.path,
        }
    }
}

/// One function of a frame, and where in its source the frame is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFrame {
    /// The function; its name is never empty.
    pub function: FunctionName,
    /// Path of the source file as the compiler had it, where debug information tells.
    pub file: Option<Arc<str>>,
    /// Line in `file`, from 1; 0 where it is not known.
    pub line: u32,
}

impl SourceFrame {
    fn without_line(function: FunctionName) -> Self {
        Self { function, file: None, line: 0 }
    }

    /// A function of which only that is known what it is to be called.
    fn called(name: &str) -> Self {
        Self::without_line(FunctionName::called(name))
    }
}

/// What an inlined function is called whose debug information has no name for it.
const INLINED: &str = "[inlined]";

/// What is known of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// Whose code it is; `None` when that is not known.
    pub module: Option<Arc<ModuleInfo>>,
    /// ELF address (kernel: virtual address; a file that could not be read: file offset).
    pub address: u64,
    /// Innermost inlined function first; the last one holds the code. Never empty.
    pub frames: SmallVec<[SourceFrame; 1]>,
    /// Why there is no name, where there is none.
    pub unresolved: Option<UnresolvedReason>,
}

impl Symbols {
    /// A frame whose function is known.
    pub fn named(module: Arc<ModuleInfo>, address: u64, function: FunctionName) -> Self {
        let frames = smallvec![SourceFrame::without_line(function)];
        Self { module: Some(module), address, frames, unresolved: None }
    }

    /// A frame of `module` whose function is not known: it is called `module+0xoffset`, with `offset` counted from where
    /// the module is loaded.
    pub fn unnamed(module: Arc<ModuleInfo>, offset: u64, reason: UnresolvedReason) -> Self {
        let name = format!("{}+{offset:#x}", module.short_name());
        let frames = smallvec![SourceFrame::called(&name)];
        Self { module: Some(module), address: offset, frames, unresolved: Some(reason) }
    }

    /// A frame of which not even the module is known.
    pub fn marker(name: &str, unresolved: Option<UnresolvedReason>) -> Self {
        let frames = smallvec![SourceFrame::called(name)];
        Self { module: None, address: 0, frames, unresolved }
    }

    /// With what debug information says of the address: `lines`, innermost first.
    ///
    /// The function that holds the code keeps the name that the symbol table gave it, whatever debug information says: where the
    /// linker has joined equal functions or debug information is another build's, the symbol table is right about the code that
    /// runs. Only where it has no name, debug information's is taken.
    #[must_use]
    pub fn with_lines(mut self, lines: Vec<SourceLine>) -> Self {
        let mut frames: SmallVec<[SourceFrame; 1]> = lines
            .into_iter()
            .map(|SourceLine { function, file, line, .. }| {
                let function = match function {
                    Some(system_name) if !system_name.is_empty() => FunctionName::of(&system_name),
                    _ => FunctionName::called(INLINED),
                };
                SourceFrame { function, file, line }
            })
            .collect();
        let (Some(outermost), Some(known)) = (frames.last_mut(), self.frames.last_mut()) else { return self };
        if self.unresolved.is_none() || outermost.function.system_name().is_empty() {
            std::mem::swap(&mut outermost.function, &mut known.function);
        } else {
            self.unresolved = None;
        }
        self.frames = frames;
        self
    }

    /// With functions called in this style.
    #[must_use]
    pub fn in_style(mut self, style: NameStyle) -> Self {
        if style != NameStyle::default() {
            for frame in &mut self.frames {
                if let Some(styled) = style.apply(&frame.function) {
                    frame.function = styled;
                }
            }
        }
        self
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        // Frames share their functions' names and their files'; they are counted with each, so as not to count too little.
        let file = |file: &Arc<str>| file.len() + 2 * size_of::<usize>();
        let each = |frame: &SourceFrame| frame.function.heap_bytes() + frame.file.as_ref().map_or(0, file);
        let spilled = if self.frames.spilled() { size_of_val(&*self.frames) } else { 0 };
        spilled + self.frames.iter().map(each).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(function: &str, line: u32) -> SourceLine {
        let function = (!function.is_empty()).then(|| function.to_owned());
        SourceLine { function, file: Some("a.rs".into()), line, column: 1 }
    }

    fn shown(symbols: &Symbols) -> Vec<(&str, u32)> {
        symbols.frames.iter().map(|frame| (frame.function.name(), frame.line)).collect()
    }

    fn module() -> Arc<ModuleInfo> {
        Arc::new(ModuleInfo::named("/lib/a.so"))
    }

    /// The symbol table names the function that holds the code, debug information what is inlined there, demangled.
    #[test]
    fn the_symbol_table_wins() {
        let symbols = Symbols::named(module(), 16, FunctionName::of("outer"));
        let symbols = symbols.with_lines(vec![line("_ZN3foo3barEv", 3), line("", 5), line("other", 7)]);
        assert_eq!(shown(&symbols), [("foo::bar", 3), ("[inlined]", 5), ("outer", 7)]);
        assert_eq!(symbols.frames[0].function.system_name(), "_ZN3foo3barEv");
    }

    /// Where the symbol table has no name, debug information's counts; where neither has one, the line is kept.
    #[test]
    fn debug_information_names_what_is_stripped() {
        let stripped = Symbols::unnamed(module(), 16, UnresolvedReason::Stripped);
        let named = stripped.clone().with_lines(vec![line("main", 3)]);
        assert_eq!((shown(&named), named.unresolved), (vec![("main", 3)], None));
        let unnamed = stripped.clone().with_lines(vec![line("", 3)]);
        assert_eq!(shown(&unnamed), [("a.so+0x10", 3)]);
        assert_eq!(unnamed.unresolved, Some(UnresolvedReason::Stripped));
        assert_eq!(stripped.clone().with_lines(Vec::new()), stripped);
    }
}
