//! The compilers that can build for the BPF target, and what it takes to have one.
//!
//! rustup's stable toolchains ship no `core` for BPF. Debian does, so that neither nightly nor a build of `core`
//! is needed there; elsewhere a nightly with its sources does it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{find_in_path, line, query, run};
use crate::packages::{self, Package};
use crate::workspace;

/// The series of bpf-linker whose LLVM reads what Debian's compiler writes, and the version that is installed.
const LINKER_SERIES: &str = "0.13.";
const LINKER_VERSION: &str = "0.13.0";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// How to get a toolchain by rustup, for people to read.
const NIGHTLY: &str = "  rustup toolchain install nightly --component rust-src\n  cargo install bpf-linker";

const DEBIAN_PACKAGES: &[Package] = &[
    Package { name: "rustc-web", why: "a Rust compiler whose LLVM is 22" },
    Package { name: "libstd-rust-web-dev-bpf", why: "Rust's `core`, built for BPF" },
    Package { name: "llvm-22-dev", why: "bpf-linker is built against LLVM 22; llvm-strip" },
    Package { name: "libpolly-22-dev", why: "LLVM 22 links to it" },
    Package { name: "libzstd-dev", why: "LLVM 22 links to it" },
    Package { name: "zlib1g-dev", why: "LLVM 22 links to it" },
    Package { name: "libxml2-dev", why: "LLVM 22 links to it" },
    Package { name: "libffi-dev", why: "LLVM 22 links to it" },
];

/// A compiler for BPF with its linker.
#[derive(Debug)]
pub(crate) struct Toolchain {
    kind: Kind,
    /// The bpf-linker.
    pub(crate) linker: PathBuf,
}

#[derive(Debug)]
enum Kind {
    /// Debian's `rustc-web`, which brings `core` for BPF.
    Debian,
    /// rustup's nightly with `rust-src`; holds its sysroot.
    Nightly(PathBuf),
}

impl Toolchain {
    /// `cargo build` by this toolchain, without what names the package.
    pub(crate) fn cargo_build(&self) -> Command {
        match &self.kind {
            Kind::Debian => {
                let mut command = Command::new(workspace::cargo());
                // `core` for BPF comes with the compiler; the bootstrap switch admits the unstable features
                // that aya-ebpf uses on a compiler that calls itself stable.
                command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build");
                command
            }
            Kind::Nightly(_) => {
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
                command
            }
        }
    }

    /// Where the compiler's own sources are, if they are on this machine and so can appear in the object.
    pub(crate) fn rust_sources(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Debian => None,
            Kind::Nightly(sysroot) => Some(rust_sources(sysroot)),
        }
    }

    /// LLVM's strip, if there is one: it knows BPF and keeps BTF.
    pub(crate) fn strip() -> Option<PathBuf> {
        let debian = Path::new(LLVM_PREFIX).join("bin/llvm-strip");
        Some(debian).filter(|path| path.is_file()).or_else(|| find_in_path("llvm-strip"))
    }
}

/// What [`find`] made of the machine.
pub(crate) enum Found {
    /// A toolchain, installed just now if need be.
    Toolchain(Toolchain),
    /// None, and what to do about it.
    Nothing(String),
}

/// Finds a toolchain; on Debian, as root and with leave, installs it.
///
/// Fails only if an installation that was begun fails.
pub(crate) fn find(root: &Path, may_install: bool) -> Result<Found> {
    let tools = workspace::target_directory(root).join("tools");
    let debian_complete = packages::is_debian() && packages::missing(DEBIAN_PACKAGES)?.is_empty();
    if debian_complete && let Some(linker) = debian_linker(&tools)? {
        return Ok(Found::Toolchain(Toolchain { kind: Kind::Debian, linker }));
    }
    if let Some(sysroot) = nightly_with_sources()?
        && let Some(linker) = linkers(&tools).next()
    {
        return Ok(Found::Toolchain(Toolchain { kind: Kind::Nightly(sysroot), linker }));
    }
    if !packages::is_debian() {
        return Ok(Found::Nothing(format!(
            "This machine has no toolchain for BPF. To install one:\n{NIGHTLY}"
        )));
    }
    // Packages need root; bpf-linker goes into the target directory and does not.
    let obstacle = if debian_complete && may_install { None } else { packages::obstacle(may_install) };
    match obstacle {
        None => Ok(Found::Toolchain(install_on_debian(&tools)?)),
        Some(obstacle) => Ok(Found::Nothing(debian_instructions(&tools, obstacle)?)),
    }
}

fn install_on_debian(tools: &Path) -> Result<Toolchain> {
    packages::ensure(DEBIAN_PACKAGES, true)
        .with_context(|| format!("no toolchain for BPF from this distribution; by rustup:\n{NIGHTLY}\n"))?;
    if debian_linker(tools)?.is_none() {
        eprintln!(
            "bpf-linker {LINKER_VERSION} is missing: it links Rust's BPF programs. Building it into {} now, which \
             takes some minutes.",
            tools.display()
        );
        run(&mut install_linker(tools))?;
    }
    match debian_linker(tools)? {
        Some(linker) => Ok(Toolchain { kind: Kind::Debian, linker }),
        None => bail!("bpf-linker was installed to {} but does not run from there", tools.display()),
    }
}

fn install_linker(tools: &Path) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"]);
    command.args(["--no-default-features", "--features", "llvm-22", "--root"]).arg(tools);
    // Without a target directory of ours, cargo builds in a temporary one and removes it.
    command.env("LLVM_PREFIX", LLVM_PREFIX).env_remove("CARGO_TARGET_DIR");
    command
}

/// A bpf-linker of the series that fits Debian's compiler.
fn debian_linker(tools: &Path) -> Result<Option<PathBuf>> {
    for linker in linkers(tools) {
        let version = query(Command::new(&linker).arg("--version"))?;
        if version.is_some_and(|version| is_of_series(&version)) {
            return Ok(Some(linker));
        }
    }
    Ok(None)
}

/// Whether `bpf-linker --version` printed a version of the series.
fn is_of_series(version: &str) -> bool {
    version.strip_prefix("bpf-linker ").is_some_and(|version| version.starts_with(LINKER_SERIES))
}

/// The bpf-linkers of this machine: in `$PATH`, in cargo's home, in our own tools.
fn linkers(tools: &Path) -> impl Iterator<Item = PathBuf> {
    let homes = workspace::cargo_home().into_iter().chain([tools.to_owned()]);
    let elsewhere = homes.map(|home| home.join("bin/bpf-linker")).filter(|path| path.is_file());
    find_in_path("bpf-linker").into_iter().chain(elsewhere)
}

/// The sysroot of rustup's nightly, if it has the sources to build `core` from.
fn nightly_with_sources() -> Result<Option<PathBuf>> {
    let output = query(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
    let sysroot = output.map(|output| PathBuf::from(output.trim_end()));
    Ok(sysroot.filter(|sysroot| rust_sources(sysroot).is_dir()))
}

fn rust_sources(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust")
}

fn debian_instructions(tools: &Path, obstacle: &str) -> Result<String> {
    let missing = packages::missing(DEBIAN_PACKAGES)?;
    let mut commands = Vec::new();
    if !missing.is_empty() {
        commands.push(packages::commands(&missing));
    }
    if debian_linker(tools)?.is_none() {
        commands.push(format!("  {}", line(&install_linker(tools))));
    }
    Ok(format!(
        "This machine has no toolchain for BPF, and none was installed because {obstacle}. To install one:\n{}\n\
         or, with rustup:\n{NIGHTLY}",
        commands.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A linker of another series may not read what Debian's compiler writes.
    #[test]
    fn only_the_series_is_accepted() {
        assert!(is_of_series("bpf-linker 0.13.0\n") && is_of_series("bpf-linker 0.13.2"));
        assert!(!is_of_series("bpf-linker 0.14.0\n") && !is_of_series("bpf-linker 0.1\n"));
        assert!(!is_of_series("0.13.0\n") && !is_of_series(""));
    }

    /// Debian's compiler is chosen by environment, nightly by rustup and a build of `core`.
    #[test]
    fn each_toolchain_builds_its_way() {
        let build = |kind| {
            let toolchain = Toolchain { kind, linker: "bpf-linker".into() };
            line(&toolchain.cargo_build())
        };
        assert!(build(Kind::Debian).starts_with("RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 "));
        assert_eq!(
            build(Kind::Nightly("/sysroot".into())),
            "rustup run nightly cargo build -Z build-std=core"
        );
    }
}
