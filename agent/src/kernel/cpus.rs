//! Which CPUs there are: possible (the size of per-CPU tables) and online (where events can be opened).

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// Directory with the kernel's CPU lists (`Documentation/admin-guide/cputopology.rst`).
const SYSFS: &str = "/sys/devices/system/cpu";

/// A CPU list could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CpuListError {
    /// The file is not readable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The file does not hold a CPU list.
    #[error("{path} holds {text:?}, which is not a CPU list such as 0-3,8")]
    Malformed {
        /// The file.
        path: String,
        /// What it holds.
        text: String,
    },
}

/// CPUs on which tasks run now.
pub fn online() -> Result<BTreeSet<u32>, CpuListError> {
    read("online")
}

/// One more than the highest CPU number that this machine can ever have.
pub fn possible_count() -> Result<u32, CpuListError> {
    Ok(read("possible")?.last().map_or(1, |highest| highest + 1))
}

fn read(list: &str) -> Result<BTreeSet<u32>, CpuListError> {
    let path = Path::new(SYSFS).join(list).display().to_string();
    match fs::read_to_string(&path) {
        Ok(text) => parse(&text).ok_or(CpuListError::Malformed { path, text }),
        Err(source) => Err(CpuListError::Read { path, source }),
    }
}

/// Parses `0-3,8,10-11`. `None` when it is not such a list, is empty or names absurdly many CPUs.
fn parse(list: &str) -> Option<BTreeSet<u32>> {
    /// `CONFIG_NR_CPUS` goes up to 8192.
    const MOST: u32 = 1 << 16;
    let mut cpus = BTreeSet::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists as the kernel prints them, and text that is none.
    #[test]
    fn lists_are_parsed() {
        assert_eq!(parse("0-3,8,10-11\n"), Some(BTreeSet::from([0, 1, 2, 3, 8, 10, 11])));
        assert_eq!(parse("0\n"), Some(BTreeSet::from([0])));
        for bad in ["", "a", "3-1", "0-4294967295", "1,,2", "-"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    /// This machine has at least the CPU that runs the test.
    #[test]
    fn this_machine_has_cpus() {
        let online = online().expect("sysfs is there");
        let possible = possible_count().expect("sysfs is there");
        assert!(!online.is_empty() && online.iter().all(|cpu| *cpu < possible));
    }
}
