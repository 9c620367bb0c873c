//! What libFuzzer says of a run.

/// The titles above [`Outcome::row`].
pub(super) const TITLES: &str = "target           executions  coverage  inputs  peak RSS";

/// A run of one target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Whether nothing broke.
    pub(super) ended_well: bool,
    /// Inputs that were executed.
    pub(super) executions: u64,
    /// Edges of the control flow that were reached.
    coverage: u64,
    /// Inputs in the corpus.
    inputs: u64,
    /// MiB, libFuzzer's own included.
    peak_rss: u64,
    /// Files with inputs that were slow or broke something, the latter last.
    pub(super) artifacts: Vec<String>,
}

impl Outcome {
    /// From the fuzzer's output with `-print_final_stats=1`.
    pub(super) fn of(ended_well: bool, said: &str) -> Self {
        let statistic = |name: &str| {
            let prefix = format!("stat::{name}:");
            let number = said.lines().rev().find_map(|line| line.strip_prefix(prefix.as_str()));
            number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        let artifacts = said.lines().filter_map(|line| line.split_once("Test unit written to "));
        Self {
            ended_well,
            executions: statistic("number_of_executed_units"),
            coverage: progress(said, "cov:"),
            inputs: progress(said, "corp:"),
            peak_rss: statistic("peak_rss_mb"),
            artifacts: artifacts.map(|(_, path)| path.to_owned()).collect(),
        }
    }

    /// A line of the table.
    pub(super) fn row(&self, target: &str) -> String {
        let Self { executions, coverage, inputs, peak_rss, .. } = self;
        format!("{target:14} {executions:>12} {coverage:>9} {inputs:>7} {peak_rss:>5} MiB")
    }
}

/// The number behind `name` in the last line of progress: `#500 DONE cov: 35 ft: 50 corp: 7/213b …`.
fn progress(said: &str, name: &str) -> u64 {
    let last = said.lines().rev().find(|line| line.starts_with('#') && line.contains("cov: "));
    let word = last.and_then(|line| line.split_whitespace().skip_while(|word| *word != name).nth(1));
    let digits = word.map(|word| word.split('/').next().unwrap_or(word));
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = "\
INFO: seed corpus: files: 12 min: 4b max: 500b total: 1213b rss: 60Mb
#13\tINITED cov: 30 ft: 40 corp: 5/200b exec/s: 0 rss: 61Mb
#500\tDONE   cov: 35 ft: 50 corp: 7/213b lim: 4096 exec/s: 0 rss: 61Mb
Done 500 runs in 0 second(s)
stat::number_of_executed_units: 500
stat::average_exec_per_sec:     250
stat::new_units_added:          2
stat::slowest_unit_time_sec:    0
stat::peak_rss_mb:              61
";

    /// Counts are those of the end of the run, not of its beginning.
    #[test]
    fn reads_the_final_statistics() {
        let expected = Outcome {
            ended_well: true,
            executions: 500,
            coverage: 35,
            inputs: 7,
            peak_rss: 61,
            artifacts: Vec::new(),
        };
        assert_eq!(Outcome::of(true, DONE), expected);
        assert_eq!(expected.row("eh_frame").len(), TITLES.len());
    }

    /// The input that broke something is found behind an earlier one that was only slow.
    #[test]
    fn finds_the_reproducer() {
        let said = "artifact_prefix='/t/'; Test unit written to /t/slow-unit-1\n\
                    artifact_prefix='/t/'; Test unit written to /t/crash-2\nBase64: AA==\n";
        let outcome = Outcome::of(false, said);
        assert_eq!(outcome.artifacts, ["/t/slow-unit-1", "/t/crash-2"]);
        assert_eq!((outcome.executions, outcome.coverage), (0, 0));
    }
}
