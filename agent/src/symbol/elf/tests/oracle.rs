//! Real files against the `object` crate's own reader, which loads the file whole.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::PathBuf;

use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSymbol as _, ObjectSymbolTable, SymbolFlags, SymbolKind};

use super::*;
use crate::symbol::read_at::FileAt;

/// The C library that this test runs with.
pub(super) fn libc_path() -> PathBuf {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    path.filter(|path| path.contains("libc.so")).map(PathBuf::from).next().unwrap()
}

struct Known {
    name: String,
    size: u64,
    typed: bool,
}

/// All function symbols of both tables by address.
fn functions(file: &ElfFile64<'_, LittleEndian>) -> BTreeMap<u64, Vec<Known>> {
    let mut known: BTreeMap<u64, Vec<Known>> = BTreeMap::new();
    let tables = [file.symbol_table(), file.dynamic_symbol_table()];
    for symbol in tables.iter().flatten().flat_map(ObjectSymbolTable::symbols) {
        let SymbolFlags::Elf { st_info, .. } = symbol.flags() else { panic!("no ELF symbol") };
        let typed = symbol.kind() == SymbolKind::Text || st_info.0 & 15 == 10;
        if symbol.is_undefined() || !typed {
            continue;
        }
        let name = String::from_utf8_lossy(symbol.name_bytes().unwrap()).into_owned();
        known.entry(symbol.address()).or_default().push(Known { name, size: symbol.size(), typed });
    }
    known
}

/// Every function symbol is found at its first and last byte, under one of its names.
fn assert_agrees(path: &std::path::Path) {
    let bytes = std::fs::read(path).unwrap();
    let oracle = ElfFile64::<LittleEndian>::parse(&*bytes).unwrap();
    let source = FileAt::new(File::open(path).unwrap()).unwrap();
    let (image, index) = open(&source).unwrap();
    assert_eq!(
        image.build_id().map(|id| id.as_bytes().to_vec()),
        oracle.build_id().unwrap().map(<[u8]>::to_vec)
    );

    let known = functions(&oracle);
    assert!(known.len() > 1000);
    let mut checked = 0;
    for (&address, names) in &known {
        let Some(found) = index.lookup(address) else { panic!("nothing at {address:#x}") };
        // A symbol without a size inside one with a size is a label: the only ones left out.
        if names.iter().all(|name| name.size == 0) && found.start < address {
            continue;
        }
        assert_eq!(found.start, address);
        let name = index.name(&source, &found).unwrap();
        let matching: Vec<_> = names.iter().filter(|known| known.name == name).collect();
        assert!(!matching.is_empty(), "{name} is not at {address:#x}");
        if let Some(known) = matching.iter().find(|known| known.typed && known.size != 0) {
            assert_eq!(found.size, known.size, "{name}");
            checked += 1;
        }
    }
    assert!(checked > known.len() * 9 / 10);
    assert_innermost(&index);
    println!("{}: {} functions, {} bytes", path.display(), index.len(), index.heap_bytes());
    assert_eq!(index.heap_bytes(), index.len() * 12);
}

/// The last byte of functions, by a search through all of them.
fn assert_innermost(index: &FunctionIndex) {
    let all: Vec<_> = index.iter().collect();
    for symbol in all.iter().step_by((all.len() / 500).max(1)) {
        for address in [symbol.start + symbol.size - 1, symbol.start + symbol.size] {
            let covers = |s: &&super::super::SymbolRef| s.start <= address && address - s.start < s.size;
            let innermost = all.iter().filter(covers).max_by_key(|s| s.start);
            assert_eq!(index.lookup(address).as_ref(), innermost);
        }
    }
}

/// The C library: stripped, `.dynsym` only, many aliases, indirect functions.
#[test]
fn agrees_on_the_c_library() {
    assert_agrees(&libc_path());
}

/// This test's own binary: `.symtab` with tens of thousands of Rust symbols.
#[test]
fn agrees_on_the_running_binary() {
    assert_agrees(&std::env::current_exe().unwrap());
}

/// Aliases show the name that people know.
#[test]
fn shows_familiar_names_of_the_c_library() {
    let path = libc_path();
    let bytes = std::fs::read(&path).unwrap();
    let (_, index) = open(&bytes).unwrap();
    let oracle = ElfFile64::<LittleEndian>::parse(&*bytes).unwrap();
    let addresses: HashMap<String, u64> = functions(&oracle)
        .into_iter()
        .flat_map(|(address, names)| names.into_iter().map(move |known| (known.name, address)))
        .collect();
    for name in ["malloc", "free", "pthread_create", "qsort", "printf"] {
        assert_eq!(name_at(&bytes, &index, addresses[name]).unwrap(), name);
    }
}
