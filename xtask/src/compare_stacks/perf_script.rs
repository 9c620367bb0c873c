//! Samples with call chains as `perf script --fields=comm,pid,time,ip,sym,dso --show-lost-events` prints them: a line about the
//! task, then a line for each frame, leaf first, then an empty one.

use std::time::Duration;

use anyhow::{Context, Result};

/// Addresses from here on are the kernel's (x86-64: the upper half).
const KERNEL: u64 = 1 << 63;

/// What perf recorded.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct PerfStacks<'a> {
    /// Samples, in perf's order.
    pub(crate) samples: Vec<PerfStack<'a>>,
    /// Records that the kernel had no room for, as its `PERF_RECORD_LOST` records tell: samples and some others.
    pub(crate) lost: u64,
}

/// One sample of perf.
#[derive(Debug, PartialEq)]
pub(crate) struct PerfStack<'a> {
    /// The thread's name.
    pub(crate) comm: &'a str,
    /// The process; -1 for one that was about to be gone.
    pub(crate) pid: i64,
    /// On the clock that perf was told to use.
    pub(crate) time: Duration,
    /// User frames, leaf first.
    pub(crate) frames: Vec<PerfFrame<'a>>,
}

/// One frame of a user stack.
#[derive(Debug, PartialEq)]
pub(crate) struct PerfFrame<'a> {
    /// The symbol; `None` if perf knows none.
    pub(crate) symbol: Option<&'a str>,
    /// The file, or the name that perf gives to what is no file.
    pub(crate) dso: Option<&'a str>,
    /// Where in the file the code is.
    pub(crate) file_offset: u64,
}

/// Parses perf's output. A line of another form is an error: a sample that is left out would shift all shares.
pub(crate) fn parse(output: &str) -> Result<PerfStacks<'_>> {
    let mut stacks = PerfStacks::default();
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        add(&mut stacks, line)
            .with_context(|| format!("`perf script` printed a line of an unknown form: {line:?}"))?;
    }
    Ok(stacks)
}

fn add<'a>(stacks: &mut PerfStacks<'a>, line: &'a str) -> Option<()> {
    // A name may begin with a tab as well, but then it is followed by no address.
    if let Some((address, frame)) = line.strip_prefix('\t').and_then(frame) {
        let sample = stacks.samples.last_mut()?;
        if address < KERNEL {
            sample.frames.push(frame);
        }
        return Some(());
    }
    if let Some((_, lost)) = line.rsplit_once("PERF_RECORD_LOST lost ") {
        stacks.lost += lost.trim_end().parse::<u64>().ok()?;
        return Some(());
    }
    stacks.samples.push(task(line)?);
    Some(())
}

/// `COMM PID SECONDS:`. A name may contain blanks.
fn task(line: &str) -> Option<PerfStack<'_>> {
    let (rest, time) = line.trim_end().strip_suffix(':')?.rsplit_once(' ')?;
    let (comm, pid) = rest.trim_end().rsplit_once(' ')?;
    let (seconds, microseconds) = time.split_once('.').filter(|(_, decimals)| decimals.len() == 6)?;
    let time = Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(microseconds.parse().ok()?);
    Some(PerfStack { comm: comm.trim(), pid: pid.parse().ok()?, time, frames: Vec::new() })
}

/// `ADDRESS SYMBOL (DSO)`. A symbol from a perf map may contain blanks, a path may too. For code of files perf prints where in
/// the file it is.
fn frame(line: &str) -> Option<(u64, PerfFrame<'_>)> {
    let (address, rest) = line.trim_start().split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let rest = rest.trim_end().strip_suffix(')')?;
    let starts = [" (/", " (["];
    let split = starts.iter().filter_map(|start| rest.rfind(start)).max().or_else(|| rest.find(" ("))?;
    let (symbol, dso) = (rest[..split].trim(), &rest[split + 2..]);
    let known = |name| (name != "[unknown]").then_some(name);
    Some((address, PerfFrame { symbol: known(symbol), dso: known(dso), file_offset: address }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples as perf 6.1 prints them: of kernel and user code, of a task without a user stack, with a blank in the name; and
    /// losses between them.
    #[test]
    fn samples_of_perf_are_parsed() {
        let output = "cc1plus   42 1795228958.574146: \n\
                      \tffffffff821f2c2b pv_native_safe_halt ([kernel.kallsyms])\n\
                      \t          10ab59 __send (/usr/lib/x86_64-linux-gnu/libc.so.6)\n\
                      \t          1530e0 [unknown] (/usr/bin/app (deleted))\n\
                      \n\
                      rcu_preempt    15 1795253947.977430: PERF_RECORD_LOST lost 60\n\
                      \n\
                      Web Content   -1 1795228959.000001: \n\
                      \tffffffff81000130 entry_SYSCALL_64_after_hwframe ([kernel.kallsyms])\n\
                      \n\
                      sleep 20059 1795253947.986994: PERF_RECORD_LOST lost 1\n\
                      node  43 1795228959.000002: \n\
                      \t    7f0000001234 f(int (*)(int)) (/tmp/perf-43.map)\n\
                      \t    7f0000001235 [unknown] ([unknown])\n";
        let stacks = parse(output).unwrap();
        assert_eq!(stacks.lost, 61);
        let time = |micros: u64| Duration::from_micros(1_795_228_958_574_146 + micros);
        let frame = |symbol, dso, file_offset| PerfFrame { symbol, dso, file_offset };
        let app = frame(None, Some("/usr/bin/app (deleted)"), 0x15_30e0);
        let send = frame(Some("__send"), Some("/usr/lib/x86_64-linux-gnu/libc.so.6"), 0x10_ab59);
        let made = frame(Some("f(int (*)(int))"), Some("/tmp/perf-43.map"), 0x7f00_0000_1234);
        assert_eq!(
            stacks.samples,
            [
                PerfStack { comm: "cc1plus", pid: 42, time: time(0), frames: vec![send, app] },
                PerfStack { comm: "Web Content", pid: -1, time: time(425_855), frames: vec![] },
                PerfStack {
                    comm: "node",
                    pid: 43,
                    time: time(425_856),
                    frames: vec![made, frame(None, None, 0x7f00_0000_1235)]
                },
            ]
        );
    }

    /// What is neither a task nor a frame is an error that shows the line; so is a frame without a task.
    #[test]
    fn other_lines_are_errors() {
        for line in
            ["Warning:", "app 42", "app 42 1.5:", "app x 1.000000:", "\t  10ab59 __send (/usr/lib/c.so)"]
        {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(line.trim()), "{error}");
        }
    }
}
