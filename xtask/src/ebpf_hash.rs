//! Ties the committed eBPF object to the sources that it was built from.
//!
//! `agent-ebpf/prebuilt/SOURCES.sha256` holds two SHA-256 sums: one of everything that goes into the object, one
//! of the object. The first tells an object that is older than its sources, the second one that was replaced
//! without them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::{ebpf_build, lock_file, workspace};

/// The committed sums, relative to the root.
const SUMS: &str = "agent-ebpf/prebuilt/SOURCES.sha256";
/// The names of the two sums in the file.
const SOURCES: &str = "sources";
const OBJECT: &str = "agent-ebpf.o";
/// The package whose dependencies, itself included, end up in the object.
const DEPENDENCY_ROOT: &str = "aya-ebpf";

/// What to do about sums that do not fit.
const REMEDY: &str = "run `cargo xtask build-ebpf` and commit agent-ebpf/prebuilt";

/// Writes the sums of the present sources and of `object`.
pub(crate) fn write(root: &Path, object: &[u8]) -> Result<()> {
    let path = root.join(SUMS);
    let text = format!(
        "# Written by `cargo xtask build-ebpf`, compared by `cargo xtask build-ebpf --check`.\n\
         # `{SOURCES}` covers agent-ebpf/src, agent-ebpf/Cargo.toml, the Cargo.lock entries of {DEPENDENCY_ROOT} and\n\
         # its dependencies, and the compiler flags; `{OBJECT}` is the object beside this file.\n\
         {}  {SOURCES}\n{}  {OBJECT}\n",
        of_sources(root)?,
        sum_of(object),
    );
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Fails, saying what to do, unless the committed object was built from the present sources.
pub(crate) fn check(root: &Path) -> Result<()> {
    let path = root.join(SUMS);
    let sums = fs::read_to_string(&path)
        .with_context(|| format!("there is no committed eBPF object: cannot read {SUMS}; {REMEDY}"))?;
    let object = fs::read(root.join(workspace::PREBUILT_OBJECT))
        .with_context(|| format!("cannot read {}; {REMEDY}", workspace::PREBUILT_OBJECT))?;
    compare(&sums, &of_sources(root)?, &sum_of(&object))
}

fn compare(sums: &str, sources: &str, object: &str) -> Result<()> {
    ensure!(
        sum(sums, SOURCES)? == sources,
        "the committed eBPF object is older than its sources (their sum is {sources} now): {REMEDY}"
    );
    ensure!(
        sum(sums, OBJECT)? == object,
        "{} is not the object that {SUMS} was written for: {REMEDY}",
        workspace::PREBUILT_OBJECT
    );
    Ok(())
}

/// The sum called `name` in a text of `SUM  NAME` lines and `#` comments.
fn sum<'a>(sums: &'a str, name: &str) -> Result<&'a str> {
    let mut lines = sums.lines().filter(|line| !line.starts_with('#'));
    let found = lines.find_map(|line| line.strip_suffix(name)?.strip_suffix("  "));
    found.with_context(|| format!("{SUMS} has no sum called `{name}`: {REMEDY}"))
}

fn sum_of(object: &[u8]) -> String {
    hexadecimal(&Sha256::digest(object))
}

fn of_sources(root: &Path) -> Result<String> {
    let package = root.join("agent-ebpf");
    let mut files = vec![package.join("Cargo.toml")];
    collect_files(&package.join("src"), &mut files)?;
    let mut parts = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).context("a source outside the workspace")?;
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        parts.push((name.to_string_lossy().into_owned(), content));
    }
    parts.sort();
    let lock_path = root.join("Cargo.lock");
    let lock_file = fs::read_to_string(&lock_path).context("cannot read Cargo.lock")?;
    for block in lock_file::closure(&lock_file, DEPENDENCY_ROOT)? {
        parts.push(("Cargo.lock".into(), block.into()));
    }
    parts.push(("flags".into(), ebpf_build::flags().into()));
    Ok(of_parts(&parts))
}

/// Hashes names and contents with their lengths, so that nothing can move from one part to the next unseen.
fn of_parts(parts: &[(String, Vec<u8>)]) -> String {
    let mut hash = Sha256::new();
    for (name, content) in parts {
        for bytes in [name.as_bytes(), content] {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
    }
    hexadecimal(&hash.finalize())
}

fn hexadecimal(sum: &[u8]) -> String {
    use std::fmt::Write as _;
    sum.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _written = write!(digits, "{byte:02x}");
        digits
    })
}

fn collect_files(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect_files(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        } else {
            bail!("{} is neither a file nor a directory", entry.path().display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, content: &str) -> (String, Vec<u8>) {
        (name.into(), content.into())
    }

    /// Moving a byte between parts, renaming one or changing one changes the sum.
    #[test]
    fn every_change_changes_the_sum() {
        let parts = [
            vec![part("a", "bc"), part("d", "")],
            vec![part("ab", "c"), part("d", "")],
            vec![part("a", "b"), part("cd", "")],
            vec![part("a", "bd"), part("d", "")],
            vec![part("a", "bc")],
        ];
        let sums: std::collections::HashSet<_> = parts.iter().map(|parts| of_parts(parts)).collect();
        assert_eq!(sums.len(), parts.len());
    }

    /// Stale sources, a foreign object and a broken file each fail and say what to do; a fitting pair passes.
    #[test]
    fn comparison_tells_what_is_stale() {
        let sums = "# 1  sources\n11  sources\n22  agent-ebpf.o\n";
        compare(sums, "11", "22").unwrap();
        for (sums, sources, object, expected) in [
            (sums, "12", "22", "older than its sources"),
            (sums, "11", "23", "is not the object"),
            ("11  sources\n", "11", "22", "no sum called `agent-ebpf.o`"),
            ("", "11", "22", "no sum called `sources`"),
        ] {
            let message = compare(sums, sources, object).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains(REMEDY), "{message}");
        }
    }

    /// The sum follows a change in a nested source file of a workspace on disk, and the written file is the one
    /// that is checked.
    #[test]
    fn written_sums_are_checked_against_the_disk() {
        let root = std::env::temp_dir().join(format!("xtask-sums-{}", std::process::id()));
        let source = root.join("agent-ebpf/src/unwind/step.rs");
        fs::create_dir_all(source.parent().unwrap()).unwrap();
        fs::create_dir_all(root.join("agent-ebpf/prebuilt")).unwrap();
        fs::write(root.join("Cargo.lock"), "[[package]]\nname = \"aya-ebpf\"\nversion = \"0.2.1\"\n")
            .unwrap();
        fs::write(root.join("agent-ebpf/Cargo.toml"), "[package]").unwrap();
        fs::write(&source, "fn step() {}").unwrap();
        fs::write(root.join(workspace::PREBUILT_OBJECT), b"object").unwrap();
        write(&root, b"object").unwrap();
        let fresh = check(&root);
        fs::write(&source, "fn step() { }").unwrap();
        let stale = check(&root);
        fs::remove_dir_all(&root).unwrap();
        fresh.unwrap();
        assert!(stale.unwrap_err().to_string().contains("older than its sources"));
    }
}
