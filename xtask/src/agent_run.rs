//! The release agent as a measured program: built, started, waited for; its log and its profile read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use crate::agent_profile::Profile;
use crate::{command, log_time, workspace};

/// Builds the release agent and returns its path.
pub(crate) fn build() -> Result<PathBuf> {
    let root = workspace::root()?;
    let mut build = Command::new(workspace::cargo());
    build.args(["build", "--release", "--locked", "--package", "agent", "--bin", "agent"]);
    command::run(build.current_dir(&root))?;
    Ok(workspace::target_directory(&root).join("release/agent"))
}

/// An agent that runs, with its log going to a file. Killed when dropped before it has ended.
pub(crate) struct RunningAgent {
    child: Child,
    spawned: SystemTime,
    directory: PathBuf,
}

/// How a run of the agent went.
pub(crate) struct FinishedRun {
    /// Just before the agent was executed.
    pub(crate) spawned: SystemTime,
    /// Just after its end was seen.
    pub(crate) ended: SystemTime,
    /// What it wrote to standard error.
    pub(crate) log: String,
    directory: PathBuf,
}

impl RunningAgent {
    /// Starts `agent`, a command line that ends in a run of the agent with `--output directory`.
    pub(crate) fn start(mut agent: Command, directory: &Path) -> Result<Self> {
        let log = File::create(directory.join("log"))?;
        agent.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if agent.get_envs().all(|(name, _)| name != "RUST_LOG") {
            // The level of the log lines that most look for.
            agent.env("RUST_LOG", "info");
        }
        let spawned = SystemTime::now();
        let child = agent.spawn().with_context(|| format!("cannot start `{}`", command::line(&agent)))?;
        Ok(Self { child, spawned, directory: directory.to_owned() })
    }

    /// The agent's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls `look` every `interval` until the agent has ended.
    pub(crate) fn watch(mut self, interval: Duration, mut look: impl FnMut(u32)) -> Result<FinishedRun> {
        while self.child.try_wait()?.is_none() {
            look(self.child.id());
            std::thread::sleep(interval);
        }
        self.finish()
    }

    /// Waits for the agent's end; a failed run is an error with its log.
    pub(crate) fn finish(mut self) -> Result<FinishedRun> {
        let status = self.child.wait()?;
        let ended = SystemTime::now();
        let log = fs::read_to_string(self.directory.join("log"))?;
        check(status, &log)?;
        Ok(FinishedRun { spawned: self.spawned, ended, log, directory: self.directory.clone() })
    }
}

impl Drop for RunningAgent {
    fn drop(&mut self) {
        // Both fail, and have nothing to do, when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn check(status: ExitStatus, log: &str) -> Result<()> {
    if !status.success() {
        bail!("the agent failed ({status}):\n{log}");
    }
    Ok(())
}

impl FinishedRun {
    /// The profile, of a run with `--format json`.
    pub(crate) fn profile(&self) -> Result<Profile> {
        self.profile_of("cpu")
    }

    /// The profile called `name`, such as `offcpu`.
    pub(crate) fn profile_of(&self, name: &str) -> Result<Profile> {
        Profile::read(&self.directory.join(format!("{name}.json")))
    }

    /// The time of the first log line that contains `text`, and the line.
    pub(crate) fn logged(&self, text: &str) -> Result<(SystemTime, &str)> {
        let line = self.log.lines().find(|line| line.contains(text));
        let line = line.with_context(|| format!("the agent did not log {text:?}:\n{}", self.log))?;
        let time = line.split(' ').next().unwrap_or_default();
        Ok((log_time::parse(time).with_context(|| format!("no time in the log line {line:?}"))?, line))
    }
}
