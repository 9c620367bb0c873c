//! A memory cgroup of its own for a measured program: its memory as the kernel charges it, maps and page tables
//! included, which is what a container's limit holds against.
//!
//! Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst of the kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A cgroup below the root of the memory hierarchy, removed when dropped.
pub(crate) struct MemoryCgroup {
    directory: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

/// Bytes that are charged at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// All of it.
    pub(crate) total: u64,
    /// Without the file cache that the kernel drops first.
    pub(crate) without_inactive_file: u64,
    /// The kernel's part: maps, page tables, sockets; `None` if this kernel does not tell.
    pub(crate) kernel: Option<u64>,
}

impl Usage {
    /// The greater of each.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            total: self.total.max(other.total),
            without_inactive_file: self.without_inactive_file.max(other.without_inactive_file),
            kernel: self.kernel.max(other.kernel),
        }
    }
}

impl MemoryCgroup {
    /// Makes an empty cgroup.
    pub(crate) fn create() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let (mount, version) = find_hierarchy(&mounts).context("no cgroup hierarchy is mounted")?;
        let directory = mount.join(format!("nodeprof-bench-{}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let cgroup = Self { directory, version };
        if !cgroup.directory.join(cgroup.current_file()).exists() {
            bail!(
                "{} has no memory controller: echo +memory > {}/cgroup.subtree_control",
                mount.display(),
                mount.display()
            );
        }
        Ok(cgroup)
    }

    /// A command that runs `program` in this cgroup. Arguments that are added to it go to the program.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(self.directory.join("cgroup.procs")).arg(program);
        command
    }

    /// What is charged now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let total = self.number(self.current_file())?;
        let stat = self.read("memory.stat")?;
        let (inactive_file, kernel) = match self.version {
            Version::One => ("total_inactive_file", self.number("memory.kmem.usage_in_bytes").ok()),
            Version::Two => ("inactive_file", field(&stat, "kernel")),
        };
        let inactive_file = field(&stat, inactive_file).unwrap_or(0);
        Ok(Usage { total, without_inactive_file: total.saturating_sub(inactive_file), kernel })
    }

    /// The most that was ever charged; `None` on kernels before 5.19 with cgroup v2.
    pub(crate) fn peak(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.max_usage_in_bytes",
            Version::Two => "memory.peak",
        };
        self.number(file).ok()
    }

    /// The most that was ever charged for the kernel's part; only cgroup v1 tells.
    pub(crate) fn kernel_peak(&self) -> Option<u64> {
        match self.version {
            Version::One => self.number("memory.kmem.max_usage_in_bytes").ok(),
            Version::Two => None,
        }
    }

    fn current_file(&self) -> &'static str {
        match self.version {
            Version::One => "memory.usage_in_bytes",
            Version::Two => "memory.current",
        }
    }

    fn number(&self, file: &str) -> Result<u64> {
        let text = self.read(file)?;
        text.trim().parse().with_context(|| format!("{file} is no number: {text:?}"))
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.directory.join(file);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // A process that was just waited for may be counted a little longer.
        for _ in 0..50 {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("cannot remove {}", self.directory.display());
    }
}

/// The mount point of the hierarchy with the memory controller: v1's own where there is one, else v2's.
fn find_hierarchy(mounts: &str) -> Option<(PathBuf, Version)> {
    let mut unified = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(directory), Some(kind), Some(options)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        match kind {
            "cgroup" if options.split(',').any(|option| option == "memory") => {
                return Some((directory.into(), Version::One));
            }
            "cgroup2" => unified = Some((directory.into(), Version::Two)),
            _ => {}
        }
    }
    unified
}

/// The value of a line `name value`.
fn field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// v2 on its own, v1 beside an empty v2 (systemd's hybrid layout), and neither.
    #[test]
    fn the_memory_hierarchy_is_found() {
        let unified = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";
        assert_eq!(find_hierarchy(unified), Some(("/sys/fs/cgroup".into(), Version::Two)));
        let hybrid = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(find_hierarchy(hybrid), Some(("/sys/fs/cgroup/memory".into(), Version::One)));
        assert_eq!(find_hierarchy("proc /proc proc rw 0 0\nbad\n"), None);
    }

    /// A field is found by its whole name.
    #[test]
    fn fields_of_stat_are_read() {
        let stat = "anon 1\nkernel_stack 2\nkernel 3\ninactive_file 4\ntotal_inactive_file 5\n";
        assert_eq!(field(stat, "kernel"), Some(3));
        assert_eq!(field(stat, "inactive_file"), Some(4));
        assert_eq!(field(stat, "total_inactive_file"), Some(5));
        assert_eq!(field(stat, "file"), None);
    }

    /// Peaks are taken part by part.
    #[test]
    fn maxima_are_of_each_part() {
        let usage = |total, without_inactive_file, kernel| Usage { total, without_inactive_file, kernel };
        assert_eq!(usage(5, 1, None).max(usage(4, 2, Some(3))), usage(5, 2, Some(3)));
    }
}
