//! Programs to be profiled: some that work, of different kinds, and many that sleep.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::command;
use crate::process_group::ProcessGroup;

/// Processes that run while this lives.
pub(crate) struct Workload {
    groups: Vec<ProcessGroup>,
    /// What runs, for people.
    pub(crate) description: String,
}

const PYTHON_LOOP: &str = "\
def mix(value):
    return (value * 2862933555777941757 + 3037000493) & 0xffffffffffffffff

def fill(table, value):
    for index in range(len(table)):
        value = mix(value)
        table[index] = value >> 33
    return value

print('ready', flush=True)
table, value = [0] * 4096, 1
while True:
    value = fill(table, value)
    table.sort()
    text = ','.join(map(str, table)).split(',')
";

/// Python's own path, because a version manager's `python3` may be a script that takes long to start the real one.
const PYTHON_PATH: &str = "import sys; print(sys.executable)";

/// Modules with shared libraries of their own; those that are not there are not imported.
const PYTHON_LIBRARIES: [&str; 10] =
    ["ssl", "sqlite3", "decimal", "lzma", "bz2", "ctypes", "json", "xml.parsers.expat", "asyncio", "hashlib"];

const SLEEPER: &str = "\
#include <dlfcn.h>
#include <stdio.h>
#include <unistd.h>
int main(int count, char **words) {
    void *library = dlopen(words[1], RTLD_NOW);
    int (*work)(int) = library ? dlsym(library, \"work\") : 0;
    if (!work) return 1;
    printf(\"ready %d\\n\", work(count));
    fflush(stdout);
    for (;;) pause();
}
";

/// Two functions that take 70 % and 30 % of the time, in turns of random length: a steady rhythm could keep step
/// with a profiler's timer.
const BURNER: &str = "\
#define BURN(name) \\
    __attribute__((noinline)) void name(unsigned long rounds) { \\
        for (volatile unsigned long i = 0; i < rounds; i++); \\
    }
BURN(burn_seventy)
BURN(burn_thirty)
int main(void) {
    for (unsigned long state = 1;;) {
        state = state * 6364136223846793005 + 1442695040888963407;
        burn_seventy(700 * (state >> 54));
        burn_thirty(300 * (state >> 54));
    }
}
";

/// Each library gets another `NUMBER`, so that its text and its build id are its own.
const LIBRARY: &str = "int work(int value) { return value * 31 + NUMBER; }\n";

impl Workload {
    /// A compiler on a generated file, loops in C and Python, a checksum and a compression, until dropped. What is not
    /// installed is left out. Files go to `directory`.
    pub(crate) fn mixed(directory: &Path) -> Result<Self> {
        let mut workload = Self { groups: Vec::new(), description: String::new() };
        if command::find_in_path("gcc").is_some() {
            let source = directory.join("generated.c");
            fs::write(&source, generated_c(300))?;
            workload.repeat("gcc -O2", "gcc -O2 -c -o /dev/null \"$0\"", &source)?;
        }
        if let Some(burner) = compile(directory, "burner", BURNER, &["-O2"])? {
            workload.start("a C loop", &mut Command::new(burner))?;
        }
        workload.python_loop()?;
        let text = directory.join("text");
        fs::write(&text, generated_text(8 << 20))?;
        workload.repeat("gzip -9", "gzip -9 -c \"$0\"", &text)?;
        workload.start("sha256sum /dev/zero", Command::new("sha256sum").arg("/dev/zero"))?;
        Ok(workload)
    }

    /// `count` processes that never end: loops in Python and the shell, checksums and compressions in turn.
    pub(crate) fn busy(directory: &Path, count: usize) -> Result<Self> {
        let mut workload = Self { groups: Vec::new(), description: String::new() };
        let text = directory.join("text");
        fs::write(&text, generated_text(8 << 20))?;
        for number in 0..count {
            match number % 4 {
                0 => workload.python_loop()?,
                1 => workload.repeat("gzip -9", "gzip -9 -c \"$0\"", &text)?,
                2 => workload.start("sha256sum", Command::new("sha256sum").arg("/dev/zero"))?,
                _ => workload.repeat("sh", "i=0; while [ $i -lt 1000000 ]; do i=$((i + 1)); done", &text)?,
            }
        }
        Ok(workload)
    }

    /// `count` processes that sleep, a third each C programs with a library of their own, Python with different
    /// libraries, and shells; where there is no gcc or no Python, shells instead. All are started when this returns.
    pub(crate) fn sleeping(directory: &Path, count: usize) -> Result<Self> {
        let sleeper = compile(directory, "sleeper", SLEEPER, &["-ldl"])?;
        let python = python()?;
        let mut groups = Vec::with_capacity(count);
        for number in 0..count {
            let mut command = match (number % 3, &sleeper, &python) {
                (0, Some(sleeper), _) => sleeping_c(directory, sleeper, number)?,
                (1, _, Some(python)) => sleeping_python(python, number),
                _ => {
                    let mut shell = Command::new("sh");
                    shell.args(["-c", "echo ready; read line"]);
                    shell
                }
            };
            groups.push(ProcessGroup::start_and_await_line(&mut command)?);
        }
        Ok(Self { groups, description: format!("{count} sleeping processes") })
    }

    fn python_loop(&mut self) -> Result<()> {
        if let Some(python) = python()? {
            let group = ProcessGroup::start_and_await_line(Command::new(python).args(["-c", PYTHON_LOOP]))?;
            self.add("a Python loop", group);
        }
        Ok(())
    }

    /// Runs the shell command `script` again and again; it finds `file` as `$0`. Its temporary files go beside `file`: a
    /// compiler that is killed leaves some.
    fn repeat(&mut self, name: &str, script: &str, file: &Path) -> Result<()> {
        let endless = format!("while :; do {script} || sleep 1; done");
        let mut shell = Command::new("sh");
        shell.args(["-c", &endless]).arg(file).envs(file.parent().map(|directory| ("TMPDIR", directory)));
        self.start(name, &mut shell)
    }

    fn start(&mut self, name: &str, command: &mut Command) -> Result<()> {
        let group = ProcessGroup::start(command)?;
        self.add(name, group);
        Ok(())
    }

    fn add(&mut self, name: &str, group: ProcessGroup) {
        self.groups.push(group);
        let separator = if self.description.is_empty() { "" } else { ", " };
        self.description.extend([separator, name]);
    }
}

fn python() -> Result<Option<PathBuf>> {
    let path = command::query(Command::new("python3").args(["-c", PYTHON_PATH]))?;
    Ok(path.map(|path| PathBuf::from(path.trim_end())))
}

fn sleeping_c(directory: &Path, sleeper: &Path, number: usize) -> Result<Command> {
    let arguments = [format!("-DNUMBER={number}"), "-shared".to_owned(), "-fPIC".to_owned()];
    let library = compile(directory, &format!("library{number}.so"), LIBRARY, &arguments)?;
    let mut command = Command::new(sleeper);
    command.args(library);
    Ok(command)
}

fn sleeping_python(python: &Path, number: usize) -> Command {
    let library = PYTHON_LIBRARIES[number / 3 % PYTHON_LIBRARIES.len()];
    let script = format!(
        "import sys\ntry:\n    import {library}\nexcept ImportError:\n    pass\n\
         print('ready', flush=True)\nsys.stdin.read()"
    );
    let mut command = Command::new(python);
    command.args(["-c", &script]);
    command
}

/// The program `name`, compiled from C; `None` where there is no gcc.
pub(crate) fn compile(
    directory: &Path,
    name: &str,
    source: &str,
    arguments: &[impl AsRef<std::ffi::OsStr>],
) -> Result<Option<PathBuf>> {
    if command::find_in_path("gcc").is_none() {
        return Ok(None);
    }
    let (file, program) = (directory.join(format!("{name}.c")), directory.join(name));
    fs::write(&file, source)?;
    let mut compiler = Command::new("gcc");
    compiler.arg("-o").arg(&program).arg(&file).args(arguments);
    command::query(&mut compiler)?.ok_or_else(|| anyhow::anyhow!("`{}` failed", command::line(&compiler)))?;
    Ok(Some(program))
}

/// A C file whose `functions` functions give the optimiser loops, branches and calls.
fn generated_c(functions: usize) -> String {
    let mut code = String::new();
    for number in 0..functions {
        let callee = if number == 0 { "value".to_owned() } else { format!("f{}(n - 1, table)", number - 1) };
        // Writing to a string does not fail.
        let _ = writeln!(
            code,
            "unsigned f{number}(unsigned n, unsigned *table) {{\n\
             \x20   unsigned value = n * {number}u + 1;\n\
             \x20   for (unsigned i = 0; i < n; i++)\n\
             \x20       for (unsigned j = i; j < n; j++) {{\n\
             \x20           switch ((table[j & 63] ^ value) % 7) {{\n\
             \x20           case 0: value += table[i & 63] * {number}u; break;\n\
             \x20           case 1: value ^= value >> 5; table[j & 63] = value; break;\n\
             \x20           case 2: value = value / (i + 1) + j; break;\n\
             \x20           case 3: if (value > n) {{ value -= {callee}; }} break;\n\
             \x20           default: value = (value << 3) | (value >> 29);\n\
             \x20           }}\n\
             \x20       }}\n\
             \x20   return value;\n\
             }}"
        );
    }
    code
}

/// `bytes` bytes of text that compresses as text does: words drawn at random, always the same.
fn generated_text(bytes: usize) -> String {
    const WORDS: [&str; 16] = [
        "sample", "stack", "frame", "leaf", "root", "module", "symbol", "build", "timer", "kernel", "ring",
        "window", "address", "offset", "process", "thread",
    ];
    let mut text = String::with_capacity(bytes + 16);
    let mut state = 1_u64;
    while text.len() < bytes {
        // Knuth's MMIX generator; its high bits are the good ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 60) as usize]);
        let _ = write!(text, "{:x}", (state >> 40) & 0xff);
        text.push(if (state >> 32).is_multiple_of(8) { '\n' } else { ' ' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The generated file is C that compiles.
    #[test]
    fn generated_c_compiles() {
        let directory = tempfile::tempdir().unwrap();
        if command::find_in_path("gcc").is_some() {
            compile(directory.path(), "generated.o", &generated_c(3), &["-c"]).unwrap();
        }
        assert_eq!(generated_c(3).matches("unsigned f").count(), 3);
    }

    /// The C programs compile.
    #[test]
    fn c_programs_compile() {
        let directory = tempfile::tempdir().unwrap();
        if command::find_in_path("gcc").is_some() {
            for (name, source) in [("burner", BURNER), ("sleeper", SLEEPER)] {
                compile(directory.path(), name, source, &["-Wall", "-Werror"]).unwrap();
            }
        }
    }

    /// The text has the size that was asked for, and no two lines are the same.
    #[test]
    fn generated_text_does_not_repeat() {
        let text = generated_text(10_000);
        assert!((10_000..10_020).contains(&text.len()));
        let lines: std::collections::HashSet<_> = text.lines().collect();
        assert!(lines.len() > 100 && lines.len() == text.lines().count());
    }
}
