//! How many user stacks the agent has to finish, second by second.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};

use super::{field, start};
use crate::bench::figure::Figure;
use crate::workload::Workload;

/// Causes, as the agent's log names them.
const CAUSES: [&str; 6] = ["new_process", "unmapped", "cold_page", "slow_rule", "no_rule", "lost_fp"];
const AIM_PERCENT: f64 = 1.0;

/// The figures, and a line for each second.
pub(super) fn measure(agent: &Path, directory: &Path, seconds: u16) -> Result<(Vec<Figure>, String)> {
    let workload = Workload::mixed(directory)?;
    eprintln!("slow path: beside {}", workload.description);
    let finished = start(agent, directory, &[format!("--duration={seconds}s")])?.finish()?;
    let lines: Vec<_> =
        finished.log.lines().filter(|line| line.contains("user stacks in a second")).collect();
    ensure!(lines.len() >= 2, "the agent did not log its walks:\n{}", finished.log);
    let share = |lines: &[&str], name: &str| {
        let sum = |name: &str| lines.iter().filter_map(|line| field(line, name)).sum::<u64>();
        100.0 * sum(name) as f64 / sum("walked").max(1) as f64
    };
    let late = &lines[lines.len() / 2..];
    let mut figures = vec![
        Figure::new("slow path, first second", "%", vec![share(&lines[..1], "slow")]),
        Figure::new("slow path, second half of the window", "%", vec![share(late, "slow")]).aim(AIM_PERCENT),
    ];
    let causes = CAUSES.iter().map(|cause| (cause, share(late, cause))).filter(|(_, share)| *share > 0.0);
    figures
        .extend(causes.map(|(cause, share)| Figure::new(format!("  because of {cause}"), "%", vec![share])));
    let mut each = "user stacks by second: walked, of these finished in user space\n".to_owned();
    for (second, line) in (1..).zip(&lines) {
        let (walked, slow) = (field(line, "walked").unwrap_or(0), field(line, "slow").unwrap_or(0));
        let percent = share(&[line], "slow");
        // Writing to a string does not fail.
        let _ = write!(each, "{second:>4} s {walked:>6} {slow:>6} {percent:>6.1} %");
        for cause in CAUSES {
            if let Some(count) = field(line, cause).filter(|count| *count > 0) {
                let _ = write!(each, "  {cause} {count}");
            }
        }
        each.push('\n');
    }
    Ok((figures, each))
}
