//! The running kernel's version.

use std::fmt;

/// Oldest kernel on which the programs load: ring buffers (5.8), and what RHEL 9 and the long-term kernels have.
pub const OLDEST: KernelRelease = KernelRelease { major: 5, minor: 10 };

/// A kernel version, as far as features depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRelease {
    /// 6 in `6.18.44`.
    pub major: u32,
    /// 18 in `6.18.44`.
    pub minor: u32,
}

impl KernelRelease {
    /// The running kernel's, by `uname(2)`; `None` when its release does not begin with two numbers.
    pub fn running() -> Option<Self> {
        let names = nix::sys::utsname::uname().ok()?;
        Self::parse(names.release().to_str()?)
    }

    fn parse(release: &str) -> Option<Self> {
        let (major, rest) = release.split_once('.')?;
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        Some(Self { major: major.parse().ok()?, minor: rest[..digits].parse().ok()? })
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Releases as distributions write them.
    #[test]
    fn releases_are_parsed() {
        let of = |major, minor| Some(KernelRelease { major, minor });
        assert_eq!(KernelRelease::parse("6.18.44-fc-v657"), of(6, 18));
        assert_eq!(KernelRelease::parse("5.14.0-427.el9.x86_64"), of(5, 14));
        assert_eq!(KernelRelease::parse("7.0-rc1"), of(7, 0));
        assert_eq!(KernelRelease::parse("unknown"), None);
    }
}
