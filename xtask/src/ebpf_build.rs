//! `cargo xtask build-ebpf`: the object that the agent embeds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::command::run as run_command;
use crate::ebpf_toolchain::{self, Found, Toolchain};
use crate::{ebpf_hash, ebpf_stack, object_paths, workspace};

const TARGET: &str = "bpfel-unknown-none";
const NAME: &str = "agent-ebpf";

/// `bpf_loop` needs function information in BTF, which the linker makes from debug information.
const RUST_FLAGS: &[&str] = &["-Cdebuginfo=2", "-Clink-arg=--btf"];

/// The release profile of the workspace is made for the agent. The linker optimises the object as a whole, so
/// that rustc's own LTO and a split into units would only be noise that moves the object.
const PROFILE: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
];

/// Build the eBPF object from source.
///
/// Builds agent-ebpf for bpfel-unknown-none and writes agent-ebpf/prebuilt/agent-ebpf.o, which the agent embeds,
/// with the hash of its sources beside it: commit both. The toolchain is Debian's rustc-web with bpf-linker 0.13
/// where there is apt-get (installed if missing, after saying what and why), and rustup's nightly with rust-src
/// and any bpf-linker elsewhere.
#[derive(Args)]
pub(crate) struct Options {
    /// Install nothing: fail with the exact commands if the toolchain is missing
    #[arg(long)]
    no_install: bool,
    /// Build nothing: only check that the committed object was built from the present sources
    #[arg(long, conflicts_with_all = ["no_install", "output"])]
    check: bool,
    /// Write the object to FILE and leave agent-ebpf/prebuilt as it is
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root()?;
    if options.check {
        ebpf_hash::check(&root)?;
        println!("{} was built from the present sources", workspace::PREBUILT_OBJECT);
        return Ok(());
    }
    let toolchain = match ebpf_toolchain::find(&root, !options.no_install)? {
        Found::Toolchain(toolchain) => toolchain,
        Found::Nothing(instructions) => bail!("{instructions}"),
    };
    let prebuilt = root.join(workspace::PREBUILT_OBJECT);
    let output = options.output.as_deref().unwrap_or(&prebuilt);
    let object = build(&root, &toolchain, output)?;
    if options.output.is_none() {
        ebpf_hash::write(&root, &object)?;
    }
    println!("wrote {} ({} bytes)", output.display(), object.len());
    Ok(())
}

/// Builds the object, writes it to `output` and returns it.
pub(crate) fn build(root: &Path, toolchain: &Toolchain, output: &Path) -> Result<Vec<u8>> {
    let cargo_home = workspace::cargo_home();
    let remaps = object_paths::remaps(root, cargo_home.as_deref(), toolchain.rust_sources().as_deref());
    let target_directory = workspace::target_directory(root).join("ebpf");
    let rust_flags: Vec<_> = RUST_FLAGS
        .iter()
        .map(ToString::to_string)
        .chain(remaps.iter().map(object_paths::Remap::flag))
        .collect();

    let mut command = toolchain.cargo_build();
    command.args(["--release", "--locked", "--package", NAME, "--bin", NAME, "--target", TARGET]);
    command.arg("--target-dir").arg(&target_directory).current_dir(root);
    command.envs(PROFILE.iter().copied());
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker);
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags.join("\u{1f}"));
    // A wrapper of the developer's knows his compiler, not this one.
    command.env_remove("RUSTC_WRAPPER").env_remove("RUSTC_WORKSPACE_WRAPPER");
    run_command(&mut command).context("the eBPF programs do not build")?;

    let linked = target_directory.join(TARGET).join("release").join(NAME);
    let stripped = target_directory.join("stripped.o");
    strip(&linked, &stripped)?;
    let object = fs::read(&stripped).with_context(|| format!("cannot read {}", stripped.display()))?;
    object_paths::check_absence(&object, &remaps)?;
    ebpf_stack::check(&object)?;
    if let Some(directory) = output.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    // A new time on the same object would have cargo build the agent again.
    if fs::read(output).ok().as_ref() != Some(&object) {
        fs::write(output, &object).with_context(|| format!("cannot write {}", output.display()))?;
    }
    Ok(object)
}

/// Copies `linked` without its DWARF, which nothing reads once the linker has made BTF from it.
fn strip(linked: &Path, stripped: &Path) -> Result<()> {
    fs::copy(linked, stripped).with_context(|| format!("cannot copy {}", linked.display()))?;
    let Some(strip) = Toolchain::strip() else {
        eprintln!("no llvm-strip here: the object keeps its debug information and is larger for it");
        return Ok(());
    };
    run_command(Command::new(strip).arg("--strip-debug").arg(stripped))
}

/// All that the command line adds to the sources, but for what differs between machines.
pub(crate) fn flags() -> String {
    let profile = PROFILE.iter().map(|(name, value)| format!("{name}={value}"));
    let flags = RUST_FLAGS.iter().map(ToString::to_string);
    profile.chain(flags).chain([TARGET.to_owned()]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that the hash covers name no directory, or the hash would differ between machines.
    #[test]
    fn hashed_flags_name_no_directory() {
        assert!(!flags().contains('/'));
        assert!(flags().contains("-Cdebuginfo=2") && flags().ends_with(TARGET));
    }
}
