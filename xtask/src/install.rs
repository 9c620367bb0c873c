//! `cargo xtask install`: the agent where `sudo` finds it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Error, Result, anyhow};
use clap::Args;
use nix::unistd::Uid;

use crate::{command, workspace};

/// Build the agent and install it to PREFIX/bin/agent.
///
/// `sudo` looks only in the directories of its secure_path, which on most distributions holds /usr/local/bin, so
/// that `sudo agent --once` works afterwards. Where root has no Rust toolchain, build first and install then:
/// `cargo build --release --package agent && sudo target/debug/xtask install --no-build`.
#[derive(Args)]
pub(crate) struct Options {
    /// Install to DIRECTORY/bin
    #[arg(long, value_name = "DIRECTORY", default_value = "/usr/local")]
    prefix: PathBuf,
    /// Install the release build that is there
    #[arg(long)]
    no_build: bool,
}

/// Runs the task.
pub(crate) fn run(options: &Options) -> Result<()> {
    let root = workspace::root()?;
    let built = workspace::target_directory(&root).join("release/agent");
    let directory = options.prefix.join("bin");
    // Before the build, because a build takes minutes.
    let place = Place::claim(&directory).map_err(|error| refusal(&error, &directory, &options.prefix))?;
    if !options.no_build {
        let mut build = Command::new(workspace::cargo());
        build.args(["build", "--release", "--locked", "--package", "agent", "--bin", "agent"]);
        command::run(build.current_dir(&root))?;
    }
    let installed = place.fill(&built)?;
    println!("installed {}; try: sudo agent --once", installed.display());
    println!(
        "If sudo does not find it, its secure_path leaves out {0}: sudo {0}/agent --once",
        directory.display()
    );
    Ok(())
}

fn refusal(error: &Error, directory: &Path, prefix: &Path) -> Error {
    let directory = directory.display();
    if Uid::effective().is_root() {
        return anyhow!("cannot write to {directory}: {error}; choose another --prefix");
    }
    let xtask = env::current_exe().unwrap_or_else(|_| "target/debug/xtask".into());
    anyhow!(
        "cannot write to {directory}: {error}; as you are not root, build here and install with sudo:\n  \
         cargo build --release --package agent\n  sudo {} install --no-build --prefix {}\n\
         or choose a --prefix of your own",
        xtask.display(),
        prefix.display()
    )
}

/// A file beside the one to install. It takes the old one's place in one step, so that an agent that runs from
/// there neither stands in the way nor changes under its own feet.
struct Place {
    temporary: PathBuf,
    installed: PathBuf,
}

impl Place {
    fn claim(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let temporary = directory.join(format!(".agent.{}", std::process::id()));
        fs::File::create(&temporary)?;
        Ok(Self { temporary, installed: directory.join("agent") })
    }

    /// Installs a copy of `built`, permissions included, and returns where.
    fn fill(self, built: &Path) -> Result<PathBuf> {
        fs::copy(built, &self.temporary)
            .with_context(|| format!("cannot copy {} (is it built?)", built.display()))?;
        fs::rename(&self.temporary, &self.installed)
            .with_context(|| format!("cannot replace {}", self.installed.display()))?;
        Ok(self.installed.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Gone already once it has become the installed file.
        let _ = fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// An installation replaces what is there, keeps the mode, and leaves no temporary file, also when it fails.
    #[test]
    fn installation_is_one_step() {
        let prefix = env::temp_dir().join(format!("xtask-install-{}", std::process::id()));
        let directory = prefix.join("bin");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("agent"), "old").unwrap();
        let built = prefix.join("agent");
        let absent = Place::claim(&directory).unwrap().fill(&built);
        fs::write(&built, "new").unwrap();
        fs::set_permissions(&built, fs::Permissions::from_mode(0o755)).unwrap();
        let installed = Place::claim(&directory).unwrap().fill(&built).unwrap();
        let content = fs::read_to_string(&installed).unwrap();
        let mode = installed.metadata().unwrap().permissions().mode() & 0o777;
        let files = fs::read_dir(&directory).unwrap().count();
        fs::remove_dir_all(&prefix).unwrap();
        assert!(absent.unwrap_err().to_string().contains("is it built?"));
        assert_eq!((content.as_str(), mode, files), ("new", 0o755, 1));
    }
}
