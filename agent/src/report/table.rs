//! The report on a terminal: who used the CPU, and how far the numbers can be trusted.

mod growth;
mod rows;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::io::{self, Write};

use self::rows::Rows;
use super::honesty::{Remark, remarks};
use super::layout::{Style, paint, wrap};
use super::quantity::{amount, length};
use super::ranking;
use crate::printable::printable;
use crate::profile::model::{Profile, ProfileKind, ValueType};
use crate::time_format::rfc3339;

/// Rows of each table of functions, unless said otherwise.
pub const DEFAULT_ROWS: usize = 15;
/// Characters of a line where the width is not known.
const DEFAULT_WIDTH: usize = 100;
/// On a narrower terminal the lines wrap: columns of names would be too narrow to tell names apart.
const MIN_WIDTH: usize = 60;

/// How the report is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Rows of each table of functions, at least 1; processes get a third of it.
    pub rows: usize,
    /// Characters of a line, at least 60; `None`: 100.
    pub width: Option<usize>,
    /// Whether to use the terminal's colours.
    pub color: bool,
}

impl Default for TableOptions {
    fn default() -> Self {
        Self { rows: DEFAULT_ROWS, width: None, color: false }
    }
}

/// Writes the report: what was measured, the processes and the functions that used most, and the line of
/// honesty with what it means in plain words.
pub fn write_top(profile: &Profile, out: &mut dyn Write, options: &TableOptions) -> io::Result<()> {
    let (value_index, value) = profile.ranked_value().unwrap_or((0, profile.period_type));
    let width = options.width.unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH);
    let total = profile.total(value_index);
    let heading = match profile.kind {
        ProfileKind::Cpu => "CPU",
        ProfileKind::OffCpu => "OFF CPU",
        ProfileKind::OffCpuWakers => "ENDED",
        ProfileKind::Mutex => "WAITED",
        ProfileKind::MutexHolders => "HELD UP",
        ProfileKind::PageFaults => "MEMORY",
    };
    let of_what = if profile.kind == ProfileKind::PageFaults { "memory" } else { "time" };
    let rows = Rows {
        total,
        unit: value.unit,
        heading,
        of_what,
        count: options.rows.max(1),
        width,
        color: options.color,
    };

    write_header(profile, value, &rows, out)?;
    writeln!(out)?;
    if total > 0 {
        rows.processes(&ranking::processes(profile, value_index), out)?;
        writeln!(out)?;
        let mut functions = ranking::functions(profile, value_index);
        ranking::sort_by_self(&mut functions);
        rows.functions_by_self(&functions, out)?;
        writeln!(out)?;
        ranking::sort_by_total(&mut functions);
        rows.functions_by_total(&functions, out)?;
    } else {
        writeln!(out, "no samples")?;
    }
    growth::write(&profile.memory_growth, &rows, out)?;
    writeln!(out)?;
    write_honesty(profile, &rows, out)?;
    out.flush()
}

fn write_header(profile: &Profile, value: ValueType, rows: &Rows<'_>, out: &mut dyn Write) -> io::Result<()> {
    let what = match profile.kind {
        ProfileKind::Cpu => "CPU profile",
        ProfileKind::OffCpu => "Off-CPU profile",
        ProfileKind::PageFaults => "Page-fault profile",
        ProfileKind::OffCpuWakers => "Profile of who ended waits",
        ProfileKind::Mutex => "Profile of waits for locks",
        ProfileKind::MutexHolders => "Profile of who held locks",
    };
    let host = match printable(&profile.host) {
        host if host.is_empty() => String::new(),
        host => format!(" of {host}"),
    };
    let title = format!("{what}{host}, {}, {}", rfc3339(profile.started), length(profile.duration));
    writeln!(out, "{}", paint(&title, Style::Heading, rows.color))?;

    let pids: HashSet<u32> = profile.samples.iter().map(|sample| sample.labels.pid).collect();
    let processes = counted(pids.len(), "process", "processes");
    let average = |what: &str| match profile.duration.as_nanos() {
        0 => String::new(),
        nanos => format!(", {:.2} {what} on average", rows.total as f64 / nanos as f64),
    };
    let total = amount(rows.total, value.unit);
    let measured = match profile.kind {
        ProfileKind::Cpu => format!("{total} CPU time in {processes}{}", average("CPUs busy")),
        ProfileKind::OffCpu => format!("{total} off the CPUs in {processes}{}", average("threads waiting")),
        ProfileKind::PageFaults => {
            format!("{total} made resident in {processes}, by {} page faults", profile.total(0))
        }
        ProfileKind::OffCpuWakers => {
            format!("{total} of waits ended by {processes}{}", average("threads waiting"))
        }
        ProfileKind::Mutex => format!("{total} of waits in {processes}{}", average("threads waiting")),
        ProfileKind::MutexHolders => {
            format!("{total} of waits for {processes}{}", average("threads waiting"))
        }
    };
    writeln!(out, "{}", wrap(&measured, rows.width, 2))
}

/// The books on one line, then what follows from them.
fn write_honesty(profile: &Profile, rows: &Rows<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", wrap(&format!("Samples: {}", profile.accounting), rows.width, 2))?;
    for remark in remarks(&profile.accounting) {
        let (remark, style) = match &remark {
            Remark::Notice(remark) => (remark, None),
            Remark::Warning(remark) => (remark, Some(Style::Warning)),
            Remark::Bug(remark) => (remark, Some(Style::Alarm)),
        };
        let remark = wrap(remark, rows.width, 2);
        match style {
            Some(style) => writeln!(out, "{}", paint(&remark, style, rows.color))?,
            None => writeln!(out, "{remark}")?,
        }
    }
    Ok(())
}

/// `1 process`, `2 processes`.
fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
