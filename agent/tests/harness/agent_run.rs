//! Runs of the agent's binary.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::profiled::Profiled;
use super::running::Running;

/// No run of a test takes longer than this without being stuck.
const STUCK: Duration = Duration::from_mins(1);

/// The agent's command, free of what the caller's environment says to it.
pub(crate) fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent"));
    for variable in ["RUST_LOG", "NO_COLOR", "SUDO_UID", "SUDO_GID"] {
        command.env_remove(variable);
    }
    command
}

/// Runs `command` to its end, which must come within `limit`, and returns all that it wrote.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Output {
    let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let child = running.child();
    let stdout = read_aside(child.stdout.take().expect("a pipe"));
    let stderr = read_aside(child.stderr.take().expect("a pipe"));
    let status = running.wait_at_most(limit);
    let all = |reader: thread::JoinHandle<Vec<u8>>| reader.join().expect("the reader ends");
    Output { status, stdout: all(stdout), stderr: all(stderr) }
}

fn read_aside(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).expect("a readable pipe");
        all
    })
}

/// A line of the agent's log, and when it came.
struct Logged {
    line: String,
    at: Instant,
}

/// An `agent --once` on its way, whose profiles go to a directory of its own.
pub(crate) struct AgentRun {
    running: Running,
    log: Receiver<Logged>,
    seen: Vec<String>,
    directory: TempDir,
}

impl AgentRun {
    /// Starts `agent --once` with `arguments`, and waits until samples are being taken.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let mut command = agent();
        command.arg("--once").args(arguments).arg("--output").arg(directory.path());
        if !arguments.contains(&"--profilers") {
            command.args(["--profilers", "cpu"]);
        }
        command.args(["--format", "pprof,json,folded,text,svg"]).env("RUST_LOG", "debug");
        let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let stderr = BufReader::new(running.child().stderr.take().expect("a pipe"));
        let (sender, log) = channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // Nobody listens any more when a test has failed.
                let _heard = sender.send(Logged { line, at: Instant::now() });
            }
        });
        let mut run = Self { running, log, seen: Vec::new(), directory };
        run.wait_for("profiling has begun");
        run
    }

    /// The agent's process.
    pub(crate) fn process(&self) -> &Running {
        &self.running
    }

    /// Waits until the agent logs a line with `text`; when that was.
    pub(crate) fn wait_for(&mut self, text: &str) -> Instant {
        loop {
            let logged = self.log.recv_timeout(STUCK).ok();
            let Some(Logged { line, at }) = logged else {
                panic!("the agent does not say {text:?}, but\n{}", self.seen.join("\n"));
            };
            let found = line.contains(text);
            self.seen.push(line);
            if found {
                return at;
            }
        }
    }

    /// Waits until the window is over: no sample is taken any more when this returns.
    pub(crate) fn wait_for_the_end_of_the_window(&mut self) -> Instant {
        self.wait_for("first sample after the start")
    }

    /// Waits until the agent ends, which it must do with success; what it found.
    pub(crate) fn finish(self) -> Profiled {
        self.finish_with("cpu")
    }

    /// The same for a run of another profiler.
    pub(crate) fn finish_with(mut self, profiler: &str) -> Profiled {
        let status = self.running.wait_at_most(STUCK);
        self.seen.extend(self.log.iter().map(|logged| logged.line));
        assert!(status.success(), "{status}\n{}", self.seen.join("\n"));
        Profiled::read(self.directory, self.seen, profiler)
    }
}

/// Profiles with `arguments` from start to end.
pub(crate) fn profile(arguments: &[&str]) -> Profiled {
    AgentRun::start(arguments).finish()
}
