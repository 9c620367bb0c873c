//! The names of the kernel's code while it changes: kallsyms, read once and again when kernel modules have come or gone, and
//! over it the BPF programs that the side-band has told of since.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use crate::kernel::sideband::record::KernelCode;
use crate::symbol::kallsyms::{Kallsyms, KallsymsError};

/// Reading kallsyms again costs a tenth of a second or two: not more often than this.
const REREAD: Duration = Duration::from_secs(30);

/// A kernel function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelName {
    pub(super) name: String,
    /// `bpf` for BPF programs; `None` for the kernel image itself.
    pub(super) module: Option<String>,
}

/// What names the kernel's code.
pub(super) struct KernelNames {
    first: OnceLock<Result<Kallsyms, KallsymsError>>,
    /// In place of the first, once kernel modules have changed.
    newer: RwLock<Option<Kallsyms>>,
    modules: Mutex<KernelModules>,
    programs: Mutex<LoadedCode>,
    /// How often kallsyms was read.
    loads: IntCounter,
}

/// Which kernel modules there were when kallsyms was read.
#[derive(Default)]
struct KernelModules {
    seen: u64,
    read: Option<Instant>,
}

impl KernelNames {
    /// Nothing yet. Of code that is loaded later as much is remembered as `budget` bytes hold. Each reading of kallsyms counts in `loads`.
    pub(super) fn new(budget: usize, loads: IntCounter) -> Self {
        Self {
            first: OnceLock::new(),
            newer: RwLock::new(None),
            modules: Mutex::default(),
            programs: Mutex::new(LoadedCode::new(budget)),
            loads,
        }
    }

    /// Reads kallsyms for the first time. Whoever asks for a name before waits for it.
    pub(super) fn load(&self) -> &Result<Kallsyms, KallsymsError> {
        // What comes in between is seen as a change.
        *lock(&self.modules) = KernelModules { seen: modules_now(), read: Some(Instant::now()) };
        self.first.get_or_init(|| self.read_kallsyms())
    }

    /// Reads kallsyms again if kernel modules have changed since and it is not too early. True when it was read: names that were
    /// looked up before may be others now.
    pub(super) fn refresh(&self) -> bool {
        let mut modules = lock(&self.modules);
        let is_early = modules.read.is_none_or(|read| read.elapsed() < REREAD);
        // While the kernel hides its addresses there is nothing to be had.
        if is_early || !matches!(self.first.get(), Some(Ok(_))) {
            return false;
        }
        let now = modules_now();
        if now == modules.seen {
            return false;
        }
        *modules = KernelModules { seen: now, read: Some(Instant::now()) };
        match self.read_kallsyms() {
            Ok(newer) => {
                tracing::debug!(
                    kernel_symbols = newer.len(),
                    "kernel modules have changed: read kallsyms again"
                );
                *self.newer.write().unwrap_or_else(PoisonError::into_inner) = Some(newer);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "cannot read kallsyms again");
                false
            }
        }
    }

    fn read_kallsyms(&self) -> Result<Kallsyms, KallsymsError> {
        self.loads.inc();
        Kallsyms::load()
    }

    /// Notes that `code` was loaded. Names looked up in its place before were of what was there before.
    pub(super) fn add(&self, code: KernelCode) {
        lock(&self.programs).add(code);
    }

    /// The function at `address`.
    pub(super) fn look_up(&self, address: u64) -> Option<KernelName> {
        if let Some(name) = lock(&self.programs).look_up(address) {
            return Some(name);
        }
        let in_kallsyms = |kernel: &Kallsyms| {
            let found = kernel.lookup(address)?;
            Some(KernelName { module: found.module.map(str::to_owned), name: found.name })
        };
        let newer = self.newer.read().unwrap_or_else(PoisonError::into_inner);
        match &*newer {
            Some(newer) => in_kallsyms(newer),
            None => self.first.wait().as_ref().ok().and_then(in_kallsyms),
        }
    }

    /// Symbols, and bytes that they take.
    pub(super) fn size(&self) -> (usize, usize) {
        let newer = self.newer.read().unwrap_or_else(PoisonError::into_inner);
        let kernel = newer.as_ref().or_else(|| self.first.get()?.as_ref().ok());
        // The first one stays when there is a newer.
        let first =
            if newer.is_some() { self.first.get().and_then(|first| first.as_ref().ok()) } else { None };
        let bytes = |kernel: Option<&Kallsyms>| kernel.map_or(0, Kallsyms::heap_bytes);
        (kernel.map_or(0, Kallsyms::len), bytes(kernel) + bytes(first) + lock(&self.programs).bytes)
    }
}

/// What tells one set of loaded modules from another: names, sizes and addresses, not who uses them
/// (`m_show` in `kernel/module/procfs.c`). A kernel without modules has no such file.
fn modules_now() -> u64 {
    fingerprint(&fs::read_to_string("/proc/modules").unwrap_or_default())
}

fn fingerprint(modules: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for line in modules.lines() {
        let mut fields = line.split_ascii_whitespace();
        (fields.next(), fields.next(), fields.nth(3)).hash(&mut hasher);
    }
    hasher.finish()
}

/// Code that was loaded while the agent runs, by address. It keeps its name after it was unloaded, for samples that are still to be
/// named, until other code is in its place.
struct LoadedCode {
    by_start: BTreeMap<u64, Loaded>,
    bytes: usize,
    budget: usize,
    next: u64,
}

struct Loaded {
    end: u64,
    name: String,
    is_bpf: bool,
    /// The lowest was loaded first.
    number: u64,
}

impl Loaded {
    /// A place in the tree, and the name.
    fn bytes(&self) -> usize {
        2 * size_of::<(u64, Self)>() + self.name.len()
    }
}

impl LoadedCode {
    fn new(budget: usize) -> Self {
        Self { by_start: BTreeMap::new(), bytes: 0, budget, next: 0 }
    }

    fn add(&mut self, KernelCode { start, length, name, is_bpf }: KernelCode) {
        let Some(end) = start.checked_add(u64::from(length)).filter(|end| *end > start) else { return };
        let covered: Vec<u64> = self
            .by_start
            .range(..end)
            .rev()
            .take_while(|(_, old)| old.end > start)
            .map(|(at, _)| *at)
            .collect();
        for at in covered {
            self.remove(at);
        }
        let loaded = Loaded { end, name, is_bpf, number: self.next };
        self.next += 1;
        self.bytes += loaded.bytes();
        self.by_start.insert(start, loaded);
        while self.bytes > self.budget {
            let oldest = self.by_start.iter().min_by_key(|(_, loaded)| loaded.number).map(|(at, _)| *at);
            let Some(oldest) = oldest else { break };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, start: u64) {
        if let Some(gone) = self.by_start.remove(&start) {
            self.bytes -= gone.bytes();
        }
    }

    fn look_up(&self, address: u64) -> Option<KernelName> {
        let (_, loaded) = self.by_start.range(..=address).next_back()?;
        (address < loaded.end).then(|| KernelName {
            name: loaded.name.clone(),
            module: loaded.is_bpf.then(|| "bpf".to_owned()),
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is whole between any two operations on it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(start: u64, length: u32, name: &str) -> KernelCode {
        KernelCode { start, length, name: name.to_owned(), is_bpf: true }
    }

    /// Code has its name from its first byte to its last; what is loaded over other code takes its place; what was loaded first goes
    /// first when there is no room.
    #[test]
    fn loaded_code_has_names() {
        let one = Loaded { end: 0, name: "a".into(), is_bpf: true, number: 0 }.bytes();
        let mut loaded = LoadedCode::new(3 * one);
        let names = |loaded: &LoadedCode, addresses: &[u64]| -> Vec<Option<String>> {
            addresses.iter().map(|at| loaded.look_up(*at).map(|found| found.name)).collect()
        };
        let some = |name: &str| Some(name.to_owned());
        loaded.add(code(0x1000, 0x10, "a"));
        loaded.add(code(0x1010, 0x10, "b"));
        loaded.add(code(u64::MAX, 1, "wraps"));
        loaded.add(code(0x3000, 0, "empty"));
        let around = [0xfff, 0x1000, 0x100f, 0x1010, 0x101f, 0x1020, 0x3000];
        assert_eq!(names(&loaded, &around), [None, some("a"), some("a"), some("b"), some("b"), None, None]);
        loaded.add(code(0x1008, 0x10, "c"));
        assert_eq!(names(&loaded, &[0x1000, 0x1008, 0x1017, 0x1018]), [None, some("c"), some("c"), None]);
        for (at, name) in [(0x2000, "d"), (0x2100, "e"), (0x2200, "f")] {
            loaded.add(code(at, 1, name));
        }
        let all = [0x1008, 0x2000, 0x2100, 0x2200];
        assert_eq!(names(&loaded, &all), [None, some("d"), some("e"), some("f")]);
        assert_eq!(loaded.bytes, 3 * one);
    }

    /// A module that comes, goes or moves is a change; one that is used by others is none.
    #[test]
    fn changes_of_modules_are_told() {
        let before =
            "nf_tables 311296 0 - Live 0xffffffffc0a00000\nfuse 172032 1 - Live 0xffffffffc0900000\n";
        let used =
            "nf_tables 311296 7 nft_x, Live 0xffffffffc0a00000\nfuse 172032 3 - Live 0xffffffffc0900000\n";
        assert_eq!(fingerprint(before), fingerprint(used));
        let moved = before.replace("0a00000", "0b00000");
        let (first, _) = before.split_once('\n').unwrap();
        for other in [moved.as_str(), first, ""] {
            assert_ne!(fingerprint(before), fingerprint(other), "{other}");
        }
    }
}
