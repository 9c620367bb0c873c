//! A debug file that was found and is believed.

use std::fs::File;
use std::io;
use std::path::Path;

use super::place::{Place, Root};
use super::stamp::Stamp;
use crate::process::module::Module;
use crate::symbol::closable_file::ClosableFile;
use crate::symbol::dwarf::SharedSource;
use crate::symbol::elf::ElfImage;
use crate::symbol::read_at::{FileAt, ReadAt};
use crate::symbol::root_directory::{RootDirectory, is_gone};
use crate::symbol::unresolved::UnresolvedReason;

/// A file that holds what a module's own does not. It may be closed while nobody reads it, and is then opened again by its
/// path, and refused if another one lies there by now.
#[derive(Debug)]
pub struct DebugFile {
    pub(super) place: Place,
    pub(super) stamp: Stamp,
    file: ClosableFile,
}

/// A debug file and its headers.
#[derive(Debug)]
pub struct FoundFile {
    /// The file.
    pub file: DebugFile,
    /// Its headers. Addresses are those of the module; of what is loaded the file has no bytes.
    pub image: ElfImage,
}

impl DebugFile {
    pub(super) fn new(place: Place, stamp: Stamp, file: FileAt) -> Self {
        Self { place, stamp, file: ClosableFile::new(file) }
    }

    /// Lets `read` at the bytes. A closed file is opened again; `module`, whose debug file this is, says whose root it may lie
    /// in.
    ///
    /// # Errors
    /// `Gone` when it is not there any more, `Unreadable` when it cannot be opened.
    pub fn with<T>(
        &self,
        module: &Module,
        read: impl FnOnce(&dyn ReadAt) -> T,
    ) -> Result<T, UnresolvedReason> {
        self.file.with(|| self.reopen(module), read)
    }

    /// The bytes, to be handed on to somebody who reads them now and lets go of them then.
    ///
    /// # Errors
    /// As [`DebugFile::with`].
    pub(in crate::symbol) fn shared(&self, module: &Module) -> Result<SharedSource, UnresolvedReason> {
        Ok(self.file.shared(|| self.reopen(module))?)
    }

    /// Closes the file until it is needed again.
    pub fn close(&self) {
        self.file.close();
    }

    /// Where it lies, in whatever root that is.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.place.path.capacity()
    }

    fn reopen(&self, module: &Module) -> Result<FileAt, UnresolvedReason> {
        let reason = |error: &io::Error| {
            if is_gone(error) { UnresolvedReason::Gone } else { UnresolvedReason::Unreadable }
        };
        let is_it = |stamp: Stamp| stamp == self.stamp;
        let file = match open_at(&self.place, module) {
            Ok((file, stamp)) if is_it(stamp) => file,
            opened => {
                // The process in whose root it was found may have ended, and that root is mostly the host's.
                let on_host = Place { root: Root::Host, ..self.place.clone() };
                match (open_at(&on_host, module), opened) {
                    (Ok((file, stamp)), _) if is_it(stamp) => file,
                    (_, Err(error)) => return Err(reason(&error)),
                    (_, Ok(_)) => return Err(UnresolvedReason::Gone),
                }
            }
        };
        FileAt::new(file).map_err(|_| UnresolvedReason::Unreadable)
    }
}

/// Opens what is at `place`, which must be a regular file.
pub(super) fn open_at(place: &Place, module: &Module) -> io::Result<(File, Stamp)> {
    let root = match place.root {
        Root::Process => RootDirectory::of_process(module.witness.pid),
        Root::Host => RootDirectory::of_host(),
    };
    let file = root?.open_regular(&place.path)?;
    let stamp = Stamp::of(&file)?;
    Ok((file, stamp))
}
