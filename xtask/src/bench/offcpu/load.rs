//! The measured program: two threads that wait for each other as often as they can, and then nothing but system calls.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::workload;

/// Begins when it reads a line, says what it did, and stays until its standard input ends, so that its code can be read. Both threads
/// have one CPU: each round is two switches, or more when something else runs there.
const PING_PONG: &str = "\
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static int there[2], back[2];
static unsigned long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000ul + time.tv_nsec;
}
static int hand_over(int to) { char byte = 1; return write(to, &byte, 1) == 1; }
static int wait_for(int from) { char byte; return read(from, &byte, 1) == 1; }
static void *pong(void *unused) {
    while (wait_for(there[0]) && hand_over(back[1]));
    return unused;
}
static void stay_on_one_cpu(void) {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus)) exit(1);
    for (int cpu = 0, left = CPU_COUNT(&cpus); left > 1; cpu++)
        if (CPU_ISSET(cpu, &cpus)) { CPU_CLR(cpu, &cpus); left--; }
    if (sched_setaffinity(0, sizeof cpus, &cpus)) exit(1);
}
int main(int count, char **words) {
    const int calls = 100000;
    unsigned long rounds = 0, began, ended, cpu;
    double least = 1e18;
    struct rusage before, after;
    pthread_t thread;
    prctl(PR_SET_PDEATHSIG, 9);
    stay_on_one_cpu();
    if (count < 2 || pipe(there) || pipe(back)) return 1;
    puts(\"ready\");
    fflush(stdout);
    if (getchar() == EOF) return 1;
    getrusage(RUSAGE_SELF, &before);
    cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    began = now(CLOCK_MONOTONIC);
    ended = began + (unsigned long)(atof(words[1]) * 1e9);
    if (pthread_create(&thread, NULL, pong, NULL)) return 1;
    for (; now(CLOCK_MONOTONIC) < ended; rounds++)
        if (!hand_over(there[1]) || !wait_for(back[0])) return 1;
    ended = now(CLOCK_MONOTONIC);
    close(there[1]);
    pthread_join(thread, NULL);
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    getrusage(RUSAGE_SELF, &after);
    for (int block = 0; block < 20; block++) {
        unsigned long start = now(CLOCK_THREAD_CPUTIME_ID);
        for (int call = 0; call < calls; call++) syscall(SYS_getppid);
        double each = (double)(now(CLOCK_THREAD_CPUTIME_ID) - start) / calls;
        if (each < least) least = each;
    }
    printf(\"%lu %lu %lu %ld %ld %.2f\\n\", rounds, ended - began, cpu, after.ru_nvcsw - before.ru_nvcsw,
           after.ru_nivcsw - before.ru_nivcsw, least);
    fflush(stdout);
    getchar();
    return 0;
}
";

/// Compiles it.
pub(super) fn compile(directory: &Path) -> Result<PathBuf> {
    workload::compile(directory, "pingpong", PING_PONG, &["-O2", "-pthread"])?.context("no gcc")
}

/// The program, waiting to begin. Ended when dropped.
pub(super) struct Load {
    child: Child,
    said: BufReader<ChildStdout>,
}

/// What the program says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Done {
    /// Bytes that went to the other thread and came back.
    pub(super) rounds: u64,
    /// Nanoseconds that this took.
    pub(super) nanoseconds: u64,
    /// Nanoseconds of CPU time of both threads.
    pub(super) cpu: u64,
    /// Switches because a thread slept, by the kernel's count of both threads.
    pub(super) voluntary: u64,
    /// Switches because something else ran.
    pub(super) involuntary: u64,
    /// Nanoseconds of CPU time for a system call, in the best of twenty blocks.
    pub(super) syscall: f64,
}

impl Load {
    /// Starts `program`, which is to play for `seconds`, and waits until it is ready.
    pub(super) fn start(program: &Path, seconds: f64) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg(seconds.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the program that waits")?;
        let said = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut load = Self { child, said };
        let line = load.line()?;
        ensure!(line == "ready\n", "the program that waits is not ready: {line:?}");
        Ok(load)
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin, and waits until it has done all.
    pub(super) fn play(&mut self) -> Result<Done> {
        self.child.stdin.as_mut().context("no pipe")?.write_all(b"\n")?;
        let line = self.line()?;
        parse(&line).with_context(|| format!("the program that waits says {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Both fail, and have nothing to do, when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Option<Done> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [rounds, nanoseconds, cpu, voluntary, involuntary, syscall] = words[..] else { return None };
    Some(Done {
        rounds: rounds.parse().ok()?,
        nanoseconds: nanoseconds.parse().ok()?,
        cpu: cpu.parse().ok()?,
        voluntary: voluntary.parse().ok()?,
        involuntary: involuntary.parse().ok()?,
        syscall: syscall.parse().ok()?,
    })
}

impl Done {
    /// Rounds in a second.
    pub(super) fn rounds_per_second(&self) -> f64 {
        self.rounds as f64 * 1e9 / self.nanoseconds.max(1) as f64
    }

    /// Nanoseconds of CPU time for a round, which is not longer for what else runs on the CPU.
    pub(super) fn round(&self) -> f64 {
        self.cpu as f64 / self.rounds.max(1) as f64
    }

    /// Switches in a second, from both threads.
    pub(super) fn switches_per_second(&self) -> f64 {
        (self.voluntary + self.involuntary) as f64 * 1e9 / self.nanoseconds.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command;

    /// All six numbers or nothing.
    #[test]
    fn what_it_says_is_read() {
        let done = parse("1000 500000000 400000000 2001 3 71.25\n").unwrap();
        assert_eq!((done.rounds, done.voluntary, done.involuntary, done.syscall), (1000, 2001, 3, 71.25));
        assert!((done.rounds_per_second() - 2000.0).abs() < 1e-9);
        assert!((done.round() - 400_000.0).abs() < 1e-9);
        assert!((done.switches_per_second() - 4008.0).abs() < 1e-9);
        assert_eq!(parse("1000 500000000 400000000 2001 3\n"), None);
        assert_eq!(parse("1 2 3 4 5 x\n"), None);
        assert_eq!(parse(""), None);
    }

    /// It plays for as long as it was told to, each round is two waits at most, and it made system calls.
    #[test]
    fn it_plays() {
        if command::find_in_path("gcc").is_none() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let program = compile(directory.path()).unwrap();
        let done = Load::start(&program, 0.1).unwrap().play().unwrap();
        assert!(done.rounds > 0 && done.nanoseconds >= 100_000_000, "{done:?}");
        // Two more when the threads begin and end.
        assert!(done.voluntary <= 2 * done.rounds + 4, "{done:?}");
        assert!(done.syscall > 0.0 && done.syscall < 1e17, "{done:?}");
    }
}
