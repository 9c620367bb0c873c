//! Every seed through its target, as the engine would.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::targets::TARGETS;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Every seed is survived within its target's heap; each target has seeds that its reader accepts and others that it refuses, so
/// neither a reader that accepts nothing nor one that accepts everything goes unnoticed.
#[test]
fn survives_all_seeds() {
    for target in TARGETS {
        let (mut accepted, mut refused) = (0, 0);
        for path in entries(&seeds().join(target.name)) {
            let input = fs::read(&path).unwrap();
            assert!(
                input.len() <= target.longest_input,
                "{} is longer than the engine's inputs",
                path.display()
            );
            println!("{}", path.display());
            let is_accepted = target.execute(&input);
            println!("  {}", if is_accepted { "accepted" } else { "refused" });
            *(if is_accepted { &mut accepted } else { &mut refused }) += 1;
        }
        assert!(accepted > 0 && refused > 0, "{}: {accepted} seeds accepted, {refused} refused", target.name);
    }
}

/// Each target has a name of its own, a file of that name and a directory of seeds, and each of these has a target.
#[test]
fn targets_files_and_seeds_belong_together() {
    let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(names.len(), TARGETS.len());
    let stems = |directory: &Path| -> BTreeSet<String> {
        let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
        entries(directory).iter().map(stem).filter(|stem| stem != "mod").collect()
    };
    assert_eq!(stems(&seeds()), names);
    assert_eq!(stems(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/targets")), names);
}

/// The seeds are small, so that everybody's clone stays so.
#[test]
fn seeds_are_small() {
    let files = entries(&seeds()).into_iter().flat_map(|directory| entries(&directory));
    let bytes: u64 = files.map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes < 300 << 10, "{bytes} bytes of seeds");
}
