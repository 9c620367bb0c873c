//! A process that a test has started, and that ends with the test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, getsid};

/// A child process; killed by its own number when this is dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts `command`, without standard input.
    pub(crate) fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).spawn();
        Self { child: started.unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    /// Starts `command`, to which something will be said on its standard input.
    pub(crate) fn start_with_input(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::piped()).spawn();
        Self { child: started.unwrap_or_else(|error| panic!("{command:?}: {error}")) }
    }

    /// Starts `command` and waits until it prints a line, which says that it is ready.
    pub(crate) fn start_until_ready(command: &mut Command) -> Self {
        let mut running = Self::start(command.stdout(Stdio::piped()));
        let mut line = String::new();
        BufReader::new(running.take_stdout()).read_line(&mut line).expect("a readable pipe");
        assert!(!line.is_empty(), "{command:?} ended before it was ready");
        running
    }

    /// The child.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets the process run on `cpu` only, and there ahead of everything else that this machine has to do, so that what a
    /// test measures is its own workload. Of the sessions that share a CPU (`sched_autogroup`), its own must hold nothing else.
    pub(crate) fn claim(self, cpu: u32) -> Self {
        assert_eq!(getsid(Some(self.nix_pid())), Ok(self.nix_pid()), "started by setsid");
        let mut cpus = CpuSet::new();
        cpus.set(cpu as usize).expect("a CPU number");
        // The main thread comes first: what it starts from then on inherits both. Those that it has started before are listed after.
        for thread in std::iter::once(self.pid()).chain(self.threads()) {
            sched_setaffinity(Pid::from_raw(thread.cast_signed()), &cpus).expect("the thread can be pinned");
            let mut renice = Command::new("renice");
            let status =
                renice.args(["-n", "-20", "-p"]).arg(thread.to_string()).stdout(Stdio::null()).status();
            assert!(status.is_ok_and(|status| status.success()), "{renice:?}");
        }
        // Not every kernel has it.
        let _ranked = fs::write(format!("/proc/{}/autogroup", self.pid()), "-20");
        self
    }

    /// The ids of the process's threads, listed when the iterator is first asked.
    fn threads(&self) -> impl Iterator<Item = u32> {
        let tasks = format!("/proc/{}/task", self.pid());
        std::iter::once_with(move || fs::read_dir(tasks).expect("it runs"))
            .flatten()
            .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
    }

    /// Waits until the process executes `program`, which some other program starts in its place.
    pub(crate) fn wait_for_program(self, program: &Path) -> Self {
        let began = Instant::now();
        let executable = format!("/proc/{}/exe", self.pid());
        while fs::read_link(&executable).ok().as_deref() != Some(program) {
            assert!(began.elapsed() < Duration::from_secs(10), "{} does not run", program.display());
            thread::sleep(Duration::from_millis(1));
        }
        self
    }

    /// Stops the process for `pause`, as a debugger would.
    pub(crate) fn pause(&self, pause: Duration) {
        kill(self.nix_pid(), Signal::SIGSTOP).expect("it runs");
        thread::sleep(pause);
        kill(self.nix_pid(), Signal::SIGCONT).expect("it is there");
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.nix_pid(), signal).expect("it is there");
    }

    /// Nanoseconds of CPU time that all threads of the process have used so far; exact.
    pub(crate) fn cpu_time(&self) -> u64 {
        let clock = clock_getcpuclockid(self.nix_pid()).expect("the process is there");
        let now = clock_gettime(clock).expect("its clock can be read");
        Duration::from(now).as_nanos() as u64
    }

    /// Waits until the process ends; kills it and panics when it takes longer than `limit`.
    pub(crate) fn wait_at_most(&mut self, limit: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status;
            }
            assert!(began.elapsed() < limit, "process {} still runs after {limit:?}", self.pid());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn take_stdout(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("standard output is a pipe")
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.pid().cast_signed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The CPU with the highest number that is online: the one that has least else to do.
pub(crate) fn last_cpu() -> u32 {
    *agent::kernel::cpus::online().expect("sysfs is there").last().expect("a CPU runs this")
}
