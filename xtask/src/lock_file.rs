//! The part of `Cargo.lock` that decides what goes into the eBPF object.
//!
//! The lock file is written by cargo in one fixed form (`[[package]]` blocks of `key = "value"` lines and one
//! `dependencies` array), so that a reader of lines is enough.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

/// One `[[package]]` block.
#[derive(Debug, Default)]
struct LockedPackage<'a> {
    name: &'a str,
    version: &'a str,
    /// Entries of the form `name`, `name version` or `name version (source)`.
    dependencies: Vec<&'a str>,
    /// The block as it stands in the file.
    text: &'a str,
}

/// The blocks of `root` and of everything that it depends on, sorted by name and version.
///
/// Fails if `root` or a dependency of it is not in the lock file.
pub(crate) fn closure<'a>(lock_file: &'a str, root: &str) -> Result<Vec<&'a str>> {
    let packages: Vec<_> = lock_file.split("[[package]]").skip(1).map(parse).collect();
    let mut by_name: BTreeMap<&str, Vec<&LockedPackage>> = BTreeMap::new();
    for package in &packages {
        by_name.entry(package.name).or_default().push(package);
    }
    let mut reached = BTreeMap::new();
    let mut pending: BTreeSet<&str> = BTreeSet::from([root]);
    while let Some(entry) = pending.pop_first() {
        let mut words = entry.split(' ');
        let (name, version) = (words.next().unwrap_or_default(), words.next());
        let package = by_name
            .get(name)
            .and_then(|candidates| {
                candidates.iter().find(|candidate| version.is_none_or(|version| version == candidate.version))
            })
            .with_context(|| format!("Cargo.lock has no package `{entry}`"))?;
        if reached.insert((package.name, package.version), package.text).is_none() {
            pending.extend(&package.dependencies);
        }
    }
    Ok(reached.into_values().collect())
}

fn parse(block: &str) -> LockedPackage<'_> {
    let mut package = LockedPackage { text: block.trim(), ..LockedPackage::default() };
    for line in package.text.lines() {
        if let Some((key, value)) = line.split_once(" = ") {
            match key {
                "name" => package.name = value.trim_matches('"'),
                "version" => package.version = value.trim_matches('"'),
                _ => {}
            }
        } else if let Some(dependency) = line.trim().strip_prefix('"') {
            package.dependencies.push(dependency.trim_end_matches([',', '"']));
        }
    }
    package
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK_FILE: &str = r#"
version = 4

[[package]]
name = "agent"
version = "0.1.0"
dependencies = [
 "aya-ebpf",
 "syn 1.0.0",
]

[[package]]
name = "aya-ebpf"
version = "0.2.1"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "aa"
dependencies = [
 "macros",
]

[[package]]
name = "macros"
version = "0.2.0"
dependencies = [
 "aya-ebpf",
 "syn 2.0.0",
]

[[package]]
name = "syn"
version = "1.0.0"

[[package]]
name = "syn"
version = "2.0.0"
checksum = "bb"
"#;

    /// The closure follows versions where a name alone is ambiguous, ends on cycles, and leaves out the rest.
    #[test]
    fn closure_holds_what_the_root_needs_and_no_more() {
        let blocks = closure(LOCK_FILE, "aya-ebpf").unwrap();
        let first_lines: Vec<_> = blocks.iter().filter_map(|block| block.lines().next()).collect();
        assert_eq!(first_lines, [r#"name = "aya-ebpf""#, r#"name = "macros""#, r#"name = "syn""#]);
        assert!(blocks[2].contains(r#"version = "2.0.0""#) && blocks[2].contains(r#"checksum = "bb""#));
    }

    /// An absent package is an error that names it, not an empty closure that would hash to something.
    #[test]
    fn unknown_root_is_an_error() {
        assert!(closure(LOCK_FILE, "nothing").unwrap_err().to_string().contains("`nothing`"));
    }

    /// This workspace's own lock file is understood.
    #[test]
    fn own_lock_file_is_read() {
        let blocks = closure(include_str!("../../Cargo.lock"), "aya-ebpf").unwrap();
        assert!(blocks.iter().any(|block| block.starts_with(r#"name = "aya-ebpf-bindings""#)));
        assert!(blocks.iter().all(|block| !block.starts_with(r#"name = "clap""#)));
    }
}
