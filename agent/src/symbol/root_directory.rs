//! Opening regular files by path inside a root directory: a process's, which is not believed, or the host's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

/// For reading a file that is known to be regular. `O_NONBLOCK` in case it is on something that blocks all the same.
pub(super) const READ: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY);

/// A directory that paths are resolved in. Nothing leads out of it: `..` and absolute links stay inside (`openat2(2)`,
/// `RESOLVE_IN_ROOT`).
#[derive(Debug)]
pub(super) struct RootDirectory(File);

impl RootDirectory {
    /// The root of a process; an error of kind `NotFound` when it has ended.
    pub(super) fn of_process(pid: u32) -> io::Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/root")))
    }

    /// The agent's own root.
    pub(super) fn of_host() -> io::Result<Self> {
        Self::open(Path::new("/"))
    }

    fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        Ok(Self(File::options().read(true).custom_flags(flags).open(path)?))
    }

    /// Opens the regular file at `path` for reading. What else may be there, a FIFO or a device, is only looked at: opening
    /// it could block, or do something.
    pub(super) fn open_regular(&self, path: &Path) -> io::Result<File> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = File::from(openat2(self.0.as_fd(), path, how)?);
        if !found.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        // The descriptor's link leads to the very file, whatever has become of its path.
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        File::options().read(true).custom_flags(READ.bits()).open(link)
    }
}

/// Whether `error` says that there is no such file or process (any more).
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH | libc::ENOTDIR))
}
