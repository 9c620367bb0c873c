//! Separate debug files: what distributions strip from programs and libraries, and ship apart.
//!
//! They are found by build id (`/usr/lib/debug/.build-id/ab/cdef….debug`) or by the module's `.gnu_debuglink`, in the root of the
//! process that maps the module first, then in the host's debug directories. A file is believed only if it is of the same build:
//! where both have a build id those must be equal; where one has none, the link's checksum must be right. What is found, and that
//! nothing was, is remembered.

mod checksum;
mod file;
mod link;
mod place;
mod stamp;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use object::elf::SHT_SYMTAB;

pub use file::{DebugFile, FoundFile};
pub use link::{AltLink, DebugLink};
pub use place::DEBUG_DIRECTORY;

use self::checksum::Checksums;
use self::place::{Place, Root, Wanted};
use self::stamp::Stamp;
use crate::build_id::BuildId;
use crate::process::module::{Module, ModuleId, ModuleKey};
use crate::symbol::byte_lru::ByteLru;
use crate::symbol::elf::{ElfFile, ElfImage, ElfLimits};
use crate::symbol::read_at::{FileAt, ReadAt};
use crate::symbol::root_directory::{RootDirectory, is_gone};

/// Finds modules' debug files. One for the whole agent, so that a file is looked for once.
#[derive(Debug)]
pub struct DebugFiles {
    directories: Box<[PathBuf]>,
    known: Mutex<ByteLru<ModuleId, Known>>,
    checksums: Checksums,
    counts: Counts,
}

/// What is known of a module's debug file.
#[derive(Clone, Debug)]
enum Known {
    Nothing,
    At(Place, Stamp),
}

#[derive(Debug, Default)]
struct Counts {
    found: AtomicU64,
    absent: AtomicU64,
    refused: AtomicU64,
    unreadable: AtomicU64,
}

/// What searches for debug files led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugFileCounts {
    /// Modules whose debug file was found.
    pub found: u64,
    /// Modules without one.
    pub absent: u64,
    /// Files that lay where a debug file was looked for, and are of another build, not whole, or no use.
    pub refused: u64,
    /// Files there that could not be opened.
    pub unreadable: u64,
}

/// The file that has a module's `.debug_info`.
#[derive(Debug)]
pub enum DebugInfo {
    /// The module's own.
    Own,
    /// Its debug file.
    Separate(Box<FoundFile>),
}

impl DebugFiles {
    /// Looks on the host in `directories`, in this order; each must be absolute. What was found is remembered in `budget`
    /// bytes.
    pub fn new(directories: Vec<PathBuf>, budget: usize) -> Self {
        Self {
            directories: directories.into(),
            known: Mutex::new(ByteLru::new(budget)),
            checksums: Checksums::default(),
            counts: Counts::default(),
        }
    }

    /// The separate debug file of `module`, whose own file is `own`. It has a symbol table, debug information, or CFI.
    pub fn find(&self, module: &Module, own: ElfFile<'_>) -> Option<FoundFile> {
        let known = lock(&self.known).get(&module.id).cloned();
        match known {
            Some(Known::Nothing) => return None,
            Some(Known::At(place, stamp)) => {
                if let Some(found) = self.open(module, &place, |_, found, _| found == stamp) {
                    return Some(found);
                }
            }
            None => {}
        }
        let found = self.search(module, own);
        // Of a process that has ended nothing is known: another may still lead to the file.
        let is_final =
            matches!(module.key, ModuleKey::Vdso) || RootDirectory::of_process(module.witness.pid).is_ok();
        match &found {
            Some(FoundFile { file, .. }) => {
                count(&self.counts.found);
                tracing::debug!(module = ?module.key, path = %file.path().display(), "found a debug file");
                self.remember(module.id, Known::At(file.place.clone(), file.stamp));
            }
            None if is_final => {
                count(&self.counts.absent);
                self.remember(module.id, Known::Nothing);
            }
            None => {}
        }
        found
    }

    /// The file that has the `.debug_info` of `module`, whose own file is `own`: that one, or its debug file. `None` when
    /// neither has.
    pub fn debug_info(&self, module: &Module, own: ElfFile<'_>) -> Option<DebugInfo> {
        if own.image.has_section(own.source, ".debug_info") {
            return Some(DebugInfo::Own);
        }
        let found = self.find(module, own)?;
        let has = found.file.with(module, |source| found.image.has_section(source, ".debug_info"));
        has.ok()?.then(|| DebugInfo::Separate(Box::new(found)))
    }

    /// The supplementary file that dwz made, which `of` refers to by `.gnu_debugaltlink`. `of` is the debug file `found`, or
    /// the file of `module` itself where that is `None`.
    pub fn supplementary(
        &self,
        module: &Module,
        of: ElfFile<'_>,
        found: Option<&DebugFile>,
    ) -> Option<FoundFile> {
        let link = AltLink::of(of)?;
        let (directory, root) = match (found, &module.key) {
            (Some(file), _) => (file.path().parent()?, file.place.root),
            (None, ModuleKey::File { path, .. }) => (Path::new(&**path).parent()?, Root::Process),
            (None, _) => return None,
        };
        let named = Place { root, path: link.path_from(directory), checksum: None };
        let wanted = Wanted { path: Some(directory), build_id: Some(&link.build_id), link: None };
        let places = std::iter::once(named).chain(wanted.places(&self.directories));
        let is_it = |image: &ElfImage| image.build_id() == Some(&link.build_id);
        places.into_iter().find_map(|place| self.open(module, &place, |_, _, image| is_it(image)))
    }

    /// What searches led to so far.
    pub fn counts(&self) -> DebugFileCounts {
        let Counts { found, absent, refused, unreadable } = &self.counts;
        let [found, absent, refused, unreadable] =
            [found, absent, refused, unreadable].map(|count| count.load(Ordering::Relaxed));
        DebugFileCounts { found, absent, refused, unreadable }
    }

    fn search(&self, module: &Module, own: ElfFile<'_>) -> Option<FoundFile> {
        let path = match &module.key {
            ModuleKey::File { path, .. } => Some(Path::new(&**path)),
            ModuleKey::Vdso => None,
            ModuleKey::Anonymous | ModuleKey::TableFull => return None,
        };
        let build_id = own.image.build_id();
        let wanted = Wanted { path, build_id, link: DebugLink::of(own) };
        wanted.places(&self.directories).into_iter().find_map(|place| {
            self.open(module, &place, |file, stamp, image| {
                image.machine() == own.image.machine()
                    && is_useful(file, image)
                    && self.is_same_build(build_id, &place, file, stamp, image)
            })
        })
    }

    /// Whether a file is of the build with `build_id`, or has the checksum by which `place` was looked at.
    fn is_same_build(
        &self,
        build_id: Option<&BuildId>,
        place: &Place,
        file: &FileAt,
        stamp: Stamp,
        image: &ElfImage,
    ) -> bool {
        match (build_id, image.build_id()) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => place.checksum.is_some_and(|wanted| self.checksums.of(file, stamp) == Some(wanted)),
        }
    }

    /// Opens what is at `place` if it is an ELF file that `believe` accepts.
    fn open(
        &self,
        module: &Module,
        place: &Place,
        believe: impl FnOnce(&FileAt, Stamp, &ElfImage) -> bool,
    ) -> Option<FoundFile> {
        let opened = file::open_at(place, module).and_then(|(file, stamp)| Ok((FileAt::new(file)?, stamp)));
        let (file, stamp) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                if !is_gone(&error) {
                    count(&self.counts.unreadable);
                    tracing::debug!(?place, %error, "cannot open a debug file");
                }
                return None;
            }
        };
        match ElfImage::parse(&file, &ElfLimits::default()) {
            Ok(image) if believe(&file, stamp, &image) => {
                return Some(FoundFile { file: DebugFile::new(place.clone(), stamp, file), image });
            }
            Ok(_) => tracing::debug!(?place, module = ?module.key, "not the module's debug file"),
            Err(error) => tracing::debug!(?place, %error, "not a debug file"),
        }
        count(&self.counts.refused);
        None
    }

    fn remember(&self, id: ModuleId, known: Known) {
        let bytes = match &known {
            Known::Nothing => 0,
            Known::At(place, _) => place.path.capacity(),
        };
        lock(&self.known).insert(id, known, bytes);
    }
}

/// Whether the file holds anything that a stripped one does not: the link may even lead to the module itself.
fn is_useful(source: &dyn ReadAt, image: &ElfImage) -> bool {
    image.sections().iter().any(|section| section.kind == SHT_SYMTAB)
        || [".debug_info", ".debug_frame"].iter().any(|name| image.has_section(source, name))
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The cache is whole between any two operations on it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
