//! Opening the very file that a process has mapped.
//!
//! First through `/proc/PID/map_files`, which leads to the mapped inode whatever has become of its path; then by
//! path inside the process's root, without leaving it; then by path on the host. Paths may lead to another file by
//! now, so what they give is checked against what the kernel said of the mapping.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::kernel::sideband::record::FileHint;
use crate::process::module::Witness;
use crate::symbol::read_at::FileAt;
use crate::symbol::root_directory::{READ, RootDirectory, is_gone};
use crate::symbol::unresolved::UnresolvedReason;

/// Opens the file that `witness` maps from `path`.
///
/// # Errors
/// `Gone` when the file cannot be found any more, `Unreadable` when it may not or cannot be read.
pub fn open(path: &str, hint: FileHint, witness: Witness) -> Result<FileAt, UnresolvedReason> {
    let mut reason = UnresolvedReason::Gone;
    let mapped = open_mapped(witness).and_then(regular);
    let roots = [|pid| RootDirectory::of_process(pid), |_| RootDirectory::of_host()];
    let by_path = roots.into_iter().map(|root| root(witness.pid)?.open_regular(Path::new(path)));
    let attempts = std::iter::once(mapped).chain(by_path);
    for (attempt, opened) in attempts.enumerate() {
        match opened {
            Ok(file) if is_the_one(&file, hint, attempt == 0) => {
                return FileAt::new(file).map_err(|_| UnresolvedReason::Unreadable);
            }
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => {
                tracing::debug!(path, pid = witness.pid, %error, "cannot open a mapped file");
                reason = UnresolvedReason::Unreadable;
            }
        }
    }
    Err(reason)
}

/// Opens the regular file at `path`, which is absolute, as the process of `witness` sees it, or else the host.
pub fn open_beside(path: &str, witness: Witness) -> Option<FileAt> {
    let roots = [|pid| RootDirectory::of_process(pid), |_| RootDirectory::of_host()];
    roots.into_iter().find_map(|root| {
        let file = root(witness.pid).ok()?.open_regular(Path::new(path)).ok()?;
        FileAt::new(file).ok()
    })
}

fn open_mapped(witness: Witness) -> io::Result<File> {
    let Witness { pid, start, end } = witness;
    let link = format!("/proc/{pid}/map_files/{start:x}-{end:x}");
    File::options().read(true).custom_flags(READ.bits()).open(link)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Whether `file` is what was mapped. A mapped file needs no proof by inode; overlayfs may even show another one there.
fn is_the_one(file: &File, hint: FileHint, mapped: bool) -> bool {
    mapped || file.metadata().is_ok_and(|found| found.ino() == hint.inode)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::symbol::read_at::ReadAt as _;

    fn inode_of(path: &Path) -> FileHint {
        let metadata = std::fs::metadata(path).expect("there is a file");
        FileHint { device: metadata.dev(), inode: metadata.ino() }
    }

    fn nowhere() -> Witness {
        Witness { pid: std::process::id(), start: 0, end: 0x1000 }
    }

    /// A file is found by its path when the inode is the one that was mapped, and refused when it was replaced.
    #[test]
    fn a_replaced_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lib.so");
        File::create(&path).and_then(|mut file| file.write_all(b"old")).expect("written");
        let hint = inode_of(&path);
        let text = path.to_str().expect("UTF-8");
        assert_eq!(open(text, hint, nowhere()).map(|file| file.len()), Ok(3));
        let new = directory.path().join("new");
        File::create(&new).and_then(|mut file| file.write_all(b"newer")).expect("written");
        std::fs::rename(new, &path).expect("replaced");
        assert_eq!(open(text, hint, nowhere()).err(), Some(UnresolvedReason::Gone));
    }

    /// A FIFO, a device and a link to one in place of the file neither block nor are read.
    #[test]
    fn other_kinds_of_files_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
        let link = directory.path().join("link");
        symlink("/dev/zero", &link).expect("a link");
        for path in [fifo.as_path(), link.as_path(), "/dev/zero".as_ref(), directory.path()] {
            let opened = open(path.to_str().expect("UTF-8"), inode_of(path), nowhere());
            assert_eq!(opened.err(), Some(UnresolvedReason::Unreadable), "{}", path.display());
        }
    }
}
