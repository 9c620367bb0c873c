//! Many large modules whose functions and lines a test knows.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use tempfile::TempDir;

/// What a function is to be called, and its line.
pub(crate) struct Function {
    pub(crate) name: String,
    /// In the source file.
    pub(crate) line: u32,
}

impl Function {
    /// What is right of a module's function.
    pub(crate) fn of(module: usize, function: usize) -> Self {
        Self { name: format!("m{module:03}_f{function:05}"), line: 1 + (function as u32 + 1) * LINES }
    }
}

/// Shared objects that differ in their build ids and in the names of all their functions.
pub(crate) struct ManyModules {
    directory: TempDir,
    pub(crate) paths: Vec<PathBuf>,
    /// By number, file offset of each function's one instruction.
    offsets: Vec<u64>,
}

/// The first module's mark in all names, which the others have in their own form.
const MARK: &[u8] = b"m000_";
/// Lines of a function; its instruction is in the last. One line is before the first.
const LINES: u32 = 3;

impl ManyModules {
    /// `modules` of them (1,000 at most), each with `functions` functions and a line for each.
    pub(crate) fn new(modules: usize, functions: usize) -> Self {
        let directory = TempDir::new().expect("a directory");
        let first = assemble(directory.path(), functions);
        let offsets = offsets(&first, functions);
        let build_id = build_id(&first);
        let marks: Vec<_> =
            (0..=first.len() - MARK.len()).filter(|at| first[*at..].starts_with(MARK)).collect();
        let paths = (0..modules).map(|number| {
            let mut bytes = first.clone();
            for at in &marks {
                bytes[*at..*at + MARK.len()].copy_from_slice(format!("m{number:03}_").as_bytes());
            }
            bytes[build_id..build_id + 8].copy_from_slice(&(number as u64).to_be_bytes());
            let path = directory.path().join(format!("libmodule{number:03}.so"));
            fs::write(&path, bytes).expect("written");
            path
        });
        let paths = paths.collect();
        Self { directory, paths, offsets }
    }

    /// Functions of a module.
    pub(crate) fn functions(&self) -> usize {
        self.offsets.len()
    }

    /// Where in a module's file the function's instruction stands.
    pub(crate) fn file_offset(&self, function: usize) -> u64 {
        self.offsets[function]
    }

    /// The file that all lines are in.
    pub(crate) fn source(&self) -> PathBuf {
        self.directory.path().join("module.s")
    }
}

/// The first module's bytes.
fn assemble(directory: &Path, functions: usize) -> Vec<u8> {
    let mut source = String::from(".text; .p2align 4\n");
    for number in 0..functions {
        let name = format!("m000_f{number:05}");
        writeln!(source, ".p2align 4; .type {name}, @function\n{name}:\nret; .size {name}, .-{name}")
            .expect("a string takes all");
    }
    let (file, library) = (directory.join("module.s"), directory.join("first.so"));
    fs::write(&file, source).expect("written");
    let mut gcc = Command::new("gcc");
    gcc.args(["-shared", "-nostdlib", "-Wl,--build-id=sha1", "-Wa,--gdwarf-5", "-o"]).arg(&library).arg(file);
    let output = gcc.output().unwrap_or_else(|error| panic!("{gcc:?}: {error}"));
    assert!(output.status.success(), "{gcc:?}: {}", String::from_utf8_lossy(&output.stderr));
    fs::read(library).expect("it was made")
}

fn offsets(library: &[u8], functions: usize) -> Vec<u64> {
    let file = object::File::parse(library).expect("gcc makes ELF files");
    let text = file.section_by_name(".text").expect("code");
    let at = text.file_range().expect("bytes in the file").0;
    let named = file.symbols().filter(|symbol| symbol.name().is_ok_and(|name| name.starts_with("m000_f")));
    let mut offsets: Vec<_> = named.map(|symbol| symbol.address() - text.address() + at).collect();
    offsets.sort_unstable();
    assert_eq!(offsets.len(), functions);
    offsets
}

/// Where the build id's bytes stand.
fn build_id(library: &[u8]) -> usize {
    let file = object::File::parse(library).expect("gcc makes ELF files");
    let id = file.build_id().ok().flatten().expect("linked with one");
    library.windows(id.len()).position(|bytes| bytes == id).expect("it is there")
}
