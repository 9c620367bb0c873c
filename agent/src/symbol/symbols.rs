//! What the resolver answers: a frame's module and function.

use std::sync::Arc;

use crate::build_id::BuildId;
use crate::symbol::unresolved::UnresolvedReason;

/// A module as people and tools know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModuleInfo {
    /// Path in the mount namespace of a process that maps it, or `[kernel]`, `[vdso]`, `[anon]`, `[nf_tables]`, ….
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

/// A function's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionName {
    /// For people: demangled, or `module+0xoffset`.
    pub name: String,
    /// As it stands in the symbol table; empty where there is none.
    pub system_name: String,
}

/// What is known of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbols {
    /// Whose code it is; `None` when that is not known.
    pub module: Option<Arc<ModuleInfo>>,
    /// ELF address (kernel: virtual address; a file that could not be read: file offset).
    pub address: u64,
    /// The function; never empty.
    pub function: FunctionName,
    /// Why there is no name, where there is none.
    pub unresolved: Option<UnresolvedReason>,
}

impl Symbols {
    /// A frame whose function is known.
    pub fn named(module: Arc<ModuleInfo>, address: u64, name: String, system_name: String) -> Self {
        let function = FunctionName { name, system_name };
        Self { module: Some(module), address, function, unresolved: None }
    }

    /// A frame of `module` whose function is not known: it is called `module+0xoffset`, with `offset` counted from where
    /// the module is loaded.
    pub fn unnamed(module: Arc<ModuleInfo>, offset: u64, reason: UnresolvedReason) -> Self {
        let name = format!("{}+{offset:#x}", module.short_name());
        let function = FunctionName { name, system_name: String::new() };
        Self { module: Some(module), address: offset, function, unresolved: Some(reason) }
    }

    /// A frame of which not even the module is known.
    pub fn marker(name: &str, unresolved: Option<UnresolvedReason>) -> Self {
        let function = FunctionName { name: name.to_owned(), system_name: String::new() };
        Self { module: None, address: 0, function, unresolved }
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.function.name.capacity() + self.function.system_name.capacity()
    }
}
