//! Names that stand at one address: which of them a profiler shows is its choice, not its finding.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;

use super::leaf::{Leaf, Tally};
use crate::elf_symbols::ElfSymbols;

/// For leaves of `modules` whose symbol shares its address with others in the profiles: the one leaf to use instead.
///
/// A file that cannot be read has no aliases: at worst two names of one function are reported as a disagreement.
pub(crate) fn find(tallies: [&Tally; 2], modules: &HashSet<&str>) -> HashMap<Leaf, Leaf> {
    let mut aliases = HashMap::new();
    for module in modules {
        let symbols = if *module == "[kernel]" { kernel_symbols() } else { file_symbols(module) };
        let seen: HashSet<&str> = tallies
            .iter()
            .flat_map(|tally| tally.keys())
            .filter(|leaf| leaf.module == *module)
            .filter_map(|leaf| leaf.symbol.as_deref())
            .collect();
        let leaf = |symbol: String| Leaf { module: (*module).to_owned(), symbol: Some(symbol) };
        let pairs = same_address(&symbols, &seen);
        aliases.extend(pairs.into_iter().map(|(name, chosen)| (leaf(name), leaf(chosen))));
    }
    aliases
}

/// Addresses and names.
type Symbols = Vec<(u64, String)>;

/// Of the names in `seen`, each that shares its address with one that sorts before it, and that one.
fn same_address(symbols: &Symbols, seen: &HashSet<&str>) -> Vec<(String, String)> {
    let mut names: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for (address, name) in symbols.iter().filter(|(_, name)| seen.contains(&**name)) {
        names.entry(*address).or_default().insert(name);
    }
    let mut pairs = Vec::new();
    for names in names.values() {
        let mut names = names.iter();
        if let Some(first) = names.next() {
            pairs.extend(names.map(|name| ((*name).to_owned(), (*first).to_owned())));
        }
    }
    pairs
}

/// Functions of `/proc/kallsyms`, those of modules included.
fn kernel_symbols() -> Symbols {
    parse_kallsyms(&fs::read_to_string("/proc/kallsyms").unwrap_or_default())
}

fn parse_kallsyms(text: &str) -> Symbols {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok().filter(|address| *address > 0)?;
        let is_text = matches!(words.next()?, "t" | "T" | "w" | "W");
        is_text.then_some(())?;
        Some((address, words.next()?.to_owned()))
    });
    lines.collect()
}

fn file_symbols(path: &str) -> Symbols {
    let functions = ElfSymbols::read(path).functions.into_iter();
    functions.map(|function| (function.address, Leaf::symbol_name(&function.name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Functions at one address get one name; names that no profile shows do not take part, data does not either.
    #[test]
    fn names_of_one_address_are_found() {
        let symbols = parse_kallsyms(
            "ffffffff81000000 T memcpy\nffffffff81000000 T __memcpy\nffffffff81000000 T __pi_memcpy\n\
             ffffffff81000040 t other\nffffffff81000040 d data\n0000000000000000 T hidden\nbad line\n",
        );
        assert_eq!(symbols.len(), 4);
        let seen = HashSet::from(["memcpy", "__memcpy", "other", "data"]);
        assert_eq!(same_address(&symbols, &seen), [("memcpy".to_owned(), "__memcpy".to_owned())]);
    }
}
