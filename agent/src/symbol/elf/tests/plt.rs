//! PLT stubs against the names that `objdump -d` gives them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use super::*;

const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    char *copy = strdup(argv[0]);
    void (*volatile release)(void *) = free;
    printf("%zu %d\n", strlen(copy), atoi(copy));
    release(copy);
    free(copy == argv[0] ? copy : NULL);
    return abs(argc) + puts("x");
}
"#;

/// The labels of the form `0000000000001030 <puts@plt>:`.
fn objdump_stubs(binary: &Path) -> BTreeMap<u64, String> {
    let output = Command::new("objdump").arg("-d").arg(binary).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let labels = text.lines().filter_map(|line| line.strip_suffix(">:")?.split_once(" <"));
    labels
        .filter(|(_, name)| name.ends_with("@plt"))
        .map(|(address, name)| (u64::from_str_radix(address, 16).unwrap(), name.to_owned()))
        .collect()
}

/// All four PLT layouts of GNU ld: lazy, with CET, bound at start, and without a PLT of its own.
#[test]
fn names_stubs_as_objdump_does() {
    let tools = ["gcc", "objdump"].map(|tool| Command::new(tool).arg("--version").output().is_ok());
    if tools != [true; 2] || cfg!(not(target_arch = "x86_64")) {
        println!("skipped: needs gcc and objdump on x86_64");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("program.c");
    std::fs::write(&source, PROGRAM).unwrap();
    for flags in [
        &["-fcf-protection=none", "-Wl,-z,lazy"][..],
        &["-fcf-protection=full", "-Wl,-z,lazy,-z,ibtplt"],
        &["-fcf-protection=none", "-Wl,-z,now"],
        &["-fcf-protection=full", "-Wl,-z,now", "-no-pie"],
    ] {
        let binary = directory.path().join("program");
        let status = Command::new("gcc").args(flags).arg("-O1").arg(&source).arg("-o").arg(&binary).status();
        assert!(status.unwrap().success());
        let expected = objdump_stubs(&binary);
        assert!(expected.values().any(|name| name == "puts@plt"), "{expected:?}");
        let bytes = std::fs::read(&binary).unwrap();
        let (_, index) = open(&bytes).unwrap();
        let found: BTreeMap<u64, String> = index
            .iter()
            .map(|symbol| (symbol.start, index.name(&bytes, &symbol).unwrap()))
            .filter(|(_, name)| name.ends_with("@plt"))
            .collect();
        assert_eq!(found, expected, "{flags:?}");
        // A stub covers its own bytes only.
        for (&address, name) in &expected {
            let size = index.lookup(address).unwrap().size;
            assert!((8..=16).contains(&size));
            assert_eq!(name_at(&bytes, &index, address + size - 1).as_ref(), Some(name));
        }
    }
}
