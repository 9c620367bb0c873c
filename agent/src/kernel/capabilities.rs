//! The capabilities of this process (`capabilities(7)`).

use std::{fs, io};

/// A capability that profiling may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Creating maps and loading programs (5.8+).
    Bpf,
    /// Perf events on all tasks, tracing helpers (5.8+).
    Perfmon,
    /// All of the above and more; the only one before 5.8.
    SysAdmin,
    /// Reading `/proc/PID/maps` and roots of other users' processes.
    SysPtrace,
    /// Addresses in `/proc/kallsyms`.
    Syslog,
    /// Following `/proc/PID/map_files` (5.9+).
    CheckpointRestore,
    /// Reading files regardless of their permissions.
    DacReadSearch,
}

impl Capability {
    /// The capability's name, without `CAP_`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bpf => "BPF",
            Self::Perfmon => "PERFMON",
            Self::SysAdmin => "SYS_ADMIN",
            Self::SysPtrace => "SYS_PTRACE",
            Self::Syslog => "SYSLOG",
            Self::CheckpointRestore => "CHECKPOINT_RESTORE",
            Self::DacReadSearch => "DAC_READ_SEARCH",
        }
    }

    /// Bit number (`include/uapi/linux/capability.h`).
    fn bit(self) -> u32 {
        match self {
            Self::DacReadSearch => 2,
            Self::SysPtrace => 19,
            Self::SysAdmin => 21,
            Self::Syslog => 34,
            Self::Perfmon => 38,
            Self::Bpf => 39,
            Self::CheckpointRestore => 40,
        }
    }
}

/// A set of effective capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Those of this process, from `CapEff` in `/proc/self/status`.
    pub fn effective() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        parse(&status).ok_or_else(|| io::Error::other("/proc/self/status has no CapEff line"))
    }

    /// Whether `capability` is in the set, itself or as a part of `SYS_ADMIN`.
    pub fn has(self, capability: Capability) -> bool {
        let alone = self.0 & (1 << capability.bit()) != 0;
        let admin = self.0 & (1 << Capability::SysAdmin.bit()) != 0;
        match capability {
            Capability::Bpf | Capability::Perfmon | Capability::Syslog | Capability::CheckpointRestore => {
                alone || admin
            }
            Capability::SysAdmin | Capability::SysPtrace | Capability::DacReadSearch => alone,
        }
    }
}

fn parse(status: &str) -> Option<Capabilities> {
    let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok().map(Capabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container with `BPF` and `PERFMON` only, and root.
    #[test]
    fn sets_are_read() {
        let container = parse("Name:\tagent\nCapEff:\t000000c000000000\n").expect("a set");
        assert!(container.has(Capability::Bpf) && container.has(Capability::Perfmon));
        assert!(!container.has(Capability::SysPtrace) && !container.has(Capability::Syslog));
        let admin = parse("CapEff:\t0000000000200000\n").expect("a set");
        assert!(admin.has(Capability::Bpf) && !admin.has(Capability::SysPtrace));
        assert_eq!(parse("CapEff:\tx\n"), None);
    }
}
