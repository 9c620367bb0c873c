//! Programs made for one rule each: versions, compression, split files, missing files.

use std::path::Path;

use super::files::{self, Opened};
use crate::symbol::dwarf::{DwarfLimits, LinesRefused};
use crate::symbol::elf::{ElfLimits, FunctionIndex};

/// `leaf` is inlined into `middle`, that into `outer`. Volatile, so that there is code at each line.
const NESTED: &str = "\
volatile int sink;
static inline __attribute__((always_inline)) void leaf(int x) {
    sink = x;
}
static inline __attribute__((always_inline)) void middle(int x) {
    leaf(x * 2);
}
__attribute__((noinline)) void outer(int x) {
    middle(x + 1);
}
int main(void) { outer(1); return sink; }
";

/// The chain that is expected somewhere in `outer`: function, file, line.
const CHAIN: [(&str, &str, u32); 3] =
    [("leaf", "nested.c", 3), ("middle", "nested.c", 6), ("outer", "nested.c", 9)];

/// The chains at all addresses of the function `outer`.
fn chains(opened: &Opened) -> Vec<Vec<(String, String, u32)>> {
    let index = FunctionIndex::build(&*opened.source, &opened.image, &ElfLimits::default()).unwrap();
    // A compiler that knows the one caller makes it `outer.constprop.0`.
    let is_outer = |name: String| name.split('.').next() == Some("outer");
    let mut functions = index.iter();
    let outer = functions.find(|function| is_outer(index.name(&*opened.source, function).unwrap())).unwrap();
    (outer.start..outer.start + outer.size)
        .filter_map(|address| opened.lines(address).ok())
        .map(|chain| {
            let shown = chain.into_iter().map(|line| {
                let file = line.file.unwrap_or_default();
                let file = file.rsplit('/').next().unwrap().to_owned();
                (line.function.unwrap_or_default(), file, line.line)
            });
            shown.collect()
        })
        .collect()
}

fn assert_nested(opened: &Opened, what: &str) {
    let expected = CHAIN.map(|(function, file, line)| (function.to_owned(), file.to_owned(), line));
    let chains = chains(opened);
    assert!(chains.iter().any(|chain| chain.as_slice() == expected), "{what}: {chains:?}");
}

fn built(directory: &Path, compiler: &str, options: &[&str]) -> Option<Opened> {
    let command: Vec<&str> = [compiler, "-O2"].into_iter().chain(options.iter().copied()).collect();
    let path = files::compile(directory, &command, ("nested.c", NESTED), "nested")?;
    Some(Opened::new(&path))
}

/// Versions 2 to 5 in 32 and 64 bits, and compressed sections, give the same chain.
#[test]
fn versions_and_formats() {
    for options in [
        ["-gdwarf-2", "-gno-strict-dwarf"],
        ["-gdwarf-3", "-gno-strict-dwarf"],
        ["-gdwarf-4", "-gstrict-dwarf"],
        ["-gdwarf-5", "-gstrict-dwarf"],
        ["-gdwarf-5", "-gdwarf64"],
        ["-gdwarf-4", "-gdwarf64"],
        ["-g", "-gz=zlib"],
        ["-g", "-ffunction-sections"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        if let Some(opened) = built(directory.path(), "gcc", &options) {
            assert_nested(&opened, &format!("{options:?}"));
        }
    }
}

/// Split debug information is found in the `.dwo` file, in both versions; without the file the line is there, and the cause is
/// counted.
#[test]
fn split_files() {
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let directory = tempfile::tempdir().unwrap();
        let Some(opened) = built(directory.path(), "gcc", &[version, "-gsplit-dwarf"]) else { return };
        assert_nested(&opened, version);
        // A second look-up opens the file again.
        assert_nested(&opened, version);
        let dwo = std::fs::read_dir(directory.path()).unwrap().flatten().map(|entry| entry.path());
        let dwo: Vec<_> =
            dwo.filter(|path| path.extension().is_some_and(|extension| extension == "dwo")).collect();
        assert_eq!(dwo.len(), 1, "{dwo:?}");
        std::fs::remove_file(&dwo[0]).unwrap();
        let opened = Opened::new(&directory.path().join("nested"));
        let chains = chains(&opened);
        assert!(chains.iter().any(|chain| chain.as_slice() == [(String::new(), "nested.c".to_owned(), 3)]));
        let refused = opened.cache.memory_use().refused;
        assert!(refused[LinesRefused::SplitFileMissing as usize] > 0, "{refused:?}");
    }
}

/// A `.dwp` file beside the program holds what the `.dwo` files held. Of version 4: the tools cannot pack what GCC writes of version 5.
#[test]
fn packages_of_split_files() {
    for packager in ["dwp", "llvm-dwp"] {
        let directory = tempfile::tempdir().unwrap();
        let Some(opened) = built(directory.path(), "gcc", &["-gdwarf-4", "-gsplit-dwarf"]) else { return };
        drop(opened);
        let status = std::process::Command::new(packager)
            .args(["-e", "nested", "-o", "nested.dwp"])
            .current_dir(directory.path())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            println!("no {packager}: not compared");
            continue;
        }
        for entry in std::fs::read_dir(directory.path()).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "dwo") {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        let opened = Opened::new(&directory.path().join("nested"));
        assert_nested(&opened, packager);
        assert_eq!(opened.cache.memory_use().refused[LinesRefused::SplitFileMissing as usize], 0);
    }
}

/// Units that were optimised together refer to each other; the rest of a file is hidden from a unit nevertheless.
#[test]
fn references_between_units() {
    let directory = tempfile::tempdir().unwrap();
    let library = "volatile int sink;\nvoid leaf(int x) {\n    sink = x;\n}\n";
    std::fs::write(directory.path().join("leaf.c"), library).unwrap();
    let main = "extern volatile int sink;\nvoid leaf(int);\n__attribute__((noinline)) void outer(int x) {\n    leaf(x + 1);\n}\n\
                int main(void) { outer(1); return sink; }\n";
    let command = ["gcc", "-O2", "-g", "-flto", "-flto-partition=none", "leaf.c"];
    let Some(path) = files::compile(directory.path(), &command, ("main.c", main), "nested") else { return };
    let chains = chains(&Opened::new(&path));
    let expected = [("leaf", "leaf.c", 3), ("outer", "main.c", 4)]
        .map(|(function, file, line)| (function.to_owned(), file.to_owned(), line));
    assert!(chains.iter().any(|chain| chain.as_slice() == expected), "{chains:?}");
}

/// A supplementary file that is not there: that is counted where a name is missing for it, and lines are there nevertheless.
#[test]
fn missing_supplementary_files() {
    let directory = tempfile::tempdir().unwrap();
    let Some(opened) = built(directory.path(), "gcc", &["-g"]) else { return };
    std::fs::write(directory.path().join("link"), b"other.debug\0").unwrap();
    let added = std::process::Command::new("objcopy")
        .args(["--add-section", ".gnu_debugaltlink=link", "nested", "linked"])
        .current_dir(directory.path())
        .status();
    assert!(added.unwrap().success());
    drop(opened);
    let opened = Opened::new(&directory.path().join("linked"));
    assert_nested(&opened, "with a link that no name needs");
    let count = |opened: &Opened| opened.cache.memory_use().refused[LinesRefused::SupplementaryFile as usize];
    assert_eq!(count(&opened), 0);

    // Names of inlined functions point into the other file: `DW_FORM_strp` (0x0e) becomes `DW_FORM_GNU_strp_alt` (0x1f20), which
    // takes two bytes, so the names are taken away altogether instead: `DW_AT_name` (3) becomes a vendor's attribute.
    let mut bytes = std::fs::read(directory.path().join("linked")).unwrap();
    let abbreviations = opened.image.section_named(&*opened.source, ".debug_abbrev").unwrap();
    let (start, size) = (abbreviations.file_offset as usize, abbreviations.size as usize);
    for pair in (start..start + size - 1).filter(|at| *at > start) {
        // `DW_AT_name` with `DW_FORM_strp` or `DW_FORM_string`; 0x7f is no attribute.
        if bytes[pair] == 3 && matches!(bytes[pair + 1], 0x08 | 0x0e) {
            bytes[pair] = 0x7f;
        }
    }
    let changed = directory.path().join("changed");
    std::fs::write(&changed, bytes).unwrap();
    let opened = Opened::new(&changed);
    assert!(
        chains(&opened)
            .iter()
            .any(|chain| chain.len() == 3 && chain[0] == (String::new(), "nested.c".into(), 3))
    );
    assert!(count(&opened) > 0);
}

/// What is too large is refused by its numbers: the file, the unit, the work.
#[test]
fn limits_are_held() {
    let directory = tempfile::tempdir().unwrap();
    let Some(opened) = built(directory.path(), "gcc", &["-g"]) else { return };
    let path = opened.path.clone();
    let limits = DwarfLimits::new(u64::MAX);
    let refused = |budget, limits| match Opened::with(&path, budget, limits) {
        Ok(opened) => opened.lines(opened.image.text_segment().unwrap().address + 0x100).err(),
        Err(cause) => Some(cause),
    };
    assert_eq!(refused(1 << 20, DwarfLimits::new(100)), Some(LinesRefused::ModuleTooLarge));
    assert_eq!(refused(1 << 20, DwarfLimits { units: 0, ..limits }), Some(LinesRefused::ModuleTooLarge));
    assert_eq!(refused(1 << 20, DwarfLimits { index_blocks: 0, ..limits }), Some(LinesRefused::TooMuchWork));

    let chain = |budget, limits| {
        let opened = Opened::with(&path, budget, limits).unwrap();
        let found = chains(&opened).len();
        (found, opened.cache.memory_use().refused)
    };
    let (found, causes) = chain(1 << 20, DwarfLimits { unit_bytes: 10, ..limits });
    assert!(found == 0 && causes[LinesRefused::UnitTooLarge as usize] > 0, "{causes:?}");
    let (found, causes) = chain(100, limits);
    assert!(found == 0 && causes[LinesRefused::UnitTooLarge as usize] > 0, "{causes:?}");
    let (found, causes) = chain(1 << 20, DwarfLimits { lookup_blocks: 0, ..limits });
    assert!(found == 0 && causes[LinesRefused::TooMuchWork as usize] > 0, "{causes:?}");
}

/// A file without debug information says so.
#[test]
fn no_debug_information() {
    let directory = tempfile::tempdir().unwrap();
    let command = ["gcc", "-O2", "-s"];
    let Some(path) = files::compile(directory.path(), &command, ("nested.c", NESTED), "nested") else {
        return;
    };
    let refused = Opened::with(&path, 1 << 20, DwarfLimits::new(u64::MAX)).err();
    assert_eq!(refused, Some(LinesRefused::NoDebugInfo));
}

/// Whatever is asked, the caches stay within their budget, and answers are the same as with a large one.
#[test]
fn a_small_budget_gives_the_same_answers() {
    let directory = tempfile::tempdir().unwrap();
    let command = ["g++", "-O2", "-g", "-gz=zlib"];
    let Some(path) = files::compile(directory.path(), &command, ("deep.cpp", files::CPP), "deep") else {
        return;
    };
    let (large, small) =
        (Opened::new(&path), Opened::with(&path, 5 << 20, DwarfLimits::new(u64::MAX)).unwrap());
    let addresses = large.addresses(200);
    for address in addresses {
        assert_eq!(large.lines(address), small.lines(address), "{address:#x}");
        let usage = small.cache.memory_use();
        assert!(usage.block_bytes + usage.unit_bytes <= 5 << 20);
    }
}
