//! `cargo xtask bench symbols`: how quickly addresses get names, beside blazesym.

mod outcome;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::outcome::{Outcome, Side, rows};
use crate::{command, workspace};

/// Measure the resolver beside blazesym: first name, warm addresses a second, peak memory.
///
/// Each tool, mode and file has a process of its own, so that peaks are its own; tools take turns, and the best of all turns counts,
/// because others use the machine too. The resolver has its default budget. Blazesym keeps what it has read, and maps files where the
/// resolver reads them.
///
/// Files: the C library, the Rust compiler's library (150 MB, no debug information), and a program with more than 100 MB of debug
/// information, by default a debug build of the agent.
///
/// First name: from nothing, with the file in the page cache, to the name of one address. Addresses a second: distinct addresses
/// that the file's symbols cover, in one call, after as many others. Names only, then with lines and inlined functions. Both demangle.
/// The resolver's two readers name parts of a large module at the same time where no lines are wanted, blazesym has one thread: the
/// CPU time of both is there too.
/// Peak memory: what the process grows by at most, resident (blazesym's mapped files are in it; those of others' page cache are not),
/// and on the heap, in a run of its own.
#[derive(Args)]
pub(crate) struct Options {
    /// Turns of each tool
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Addresses that are timed for names
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    names: u32,
    /// Addresses that are timed for lines
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..))]
    lines: u32,
    /// The program with much debug information
    #[arg(long, value_name = "FILE")]
    dwarf: Option<PathBuf>,
}

const TOOLS: [&str; 2] = ["nodeprof", "blazesym"];
/// Least bytes of the program with much debug information.
const LARGE: u64 = 100_000_000;

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let large = match &options.dwarf {
        Some(path) => path.clone(),
        None => large_program()?,
    };
    let size = large.metadata().with_context(|| format!("no file {}", large.display()))?.len();
    ensure!(size >= LARGE, "{} has {size} bytes; 100 MB at least are wanted", large.display());
    let bench = build()?;
    let files = [libc()?, rustc_driver()?, large];
    let mut table = Vec::new();
    for (mode, count) in [("names", options.names), ("lines", options.lines)] {
        for file in &files {
            eprintln!("{mode}: {} turns with {}", options.runs, file.display());
            let [ours, theirs] = measure(&bench, mode, count, file, options.runs)?;
            table.extend(rows(file, mode, &ours, &theirs));
        }
    }
    println!(
        "names beside blazesym, best of {} turns; {} addresses for names, {} for lines\n",
        options.runs, options.names, options.lines
    );
    println!("{:<58} {:>10} {:>10} {:>9}", "", "NODEPROF", "BLAZESYM", "RATIO");
    for row in table {
        println!("{row}");
    }
    Ok(())
}

/// What each of [`TOOLS`] made of it.
fn measure(bench: &Path, mode: &str, count: u32, file: &Path, runs: u16) -> Result<[Side; 2]> {
    let mut sides = [Side::default(), Side::default()];
    for _ in 0..runs {
        for (tool, side) in TOOLS.iter().zip(&mut sides) {
            side.timed.push(outcome(bench, tool, mode, count, file)?);
        }
    }
    for (tool, side) in TOOLS.iter().zip(&mut sides) {
        side.heap = Some(outcome(bench, tool, &format!("{mode}-heap"), count, file)?.heap);
    }
    Ok(sides)
}

fn outcome(bench: &Path, tool: &str, mode: &str, count: u32, file: &Path) -> Result<Outcome> {
    let mut command = Command::new(bench);
    command.args([tool, mode, &count.to_string()]).arg(file).stderr(Stdio::inherit());
    let output = command.output()?;
    ensure!(output.status.success(), "`{}` failed: {}", command::line(&command), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    Outcome::parse(text.trim_end()).with_context(|| format!("no figures: {text:?}"))
}

/// Builds the benchmark; the path of its program.
fn build() -> Result<PathBuf> {
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["bench", "--locked", "--package", "agent", "--bench", "symbols", "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    cargo.current_dir(workspace::root()?).stderr(Stdio::inherit());
    let output = cargo.output()?;
    ensure!(output.status.success(), "`{}` failed: {}", command::line(&cargo), output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "symbols").then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    programs.next_back().context("cargo did not say where the benchmark is")
}

/// A debug build of the agent with all debug information.
fn large_program() -> Result<PathBuf> {
    let root = workspace::root()?;
    let directory = workspace::target_directory(&root).join("bench-symbols");
    let mut build = Command::new(workspace::cargo());
    build.args(["build", "--locked", "--package", "agent", "--bin", "agent"]);
    build.args([
        "--config",
        "profile.dev.debug='full'",
        "--config",
        "profile.dev.opt-level=0",
        "--target-dir",
    ]);
    command::run(build.arg(&directory).current_dir(&root))?;
    Ok(directory.join("debug/agent"))
}

/// The C library that this program runs with.
fn libc() -> Result<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut paths = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    paths.find(|path| path.contains("/libc.so")).map(PathBuf::from).context("this program has no C library")
}

fn rustc_driver() -> Result<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = command::query(Command::new(rustc).args(["--print", "sysroot"]))?.context("no rustc")?;
    let mut libraries = Path::new(sysroot.trim()).join("lib").read_dir()?.flatten().map(|entry| entry.path());
    libraries.find(|path| path.to_string_lossy().contains("librustc_driver")).context("no librustc_driver")
}
