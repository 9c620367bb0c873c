//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::export::Format;
use crate::symbol::demangle::NameStyle;
use crate::symbol::jit::jvm::JvmPerfMap;

/// The command line of `agent`.
#[derive(Debug, Parser)]
#[command(
    name = "agent",
    version,
    about = "See where this machine's CPU time goes, what it waits for and who fills its memory: every process and the kernel, \
             with names, from one command.",
    args_conflicts_with_subcommands = true,
    after_help = AFTER_HELP,
)]
pub struct Cli {
    /// What else to do than profiling.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to profile.
    #[command(flatten)]
    pub profile: ProfileArgs,
}

const AFTER_HELP: &str = "\
Examples:
  sudo agent --once                          ten seconds of the whole machine
  sudo agent --once --duration 60s --pid 42  a minute of one process
  sudo agent --once --output - --format folded | less
  go tool pprof -http=: nodeprof-*/cpu.pb.gz
  agent check                                what works here, and what to do about the rest

Exit status:
  0  done
  1  failed
  2  bad usage: an option's value, a process or directory that is not there
  3  not permitted, or not supported by this kernel

Profiling needs root; or CAP_BPF and CAP_PERFMON, and for names also CAP_SYS_PTRACE, CAP_SYSLOG,
CAP_CHECKPOINT_RESTORE and CAP_DAC_READ_SEARCH.
Logs go to standard error; RUST_LOG sets their level (default: info).";

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Say what works on this kernel with these privileges, what does not, and what to do about it.
    Check,
}

/// Options of a profiling run.
#[derive(Clone, Debug, Args)]
pub struct ProfileArgs {
    /// Profile once, print a report, write the profiles, and end.
    #[arg(long)]
    pub once: bool,

    /// Length of the window: 10s, 500ms, 2m; a plain number is seconds. Ctrl-C ends it early.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Samples a second on each CPU. Choose one that does not divide the kernel's own tick (100, 250, 1000).
    #[arg(long, value_name = "HZ", default_value_t = 99)]
    pub frequency: u32,

    /// Profile this process only. Can be given more than once.
    #[arg(long, value_name = "PID")]
    pub pid: Vec<u32>,

    /// Profile the processes in and below this cgroup (v2 directory) only. Can be given more than once.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Vec<PathBuf>,

    /// Directory for the profiles; `-` writes one profile in one format to standard output: of off-CPU and mutex
    /// profilers that of who waited.
    /// [default: ./nodeprof-<UTC time>/]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,

    /// Formats to write, separated by commas. [default: pprof,svg; with `--output -`: pprof]
    #[arg(long, value_name = "FORMATS", value_delimiter = ',')]
    pub format: Vec<Format>,

    /// Profilers to run, separated by commas. [default: all that the kernel allows; with `--output -`: cpu]
    #[arg(long, value_name = "PROFILERS", value_delimiter = ',')]
    pub profilers: Vec<ProfilerName>,

    /// Mutex: what to show of threads that sleep in futex(2). Function names and what futex(2) was asked for tell apart what they wait for;
    /// the label `lock` has it.
    #[arg(long, value_name = "CLASSES", default_value = "contention")]
    pub futex_classes: FutexClasses,

    /// Off-CPU and mutex: share of each CPU's time, in percent, that taking stacks may cost. Tasks that switch often have fewer of
    /// theirs taken; what these stand for is scaled to the exact totals.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = parse_percent)]
    pub offcpu_budget: f64,

    /// Off-CPU and mutex: kernel memory for tasks, about 270 bytes each. Waits of tasks beyond it are counted as lost. Bytes, or with K, M
    /// or G.
    #[arg(long, value_name = "SIZE", default_value = "4M", value_parser = parse_size)]
    pub offcpu_memory: u64,

    /// Off-CPU and mutex: waits shorter than this are left out; how many and how long they were together is said. 1ms, 100us; 0: none is
    /// left out.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = parse_wait)]
    pub offcpu_min: Duration,

    /// Memory: one page fault in so many is sampled, by chance. Each sample stands for that many.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub pagefault_period: u32,

    /// Count each thread apart, with its id and name.
    #[arg(long)]
    pub per_thread: bool,

    /// How frames are named.
    #[command(flatten)]
    pub symbols: SymbolArgs,

    /// Bytes of kernel memory for unwind tables, which are filled on demand; whole MiB, 1 GiB at most.
    #[arg(long, value_name = "BYTES", default_value_t = 8 << 20)]
    pub unwind_table_memory: u64,

    /// Stacks that each CPU may send in a second to be finished in user space, because their unwind tables are not in the
    /// kernel yet; those beyond are cut short, and counted.
    #[arg(long, value_name = "COUNT", default_value_t = 400)]
    pub slow_unwinds: u32,

    /// Use the programs for kernels before 5.17, for testing them on a newer one.
    #[arg(long, hide = true)]
    pub legacy_programs: bool,

    /// Bytes of the ring buffer between the kernel and the agent; a power of two of at least 4096.
    /// [default: 4 MiB, more on machines with more than 64 CPUs]
    #[arg(long, value_name = "BYTES")]
    pub ring_size: Option<u32>,
}

impl ProfileArgs {
    /// Whether `profiler` is to run.
    pub fn wants(&self, profiler: ProfilerName) -> bool {
        if !self.profilers.is_empty() {
            return self.profilers.contains(&profiler);
        }
        // Standard output takes one profile.
        profiler == ProfilerName::Cpu || self.output.as_deref() != Some(Path::new("-"))
    }

    /// `--offcpu-min` in nanoseconds.
    pub fn shortest_wait(&self) -> u64 {
        u64::try_from(self.offcpu_min.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Options of the resolver.
#[derive(Clone, Debug, Args)]
pub struct SymbolArgs {
    /// Directory with separate debug files, in which programs that are stripped have their names: `.build-id/` and paths
    /// of `.gnu_debuglink`. Can be given more than once. A container's own /usr/lib/debug is searched before.
    /// [default: /usr/lib/debug]
    #[arg(long, value_name = "DIR")]
    pub debug_dir: Vec<PathBuf>,

    /// Ask HotSpot JVMs (17 and later) for their perf map when a sample hits code of theirs that has no name: the JVM then writes
    /// /tmp/perf-PID.map in its own container. Needs CAP_SETUID and CAP_SETGID, and JVMs started with
    /// -XX:+PreserveFramePointer for whole stacks.
    #[arg(long, value_name = "WHEN", default_value = "off")]
    pub jvm_perf_map: JvmPerfMap,

    /// How functions are called. pprof's system name is the linker's in any case.
    #[arg(long, value_name = "STYLE", default_value = "full")]
    pub demangle: NameStyle,

    /// Do not look for source files, lines and inlined functions in debug information. A function that is inlined is then not told
    /// from the one that it is inlined into.
    #[arg(long)]
    pub no_lines: bool,

    /// Memory for names, lines and inlined functions of all programs; what does not fit is found again when it is needed, or
    /// goes without lines. Bytes, or with K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "24M", value_parser = parse_size)]
    pub symbol_memory: u64,

    /// Debug information of a program or library beyond which it is not read, as it lies in the file: its functions have names
    /// without lines then. Bytes, or with K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "4G", value_parser = parse_size)]
    pub dwarf_max_module: u64,
}

/// A profiler that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfilerName {
    /// Time on CPUs
    Cpu,
    /// Time off CPUs: who waited, where and why, and who ended that
    Offcpu,
    /// Locks: who waited for them, and who held them
    Mutex,
    /// Memory that becomes resident: who makes the machine's memory grow, and where
    Memory,
}

/// What the mutex profiler shows of what is done with futexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FutexClasses {
    /// Waits for locks
    Contention,
    /// Also conditions, semaphores, barriers, joins, parked and idle threads
    All,
}

/// The longest time that is taken: a day.
const LONGEST: Duration = Duration::from_hours(24);

/// Parses the length of a window.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_time(text)?;
    if duration < Duration::from_millis(1) || duration > LONGEST {
        return Err("a window lasts between 1ms and 24h".to_owned());
    }
    Ok(duration)
}

/// Parses the length of a wait; it may be 0.
fn parse_wait(text: &str) -> Result<Duration, String> {
    let duration = parse_time(text)?;
    if duration > LONGEST { Err("at most 24h".to_owned()) } else { Ok(duration) }
}

/// Parses `10s`, `1.5s`, `500ms`, `100us`, `2m`, `1h`, `10`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let seconds = match &text[digits.len()..] {
        "us" | "µs" => 0.000_001,
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("{unit:?} is not a unit of time; use us, ms, s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("{digits:?} is not a number"))?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

/// Parses a percentage above 0.
fn parse_percent(text: &str) -> Result<f64, String> {
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("{text:?} is not a number"))?;
    if percent > 0.0 && percent <= 100.0 { Ok(percent) } else { Err("between 0 and 100".to_owned()) }
}

/// Parses `1048576`, `512K`, `24M`, `24MiB`, `1G`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text[digits.len()..].trim_end_matches("iB") {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        unit => return Err(format!("{unit:?} is not a unit of size; use K, M or G")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{digits:?} is not a whole number"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition is consistent (clap's own check).
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    /// All profilers run unless some are chosen; only one where there is room for one profile.
    #[test]
    fn profilers_are_chosen() {
        let wanted = |arguments: &[&str]| {
            let arguments = ["agent", "--once"].iter().chain(arguments);
            let args = Cli::try_parse_from(arguments).expect("good arguments").profile;
            let all = ProfilerName::value_variants();
            all.iter().filter(|profiler| args.wants(**profiler)).count()
        };
        assert_eq!(wanted(&[]), ProfilerName::value_variants().len());
        assert_eq!(wanted(&["--output", "-"]), 1);
        assert_eq!(wanted(&["--output", "-", "--profilers", "mutex"]), 1);
        assert_eq!(wanted(&["--profilers", "cpu,offcpu"]), 2);
    }

    /// Sizes with each unit, and what is refused.
    #[test]
    fn sizes_are_parsed() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("512K"), Ok(512 << 10));
        assert_eq!(parse_size("24M"), Ok(24 << 20));
        assert_eq!(parse_size("24MiB"), Ok(24 << 20));
        assert_eq!(parse_size("4G"), Ok(4 << 30));
        for bad in ["", "M", "1.5G", "-1", "10T", "99999999999G"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    /// Durations with each unit, and what is refused.
    #[test]
    fn durations_are_parsed() {
        let milliseconds = |text| parse_duration(text).map(|duration| duration.as_millis());
        assert_eq!(milliseconds("10"), Ok(10_000));
        assert_eq!(milliseconds("1.5s"), Ok(1_500));
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(milliseconds("2m"), Ok(120_000));
        for bad in ["", "s", "0", "-1s", "10x", "1e300", "NaN", "25h", "0.1ms"] {
            assert!(milliseconds(bad).is_err(), "{bad:?}");
        }
    }

    /// The shortest wait may be none, or less than a millisecond; what is no time is refused, and the message says what is wrong.
    #[test]
    fn shortest_waits_are_parsed() {
        let nanoseconds = |words: &[&str]| {
            let command = [&["agent", "--once"], words].concat();
            Cli::try_parse_from(command)
                .map(|cli| cli.profile.shortest_wait())
                .map_err(|error| error.to_string())
        };
        assert_eq!(nanoseconds(&[]), Ok(0));
        let cases = [
            ("0", 0),
            ("0ms", 0),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("0.5us", 500),
            ("1ms", 1_000_000),
        ];
        for (text, truth) in cases.into_iter().chain([
            ("2.5ms", 2_500_000),
            ("1", 1_000_000_000),
            ("24h", 86_400 * 1_000_000_000),
        ]) {
            assert_eq!(nanoseconds(&["--offcpu-min", text]), Ok(truth), "{text:?}");
        }
        let refused =
            [("10x", "unit of time"), ("ms", "not a number"), ("", "not a number"), ("25h", "at most 24h")];
        for (text, why) in
            refused.into_iter().chain([("-1ms", "negative"), ("1 ms", "not a number"), ("NaN", "NaN")])
        {
            let said = nanoseconds(&[&format!("--offcpu-min={text}")]).expect_err(text);
            assert!(said.contains("--offcpu-min") && said.contains(why), "{text:?}: {said}");
        }
    }
}
