//! Opening the very file that a process has mapped.
//!
//! First through `/proc/PID/map_files`, which leads to the mapped inode whatever has become of its path; then by
//! path inside the process's root, without leaving it; then by path on the host. Paths may lead to another file by
//! now, and a process's number to another process with other mappings; so what they give is checked against what the kernel said of the
//! mapping, and, where the file was open before, against what it was then.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::kernel::sideband::record::FileHint;
use crate::process::module::Witness;
use crate::symbol::edition::Edition;
use crate::symbol::generation;
use crate::symbol::read_at::FileAt;
use crate::symbol::root_directory::{READ, RootDirectory, is_gone};
use crate::symbol::unresolved::UnresolvedReason;

/// Opens the file that `witness` maps from `path`, whose inode is of this `generation`; the one that was seen as `edition`, if it was
/// seen before.
///
/// # Errors
/// `Gone` when the file cannot be found any more, `Unreadable` when it may not or cannot be read.
pub(super) fn open(
    path: &str,
    hint: FileHint,
    generation: Option<u64>,
    witness: Witness,
    edition: Option<&Edition>,
) -> Result<FileAt, UnresolvedReason> {
    let mut reason = UnresolvedReason::Gone;
    let mapped = open_mapped(witness).and_then(regular);
    let roots = [|pid| RootDirectory::of_process(pid), |_| RootDirectory::of_host()];
    let by_path = roots.into_iter().map(|root| root(witness.pid)?.open_regular(Path::new(path)));
    let attempts = std::iter::once(mapped).chain(by_path);
    for (attempt, opened) in attempts.enumerate() {
        match opened {
            Ok(file) => match check(file, hint, generation, attempt == 0) {
                Ok(Some(file)) if edition.is_none_or(|edition| edition.is_in(&file)) => return Ok(file),
                Ok(_) => {}
                Err(_) => reason = UnresolvedReason::Unreadable,
            },
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

/// `file`, if it is what was mapped. What is mapped now needs no proof by inode where the file system has no block device:
/// overlayfs may show another one there.
fn check(file: File, hint: FileHint, generation: Option<u64>, mapped: bool) -> io::Result<Option<FileAt>> {
    let has_no_device = libc::major(hint.device) == 0;
    let is_it = mapped && has_no_device
        || file.metadata()?.ino() == hint.inode && (has_no_device || is_of(&file, generation));
    is_it.then(|| FileAt::new(file)).transpose()
}

/// Whether the inode is of this generation, as far as that is known; 0 is what those have that count none.
fn is_of(file: &File, generation: Option<u64>) -> bool {
    let wanted = generation.filter(|generation| *generation != 0);
    wanted.is_none_or(|wanted| generation::of(file).is_none_or(|found| u64::from(found) == wanted))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, UNIX_EPOCH};

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
        assert_eq!(open(text, hint, None, nowhere(), None).map(|file| file.len()), Ok(3));
        let new = directory.path().join("new");
        File::create(&new).and_then(|mut file| file.write_all(b"newer")).expect("written");
        std::fs::rename(new, &path).expect("replaced");
        assert_eq!(open(text, hint, None, nowhere(), None).err(), Some(UnresolvedReason::Gone));
    }

    /// An inode of another generation is another file's, where the file system has any.
    #[test]
    fn another_generation_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lib.so");
        File::create(&path).and_then(|mut file| file.write_all(b"old")).expect("written");
        let text = path.to_str().expect("UTF-8");
        let hint = inode_of(&path);
        let of = |generation| open(text, hint, generation, nowhere(), None).map(|file| file.len());
        assert_eq!([of(None), of(Some(0))], [Ok(3); 2]);
        let on_disk = libc::major(hint.device) != 0;
        if let Some(generation) = File::open(&path).ok().and_then(|file| generation::of(&file)).map(u64::from)
            && on_disk
            && generation != 0
        {
            assert_eq!(
                [of(Some(generation)), of(Some(generation ^ 1))],
                [Ok(3), Err(UnresolvedReason::Gone)]
            );
        }
    }

    /// A file that was written anew in its place is not the one that was seen there; a copy with another time is.
    #[test]
    fn another_edition_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lib.so");
        let write = |bytes: &[u8], time: u64| {
            let mut file = File::create(&path).expect("a file");
            file.write_all(bytes).expect("written");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(time)).expect("its own file");
        };
        write(b"old", 1);
        let text = path.to_str().expect("UTF-8");
        let hint = inode_of(&path);
        let file = open(text, hint, None, nowhere(), None).expect("it is there");
        let edition = Edition::of(&file).expect("it can be read");
        let again = || open(text, hint, None, nowhere(), Some(&edition)).map(|file| file.len());
        assert_eq!(again(), Ok(3));
        write(b"new", 2);
        assert_eq!(again(), Err(UnresolvedReason::Gone));
        write(b"old", 3);
        assert_eq!(again(), Ok(3));
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
            let opened = open(path.to_str().expect("UTF-8"), inode_of(path), None, nowhere(), None);
            assert_eq!(opened.err(), Some(UnresolvedReason::Unreadable), "{}", path.display());
        }
    }
}
