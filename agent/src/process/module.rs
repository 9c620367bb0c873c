//! Modules: what code is mapped from. Each distinct one gets a small number, by which addresses refer to it.
//!
//! A number is never given to another module: whoever holds one that was retired finds nothing, and never something else.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::kernel::sideband::record::FileHint;
use crate::table_use::TableUse;

/// A module's number. Two numbers may turn out to be the same file, which is found out when they are opened
/// ([`ModuleTable::canonical`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(u32);

impl ModuleId {
    /// The vDSO: the same in every 64-bit process.
    pub const VDSO: Self = Self(0);
    /// All memory without a file.
    pub const ANONYMOUS: Self = Self(1);
    /// All files for which the table had no room.
    pub const TABLE_FULL: Self = Self(2);

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
    /// A file for which the table had no room.
    TableFull,
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
    /// The generation of its inode, if a mapping told of it.
    pub generation: Option<u64>,
}

/// What a file holds, as far as that is looked at. Equal where the file is one, in however many containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentId(pub [u8; 16]);

/// Nanoseconds for which a module that nobody maps is remembered, with all that is known of it: a compiler's next run is rarely
/// further away.
const REMEMBER_IDLE: u64 = 600_000_000_000;
/// Modules that nobody maps may take this part of the budget.
const IDLE_SHARE: usize = 4;

/// Every module that a known process maps or that a window shows, and those that were mapped lately. Shared; one for the whole
/// agent; within a byte budget.
#[derive(Debug)]
pub struct ModuleTable {
    budget: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    ids: HashMap<ModuleKey, ModuleId>,
    modules: HashMap<ModuleId, Known>,
    /// By content, the module that stands for all that have it.
    contents: HashMap<ContentId, ModuleId>,
    /// How often a module turned out to be another one.
    joined: u64,
    next: u32,
    bytes: usize,
    refused: u64,
    retired: u64,
}

#[derive(Debug)]
struct Known {
    key: ModuleKey,
    witness: Witness,
    /// The inode's, if a mapping told of it.
    generation: Option<u64>,
    /// Since when nobody needs it, in nanoseconds of `CLOCK_MONOTONIC`.
    idle_since: Option<u64>,
    /// What it holds, if it was looked at and could be read.
    content: Option<ContentId>,
    /// The module that stands for it: itself, or another with the same content. `None` until it was looked at.
    stands_for: Option<ModuleId>,
}

/// What [`ModuleTable::retire`] found that nobody needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unneeded {
    /// Needed no more, but remembered: their files are to be closed, lest a deleted one keeps its room on the disk.
    pub idle: Vec<ModuleId>,
    /// Out of the table: what was derived from them is to be dropped.
    pub retired: Vec<ModuleId>,
}

impl Default for ModuleTable {
    /// A table within [`ModuleTable::DEFAULT_BUDGET`].
    fn default() -> Self {
        Self::new(Self::DEFAULT_BUDGET)
    }
}

impl ModuleTable {
    /// Room for some 12,000 files with paths of usual length.
    pub const DEFAULT_BUDGET: usize = 4 << 20;

    /// A table that holds the modules that every machine has, and may take `budget` bytes.
    pub fn new(budget: usize) -> Self {
        let nowhere = Witness { pid: 0, start: 0, end: 0 };
        let fixed = [
            (ModuleKey::Vdso, ModuleId::VDSO),
            (ModuleKey::Anonymous, ModuleId::ANONYMOUS),
            (ModuleKey::TableFull, ModuleId::TABLE_FULL),
        ];
        let known = |key| Known::new(key, nowhere);
        let inner = Inner {
            bytes: fixed.iter().map(|(key, _)| bytes_of(key)).sum(),
            next: fixed.len() as u32,
            modules: fixed.iter().map(|(key, id)| (*id, known(key.clone()))).collect(),
            ids: fixed.into(),
            contents: HashMap::new(),
            joined: 0,
            refused: 0,
            retired: 0,
        };
        Self { budget, inner: Mutex::new(inner) }
    }

    /// The number of the module `key`, which `witness` maps. [`ModuleId::TABLE_FULL`] when it is new and there is no room.
    pub fn intern(&self, key: ModuleKey, witness: Witness) -> ModuleId {
        self.intern_generation(key, None, witness)
    }

    /// The same where the inode's generation is known, or is not (`/proc` does not tell). A path and an inode number that are another
    /// file's by now are another module.
    pub fn intern_generation(&self, key: ModuleKey, generation: Option<u64>, witness: Witness) -> ModuleId {
        let mut inner = self.lock();
        if let Some(id) = inner.current(&key, generation) {
            if let Some(known) = inner.modules.get_mut(&id) {
                known.witness = witness;
                known.generation = known.generation.or(generation);
                known.idle_since = None;
                if known.content.is_none() {
                    // It could not be read; by this witness it may be.
                    known.stands_for = None;
                }
            }
            return id;
        }
        let bytes = bytes_of(&key);
        if inner.bytes + bytes > self.budget {
            inner.refused += 1;
            return ModuleId::TABLE_FULL;
        }
        let id = inner.free_number();
        inner.bytes += bytes;
        inner.modules.insert(id, Known { generation, ..Known::new(key.clone(), witness) });
        inner.ids.insert(key, id);
        id
    }

    /// The module with this number; `None` when it was retired. Where nobody maps it any more but another one with the same
    /// content, it is to be found there.
    pub fn get(&self, id: ModuleId) -> Option<Module> {
        let inner = self.lock();
        let own = inner.modules.get(&id)?;
        let Known { key, witness, generation, .. } = inner.lender(id, own).unwrap_or(own);
        Some(Module { id, key: key.clone(), witness: *witness, generation: *generation })
    }

    /// The module that stands for `id` and all others with the same content; `None` as long as that was not looked at.
    pub fn canonical(&self, id: ModuleId) -> Option<ModuleId> {
        if id <= ModuleId::TABLE_FULL {
            return Some(id);
        }
        self.lock().modules.get(&id)?.stands_for
    }

    /// Notes what module `id` holds; `None` when it cannot be read. The module that stands for it: the first one with that content.
    pub fn identify(&self, id: ModuleId, content: Option<ContentId>) -> ModuleId {
        let mut inner = self.lock();
        let Inner { modules, contents, joined, .. } = &mut *inner;
        let Some(known) = modules.get_mut(&id) else { return id };
        let first = content.map_or(id, |content| *contents.entry(content).or_insert(id));
        known.content = content;
        known.stands_for = Some(first);
        *joined += u64::from(first != id);
        first
    }

    /// How often a module turned out to be another one so far. What was derived from numbers may have changed when this has.
    pub fn joined(&self) -> u64 {
        self.lock().joined
    }

    /// Whether module `id`, which nobody maps, is to be found where another one with the same content is mapped.
    pub fn is_lent(&self, id: ModuleId) -> bool {
        let inner = self.lock();
        inner.modules.get(&id).is_some_and(|own| inner.lender(id, own).is_some())
    }

    /// Whether there is a module with this number.
    pub fn has(&self, id: ModuleId) -> bool {
        self.lock().modules.contains_key(&id)
    }

    /// Takes modules out of the table that nobody needs: those that are not in `used` for long, and of the others those that
    /// were needed longest ago, as far as they take more than their part of the budget. `used` must hold every module that a
    /// process, a waiting walk or a window refers to; `now` is the time in `CLOCK_MONOTONIC` nanoseconds.
    pub fn retire(&self, used: &HashSet<ModuleId>, now: u64) -> Unneeded {
        let mut inner = self.lock();
        let mut unneeded = Unneeded::default();
        let (mut idle, mut idle_bytes) = (Vec::new(), 0);
        // What stands for a module that is used is not retired, though nobody may map it itself.
        let standing: HashSet<_> = used.iter().filter_map(|id| inner.modules.get(id)?.stands_for).collect();
        for (id, known) in &mut inner.modules {
            if *id <= ModuleId::TABLE_FULL || used.contains(id) {
                known.idle_since = None;
                continue;
            }
            if known.idle_since.is_none() {
                unneeded.idle.push(*id);
            }
            let since = *known.idle_since.get_or_insert(now);
            if standing.contains(id) {
                continue;
            }
            idle.push((since, *id));
            idle_bytes += bytes_of(&known.key);
        }
        idle.sort_unstable();
        for (since, id) in idle {
            if idle_bytes <= self.budget / IDLE_SHARE && now.saturating_sub(since) < REMEMBER_IDLE {
                break;
            }
            idle_bytes -= inner.remove(id);
            unneeded.retired.push(id);
        }
        inner.shrink();
        unneeded
    }

    /// Whether it is high time to [`ModuleTable::retire`].
    pub fn is_nearly_full(&self) -> bool {
        self.lock().bytes > self.budget / 4 * 3
    }

    /// How many modules there are.
    pub fn count(&self) -> usize {
        self.lock().modules.len()
    }

    /// How many modules are files in or below `directory`.
    pub fn count_below(&self, directory: &Path) -> usize {
        let is_below = |key: &&ModuleKey| match key {
            ModuleKey::File { path, .. } => Path::new(&**path).starts_with(directory),
            _ => false,
        };
        self.lock().ids.keys().filter(is_below).count()
    }

    /// How often there was no room for a module.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// How many modules were taken out of the table so far.
    pub fn retired(&self) -> u64 {
        self.lock().retired
    }

    /// How full the table is.
    pub fn table_use(&self) -> TableUse {
        let inner = self.lock();
        TableUse { name: "modules", entries: inner.modules.len(), bytes: inner.bytes, budget: self.budget }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete in itself, so a panic elsewhere leaves the table usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn new(key: ModuleKey, witness: Witness) -> Self {
        Self { key, witness, generation: None, idle_since: None, content: None, stands_for: None }
    }
}

impl Inner {
    /// The module that `key` now stands for, if it is known.
    fn current(&self, key: &ModuleKey, generation: Option<u64>) -> Option<ModuleId> {
        let id = self.ids.get(key).copied()?;
        let known = self.modules.get(&id)?;
        let is_another = matches!(key, ModuleKey::File { .. })
            && known.generation.zip(generation).is_some_and(|(known, now)| known != now);
        (!is_another).then_some(id)
    }

    /// A module with the content of `own`, number `id`, that is mapped while `own` is not.
    fn lender(&self, id: ModuleId, own: &Known) -> Option<&Known> {
        own.idle_since?;
        own.content?;
        let is_mapped = |known: &&Known| known.stands_for == Some(id) && known.idle_since.is_none();
        self.modules.values().find(is_mapped)
    }

    /// A number that no module has. They come round after four billion modules; nobody refers to an old one by then.
    fn free_number(&mut self) -> ModuleId {
        loop {
            let id = ModuleId(self.next);
            // The tables of the eBPF unwinder have a meaning of their own for the highest number.
            self.next = if self.next >= u32::MAX - 1 { 0 } else { self.next + 1 };
            if !self.modules.contains_key(&id) {
                return id;
            }
        }
    }

    /// Takes a module out; how many bytes that frees.
    fn remove(&mut self, id: ModuleId) -> usize {
        let Some(known) = self.modules.remove(&id) else { return 0 };
        // A newer file may have its place by now.
        if self.ids.get(&known.key) == Some(&id) {
            self.ids.remove(&known.key);
        }
        if let Some(content) = known.content
            && self.contents.get(&content) == Some(&id)
        {
            self.contents.remove(&content);
        }
        self.retired += 1;
        let bytes = bytes_of(&known.key);
        self.bytes -= bytes;
        bytes
    }

    /// Gives memory back after many modules went.
    fn shrink(&mut self) {
        if self.modules.capacity() > 4 * self.modules.len().max(256) {
            self.modules.shrink_to_fit();
            self.ids.shrink_to_fit();
            self.contents.shrink_to_fit();
        }
    }
}

/// Bytes that a module takes, an estimate from above: three places in hash tables that are half full, and the path.
fn bytes_of(key: &ModuleKey) -> usize {
    const ENTRY: usize = 2
        * (size_of::<(ModuleKey, ModuleId)>()
            + size_of::<(ModuleId, Known)>()
            + size_of::<(ContentId, ModuleId)>()
            + 3);
    /// Two counters and the allocator's own.
    const SHARED: usize = 32;
    match key {
        ModuleKey::File { path, .. } => ENTRY + SHARED + path.len(),
        ModuleKey::Vdso | ModuleKey::Anonymous | ModuleKey::TableFull => ENTRY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, inode: u64) -> ModuleKey {
        ModuleKey::File { path: path.into(), hint: FileHint { device: 1, inode } }
    }

    fn at(pid: u32) -> Witness {
        Witness { pid, start: 0, end: 1 }
    }

    /// One number a key; the latest witness wins.
    #[test]
    fn modules_are_numbered_once() {
        let table = ModuleTable::default();
        let first = table.intern(file("/a", 1), at(10));
        let other = table.intern(file("/a", 2), at(11));
        assert_ne!(first, other);
        assert_eq!(table.intern(file("/a", 1), at(12)), first);
        assert_eq!(table.get(first).expect("known").witness.pid, 12);
        assert_eq!(table.count(), 5, "the vDSO, anonymous memory, the rest and two files");
        assert!(matches!(table.get(ModuleId::VDSO).expect("fixed").key, ModuleKey::Vdso));
        assert!(matches!(table.get(ModuleId::ANONYMOUS).expect("fixed").key, ModuleKey::Anonymous));
        assert!(matches!(table.get(ModuleId::TABLE_FULL).expect("fixed").key, ModuleKey::TableFull));
    }

    /// An inode number that another file has by now is another module, whose end and whose predecessor's end leave nothing behind; what
    /// `/proc` says, which tells no generation, is taken for the latest.
    #[test]
    fn another_generation_is_another_module() {
        let table = ModuleTable::default();
        let empty = table.table_use();
        let scanned = table.intern(file("/a", 1), at(10));
        let intern = |generation, pid| table.intern_generation(file("/a", 1), Some(generation), at(pid));
        assert_eq!([intern(7, 11), intern(7, 12)], [scanned; 2]);
        let newer = intern(8, 13);
        assert_ne!(newer, scanned);
        assert_eq!([intern(8, 14), table.intern(file("/a", 1), at(15))], [newer; 2]);
        let pid = |id| table.get(id).map(|module| module.witness.pid);
        assert_eq!([pid(scanned), pid(newer)], [Some(12), Some(15)]);

        let used = HashSet::from([newer]);
        table.retire(&used, 1);
        assert_eq!(table.retire(&used, 1 + REMEMBER_IDLE).retired, [scanned]);
        assert_eq!(table.intern(file("/a", 1), at(16)), newer);
        table.retire(&HashSet::new(), 1);
        assert_eq!(table.retire(&HashSet::new(), 1 + REMEMBER_IDLE).retired, [newer]);
        assert_eq!(table.table_use(), empty);
    }

    /// Modules of one content are one: the first stands for all. It stays as long as one of them is used, and is to be found where that
    /// one is mapped; when all are gone the content is forgotten.
    #[test]
    fn modules_of_one_content_are_one() {
        let table = ModuleTable::default();
        let empty = table.table_use();
        let [first, second, other] = [("/a", 1), ("/a", 2), ("/b", 3)]
            .map(|(path, inode)| table.intern(file(path, inode), at(inode as u32)));
        assert_eq!(table.canonical(second), None, "nobody has looked");
        let content = ContentId([7; 16]);
        assert_eq!(table.identify(first, Some(content)), first);
        assert_eq!((table.joined(), table.identify(second, Some(content)), table.joined()), (0, first, 1));
        assert_eq!(table.identify(other, None), other, "what cannot be read stands for itself");
        assert_eq!(
            [first, second, other].map(|id| table.canonical(id)),
            [Some(first), Some(first), Some(other)]
        );

        let used = HashSet::from([second, other]);
        assert_eq!(table.retire(&used, 1).idle, [first]);
        assert!(table.retire(&used, 2 * REMEMBER_IDLE).retired.is_empty(), "it stands for another");
        assert!(table.is_lent(first));
        assert_eq!(table.get(first).map(|module| (module.id, module.witness.pid)), Some((first, 2)));

        table.retire(&HashSet::new(), 1);
        assert_eq!(table.retire(&HashSet::new(), 2 * REMEMBER_IDLE).retired.len(), 3);
        assert_eq!(table.table_use(), empty);
        let again = table.intern(file("/a", 2), at(2));
        assert_eq!(table.identify(again, Some(content)), again, "the content was forgotten");
    }

    /// A file that could not be read is looked at again when somebody else maps it.
    #[test]
    fn another_witness_is_another_chance() {
        let table = ModuleTable::default();
        let id = table.intern(file("/a", 1), at(1));
        assert_eq!((table.identify(id, None), table.canonical(id)), (id, Some(id)));
        table.intern(file("/a", 1), at(2));
        assert_eq!(table.canonical(id), None);
    }

    /// What nobody needs is remembered for a while, told once, then retired; its number is not used again, and the bytes are those
    /// of the beginning.
    #[test]
    fn what_nobody_needs_is_retired() {
        let table = ModuleTable::default();
        let empty = table.table_use();
        let first = table.intern(file("/a", 1), at(10));
        let kept = table.intern(file("/b", 2), at(10));
        let used = HashSet::from([kept]);
        assert_eq!(table.retire(&used, 1), Unneeded { idle: vec![first], retired: vec![] });
        assert_eq!(table.retire(&used, REMEMBER_IDLE), Unneeded::default());
        assert_eq!(table.retire(&used, REMEMBER_IDLE + 1), Unneeded { idle: vec![], retired: vec![first] });
        assert!(table.get(first).is_none() && table.has(kept));
        let again = table.intern(file("/a", 1), at(11));
        assert_ne!(again, first, "another module, as far as anybody can tell");
        table.retire(&HashSet::new(), 2);
        table.retire(&HashSet::new(), 2 + REMEMBER_IDLE);
        assert_eq!((table.table_use(), table.retired()), (empty, 3));
    }

    /// A module that is mapped again in time keeps its number and all that is known of it.
    #[test]
    fn what_is_mapped_again_stays() {
        let table = ModuleTable::default();
        let id = table.intern(file("/a", 1), at(10));
        table.retire(&HashSet::new(), 1);
        assert_eq!(table.intern(file("/a", 1), at(11)), id);
        assert_eq!(table.retire(&HashSet::new(), REMEMBER_IDLE + 1).retired, []);
        assert_eq!(table.retire(&HashSet::from([id]), REMEMBER_IDLE + 2), Unneeded::default());
        assert!(table.has(id));
    }

    /// Within the budget whatever comes: what is idle gives way, the oldest first, and when all is needed, what is new is refused
    /// and counted.
    #[test]
    fn the_budget_holds() {
        let table = ModuleTable::new(64 << 10);
        let mut ids: Vec<_> = (0..1000).map(|inode| table.intern(file("/some/path", inode), at(1))).collect();
        let refused = table.refused();
        assert!(refused > 0 && ids[999] == ModuleId::TABLE_FULL, "{refused}");
        assert!(table.table_use().bytes <= 64 << 10 && table.is_nearly_full());
        ids.truncate(1000 - refused as usize);
        table.retire(&ids[1..].iter().copied().collect(), 5);
        let unneeded = table.retire(&HashSet::new(), 6);
        assert_eq!(unneeded.idle.len(), ids.len() - 1);
        assert!(unneeded.retired.contains(&ids[0]), "idle for longest");
        assert!(table.table_use().bytes <= (64 << 10) / IDLE_SHARE + 1024, "{:?}", table.table_use());
        assert_ne!(table.intern(file("/some/path", 2000), at(1)), ModuleId::TABLE_FULL);
    }
}
