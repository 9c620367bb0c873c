//! Where things are in this repository.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The committed eBPF object, relative to the root.
pub(crate) const PREBUILT_OBJECT: &str = "agent-ebpf/prebuilt/agent-ebpf.o";

/// The workspace's root directory.
///
/// `cargo run` tells the manifest directory at run time; the one of compile time serves when the binary is
/// started by hand (`sudo target/debug/xtask install --no-build`).
pub(crate) fn root() -> Result<PathBuf> {
    let manifest_directory = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = manifest_directory.parent().context("xtask's manifest directory has no parent")?;
    root.canonicalize().with_context(|| format!("the workspace {} is gone", root.display()))
}

/// Cargo's target directory for this workspace.
pub(crate) fn target_directory(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |directory| root.join(directory))
}

/// The cargo that runs this task, so that a `+toolchain` holds for what it starts as well.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Cargo's home: `$CARGO_HOME`, else `~/.cargo`.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// Whether the environment variable `name` is set to something other than nothing or `0`.
pub(crate) fn is_switched_on(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}
