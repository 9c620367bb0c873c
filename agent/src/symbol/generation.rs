//! An inode's generation: a file system that gives a removed file's inode number to another file gives that another generation.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use libc::{c_int, c_long};

/// The generation of an open file's inode; `None` where the file system does not tell.
pub(super) fn of(file: &File) -> Option<u32> {
    // The request says `long`, file systems write an `int` (`FS_IOC_GETVERSION` in `include/uapi/linux/fs.h`).
    let mut generation: c_long = 0;
    // SAFETY: the descriptor is open as long as `file` is borrowed, and the kernel writes no more than the `long` that the request's number
    // states, into one that is ours.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETVERSION, &raw mut generation) };
    (result == 0).then_some(generation as c_int as u32)
}
