//! What came of a kernel, read from the console of its machine, and what of it is not as it must be.

use super::initramfs::DEPTH;
use super::sections::{Section, section};

/// Samples of one CPU, which the burner keeps busy, in three seconds at 99 Hz are 297.
const LEAST_SAMPLES: u64 = 150;
/// Percent of the time that may fall into `descend` and `main` themselves, where the stack is less deep.
const MOST_CUT: f64 = 2.0;
/// Percent of the samples that the kernel may skip: an emulated CPU stands still whenever the host has other work.
const MOST_SKIPPED: f64 = 20.0;
/// Percent of the samples whose walk the agent may have to finish: those before the unwind rows are in the kernel.
const MOST_FINISHED: f64 = 25.0;
/// Last lines of a failed command that are shown; a verifier's log ends with what it found.
const SHOWN_LINES: usize = 40;
/// What a kernel that was harmed says.
const ALARMS: [&str; 5] = ["BUG:", "Oops", "WARNING: CPU", "Kernel panic", "rcu: INFO"];

/// What came of one kernel.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Outcome {
    release: String,
    program: String,
    load_milliseconds: String,
    verified: String,
    books: Books,
    /// Samples whose stacks the program did not walk to the end.
    finished_in_user_space: u64,
    /// Percent of the time whose stacks are whole.
    whole: f64,
    /// What is not as it must be.
    pub(super) failures: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Books {
    expected: u64,
    emitted: u64,
    lost: u64,
    kernel_skipped: u64,
}

/// Above the rows.
pub(super) const HEADING: &str = "kernel  release                     program            load ms  verified  samples  \
    finished  lost  whole stacks";

impl Outcome {
    /// Reads a console.
    pub(super) fn read(console: &str) -> Self {
        let mut outcome = Self::default();
        let release = outcome.text(console, "release");
        release.trim().clone_into(&mut outcome.release);
        outcome.text(console, "check");
        outcome.read_log(console);
        outcome.text(console, "once");
        outcome.check_waits(console);
        outcome.check_memory(console);
        outcome.read_report(&section(console, "report").map_or_else(String::new, |report| report.text));
        outcome.read_folded(&section(console, "folded").map_or_else(String::new, |folded| folded.text));
        let alarms = console.lines().filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)));
        outcome.failures.extend(alarms.map(|line| format!("on the console: {line}")));
        outcome
    }

    /// A line of the table.
    pub(super) fn row(&self, version: &str) -> String {
        let Self {
            release, program, load_milliseconds, verified, books, whole, finished_in_user_space, ..
        } = self;
        format!(
            "{version:<7} {release:<27} {program:<18} {load_milliseconds:>7} {verified:>9} {:>8} \
             {finished_in_user_space:>9} {:>5} {whole:>11.1} %",
            books.emitted, books.lost
        )
    }

    /// The section's text; a failure unless the command succeeded.
    fn text(&mut self, console: &str, name: &str) -> String {
        let Some(Section { text, status }) = section(console, name) else {
            self.failures.push(format!("the machine did not get as far as `{name}`"));
            return String::new();
        };
        if status != Some(0) {
            let how =
                status.map_or("was cut off".to_owned(), |status| format!("failed with status {status}"));
            let lines: Vec<_> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
            self.failures.push(format!("`{name}` {how}:\n    {}", last.join("\n    ")));
        }
        text
    }

    /// Waits were timed, and it was seen who ended some. Of locks there is nothing to be said but that the profiler ran.
    fn check_waits(&mut self, console: &str) {
        let text = self.text(console, "waits");
        let profiles = text.split_once("Profile of waits for locks");
        let (waits, locks) = profiles.unwrap_or((&text, ""));
        let timed = waits.contains("Off-CPU profile") && waits.contains("Profile of who ended waits");
        if !timed || waits.contains("no samples") || !locks.contains("status 0") {
            self.failures.push(format!("no waits were timed:\n{text}"));
        }
    }

    /// Page faults were sampled: some made memory resident, and the books balance.
    fn check_memory(&mut self, console: &str) {
        let text = self.text(console, "memory");
        let sampled = text.contains("Page-fault profile")
            && text.contains("status 0")
            && !text.contains("no samples")
            && !text.contains("BUG: ");
        if !sampled {
            self.failures.push(format!("no page faults were sampled:\n{text}"));
        }
    }

    fn read_log(&mut self, console: &str) {
        let log = self.text(console, "log");
        let loaded = log.lines().find(|line| line.contains("the kernel took the eBPF program"));
        let field = |name: &str| {
            let value = loaded?.split_once(&format!(" {name}="))?.1.split(' ').next()?;
            Some(value.trim_matches('"').to_owned())
        };
        self.program = field("name").unwrap_or_default();
        self.load_milliseconds = field("milliseconds").unwrap_or_default();
        // Kernels before 5.16 do not tell.
        self.verified = field("verified").unwrap_or_else(|| "?".to_owned());
        self.read_finished(&log);
    }

    /// Whole stacks alone do not prove much: the agent finishes what the program cannot walk.
    fn read_finished(&mut self, log: &str) {
        let Some(line) = log.lines().find(|line| line.contains(" finished_in_user_space=")) else {
            return self.failures.push("the log does not tell who walked the stacks".to_owned());
        };
        let number =
            |name: &str| line.split_once(&format!(" {name}="))?.1.split(' ').next()?.parse::<u64>().ok();
        let samples = number("samples").unwrap_or(0);
        self.finished_in_user_space = number("finished_in_user_space").unwrap_or(samples);
        if percent(self.finished_in_user_space, samples) > MOST_FINISHED {
            let finished = self.finished_in_user_space;
            self.failures.push(format!("the program left {finished} of {samples} stacks to the agent"));
        }
    }

    fn read_report(&mut self, report: &str) {
        let Some(books) = Books::of_report(report) else {
            return self.failures.push("the report has no line of samples".to_owned());
        };
        if books.emitted < LEAST_SAMPLES {
            self.failures.push(format!("only {} samples", books.emitted));
        }
        let by_agent = books.lost.saturating_sub(books.kernel_skipped);
        if by_agent > 0 {
            self.failures.push(format!("{by_agent} samples lost by the agent"));
        }
        if percent(books.kernel_skipped, books.expected) > MOST_SKIPPED {
            self.failures.push(format!(
                "{} of {} samples skipped by the kernel",
                books.kernel_skipped, books.expected
            ));
        }
        if books.expected != books.emitted + books.lost || report.contains("BUG") {
            self.failures.push("the books do not balance".to_owned());
        }
        self.books = books;
    }

    fn read_folded(&mut self, folded: &str) {
        let lines = folded.lines().filter_map(|line| line.rsplit_once(' '));
        let stacks = lines.filter_map(|(stack, time)| Some((stack, time.parse::<u64>().ok()?)));
        let (mut whole, mut all) = (0, 0);
        for (stack, time) in stacks {
            all += time;
            whole += if is_whole(stack) { time } else { 0 };
        }
        self.whole = percent(whole, all);
        if self.whole < 100.0 - MOST_CUT {
            self.failures.push(format!("only {:.1} % of the time has whole stacks", self.whole));
        }
    }
}

impl Books {
    /// From the line `Samples: expected 300, emitted 294, lost 6 (kernel_skipped 6), …`, which may be broken.
    fn of_report(report: &str) -> Option<Self> {
        let words: Vec<_> = report.split_once("Samples:")?.1.split_whitespace().collect();
        let number = |name: &str| {
            let at = words.iter().position(|word| word.trim_start_matches('(') == name)?;
            words.get(at + 1)?.trim_end_matches([',', ')']).parse().ok()
        };
        Some(Self {
            expected: number("expected")?,
            emitted: number("emitted")?,
            lost: number("lost")?,
            kernel_skipped: number("kernel_skipped").unwrap_or(0),
        })
    }
}

/// Whether a folded stack of the burner's goes from the program's entry through all calls of `descend` to `spin`, with
/// nothing but the kernel's frames below.
fn is_whole(stack: &str) -> bool {
    let frames: Vec<_> = stack.split(';').collect();
    let Some(main) = frames.iter().position(|frame| *frame == "main") else { return false };
    let calls = frames.iter().skip(main + 1).take_while(|frame| **frame == "descend").count();
    let mut rest = frames.iter().skip(main + 1 + calls);
    frames.get(1) == Some(&"_start")
        && calls == DEPTH
        && rest.next() == Some(&"spin")
        && rest.all(|frame| frame.ends_with("_[k]"))
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "T DEBUG the kernel took the eBPF program name=\"cpu_sample\" milliseconds=471 verified=1234\n\
        T DEBUG user stacks samples=299 finished_in_user_space=5 arena=ArenaUse { pages: 1 }\n";
    const REPORT: &str = "Samples: expected 305, emitted 299, lost 6 (kernel_skipped\n  6), truncated 0, \
        unresolved frames 0 of 9\n";

    const WAITS: &str = "Off-CPU profile of vm\nProfile of who ended waits of vm\nProfile of waits for locks of vm\n\
        no samples\nstatus 0\n";
    const MEMORY: &str = "Page-fault profile of vm\nstatus 0\n";

    fn stack(depth: usize, leaf: &str) -> String {
        format!("burner;_start;__libc_start_main;main;{}{leaf}", "descend;".repeat(depth))
    }

    fn console(report: &str, folded: &str, check_status: i32) -> String {
        let part =
            |name: &str, text: &str, status| format!("@@begin {name}\r\n{text}@@end {name} {status}\r\n");
        [
            part("release", "5.10.0-32\n", 0),
            part("check", "ok\nthe verifier says no\n", check_status),
            part("log", LOG, 0),
            part("report", report, 0),
            part("folded", folded, 0),
            part("once", "", 0),
            part("waits", WAITS, 0),
            part("memory", MEMORY, 0),
        ]
        .concat()
    }

    /// A console on which all is well has no failures, and its row holds the figures.
    #[test]
    fn a_good_console_is_read() {
        let outcome = Outcome::read(&console(REPORT, &format!("{} 99\n", stack(DEPTH, "spin")), 0));
        assert_eq!(outcome.failures, Vec::<String>::new());
        let row = outcome.row("5.10");
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(words, ["5.10", "5.10.0-32", "cpu_sample", "471", "1234", "299", "5", "6", "100.0", "%"]);
    }

    /// Each thing that can go wrong is a failure of its own: a refused program with what the verifier says, a stack that is
    /// cut, a program that leaves the walking to the agent, a sample that the agent lost, too few samples, books that do not
    /// balance, an alarm of the kernel's, waits that were not timed, page faults that were not sampled, a machine that
    /// ended early.
    #[test]
    fn failures_are_found() {
        let good = format!("{} 99\n", stack(DEPTH, "spin"));
        let failures = |console: &str| Outcome::read(console).failures.join("\n");
        assert!(failures(&console(REPORT, &good, 3)).contains("the verifier says no"));
        assert!(
            failures(&console(REPORT, &format!("{} 9\n", stack(DEPTH - 1, "spin")), 0)).contains("0.0 %")
        );
        let lost = REPORT
            .replace("lost 6", "lost 6 (ring_full 2,")
            .replace("(kernel_skipped\n  6)", "kernel_skipped 4)");
        assert!(failures(&console(&lost, &good, 0)).contains("2 samples lost by the agent"), "{lost}");
        let few = REPORT.replace("305", "15").replace("299", "9");
        assert!(failures(&console(&few, &good, 0)).contains("only 9 samples"));
        assert!(failures(&console(&REPORT.replace("305", "306"), &good, 0)).contains("balance"));
        let alarm = console(REPORT, &good, 0) + "[ 1.0] BUG: unable to handle page fault\r\n";
        assert!(failures(&alarm).contains("unable to handle"));
        let idle = console(REPORT, &good, 0).replace("space=5", "space=299");
        assert!(failures(&idle).contains("left 299 of 299 stacks"));
        let waitless = console(REPORT, &good, 0).replace("profile of vm", "profile of vm\nno samples");
        assert!(failures(&waitless).contains("no waits were timed"));
        let refused = console(REPORT, &good, 0).replace("Page-fault profile of vm\nstatus 0", "status 1");
        assert!(failures(&refused).contains("no page faults were sampled"));
        assert!(failures("@@begin release\r\n5.10\r\n@@end release 0\r\n").contains("`check`"));
    }

    /// Whole is a stack from the entry to the leaf, below which only the kernel may be.
    #[test]
    fn whole_stacks_are_told() {
        assert!(is_whole(&stack(DEPTH, "spin")));
        assert!(is_whole(&stack(DEPTH, "spin;asm_exc_[k];do_it_[k]")));
        assert!(!is_whole(&stack(DEPTH, "spin;[unknown]")));
        assert!(!is_whole(&stack(DEPTH - 1, "spin")));
        assert!(!is_whole(&stack(DEPTH, "spin").replace("_start;", "[truncated: unwind];")));
        assert!(!is_whole("burner;_start;main"));
    }
}
