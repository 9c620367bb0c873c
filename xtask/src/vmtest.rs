//! `cargo xtask vmtest`: the agent on other kernels than this machine's, each in a virtual machine.

mod initramfs;
mod kernel_image;
mod machine;
mod outcome;
mod sections;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use self::kernel_image::Kernel;
use self::outcome::Outcome;
use crate::ebpf_toolchain::{self, Found};
use crate::packages::{self, Package};
use crate::{command, ebpf_build, workspace};

const PACKAGES: &[Package] = &[
    Package { name: "qemu-system-x86", why: "the virtual machine" },
    Package { name: "busybox-static", why: "mount, dmesg and poweroff inside it" },
    Package { name: "cpio", why: "packs the machine's file system" },
    Package { name: "gcc", why: "compiles the program that is profiled inside" },
    Package { name: "libc6-dev", why: "static libc for that program" },
];

/// What the agent is built for, so that it needs no file of the machine that it runs on.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Run the agent on other kernels, each in a virtual machine.
///
/// Boots Debian's cloud kernels under qemu (emulated, so that it works without KVM) with nothing but the agent, busybox and a
/// program with a stack of known depth; checks that the kernel takes the eBPF programs built from the present sources,
/// that the stacks are whole and that the books balance. Kernels come from Debian's archive by `apt-get download` with package
/// lists of their own below the target directory; nothing but the tools is installed.
#[derive(Args)]
pub(crate) struct Options {
    /// Kernels to test. Can be given more than once. [default: all]
    #[arg(long, value_name = "VERSION", value_enum)]
    kernel: Vec<Kernel>,
    /// Install nothing: fail with the exact commands if a tool is missing
    #[arg(long)]
    no_install: bool,
    /// Debian archive that kernels come from
    #[arg(long, value_name = "URL", default_value = "http://deb.debian.org/debian")]
    archive: String,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(packages::is_debian(), "vmtest takes its kernels and tools from Debian, by apt-get and dpkg-deb");
    packages::ensure(PACKAGES, !options.no_install)?;
    let root = workspace::root()?;
    let directory = workspace::target_directory(&root).join("vm");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let agent = build_agent(&root, !options.no_install)?;
    let initramfs = initramfs::build(&directory, &agent)?;

    let kernels = if options.kernel.is_empty() { Kernel::value_variants() } else { &options.kernel };
    let mut outcomes = Vec::new();
    for kernel in kernels {
        let image = kernel_image::fetch(*kernel, &directory, &options.archive)?;
        let log = directory.join(format!("{}.console", kernel.version()));
        let console = machine::boot(&image, &initramfs, &log)?;
        outcomes.push((*kernel, log, Outcome::read(&console)));
    }
    report(&outcomes)
}

/// Builds the eBPF object from the present sources and a static agent that embeds it.
fn build_agent(root: &Path, may_install: bool) -> Result<PathBuf> {
    let toolchain = match ebpf_toolchain::find(root, may_install)? {
        Found::Toolchain(toolchain) => toolchain,
        Found::Nothing(instructions) => bail!("{instructions}"),
    };
    let target_directory = workspace::target_directory(root);
    let object = target_directory.join("ebpf/agent-ebpf.o");
    ebpf_build::build(root, &toolchain, &object)?;
    let mut build = Command::new(workspace::cargo());
    build.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "agent",
        "--bin",
        "agent",
        "--target",
        TARGET,
    ]);
    build.env("NODEPROF_EBPF_OBJECT", &object).env("RUSTFLAGS", "-C target-feature=+crt-static");
    command::run(build.current_dir(root))?;
    Ok(target_directory.join(TARGET).join("release/agent"))
}

/// Prints what came of each kernel; an error if anything is not as it must be.
fn report(outcomes: &[(Kernel, PathBuf, Outcome)]) -> Result<()> {
    println!("{}", outcome::HEADING);
    for (kernel, _, outcome) in outcomes {
        println!("{}", outcome.row(kernel.version()));
    }
    let mut failed = Vec::new();
    for (kernel, log, outcome) in outcomes.iter().filter(|(_, _, outcome)| !outcome.failures.is_empty()) {
        failed.push(kernel.version());
        println!("\n{} (all of its console: {})", kernel.version(), log.display());
        outcome.failures.iter().for_each(|failure| println!("  {failure}"));
    }
    ensure!(failed.is_empty(), "not as it must be on {}", failed.join(", "));
    Ok(())
}
