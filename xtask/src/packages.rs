//! Packages of the distribution: what a task needs, what of it is missing, and its installation on Debian.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::command;

/// A Debian package and what it is needed for.
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
}

/// What the tests use beyond Rust. A test whose tool is absent skips itself and says so.
pub(crate) const TEST_PACKAGES: &[Package] = &[
    Package { name: "gcc", why: "compiles the C workloads that are profiled" },
    Package { name: "g++", why: "compiles the C++ workload whose names are demangled" },
    Package { name: "libc6-dev", why: "headers and static libc for the C workloads" },
    Package { name: "musl-tools", why: "workloads of a C library without unwind tables" },
    Package { name: "golang-go", why: "Go workloads, and `go tool pprof` as a reader that is not ours" },
    Package { name: "nodejs", why: "JavaScript, whose compiler writes perf maps and jitdumps" },
    Package { name: "openjdk-17-jdk-headless", why: "Java, whose virtual machine is asked for its perf map" },
    Package { name: "python3", why: "a script whose interpreter is profiled" },
    Package {
        name: "util-linux",
        why: "setpriv and unshare: the agent without privileges, a tracefs of one's own",
    },
    Package { name: "binutils", why: "readelf, addr2line and objcopy: oracles for symbols and unwind rows" },
    Package { name: "xz-utils", why: "xz: MiniDebugInfo as RHEL ships it" },
    Package { name: "zstd", why: "zstd: compressed debug sections as clang writes them" },
    Package { name: "dwz", why: "dwz: supplementary files of debug information" },
    Package { name: "llvm", why: "llvm-symbolizer: an oracle for source lines and inlined functions" },
    Package {
        name: "libc6-dbg",
        why: "debug information of the C library, compressed, in a file of its own",
    },
    Package { name: "libpython3.11", why: "a large library whose names are compared with other readers'" },
    Package { name: "linux-perf", why: "perf: an oracle for samples and stacks" },
    Package { name: "bpftrace", why: "an oracle for counts of kernel events" },
];

/// Whether this machine installs its packages with apt-get.
pub(crate) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && command::find_in_path("apt-get").is_some()
}

/// Those of `packages` that dpkg does not know as installed.
pub(crate) fn missing(packages: &'static [Package]) -> Result<Vec<&'static Package>> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${Package} ${db:Status-Status}\n"]);
    query.args(packages.iter().map(|package| package.name));
    // dpkg-query fails as soon as one package is unknown, but prints the others nevertheless.
    let output = query.output()?;
    Ok(not_installed(packages, &String::from_utf8_lossy(&output.stdout)))
}

fn not_installed<'a>(packages: &'a [Package], statuses: &str) -> Vec<&'a Package> {
    let installed: HashSet<&str> =
        statuses.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    packages.iter().filter(|package| !installed.contains(package.name)).collect()
}

/// Why `packages` cannot be installed here and now, or `None` if they can.
pub(crate) fn obstacle(may_install: bool) -> Option<&'static str> {
    if !may_install {
        Some("--no-install was given")
    } else if !Uid::effective().is_root() {
        Some("installing packages needs root")
    } else {
        None
    }
}

/// Installs what is missing, after saying what and why; fails with the exact commands where it must not.
pub(crate) fn ensure(packages: &'static [Package], may_install: bool) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    if let Some(obstacle) = obstacle(may_install) {
        bail!(
            "{}\nNot installed because {obstacle}. To install them:\n{}",
            list(&missing),
            commands(&missing)
        );
    }
    eprintln!("{}\nInstalling them with apt-get now.", list(&missing));
    // An update fails as soon as one of several archives is unreachable; the packages may come from another.
    if command::run(Command::new("apt-get").args(["update", "--quiet"])).is_err() {
        eprintln!("apt-get update failed; trying with the package lists that are there");
    }
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]);
    install.args(missing.iter().map(|package| package.name));
    command::run(install.env("DEBIAN_FRONTEND", "noninteractive"))
}

fn list(packages: &[&Package]) -> String {
    let width = packages.iter().map(|package| package.name.len()).max().unwrap_or(0);
    let lines = packages.iter().map(|package| format!("\n  {:width$}  {}", package.name, package.why));
    format!("Debian packages that are missing:{}", lines.collect::<String>())
}

/// The commands that install `packages`, one a line.
pub(crate) fn commands(packages: &[&Package]) -> String {
    let names: Vec<_> = packages.iter().map(|package| package.name).collect();
    format!("  sudo apt-get update\n  sudo apt-get install --no-install-recommends {}", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKAGES: &[Package] = &[
        Package { name: "gcc", why: "compiles" },
        Package { name: "musl-tools", why: "musl" },
        Package { name: "gone", why: "was removed, its configuration is still there" },
    ];

    /// Only the status "installed" counts: a package whose configuration files remain is missing.
    #[test]
    fn removed_packages_are_missing() {
        let missing = not_installed(PACKAGES, "gcc installed\ngone config-files\n");
        assert_eq!(missing.iter().map(|package| package.name).collect::<Vec<_>>(), ["musl-tools", "gone"]);
    }

    /// A refusal to install names each package, its reason and the command to type.
    #[test]
    fn refusal_says_what_to_type() {
        let missing = not_installed(PACKAGES, "gcc installed\ngone installed\n");
        assert_eq!(list(&missing), "Debian packages that are missing:\n  musl-tools  musl");
        assert!(commands(&missing).ends_with("apt-get install --no-install-recommends musl-tools"));
    }
}
