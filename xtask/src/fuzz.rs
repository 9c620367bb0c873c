//! `cargo xtask fuzz`: the agent's readers of foreign bytes, against bytes that libFuzzer chooses.

mod build;
mod outcome;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use self::outcome::Outcome;
use crate::{command, workspace};

/// Give the agent's readers of foreign files, kernel records and text millions of broken inputs.
///
/// Builds `agent/fuzz` with coverage counters (stable Rust and a C++ compiler are enough) and runs LLVM's libFuzzer on each target:
/// no panic, no overflow, 5 seconds, 512 MiB and the target's own bound on its heap. It begins with the committed seeds and
/// what earlier runs found in target/fuzz/corpus, and ends with the number of executions of each target; an input that breaks
/// something is kept, and its path and how to repeat it are printed.
///
/// The long form is `cargo xtask fuzz --executions 1000000`.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this target; may be repeated
    #[arg(long = "target", value_name = "NAME")]
    targets: Vec<String>,
    /// Executions of each target
    #[arg(long, value_name = "NUMBER", default_value_t = 20_000)]
    executions: u64,
    /// Seconds for each target, also if there were fewer executions by then
    #[arg(long, value_name = "NUMBER")]
    seconds: Option<u64>,
    /// Where chance begins, so that a run that begins with the same inputs does the same again; 0 takes the time of day
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    seed: u32,
    /// List the targets
    #[arg(long)]
    list: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root()?;
    let directory = workspace::target_directory(&root).join("fuzz");
    let engine = build::engine(&root, &directory)?;
    let known = command::query(&mut Command::new(&engine))?.context("the fuzzer does not start")?;
    let known: Vec<&str> = known.lines().collect();
    if options.list {
        println!("{}", known.join("\n"));
        return Ok(());
    }
    for wanted in &options.targets {
        ensure!(known.contains(&wanted.as_str()), "no target {wanted}; there are: {}", known.join(", "));
    }
    let mut failures = Vec::new();
    println!("{}", outcome::TITLES);
    for target in known {
        if !options.targets.is_empty() && !options.targets.iter().any(|wanted| wanted == target) {
            continue;
        }
        let place = Place::new(&root, &directory, target)?;
        let outcome = place.run(&engine, target, options)?;
        println!("{}", outcome.row(target));
        if let Some(failure) = place.failure(&engine, target, &outcome, options) {
            eprintln!("{failure}");
            failures.push(target);
        }
    }
    if !failures.is_empty() {
        bail!("broken: {}", failures.join(", "));
    }
    Ok(())
}

/// Where a target's inputs and results are.
struct Place {
    seeds: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
    log: PathBuf,
}

impl Place {
    fn new(root: &Path, directory: &Path, target: &str) -> Result<Self> {
        let place = Self {
            seeds: root.join("agent/fuzz/seeds").join(target),
            corpus: directory.join("corpus").join(target),
            artifacts: directory.join("artifacts").join(target),
            log: directory.join("log").join(target),
        };
        for wanted in [&place.corpus, &place.artifacts, &directory.join("log")] {
            fs::create_dir_all(wanted).with_context(|| format!("cannot make {}", wanted.display()))?;
        }
        Ok(place)
    }

    /// New inputs go into the first directory, the corpus.
    fn run(&self, engine: &Path, target: &str, options: &Options) -> Result<Outcome> {
        let log = File::create(&self.log).with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut fuzzer = Command::new(engine);
        fuzzer
            .arg(target)
            .arg(format!("-runs={}", options.executions))
            .arg(format!("-seed={}", options.seed));
        fuzzer.arg("-print_final_stats=1");
        if let Some(seconds) = options.seconds {
            fuzzer.arg(format!("-max_total_time={seconds}"));
        }
        fuzzer.arg(format!("-artifact_prefix={}/", self.artifacts.display()));
        fuzzer.args([&self.corpus, &self.seeds]).stdout(log.try_clone()?).stderr(log);
        let status = fuzzer.status().with_context(|| format!("cannot start {}", engine.display()))?;
        let said = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(Outcome::of(status.success(), &String::from_utf8_lossy(&said)))
    }

    /// What is to be said of a run that did not go well.
    fn failure(&self, engine: &Path, target: &str, outcome: &Outcome, options: &Options) -> Option<String> {
        let log = self.log.display();
        if let Some(input) = outcome.artifacts.last().filter(|_| !outcome.ended_well) {
            let engine = engine.display();
            return Some(format!(
                "{target}: an input breaks it: {input}\n  what happened: {log}\n  again: {engine} {target} {input}\n  \
                 smaller: {engine} {target} -minimize_crash=1 -max_total_time=60 {input}"
            ));
        }
        if !outcome.ended_well {
            return Some(format!("{target}: the fuzzer failed: {log}"));
        }
        let short = options.seconds.is_none() && outcome.executions < options.executions;
        short.then(|| {
            format!("{target}: only {} executions of {}: {log}", outcome.executions, options.executions)
        })
    }
}
