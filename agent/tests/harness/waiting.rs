//! Workloads that wait, and questions to profiles of that.

use std::io::{BufRead as _, BufReader};
use std::process::{ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::agent_run::AgentRun;
use super::profiled::{Profile, Profiled, Sample};
use super::running::Running;
use super::workload::Workload;

/// A workload that begins when it is told to.
pub(crate) struct Waits {
    running: Running,
    said: BufReader<ChildStdout>,
    _program: Workload,
}

impl Waits {
    /// Compiles `tests/workloads/NAME.c`, and starts it in `mode`.
    pub(crate) fn start(name: &str, mode: &str) -> Self {
        let program = Workload::plain("gcc", &format!("{name}.c"), name, &["-pthread"]);
        let mut command = Command::new(program.program());
        let mut running = Running::start(command.arg(mode).stdout(Stdio::piped()));
        let mut said = BufReader::new(running.child().stdout.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a readable pipe");
        assert_eq!(line, "ready\n");
        Self { running, said, _program: program }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    fn begin(&self) {
        kill(Pid::from_raw(self.pid().cast_signed()), Signal::SIGUSR1).expect("it runs");
    }

    /// The numbers that it says at its end.
    fn numbers(&mut self) -> Vec<u64> {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a readable pipe");
        line.split_whitespace().map(|number| number.parse().expect("a number")).collect()
    }

    /// Profiles the workload by `profiler` while it does what it is to do; what was found, and what the workload says.
    pub(crate) fn profile(&mut self, profiler: &str, duration: &str, more: &[&str]) -> (Profiled, Vec<u64>) {
        let pid = self.pid().to_string();
        let arguments = ["--duration", duration, "--profilers", profiler, "--pid", &pid];
        let run = AgentRun::start(&[&arguments, more].concat());
        self.begin();
        let numbers = self.numbers();
        (run.finish_with(profiler), numbers)
    }
}

impl Profile {
    /// Count and nanoseconds of samples that `is_it` accepts.
    pub(crate) fn sum<'a>(&'a self, is_it: impl Fn(&'a Sample) -> bool) -> (u64, u64) {
        let found = self.samples.iter().filter(|sample| is_it(sample));
        found.fold((0, 0), |(count, time), sample| (count + sample.count(), time + sample.nanoseconds()))
    }

    /// Whether `function` is on the stack of `sample`.
    pub(crate) fn has(&self, sample: &Sample, function: &str) -> bool {
        self.stack(sample).any(|frame| frame.name == function)
    }

    /// All samples, a line each, for messages.
    pub(crate) fn describe(&self) -> String {
        let line = |sample: &Sample| {
            let names: Vec<_> = self.stack(sample).map(|frame| frame.name).collect();
            let (count, time) = (sample.count(), sample.nanoseconds());
            let Sample { comm, state, lock, ended, truncated, .. } = sample;
            let labels = [state, lock, ended, truncated].map(|label| label.as_deref().unwrap_or("-"));
            format!("{count} {time} {comm} {} {}", labels.join(" "), names.join(" < "))
        };
        self.samples.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Within one part in `parts`.
pub(crate) fn is_near(value: u64, truth: u64, parts: u64) -> bool {
    value.abs_diff(truth) * parts <= truth
}
