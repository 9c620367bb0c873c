//! How much memory of a process is resident, by the kernel's own count (`/proc/PID/status`).

use std::fs;

/// What a process has in memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// When the process began, in clock ticks since boot: tells it from another one with its number.
    pub began: u64,
    /// Its own memory (`RssAnon`).
    pub anon: u64,
    /// Files' (`RssFile`).
    pub file: u64,
    /// Shared memory (`RssShmem`).
    pub shmem: u64,
}

impl Resident {
    /// That of process `pid`; `None` when it has ended, or is a thread of the kernel, which has none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, &stat)
    }

    fn parse(status: &str, stat: &str) -> Option<Self> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
        };
        // Behind the name, which is in brackets and may hold brackets, it is the 20th field (`proc_pid_stat(5)`).
        let began = stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
        Some(Self { began, anon: bytes("RssAnon:")?, file: bytes("RssFile:")?, shmem: bytes("RssShmem:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that the kernel prints; a thread of the kernel has none of them.
    #[test]
    fn counts_are_read() {
        let status =
            "Name:\tcat\nVmRSS:\t    12 kB\nRssAnon:\t     8 kB\nRssFile:\t     4 kB\nRssShmem:\t     0 kB\n";
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 345 1 1";
        assert_eq!(
            Resident::parse(status, stat),
            Some(Resident { began: 345, anon: 8192, file: 4096, shmem: 0 })
        );
        assert_eq!(Resident::parse("Name:\tkthreadd\n", stat), None);
        assert_eq!(Resident::parse(status, ""), None);
    }

    /// This process has memory of its own and its program's.
    #[test]
    fn this_process_is_resident() {
        let own = Resident::of(std::process::id()).expect("it runs");
        assert!(own.anon > 0 && own.file > 0 && own.began > 0, "{own:?}");
        assert_eq!(Resident::of(u32::MAX), None);
    }
}
