//! Programs to be profiled, compiled for the test from `tests/workloads`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::running::Running;

/// A compiled program in a directory of its own, which is removed when this is dropped.
pub(crate) struct Workload {
    directory: TempDir,
    program: PathBuf,
}

/// The source `name` of a workload.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads").join(name)
}

impl Workload {
    /// Compiles a C source into a program called `program`, whose frame pointers are on and whose functions stay apart.
    pub(crate) fn c(name: &str, program: &str, flags: &[&str]) -> Self {
        Self::compile(program, |output| {
            let mut gcc = Command::new("gcc");
            gcc.args([
                "-O2",
                "-fno-omit-frame-pointer",
                "-mno-omit-leaf-frame-pointer",
                "-fno-inline",
                "-Wall",
                "-Werror",
            ]);
            gcc.args(flags).arg("-o").arg(output).arg(source(name));
            gcc
        })
    }

    /// Compiles a source as distributions do, without frame pointers, by a compiler of gcc's family.
    pub(crate) fn plain(compiler: &str, name: &str, program: &str, flags: &[&str]) -> Self {
        Self::compile(program, |output| {
            let mut command = Command::new(compiler);
            command.args(["-O2", "-fomit-frame-pointer", "-Wall", "-Werror"]);
            command.args(flags).arg("-o").arg(output).arg(source(name));
            command
        })
    }

    /// Compiles a Rust source as `cargo build --release` does.
    pub(crate) fn rust_release(name: &str, program: &str) -> Self {
        Self::compile(program, |output| {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition=2024", "-O", "-o"]).arg(output).arg(source(name));
            rustc
        })
    }

    /// Compiles a Rust source with optimisation and frame pointers.
    pub(crate) fn rust(name: &str, program: &str) -> Self {
        Self::compile(program, |output| {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition=2024", "-O", "-Cforce-frame-pointers=yes", "-o"]);
            rustc.arg(output).arg(source(name));
            rustc
        })
    }

    /// Compiles a Go source. What it builds of the standard library is kept between runs.
    pub(crate) fn go(name: &str, program: &str) -> Self {
        Self::go_with(name, program, &[], false)
    }

    /// The same with arguments of `go build`, and where it says so with C.
    pub(crate) fn go_with(name: &str, program: &str, arguments: &[&str], with_c: bool) -> Self {
        Self::compile(program, |output| {
            let mut go = Command::new("go");
            go.arg("build").args(arguments).arg("-o").arg(output).arg(source(name));
            go.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-build"));
            go.env("GO111MODULE", "off").env("CGO_ENABLED", if with_c { "1" } else { "0" });
            go
        })
    }

    fn compile(program: &str, compiler: impl FnOnce(&Path) -> Command) -> Self {
        let directory = TempDir::new().expect("a directory");
        // As the kernel will call it: without symbolic links.
        let program = directory.path().canonicalize().expect("it is there").join(program);
        let mut compiler = compiler(&program);
        let output = compiler.output().unwrap_or_else(|error| panic!("{compiler:?}: {error}"));
        assert!(output.status.success(), "{compiler:?}: {}", String::from_utf8_lossy(&output.stderr));
        Self { directory, program }
    }

    /// The program's file.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The directory that holds the program.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A command that runs the program.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.program)
    }

    /// Runs the program without arguments, in a session of its own.
    pub(crate) fn start(&self) -> Running {
        self.start_with(&[])
    }

    /// Runs the program in a session of its own.
    pub(crate) fn start_with(&self, arguments: &[&OsStr]) -> Running {
        let mut setsid = Command::new("setsid");
        let running = Running::start(setsid.arg(&self.program).args(arguments).stdout(Stdio::null()));
        running.wait_for_program(&self.program)
    }

    /// Copies the program to `name` beside it: another file with another inode.
    pub(crate) fn copy(&self, name: &str) -> PathBuf {
        let copy = self.directory().join(name);
        fs::copy(&self.program, &copy).expect("the program can be copied");
        copy
    }
}
