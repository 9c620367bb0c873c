//! Names of functions that were read and demangled, so that another address in one of them needs neither.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::module::ModuleId;
use crate::symbol::byte_lru::{ByteLru, CacheCounts};
use crate::symbol::function_name::FunctionName;
use crate::table_use::TableUse;

/// A module, and the address in it at which the function begins.
type Place = (ModuleId, u64);

/// Names of functions of all modules, within a byte budget.
#[derive(Debug)]
pub(super) struct FunctionNames(Mutex<ByteLru<Place, FunctionName>>);

impl FunctionNames {
    /// An empty cache of at most `budget` bytes.
    pub(super) fn new(budget: usize) -> Self {
        Self(Mutex::new(ByteLru::new(budget)))
    }

    /// Tells `found` the name of each function of `module` that begins at one of `starts`, in their order, as far as they are known.
    /// Where the same one follows, it is looked up once.
    pub(super) fn get(
        &self,
        module: ModuleId,
        starts: impl Iterator<Item = Option<u64>>,
        mut found: impl FnMut(Option<&FunctionName>),
    ) {
        let mut names = self.lock();
        let mut last: Option<(u64, Option<FunctionName>)> = None;
        for start in starts {
            let Some(start) = start else {
                found(None);
                continue;
            };
            if last.as_ref().is_none_or(|(same, _)| *same != start) {
                last = Some((start, names.get(&(module, start)).cloned()));
            }
            found(last.as_ref().and_then(|(_, name)| name.as_ref()));
        }
    }

    /// Remembers names of functions of `module` by where they begin.
    pub(super) fn insert(&self, module: ModuleId, fresh: impl Iterator<Item = (u64, FunctionName)>) {
        let mut names = self.lock();
        for (start, name) in fresh {
            let bytes = name.heap_bytes();
            names.insert((module, start), name, bytes);
        }
    }

    /// Drops the names of modules that are retired.
    pub(super) fn forget(&self, retired: &HashSet<ModuleId>) {
        self.lock().retain(|(module, _)| !retired.contains(module));
    }

    /// Bytes in use and what the cache did so far.
    pub(super) fn usage(&self) -> (usize, CacheCounts) {
        let names = self.lock();
        (names.bytes(), names.counts())
    }

    /// How full the cache is.
    pub(super) fn table_use(&self) -> TableUse {
        self.lock().table_use("function names")
    }

    fn lock(&self) -> MutexGuard<'_, ByteLru<Place, FunctionName>> {
        // The cache is whole between any two operations on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
