//! A process that runs beside a measurement, and is gone with all it started when the measurement is over.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::command;

/// A child in a process group of its own. The group is killed when this is dropped.
pub(crate) struct ProcessGroup {
    child: Child,
}

impl ProcessGroup {
    /// Starts `command` with nothing on its standard input and output.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self::spawn(command)
    }

    /// Starts `command`, whose standard input is a pipe that stays open, and waits until it has written a line.
    pub(crate) fn start_and_await_line(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut group = Self::spawn(command)?;
        let output = group.child.stdout.take().context("no pipe")?;
        let read = BufReader::new(output).read_line(&mut String::new())?;
        ensure!(read > 0, "`{}` ended before it was ready", command::line(command));
        Ok(group)
    }

    /// The child's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn spawn(command: &mut Command) -> Result<Self> {
        command.stderr(Stdio::null()).process_group(0);
        // SAFETY: the closure runs between fork and exec and makes one system call: async-signal-safe.
        unsafe {
            // However this process ends, none of its endless loops is left behind.
            command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from));
        }
        let child = command.spawn().with_context(|| format!("cannot start `{}`", command::line(command)))?;
        Ok(Self { child })
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // The child is not waited for yet, so that its id, and the group's, is still its own.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};
    use std::{fs, thread};

    use super::*;

    /// Dropping the group ends what its leader started as well.
    #[test]
    fn the_whole_group_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 100 & echo $! > \"$0\"; echo ready; wait"]).arg(&file);
        let group = ProcessGroup::start_and_await_line(&mut command).unwrap();
        let grandchild = fs::read_to_string(&file).unwrap();
        let runs = || {
            // Somebody else reaps it; a zombie has ended too.
            let stat = fs::read_to_string(format!("/proc/{}/stat", grandchild.trim())).unwrap_or_default();
            !(stat.is_empty() || stat.contains(") Z ") || stat.contains(") X "))
        };
        assert!(runs());
        drop(group);
        let deadline = Instant::now() + Duration::from_secs(10);
        while runs() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!runs());
    }

    /// A program that ends before it is ready is an error.
    #[test]
    fn an_early_end_is_an_error() {
        assert!(ProcessGroup::start_and_await_line(&mut Command::new("true")).is_err());
    }
}
