//! Leaf functions under names that do not depend on which profiler gave them.

use std::collections::{HashMap, HashSet};
use std::fmt;

/// A leaf function, or all of a module that has no names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Leaf {
    /// The module's path, or a name in brackets.
    pub(crate) module: String,
    /// The symbol; `None` for what has no name.
    pub(crate) symbol: Option<String>,
}

/// Samples of each leaf.
pub(crate) type Tally = HashMap<Leaf, u64>;

impl Leaf {
    /// The leaf of a symbol and a module as one of the profilers names them.
    pub(crate) fn new(symbol: Option<&str>, module: Option<&str>) -> Self {
        let module = module_name(module.unwrap_or("[unknown]"));
        Self { module, symbol: symbol.map(Self::symbol_name) }
    }

    /// Names that are equal but for a version (`memcpy@@GLIBC_2.14`) become the same; `read@plt` is another function
    /// than `read`.
    pub(crate) fn symbol_name(symbol: &str) -> String {
        match symbol.split_once('@') {
            Some((name, "plt")) => format!("{name}@plt"),
            Some((name, _version)) if !name.is_empty() => name.to_owned(),
            _ => symbol.to_owned(),
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.module.rsplit('/').next().unwrap_or(&self.module);
        write!(formatter, "{}  {file}", self.symbol.as_deref().unwrap_or("[no name]"))
    }
}

/// The kernel, its modules and BPF programs are one module: perf names a module's file or, where it knows only
/// kallsyms, the module. Memory that is no file, and so cannot have names, is one too.
fn module_name(module: &str) -> String {
    let module = module.strip_suffix(" (deleted)").unwrap_or(module);
    let is_kernel = module.contains(".ko") && module.starts_with("/lib/modules/")
        || module.starts_with("[kernel")
        || module.starts_with("[guest.kernel")
        || module.starts_with("bpf_")
        || module.starts_with('[')
            && !["[vdso]", "[jit]", "[anon]", "[heap]", "[stack]", "[unknown]"].contains(&module);
    let is_anonymous = ["[jit]", "[anon]", "[heap]", "[stack]", "//anon", "[unknown]"].contains(&module)
        || module.starts_with("/tmp/perf-");
    match module {
        _ if is_kernel => "[kernel]".to_owned(),
        _ if is_anonymous => "[anon]".to_owned(),
        file => file.to_owned(),
    }
}

/// Makes one leaf of names that stand for the same code: `aliases` gives each such name the one to use.
pub(crate) fn merge_aliases(tally: Tally, aliases: &HashMap<Leaf, Leaf>) -> Tally {
    let mut merged = Tally::new();
    for (leaf, count) in tally {
        let leaf = aliases.get(&leaf).cloned().unwrap_or(leaf);
        *merged.entry(leaf).or_default() += count;
    }
    merged
}

/// In those of `modules` of which `other` has samples without a name, names that `other` never gives join what has no
/// name: there one profiler has a source of names that the other lacks. Returns what joined.
pub(crate) fn forget_names_unknown_to(other: &Tally, tally: &mut Tally, modules: &HashSet<&str>) -> Tally {
    let nameless: HashSet<&str> = other
        .keys()
        .filter(|leaf| leaf.symbol.is_none() && modules.contains(&*leaf.module))
        .map(|leaf| &*leaf.module)
        .collect();
    let is_unknown =
        |leaf: &Leaf| leaf.symbol.is_some() && nameless.contains(&*leaf.module) && !other.contains_key(leaf);
    let forgotten: Tally = tally.extract_if(|leaf, _| is_unknown(leaf)).collect();
    for (leaf, count) in &forgotten {
        *tally.entry(Leaf { module: leaf.module.clone(), symbol: None }).or_default() += count;
    }
    forgotten
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(symbol: &str, module: &str) -> Leaf {
        Leaf::new((!symbol.is_empty()).then_some(symbol), Some(module))
    }

    /// Both profilers' names for the same place become equal.
    #[test]
    fn names_of_both_profilers_agree() {
        let kernel = leaf("vfs_read", "[kernel]");
        for module in ["[kernel.kallsyms]", "[kernel.kallsyms]_text", "[ext4]", "bpf_prog_1", "[bpf]"] {
            assert_eq!(leaf("vfs_read", module), kernel, "{module}");
        }
        assert_eq!(leaf("vfs_read", "/lib/modules/6.1/kernel/fs/ext4/ext4.ko.xz"), kernel);
        assert_eq!(leaf("", "//anon"), Leaf::new(None, None));
        assert_eq!(leaf("main", "/bin/app (deleted)"), leaf("main", "/bin/app"));
        assert_eq!(leaf("clock_gettime", "[vdso]").module, "[vdso]");
        assert_eq!(leaf("memcpy@@GLIBC_2.14", "/c.so"), leaf("memcpy", "/c.so"));
        assert_ne!(leaf("read@plt", "/c.so"), leaf("read", "/c.so"));
    }

    /// Two names of one address count as one.
    #[test]
    fn aliases_are_merged() {
        let tally = Tally::from([(leaf("a", "/m"), 1), (leaf("b", "/m"), 2), (leaf("b", "/n"), 4)]);
        let aliases = HashMap::from([(leaf("b", "/m"), leaf("a", "/m"))]);
        let merged = merge_aliases(tally, &aliases);
        assert_eq!(merged, Tally::from([(leaf("a", "/m"), 3), (leaf("b", "/n"), 4)]));
    }

    /// Names are given up only where they are asked to be, where the other profiler has none, and only those that
    /// it does not know.
    #[test]
    fn names_are_forgotten_where_the_other_has_none() {
        let mut ours = Tally::from([
            (leaf("stripped", "/m"), 1),
            (leaf("exported", "/m"), 2),
            (leaf("", "/m"), 4),
            (leaf("other", "/n"), 8),
            (leaf("agrees", "/o"), 16),
        ]);
        let perf = Tally::from([
            (leaf("exported", "/m"), 1),
            (leaf("", "/m"), 2),
            (leaf("x", "/n"), 4),
            (leaf("", "/o"), 8),
        ]);
        let forgotten = forget_names_unknown_to(&perf, &mut ours, &HashSet::from(["/m", "/n"]));
        assert_eq!(forgotten, Tally::from([(leaf("stripped", "/m"), 1)]));
        let expected = [
            (leaf("", "/m"), 5),
            (leaf("exported", "/m"), 2),
            (leaf("other", "/n"), 8),
            (leaf("agrees", "/o"), 16),
        ];
        assert_eq!(ours, Tally::from(expected));
    }
}
