//! Kernels from Debian's archive: downloaded and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::command;

/// Always depends on the newest kernel of its suite.
const METAPACKAGE: &str = "linux-image-cloud-amd64";

/// A kernel to test: the oldest that is supported, and the long-term ones of Debian's releases since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    #[value(name = "5.10")]
    Bullseye,
    #[value(name = "6.1")]
    Bookworm,
    #[value(name = "6.12")]
    Trixie,
}

impl Kernel {
    /// Its version, as on the command line.
    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Bullseye => "5.10",
            Self::Bookworm => "6.1",
            Self::Trixie => "6.12",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::Bullseye => "bullseye",
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

/// The kernel's image. One that was unpacked into `directory` before is not asked for again.
pub(crate) fn fetch(kernel: Kernel, directory: &Path, archive: &str) -> Result<PathBuf> {
    let directory = directory.join(kernel.suite());
    let unpacked = directory.join("unpacked");
    if let Some(image) = image_in(&unpacked) {
        return Ok(image);
    }
    let apt = PrivateApt::create(&directory, archive, kernel.suite())?;
    command::run(apt.command("apt-get").args(["--quiet", "update"]))?;
    let depends = command::query(apt.command("apt-cache").args(["depends", METAPACKAGE]))?;
    let package = depends.as_deref().and_then(dependency);
    let package = package.with_context(|| format!("{archive} has no {METAPACKAGE} in {}", kernel.suite()))?;
    command::run(apt.command("apt-get").args(["--quiet", "download", package]).current_dir(&directory))?;
    let file = entry(&directory, |name| name.starts_with(package));
    let file = file.with_context(|| format!("apt-get has downloaded nothing to {}", directory.display()))?;
    // Under its name only when it is whole: it is not unpacked again.
    let partial = directory.join("partial");
    command::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&partial))?;
    fs::rename(&partial, &unpacked).with_context(|| format!("cannot rename {}", partial.display()))?;
    image_in(&unpacked).with_context(|| format!("{package} holds no kernel"))
}

fn image_in(unpacked: &Path) -> Option<PathBuf> {
    entry(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))
}

fn entry(directory: &Path, wanted: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let paths = fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    paths.into_iter().find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted))
}

/// The first package that `apt-cache depends` names.
fn dependency(depends: &str) -> Option<&str> {
    depends.lines().find_map(|line| line.trim_start().strip_prefix("Depends: "))
}

/// apt with a source list, package lists and a cache of its own: the system's are neither read nor changed.
struct PrivateApt {
    options: Vec<String>,
}

impl PrivateApt {
    fn create(directory: &Path, archive: &str, suite: &str) -> Result<Self> {
        for name in ["state/lists/partial", "cache/archives/partial"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        let sources = directory.join("sources.list");
        fs::write(&sources, format!("deb [arch=amd64] {archive} {suite} main\n"))
            .with_context(|| format!("cannot write {}", sources.display()))?;
        let at = directory.display();
        Ok(Self {
            options: vec![
                format!("Dir::Etc::SourceList={}", sources.display()),
                "Dir::Etc::SourceParts=/dev/null".to_owned(),
                format!("Dir::State={at}/state"),
                "Dir::State::Status=/dev/null".to_owned(),
                format!("Dir::Cache={at}/cache"),
                "Acquire::Languages=none".to_owned(),
                // The user that apt downloads as may not reach this directory.
                "APT::Sandbox::User=root".to_owned(),
            ],
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.options.iter().flat_map(|option| ["-o", option]));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel is what the metapackage depends on, not the metapackage.
    #[test]
    fn the_metapackage_is_resolved() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n  Suggests: x\n";
        assert_eq!(dependency(depends), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(dependency("N: Unable to locate package\n"), None);
    }

    /// apt gets a source list of one line and is pointed away from everything of the system's.
    #[test]
    fn apt_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let apt = PrivateApt::create(directory.path(), "http://archive", "trixie").unwrap();
        let sources = fs::read_to_string(directory.path().join("sources.list")).unwrap();
        assert_eq!(sources, "deb [arch=amd64] http://archive trixie main\n");
        let line = command::line(&apt.command("apt-get"));
        for option in ["SourceList", "SourceParts=/dev/null", "Dir::State", "Status=/dev/null", "Dir::Cache"]
        {
            assert!(line.contains(option), "{option}: {line}");
        }
    }

    /// An image that was unpacked before is taken without asking the archive.
    #[test]
    fn an_unpacked_kernel_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let boot = directory.path().join("trixie/unpacked/boot");
        fs::create_dir_all(&boot).unwrap();
        fs::write(boot.join("config-6.12"), "").unwrap();
        fs::write(boot.join("vmlinuz-6.12"), "").unwrap();
        let image = fetch(Kernel::Trixie, directory.path(), "http://nowhere.invalid").unwrap();
        assert_eq!(image, boot.join("vmlinuz-6.12"));
    }
}
