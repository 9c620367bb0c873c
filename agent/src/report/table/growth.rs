//! The table of memory growth: what page faults say of a process, beside the kernel's own count.

use std::io::{self, Write};

use super::rows::Rows;
use crate::printable::printable;
use crate::profile::model::{MemoryBytes, MemoryGrowth};
use crate::report::layout::elide;
use crate::report::quantity::bytes;

/// Characters before a process's name.
const BEFORE_PROCESS: usize = 2 + 8 + 6 * 11 + 2;

/// Writes the first rows; nothing where there are none.
pub(super) fn write(growths: &[MemoryGrowth], rows: &Rows<'_>, out: &mut dyn Write) -> io::Result<()> {
    if growths.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let columns = format!(
        "{:>10}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}  PROCESS",
        "PID", "ANON", "counted", "FILE", "counted", "SHMEM", "counted"
    );
    rows.write_heading(
        "Memory growth: made resident, by page faults, and grown, as the kernel counts",
        &columns,
        out,
    )?;
    for growth in growths.iter().take((rows.count / 3).max(1)) {
        let MemoryGrowth { pid, comm, estimated, counted, .. } = growth;
        let pair = |of: fn(&MemoryBytes) -> i64| {
            let counted = counted.as_ref().map_or_else(|| "ended".to_owned(), |counted| bytes(of(counted)));
            format!("{:>11}{counted:>11}", bytes(of(estimated)))
        };
        let numbers = [pair(|by| by.anon), pair(|by| by.file), pair(|by| by.shmem)].concat();
        let comm = printable(comm);
        let comm = elide(&comm, rows.width.saturating_sub(BEFORE_PROCESS).max(8));
        writeln!(out, "  {pid:>8}{numbers}  {comm}{}", if growth.is_new { " (new)" } else { "" })?;
    }
    Ok(())
}
