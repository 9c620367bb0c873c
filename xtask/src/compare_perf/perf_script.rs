//! Samples as `perf script --fields pid,time,ip,sym,dso` prints them: one line each, without call chains.

use std::time::Duration;

use anyhow::{Context, Result};

/// One sample of perf.
#[derive(Debug, PartialEq)]
pub(crate) struct PerfSample<'a> {
    /// The process; -1 for one that was about to be gone.
    pub(crate) pid: i64,
    /// On the clock that perf was told to use.
    pub(crate) time: Duration,
    /// The symbol; `None` if perf knows none.
    pub(crate) symbol: Option<&'a str>,
    /// The file or the name that perf gives to what is no file; `None` if it knows none.
    pub(crate) dso: Option<&'a str>,
}

/// Parses perf's output. A line of another form is an error: a sample that is left out would shift all shares.
pub(crate) fn parse(output: &str) -> Result<Vec<PerfSample<'_>>> {
    output.lines().filter(|line| !line.trim().is_empty()).map(parse_line).collect()
}

fn parse_line(line: &str) -> Result<PerfSample<'_>> {
    sample(line).with_context(|| format!("`perf script` printed a line of an unknown form: {line:?}"))
}

/// `PID SECONDS: ADDRESS SYMBOL (DSO)`. A symbol from a perf map may contain blanks, a path may too.
fn sample(line: &str) -> Option<PerfSample<'_>> {
    let (pid, rest) = line.trim_start().split_once(' ')?;
    let (time, rest) = rest.trim_start().split_once(": ")?;
    let (address, rest) = rest.trim_start().split_once(' ')?;
    u64::from_str_radix(address, 16).ok()?;
    let rest = rest.trim_end().strip_suffix(')')?;
    let starts = [" (/", " (["];
    let split = starts.iter().filter_map(|start| rest.rfind(start)).max().or_else(|| rest.find(" ("))?;
    let (symbol, dso) = (rest[..split].trim(), &rest[split + 2..]);
    let known = |name| (name != "[unknown]").then_some(name);
    let (seconds, microseconds) = time.split_once('.').filter(|(_, decimals)| decimals.len() == 6)?;
    let time = Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(microseconds.parse().ok()?);
    Some(PerfSample { pid: pid.parse().ok()?, time, symbol: known(symbol), dso: known(dso) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as perf 6.1 prints them: kernel, file, deleted file, unknown symbol, unknown file, anonymous memory.
    #[test]
    fn lines_of_perf_are_parsed() {
        let output = "    0 1795228958.574146:  ffffffff821f2c2b pv_native_safe_halt ([kernel.kallsyms])\n\
                      \x20  42 1795228958.574146:      7f0000001234 _ZN3app4mainE (/usr/bin/app)\n\
                      \x20  42 1795228958.574146:      7f0000001234 f(int (*)(int)) (/tmp/perf-42.map)\n\
                      \x20  42 1795228958.574146:      7f0000001234 main (/tmp/a b/app (deleted))\n\
                      \x20  42 1795228958.574146:      7f0000001234 [unknown] (/usr/lib/libc.so.6)\n\
                      \x20  -1 1795228958.574146:      7f0000001234 [unknown] ([unknown])\n\n\
                      \x20  42 1795228958.574146:      7f0000001234 [unknown] (//anon)\n";
        let time = Duration::from_micros(1_795_228_958_574_146);
        let sample = |pid, symbol, dso| PerfSample { pid, time, symbol, dso };
        assert_eq!(
            parse(output).unwrap(),
            [
                sample(0, Some("pv_native_safe_halt"), Some("[kernel.kallsyms]")),
                sample(42, Some("_ZN3app4mainE"), Some("/usr/bin/app")),
                sample(42, Some("f(int (*)(int))"), Some("/tmp/perf-42.map")),
                sample(42, Some("main"), Some("/tmp/a b/app (deleted)")),
                sample(42, None, Some("/usr/lib/libc.so.6")),
                sample(-1, None, None),
                sample(42, None, Some("//anon")),
            ]
        );
    }

    /// What is no sample is an error that shows the line.
    #[test]
    fn other_lines_are_errors() {
        let lines = ["Warning:", "42 main (/app)", "42 1.000000: 7f00 main", "x 1.000000: 7f00 main (/app)"];
        for line in lines.into_iter().chain(["42 1.5: 7f00 main (/app)", "42 7f00 main (/app)"]) {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }
}
