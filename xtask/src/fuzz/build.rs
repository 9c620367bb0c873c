//! Building the targets with libFuzzer and with the counters that guide it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, workspace};

/// What makes LLVM count edges and report comparisons (LLVM's "SanitizerCoverage"): code generation options of the stable
/// compiler, those that `cargo fuzz` uses. Without branch folding every comparison stays a branch that can be counted.
const COUNTERS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

/// Builds the engine below `directory`: its path.
pub(super) fn engine(root: &Path, directory: &Path) -> Result<PathBuf> {
    let host = host()?;
    let mut build = Command::new(workspace::cargo());
    build.args(["build", "--locked", "--package", "agent-fuzz", "--features", "engine", "--bin", "fuzz"]);
    // With a target named, build scripts and procedural macros are built without counters.
    build.args(["--profile", "fuzz", "--target", &host, "--target-dir"]).arg(directory);
    build.env_remove("RUSTFLAGS").env("CARGO_ENCODED_RUSTFLAGS", COUNTERS.join("\u{1f}"));
    command::run(build.current_dir(root))?;
    Ok(directory.join(host).join("fuzz/fuzz"))
}

/// The triple of this machine.
fn host() -> Result<String> {
    let version = command::query(Command::new("rustc").arg("-vV"))?.context("`rustc -vV` failed")?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` does not say what the host is")?.to_owned())
}
