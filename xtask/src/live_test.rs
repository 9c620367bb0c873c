//! `cargo xtask test`: all tests, with what they need, and an account of those that were skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::Args;
use nix::unistd::Uid;

use crate::ebpf_toolchain::{self, Found};
use crate::packages::{self, TEST_PACKAGES};
use crate::skip_log::{self, SkipLog};
use crate::{command, ebpf_build, ebpf_hash, workspace};

/// With this variable, what cannot be tested fails instead of being skipped.
const REQUIRE_LIVE: &str = "NODEPROF_REQUIRE_LIVE";
/// Tells the tests to leave the kernel alone.
const NO_LIVE: &str = "NODEPROF_NO_LIVE";
/// Tells the agent's build which eBPF object to embed.
const EBPF_OBJECT: &str = "NODEPROF_EBPF_OBJECT";

/// Run all tests.
///
/// Installs what the tests need from the distribution (on Debian and as root, after saying what and why), builds
/// the eBPF object from source and runs the tests against it, checks that the committed object is not older than
/// its sources, and prints which tests were skipped, and why. Live tests load eBPF programs into the running
/// kernel and so need root: `sudo -E env PATH=$PATH cargo xtask test`.
///
/// With NODEPROF_REQUIRE_LIVE=1 in the environment a skipped test is a failure.
#[derive(Args)]
pub(crate) struct Options {
    /// Install nothing: tests whose tools are missing are skipped
    #[arg(long)]
    no_install: bool,
    /// Skip the live tests, which load eBPF programs into the running kernel
    #[arg(long)]
    no_live: bool,
    /// Further arguments for `cargo test`, such as a test's name
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root()?;
    let strict = workspace::is_switched_on(REQUIRE_LIVE);
    if strict && options.no_live {
        bail!("--no-live contradicts {REQUIRE_LIVE}=1");
    }
    // What has gone wrong so far; the tests run nevertheless, because their result is wanted too.
    let mut failures = Vec::new();
    if !options.no_live && !Uid::effective().is_root() {
        eprintln!(
            "Not root: live tests will be skipped. To run them: sudo -E env PATH=$PATH cargo xtask test"
        );
    }
    if let Err(error) = prepare_packages(!options.no_install) {
        eprintln!("{error:#}\nTests that need what is missing will be skipped.");
    }
    if let Err(error) = ebpf_hash::check(&root) {
        eprintln!("{error:#}");
        failures.push(format!("{error:#}"));
    }
    let object = rebuild_object(&root, !options.no_install)?;
    if object.is_none() && strict {
        bail!("the eBPF object cannot be built from source here, and {REQUIRE_LIVE}=1 wants it tested");
    }

    let log = SkipLog::begin(workspace::target_directory(&root).join("skipped.log"))?;
    let mut tests = cargo_test(&root, &log, options, object.as_deref());
    if !command::run_for_status(&mut tests)?.success() {
        failures.push("tests failed".to_owned());
    }
    let skipped = log.entries()?;
    println!("{}", account(&skipped));
    if strict && !skipped.is_empty() {
        failures.push(format!("{REQUIRE_LIVE}=1 wants all tests, skipped: {}", skipped.len()));
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("; "));
    }
    Ok(())
}

fn prepare_packages(may_install: bool) -> Result<()> {
    if packages::is_debian() {
        return packages::ensure(TEST_PACKAGES, may_install);
    }
    eprintln!("This is not Debian. The tests use what these Debian packages hold, where it is there:");
    for package in TEST_PACKAGES {
        eprintln!("  {}: {}", package.name, package.why);
    }
    Ok(())
}

/// The object built from source; `None`, and a word about it, if there is no toolchain for it.
fn rebuild_object(root: &Path, may_install: bool) -> Result<Option<PathBuf>> {
    // An installation that fails leaves the machine as one without a toolchain; a build that fails is our fault.
    let found = ebpf_toolchain::find(root, may_install);
    match found.unwrap_or_else(|error| Found::Nothing(format!("{error:#}"))) {
        Found::Toolchain(toolchain) => {
            let output = workspace::target_directory(root).join("ebpf/agent-ebpf.o");
            let object = ebpf_build::build(root, &toolchain, &output)?;
            let committed = fs::read(root.join(workspace::PREBUILT_OBJECT)).ok();
            let same =
                if committed == Some(object) { "the same as" } else { "not the same, byte for byte, as" };
            eprintln!("The object built from source is {same} {}.", workspace::PREBUILT_OBJECT);
            Ok(Some(output))
        }
        Found::Nothing(instructions) => {
            eprintln!("{instructions}\nThe tests run against {}.", workspace::PREBUILT_OBJECT);
            Ok(None)
        }
    }
}

fn cargo_test(root: &Path, log: &SkipLog, options: &Options, object: Option<&Path>) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args(["test", "--workspace", "--no-fail-fast"]).args(&options.arguments).current_dir(root);
    command.env(skip_log::VARIABLE, log.path());
    if let Some(object) = object {
        command.env(EBPF_OBJECT, object);
    }
    if options.no_live {
        command.env(NO_LIVE, "1");
    }
    command
}

fn account(skipped: &[String]) -> String {
    if skipped.is_empty() {
        return "No test was skipped.".to_owned();
    }
    format!("Skipped tests, {} in all:\n  {}", skipped.len(), skipped.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The account counts and names each skip, and says so when there is none.
    #[test]
    fn account_names_each_skip() {
        assert_eq!(account(&[]), "No test was skipped.");
        let skipped = ["skipped: a: not root".to_owned(), "skipped: b: no go".to_owned()];
        assert_eq!(
            account(&skipped),
            "Skipped tests, 2 in all:\n  skipped: a: not root\n  skipped: b: no go"
        );
    }

    /// The tests learn of the log, of the object under test and of a wish to leave the kernel alone.
    #[test]
    fn tests_are_told_what_to_do() {
        let log =
            SkipLog::begin(std::env::temp_dir().join(format!("xtask-skips-{}", std::process::id()))).unwrap();
        let options = Options { no_install: true, no_live: true, arguments: vec!["resolver".into()] };
        let command = cargo_test(Path::new("/"), &log, &options, Some(Path::new("/o")));
        let line = command::line(&command);
        assert!(line.contains("NODEPROF_EBPF_OBJECT=/o ") && line.contains("NODEPROF_NO_LIVE=1 "), "{line}");
        assert!(line.contains("NODEPROF_SKIP_LOG=") && line.ends_with("--no-fail-fast resolver"), "{line}");
    }
}
