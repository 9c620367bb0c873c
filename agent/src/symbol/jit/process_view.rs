//! A process as `/proc` shows it, seen through one descriptor of its directory: when the process has ended, nothing can be
//! read through it any more, even if another has its number by now.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;

use crate::process::maps::{self, MapsEntry};

/// Files of `/proc/PID` that are read whole are shorter.
const LONGEST_FILE: u64 = 1 << 20;
/// A process may have 65,530 mappings with paths of up to 4 KiB; nobody has that much text in them.
const LONGEST_MAPS: u64 = 64 << 20;

/// A process's directory in `/proc`.
#[derive(Debug)]
pub(super) struct ProcessView(File);

/// Parts of `/proc/PID/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// Its number in its own PID namespace, the innermost one.
    pub(super) own_pid: u32,
    /// Users: real, effective, saved, of the file system.
    pub(super) users: [u32; 4],
    /// Effective group.
    pub(super) group: u32,
    /// Bit `n - 1` is set when the process has a handler for signal `n`.
    pub(super) caught_signals: u64,
}

impl ProcessView {
    /// Opens the directory of process `pid`.
    pub(super) fn open(pid: u32) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        Ok(Self(File::options().read(true).custom_flags(flags).open(format!("/proc/{pid}"))?))
    }

    /// When the process began, in clock ticks since boot. With its number, that is who it is.
    pub(super) fn start_time(&self) -> io::Result<u64> {
        // `proc_pid_stat(5)`: field 22; the second one, the name, is in parentheses and may hold anything.
        let stat = self.read("stat")?;
        let stat = String::from_utf8_lossy(&stat);
        let field = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19));
        field.and_then(|field| field.parse().ok()).ok_or_else(|| malformed("stat"))
    }

    /// Who it is in its namespace, whose it is, and which signals it handles.
    pub(super) fn status(&self) -> io::Result<Status> {
        let status = self.read("status")?;
        parse_status(&String::from_utf8_lossy(&status)).ok_or_else(|| malformed("status"))
    }

    /// Shows each executable mapping to `visit`.
    pub(super) fn executable_mappings(&self, mut visit: impl FnMut(&MapsEntry<'_>)) -> io::Result<()> {
        let mut lines = BufReader::new(self.open_file("maps")?.take(LONGEST_MAPS));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(line.trim_ascii_end());
            if let Some(entry) = maps::parse_executable(&text) {
                visit(&entry);
            }
            line.clear();
        }
        Ok(())
    }

    /// Whether `needle` stands in the file `name` of the directory (`cmdline`, `environ`).
    pub(super) fn says(&self, name: &str, needle: &str) -> io::Result<bool> {
        let text = self.read(name)?;
        Ok(text.windows(needle.len()).any(|window| window == needle.as_bytes()))
    }

    /// The root directory of the process; only good for opening what is below it.
    pub(super) fn root(&self) -> io::Result<Root> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Root(openat(self.0.as_fd(), "root", flags, Mode::empty())?.into()))
    }

    /// Opens the regular file that is mapped from `start` to `end`, whatever has become of its path.
    pub(super) fn mapped_file(&self, start: u64, end: u64) -> io::Result<File> {
        let link = format!("map_files/{start:x}-{end:x}");
        let found = openat(self.0.as_fd(), link.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        open_regular(&found.into())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_file(name)?.take(LONGEST_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        Ok(openat(self.0.as_fd(), name, READ, Mode::empty())?.into())
    }
}

/// `O_NONBLOCK` in case a file is on something that blocks all the same.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// The root directory of a process.
#[derive(Debug)]
pub(super) struct Root(File);

impl Root {
    /// Opens `path` with `flags`, never through a link in its last part, and never outside this root.
    pub(super) fn open(&self, path: &str, flags: OFlag, mode: Mode) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .mode(mode)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(self.0.as_fd(), path, how)?.into())
    }

    /// Opens the regular file at `path` for reading.
    pub(super) fn open_file(&self, path: &str) -> io::Result<File> {
        open_regular(&self.open(path, OFlag::O_PATH, Mode::empty())?)
    }
}

/// Opens what was found with `O_PATH`, if it is a regular file. Anything else is only looked at: opening a FIFO or a device may do
/// something.
fn open_regular(found: &File) -> io::Result<File> {
    if !found.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // The descriptor's link leads to the very file, whatever has become of its path.
    let link = format!("/proc/self/fd/{}", found.as_raw_fd());
    File::options().read(true).custom_flags(READ.bits()).open(link)
}

/// Whether `file` is what the process itself, or root, can have written: perf asks the same of perf maps.
pub(super) fn is_own(file: &File, status: &Status) -> io::Result<bool> {
    let owner = file.metadata()?.uid();
    Ok(owner == 0 || status.users.contains(&owner))
}

fn parse_status(text: &str) -> Option<Status> {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::split_ascii_whitespace);
    let mut users = field("Uid:")?.map_while(|user| user.parse().ok());
    Some(Status {
        // Kernels without PID namespaces have no such line.
        own_pid: field("NSpid:").or_else(|| field("Pid:"))?.next_back()?.parse().ok()?,
        users: [users.next()?, users.next()?, users.next()?, users.next()?],
        group: field("Gid:")?.nth(1)?.parse().ok()?,
        caught_signals: u64::from_str_radix(field("SigCgt:")?.next()?, 16).ok()?,
    })
}

fn malformed(file: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/PID/{file} is not as expected"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The last number of `NSpid` is the process's own, and the second of users and groups the effective one.
    #[test]
    fn status_is_parsed() {
        let text = "Name:\tjava\nPid:\t4711\nUid:\t1000\t1001\t1002\t1003\nGid:\t5\t6\t7\t8\nNSpid:\t4711\t90\t7\n\
                    SigCgt:\t0000000101005ccf\n";
        let expected =
            Status { own_pid: 7, users: [1000, 1001, 1002, 1003], group: 6, caught_signals: 0x1_0100_5ccf };
        assert_eq!(parse_status(text), Some(expected));
        assert_eq!(parse_status("Name:\tjava\n"), None);
    }

    /// A view of a process that has ended shows nothing, rather than what has its number now.
    #[test]
    fn a_view_is_of_one_process() {
        let mut child = Command::new("sleep").arg("20").spawn().expect("a child");
        let view = ProcessView::open(child.id()).expect("it runs");
        assert!(view.start_time().expect("it runs") > 0);
        assert_eq!(view.status().expect("it runs").own_pid, child.id());
        child.kill().expect("it runs");
        child.wait().expect("it has ended");
        assert_eq!(view.start_time().map_err(|error| error.raw_os_error()), Err(Some(libc::ESRCH)));
        assert!(view.root().is_err());
    }

    /// A word of the command line is found in it, another is not.
    #[test]
    fn the_command_line_is_searched() {
        let view = ProcessView::open(std::process::id()).expect("this process");
        let program = std::env::args().next().expect("a name");
        assert!(view.says("cmdline", &program).expect("readable"));
        assert!(!view.says("cmdline", "+DisableAttachMechanism").expect("readable"));
    }

    /// Of the mappings, the executable ones are shown; the file of one can be opened.
    #[test]
    fn mappings_lead_to_their_files() {
        let view = ProcessView::open(std::process::id()).expect("this process");
        let mut found = None;
        view.executable_mappings(|entry| {
            if entry.path.ends_with("/libc.so.6") {
                found = Some((entry.start, entry.end));
            }
        })
        .expect("readable");
        let (start, end) = found.expect("it is linked with glibc");
        assert!(
            view.mapped_file(start, end).expect("it is there").metadata().expect("a file").len() > 1 << 20
        );
    }

    /// A link in the last place is not followed, and `..` does not lead out of the root.
    #[test]
    fn links_are_not_followed() {
        let root = ProcessView::open(std::process::id()).and_then(|view| view.root()).expect("a root");
        let directory = tempfile::tempdir().expect("a directory");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("a link");
        let opened = root.open_file(link.to_str().expect("UTF-8"));
        assert_eq!(opened.map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::InvalidInput));
        assert!(root.open_file("/../../../etc/passwd").is_ok());
    }
}
