//! How much of the arena a node with many modules takes.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{field, start};
use crate::bench::figure::Figure;
use crate::process_group::ProcessGroup;
use crate::workload;

const MEBIBYTE: f64 = 1_048_576.0;
/// Bytes of the arena by default, and one that is too small.
const SIZES: [u32; 2] = [8 << 20, 2 << 20];
/// Functions of each library: with eight pages of text, a usual one.
const FUNCTIONS: u32 = 800;
/// Bytes of a row in the arena, and of a process's mapping.
const ROW: f64 = 4.0;

/// Loads the libraries that it is given and goes round them for ever, a function after the other.
const CALLER: &str = "\
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **words) {
    void (*work[count])(unsigned);
    for (int i = 1; i < count; i++) {
        void *library = dlopen(words[i], RTLD_NOW);
        work[i] = library ? (void (*)(unsigned))dlsym(library, \"work\") : 0;
        if (!work[i]) return 1;
    }
    puts(\"ready\");
    fflush(stdout);
    for (unsigned turn = 0;; turn++)
        for (int i = 1; i < count; i++) work[i](turn);
}
";

/// The figures.
pub(super) fn measure(agent: &Path, directory: &Path, modules: usize) -> Result<Vec<Figure>> {
    eprintln!("arena: a process with {modules} libraries of its own");
    let program = workload::compile(directory, "caller", CALLER, &["-O2", "-ldl"])?.context("no gcc")?;
    let libraries = libraries(directory, modules)?;
    let _calling = ProcessGroup::start_and_await_line(Command::new(program).args(&libraries))?;
    let mut figures = Vec::new();
    for size in SIZES {
        figures.extend(with_arena(agent, directory, modules, size)?);
    }
    Ok(figures)
}

/// Shared libraries that differ in nothing but their number, which stands behind each: files of one content share their rows.
fn libraries(directory: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let first = workload::compile(directory, "many0.so", &library(), &["-O2", "-shared", "-fPIC"])?;
    let first = first.context("no gcc")?;
    let content = std::fs::read(&first).with_context(|| format!("cannot read {}", first.display()))?;
    (0..count)
        .map(|number| {
            let copy = directory.join(format!("many{number}.so"));
            let bytes = [&content[..], format!("{number:08}").as_bytes()].concat();
            std::fs::write(&copy, bytes).with_context(|| format!("cannot write {}", copy.display()))?;
            Ok(copy)
        })
        .collect()
}

/// Functions that save different registers around calls, as compiled code does, and one that calls a few of them at each turn.
fn library() -> String {
    let mut code = "typedef unsigned long word;\nstatic volatile word sink;\n\
        __attribute__((noipa)) static word keep(word value) { return sink += value; }\n"
        .to_owned();
    for number in 0..FUNCTIONS {
        let kept = number % 5 + 1;
        // Writing to a string does not fail.
        let _ = writeln!(
            code,
            "__attribute__((noipa)) static void f{number}(word n) {{\n    volatile word local[{kept}];"
        );
        for value in 0..kept {
            let _ = writeln!(code, "    word v{value} = keep(n + {value});");
        }
        for value in 0..kept {
            let _ =
                writeln!(code, "    local[{value}] = keep(v{value} * {number}u) ^ v{};", kept - 1 - value);
        }
        code += "    for (int i = 0; i < 200; i++) sink += local[0];\n}\n";
    }
    let all: Vec<_> = (0..FUNCTIONS).map(|number| format!("f{number}")).collect();
    let _ = writeln!(
        code,
        "static void (*const all[])(word) = {{{}}};\n\
         void work(unsigned turn) {{ for (unsigned i = 0; i < 16; i++) all[(turn * 16 + i) * 7u % {FUNCTIONS}](turn); }}",
        all.join(", ")
    );
    code
}

fn with_arena(agent: &Path, directory: &Path, modules: usize, size: u32) -> Result<Vec<Figure>> {
    let arguments = ["--duration=20s".to_owned(), format!("--unwind-table-memory={size}")];
    let finished = start(agent, directory, &arguments)?.finish()?;
    let tables = finished.log.lines().rfind(|line| line.contains("unwind tables"));
    let tables = tables.context("the agent did not log how full the arena is")?;
    let number = |name| field(tables, name).map(|number| number as f64);
    let each = |name| number(name).map_or_else(Vec::new, |number| vec![number]);
    let rows = number("rows").unwrap_or(0.0);
    let pages = number("pages").unwrap_or(0.0);
    let mappings = number("mapping_bytes").unwrap_or(0.0);
    let bytes = number("bytes").unwrap_or(0.0);
    let counted: Vec<_> =
        finished.log.lines().filter(|line| line.contains("user stacks in a second")).collect();
    // The first half is for warming up.
    let counted = &counted[counted.len() / 2..];
    let sum = |name| counted.iter().filter_map(|line| field(line, name)).sum::<u64>() as f64;
    let size = size >> 20;
    Ok(vec![
        Figure::new(format!("arena of {size} MiB, {modules} modules: in use"), "MiB", vec![bytes / MEBIBYTE])
            .aim(f64::from(size)),
        Figure::new("  of that, mappings", "KiB", vec![mappings / 1024.0]),
        Figure::new("  of that, rows", "KiB", vec![rows * ROW / 1024.0]),
        Figure::new("  rows", "", vec![rows]),
        Figure::new("  text pages", "", vec![pages]),
        Figure::new("  bytes a row, all but mappings counted", "", vec![(bytes - mappings) / rows.max(1.0)])
            .aim(5.5),
        Figure::new("  evictions", "", each("evictions")),
        Figure::new(
            "  slow path, second half of the window",
            "%",
            vec![100.0 * sum("slow") / sum("walked").max(1.0)],
        ),
    ])
}
