//! Modules: what code is mapped from. Each distinct one gets a small number, by which addresses refer to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kernel::sideband::record::FileHint;

/// A module's number. Two numbers may turn out to be the same file (one was seen by build id, one by inode);
/// the resolver finds out when it opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(u32);

impl ModuleId {
    /// The vDSO: the same in every 64-bit process.
    pub const VDSO: Self = Self(0);
    /// All memory without a file.
    pub const ANONYMOUS: Self = Self(1);

    /// The number itself, as the eBPF unwinder's tables have it.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// What a mapping says of where its code comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModuleKey {
    /// A file. Device and inode are a hint for finding it again, never its identity: overlayfs gives every container
    /// another device for the same layer.
    File {
        /// Path in the mount namespace of the process that mapped it, without ` (deleted)`.
        path: Arc<str>,
        /// What the kernel said of it.
        hint: FileHint,
    },
    /// The kernel's code for user space.
    Vdso,
    /// Memory without a file, a JIT's for example.
    Anonymous,
}

/// Somewhere that a module is mapped: a way to open the very file, whatever has become of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The process.
    pub pid: u32,
    /// First address of the mapping.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
}

/// A module, as the resolver asks for it.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its number.
    pub id: ModuleId,
    /// What it is.
    pub key: ModuleKey,
    /// Where it was mapped last.
    pub witness: Witness,
}

/// Every module that a known process has mapped. Shared; one for the whole agent.
#[derive(Debug)]
pub struct ModuleTable {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    ids: HashMap<ModuleKey, ModuleId>,
    modules: Vec<(ModuleKey, Witness)>,
}

impl Default for ModuleTable {
    /// A table that holds the two modules that every machine has.
    fn default() -> Self {
        let nowhere = Witness { pid: 0, start: 0, end: 0 };
        let modules = vec![(ModuleKey::Vdso, nowhere), (ModuleKey::Anonymous, nowhere)];
        let ids = [(ModuleKey::Vdso, ModuleId::VDSO), (ModuleKey::Anonymous, ModuleId::ANONYMOUS)].into();
        Self { inner: Mutex::new(Inner { ids, modules }) }
    }
}

impl ModuleTable {
    /// The number of the module `key`, which `witness` maps.
    pub fn intern(&self, key: ModuleKey, witness: Witness) -> ModuleId {
        let mut inner = self.lock();
        if let Some(id) = inner.ids.get(&key).copied() {
            inner.modules[id.0 as usize].1 = witness;
            return id;
        }
        let id = ModuleId(inner.modules.len() as u32);
        inner.modules.push((key.clone(), witness));
        inner.ids.insert(key, id);
        id
    }

    /// Notes that a live process maps the module at `witness`.
    pub fn renew_witness(&self, id: ModuleId, witness: Witness) {
        self.lock().modules[id.0 as usize].1 = witness;
    }

    /// The module with this number.
    pub fn get(&self, id: ModuleId) -> Module {
        let inner = self.lock();
        let (key, witness) = &inner.modules[id.0 as usize];
        Module { id, key: key.clone(), witness: *witness }
    }

    /// How many modules there are.
    pub fn count(&self) -> usize {
        self.lock().modules.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete in itself, so a panic elsewhere leaves the table usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, inode: u64) -> ModuleKey {
        ModuleKey::File { path: path.into(), hint: FileHint { device: 1, inode } }
    }

    /// One number a key; the latest witness wins.
    #[test]
    fn modules_are_numbered_once() {
        let table = ModuleTable::default();
        let at = |pid| Witness { pid, start: 0, end: 1 };
        let first = table.intern(file("/a", 1), at(10));
        let other = table.intern(file("/a", 2), at(11));
        assert_ne!(first, other);
        assert_eq!(table.intern(file("/a", 1), at(12)), first);
        assert_eq!(table.get(first).witness.pid, 12);
        assert_eq!(table.count(), 4, "the vDSO, anonymous memory and two files");
        assert!(matches!(table.get(ModuleId::VDSO).key, ModuleKey::Vdso));
        assert!(matches!(table.get(ModuleId::ANONYMOUS).key, ModuleKey::Anonymous));
    }
}
