//! How long each CPU was idle, by the kernel's own clock (`/proc/stat`, `fs/proc/stat.c`).
//!
//! With tickless idle this is measured, not sampled; it is printed in units of `_SC_CLK_TCK` (10 ms).

use std::collections::BTreeMap;
use std::{fs, io};

use nix::unistd::{SysconfVar, sysconf};

/// What a CPU did since boot, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// Nothing, or waiting for I/O.
    pub idle: u64,
    /// The hypervisor ran something else in its place.
    pub stolen: u64,
    /// Tasks and interrupts. Where it is not measured but sampled by the kernel's own tick, it is less exact than idle time, but it
    /// stands still while the CPU is offline, which idle time does not on every kernel.
    pub busy: u64,
}

impl CpuTime {
    /// What the CPU did since `earlier`. Idle times may seem to run backwards a little when a CPU leaves idle.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            idle: self.idle.saturating_sub(earlier.idle),
            stolen: self.stolen.saturating_sub(earlier.stolen),
            busy: self.busy.saturating_sub(earlier.busy),
        }
    }
}

/// The times of every online CPU.
pub fn read() -> io::Result<BTreeMap<u32, CpuTime>> {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    let tick = 1_000_000_000 / ticks.filter(|ticks| *ticks > 0).unwrap_or(100);
    Ok(parse(&fs::read_to_string("/proc/stat")?, tick))
}

/// Switches from one task to another since boot, over all CPUs (`ctxt` in `/proc/stat`).
pub fn context_switches() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let count = stat.lines().find_map(|line| line.strip_prefix("ctxt ")?.trim().parse().ok());
    count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no count of context switches"))
}

/// `tick` is the length of a unit in nanoseconds. Lines that are no CPU's are passed over.
fn parse(stat: &str, tick: u64) -> BTreeMap<u32, CpuTime> {
    stat.lines().filter_map(|line| parse_line(line, tick)).collect()
}

/// `cpu0 user nice system idle iowait irq softirq steal guest guest_nice`
fn parse_line(line: &str, tick: u64) -> Option<(u32, CpuTime)> {
    let (cpu, times) = line.strip_prefix("cpu")?.split_once(' ')?;
    let times: Vec<u64> = times.split_ascii_whitespace().map_while(|time| time.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal, ..] = times[..] else { return None };
    let sum =
        |times: &[u64]| times.iter().fold(0, |sum: u64, time| sum.saturating_add(*time)).saturating_mul(tick);
    let (idle, stolen) = (sum(&[idle, iowait]), sum(&[steal]));
    Some((cpu.parse().ok()?, CpuTime { idle, stolen, busy: sum(&[user, nice, system, irq, softirq]) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CPU lines are read; the sum over all CPUs and other lines are not.
    #[test]
    fn cpu_lines_are_read() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 40 5 6 7 8 9 10\ncpu11 0 0 0 1 0 0 0 0 0 0\nintr 5 6\ncpux 1\n";
        let times = parse(stat, 10);
        let expected = [
            (0, CpuTime { idle: 450, stolen: 80, busy: 190 }),
            (11, CpuTime { idle: 10, stolen: 0, busy: 0 }),
        ];
        assert_eq!(times, BTreeMap::from(expected));
    }

    /// Every CPU of this machine that is online has a line.
    #[test]
    fn this_machine_has_times() {
        let online = crate::kernel::cpus::online().expect("sysfs is there");
        let times = read().expect("/proc is there");
        assert!(online.iter().all(|cpu| times.contains_key(cpu)));
    }
}
