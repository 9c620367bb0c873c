//! Where a program's functions are.

use std::fs;
use std::path::Path;

use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

/// Where `function` begins in the program `file`, in bytes from the file's beginning.
pub(crate) fn file_offset(file: &Path, function: &str) -> u64 {
    let data = fs::read(file).expect("the program is there");
    let elf = object::File::parse(data.as_slice()).expect("an ELF file");
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(function)).expect("the function is there");
    let address = symbol.address();
    let segment = elf
        .segments()
        .find(|segment| (segment.address()..segment.address() + segment.size()).contains(&address));
    let segment = segment.expect("it is loaded");
    address - segment.address() + segment.file_range().0
}
