//! Whether a process is a JVM that can be asked for its map. Sending `SIGQUIT` to anything else would kill it.

use std::io::{self, Read as _};
use std::os::fd::{FromRawFd as _, OwnedFd};

use crate::symbol::jit::process_view::{ProcessView, Root, Status};
use crate::symbol::jit::runtime::{MappedCode, Runtime};

/// The first version with `Compiler.perfmap`.
const FIRST_VERSION: u32 = 17;
/// With it, `SIGQUIT` makes the JVM print its threads' stacks, and never listen.
const NO_ATTACH: &str = "+DisableAttachMechanism";

/// A JVM that can be asked.
#[derive(Debug)]
pub(super) struct Jvm {
    /// Stands for the very process, also when another has its number.
    pub(super) pidfd: OwnedFd,
    /// Its root directory.
    pub(super) root: Root,
    /// Who it is.
    pub(super) status: Status,
}

/// Why a process is not asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ineligible {
    #[error("it has ended, or runs another program now")]
    Gone,
    #[error("cannot look at it: {0}")]
    Unreadable(#[from] io::Error),
    #[error(
        "it does not handle SIGQUIT (-Xrs?), which asks a JVM to listen: start it with -XX:+PreserveFramePointer and run `jcmd PID Compiler.perfmap` yourself, or leave out -Xrs"
    )]
    NoHandler,
    #[error("it was started with -XX:+DisableAttachMechanism: leave that out")]
    AttachDisabled,
    #[error(
        "it is of version {0}, and {FIRST_VERSION} is the first that can write one: use a perf-map agent"
    )]
    Version(u32),
    #[error("its version is not known, because {path} cannot be read: {error}")]
    NoRelease { path: String, error: io::Error },
}

/// Finds out whether process `pid`, which began at `start_time` and has mapped `libjvm`, can be asked.
pub(super) fn check(pid: u32, start_time: u64, libjvm: &str) -> Result<Jvm, Ineligible> {
    // First: whatever is found below to be the process that is meant has been it since before.
    let pidfd = open_pidfd(pid)?;
    let view = ProcessView::open(pid)?;
    let mut code = MappedCode::default();
    view.executable_mappings(|entry| code.add(entry))?;
    if view.start_time()? != start_time || code.runtime != Runtime::HotSpot {
        return Err(Ineligible::Gone);
    }
    let status = view.status()?;
    if !handles_quit(&status) {
        return Err(Ineligible::NoHandler);
    }
    if view.says("cmdline", NO_ATTACH)? || view.says("environ", NO_ATTACH)? {
        return Err(Ineligible::AttachDisabled);
    }
    let root = view.root()?;
    match version(&root, libjvm)? {
        old if old < FIRST_VERSION => Err(Ineligible::Version(old)),
        _ => Ok(Jvm { pidfd, root, status }),
    }
}

fn handles_quit(status: &Status) -> bool {
    status.caught_signals & (1 << (libc::SIGQUIT - 1)) != 0
}

/// The version of the JDK that `libjvm` belongs to: `JAVA_VERSION` in the file `release` of its directory, three levels up.
fn version(root: &Root, libjvm: &str) -> Result<u32, Ineligible> {
    let home = libjvm.rsplitn(4, '/').nth(3).unwrap_or_default();
    let path = format!("{home}/release");
    let read = root.open_file(&path).and_then(|file| {
        let mut text = Vec::new();
        file.take(64 << 10).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    });
    let release = read.map_err(|error| Ineligible::NoRelease { path: path.clone(), error })?;
    parse_version(&release)
        .ok_or_else(|| Ineligible::NoRelease { path, error: io::ErrorKind::InvalidData.into() })
}

/// `JAVA_VERSION="17.0.15"`, `"21"`, `"24-ea"`, `"1.8.0_402"`.
fn parse_version(release: &str) -> Option<u32> {
    let version = release.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
    let version = version.strip_prefix("1.").unwrap_or(version);
    let digits = version.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Opens a descriptor that stands for process `pid`.
pub(super) fn open_pidfd(pid: u32) -> Result<OwnedFd, Ineligible> {
    // SAFETY: plain numbers. The result is a new descriptor (closed on exec) or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0_u32) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        let gone = error.raw_os_error() == Some(libc::ESRCH);
        return Err(if gone { Ineligible::Gone } else { error.into() });
    }
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions as JDKs of all times write them.
    #[test]
    fn versions_are_parsed() {
        for (text, version) in [
            ("IMPLEMENTOR=\"Debian\"\nJAVA_VERSION=\"17.0.15\"\n", Some(17)),
            ("JAVA_VERSION=\"21\"", Some(21)),
            ("JAVA_VERSION=\"24-ea\"", Some(24)),
            ("JAVA_VERSION=\"1.8.0_402\"", Some(8)),
            ("JAVA_VERSION=\"\"", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }

    /// A process that is no JVM is never asked, though it may handle the signal; nor is one that has another's number.
    #[test]
    fn others_are_not_asked() {
        let pid = std::process::id();
        let start_time = ProcessView::open(pid).and_then(|view| view.start_time()).expect("this process");
        for start_time in [start_time, start_time + 1] {
            let checked = check(pid, start_time, "/jdk/lib/server/libjvm.so");
            assert!(matches!(checked, Err(Ineligible::Gone)), "{checked:?}");
        }
    }

    /// The bit of `SigCgt` that is looked at is that of `SIGQUIT`: of a JVM that runs, and of a shell script's `sleep`.
    #[test]
    fn the_handler_is_seen() {
        let status = |caught_signals| Status { own_pid: 1, users: [0; 4], group: 0, caught_signals };
        assert!(handles_quit(&status(0x1_0100_5ccf)));
        assert!(!handles_quit(&status(0)));
        assert!(!handles_quit(&status(!4)));
    }
}
