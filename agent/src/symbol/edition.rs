//! Which edition of a file is open: a path, and even an inode, may have another one the next time.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use crate::process::module::ContentId;
use crate::symbol::content::content_of;
use crate::symbol::read_at::FileAt;

/// What a file was when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edition {
    stamp: Stamp,
    content: ContentId,
}

/// What costs nothing to look at. Equal where nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &FileAt) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self { length: found.len(), modified: (found.mtime(), found.mtime_nsec()) })
    }
}

impl Edition {
    /// Of an open file.
    pub(super) fn of(file: &FileAt) -> io::Result<Self> {
        Ok(Self { stamp: Stamp::of(file)?, content: content_of(file)? })
    }

    /// Whether an open file is this edition, or another copy of it: what is derived from one holds for the other.
    pub(super) fn is_in(&self, file: &FileAt) -> bool {
        Stamp::of(file).is_ok_and(|stamp| stamp == self.stamp)
            || content_of(file).is_ok_and(|content| content == self.content)
    }
}
