//! What an ELF file and its separate debug file say about functions.

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use object::{File, Object as _, ObjectSegment as _, ObjectSymbol as _, SymbolKind};

/// The functions of a file.
#[derive(Debug, Default)]
pub(crate) struct ElfSymbols {
    /// All that have a name, in no order; one address may have many names.
    pub(crate) functions: Vec<Function>,
    /// The address that the file is entered at.
    pub(crate) entry: u64,
    /// Addresses of the file's loaded parts, and where in the file they begin.
    segments: Vec<(Range<u64>, u64)>,
}

/// A function with a name.
#[derive(Debug, PartialEq)]
pub(crate) struct Function {
    /// Its first address, in the file's own count.
    pub(crate) address: u64,
    /// Bytes; 0 when the file does not say.
    pub(crate) size: u64,
    /// Its raw name.
    pub(crate) name: String,
}

impl ElfSymbols {
    /// Reads the file at `path`, and the debug file that its build id leads to, where distributions install them. A
    /// file that cannot be read has no functions.
    pub(crate) fn read(path: &str) -> Self {
        let Ok(content) = fs::read(path) else { return Self::default() };
        let Ok(file) = File::parse(&*content) else { return Self::default() };
        let segments = file.segments().map(|segment| {
            let (start, in_file) = (segment.address(), segment.file_range());
            (start..start + in_file.1, in_file.0)
        });
        let mut symbols =
            Self { functions: functions(&file), entry: file.entry(), segments: segments.collect() };
        let debug = debug_path(&file).and_then(|path| fs::read(path).ok());
        if let Some(debug) = debug.as_deref().and_then(|content| File::parse(content).ok()) {
            symbols.functions.extend(functions(&debug));
        }
        symbols
    }

    /// Where in the file `address` is, if that part is in the file.
    pub(crate) fn file_offset(&self, address: u64) -> Option<u64> {
        let (segment, start) = self.segments.iter().find(|(segment, _)| segment.contains(&address))?;
        Some(address - segment.start + start)
    }
}

fn functions(file: &File<'_>) -> Vec<Function> {
    file.symbols()
        .chain(file.dynamic_symbols())
        .filter(|symbol| symbol.is_definition() && symbol.kind() == SymbolKind::Text)
        .filter_map(|symbol| {
            let name = symbol.name().ok()?.to_owned();
            Some(Function { address: symbol.address(), size: symbol.size(), name })
        })
        .collect()
}

fn debug_path(file: &File<'_>) -> Option<PathBuf> {
    let id = file.build_id().ok()??;
    let (directory, rest) = id.split_first()?;
    let mut path = format!("/usr/lib/debug/.build-id/{directory:02x}/");
    for byte in rest {
        // Writing to a string does not fail.
        let _ = write!(path, "{byte:02x}");
    }
    path.push_str(".debug");
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The symbols of an executable file are read with their places: this test's own.
    #[test]
    fn symbols_of_files_are_read() {
        let own = std::env::current_exe().unwrap();
        let symbols = ElfSymbols::read(own.to_str().unwrap());
        let main = symbols.functions.iter().find(|function| function.name == "main").unwrap();
        assert!(main.address > 0 && main.size > 0 && symbols.entry > 0);
        let size = own.metadata().unwrap().len();
        assert!(symbols.file_offset(main.address).is_some_and(|offset| (1..size).contains(&offset)));
        assert_eq!(symbols.file_offset(u64::MAX), None);
        assert_eq!(ElfSymbols::read("/nonexistent").functions, []);
    }
}
