//! The lines of one module.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::cache::{DwarfCache, Unit, UnitKey};
use super::linked::LinkedFiles;
use super::refused::LinesRefused;
use super::sections::DebugSections;
use super::split::SplitUnits;
use super::supplement::Supplement;
use super::unit::UnitLines;
use super::unit_index::UnitIndex;
use crate::symbol::elf::{ElfImage, Segment};
use crate::symbol::read_at::ReadAt;

/// A file that can be handed to whoever reads it, for the length of a look-up.
pub type SharedSource = Arc<dyn ReadAt + Send + Sync>;

/// One function at an address, and where in its source the address belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// The linker's name, or the source's where there is no other. Of a function whose debug information is in a file that was not
    /// found, nothing is known but the line.
    pub function: Option<String>,
    /// Path of the source file, as the compiler had it.
    pub file: Option<Arc<str>>,
    /// Line, from 1; 0 where the compiler says that the code has none.
    pub line: u32,
    /// Column, from 1; 0 where it is not known.
    pub column: u32,
}

/// The debug information of one module. Nothing is read before the first question.
pub struct DebugLines {
    number: u32,
    sections: DebugSections,
    segments: Box<[Segment]>,
    cache: Arc<DwarfCache>,
    /// One look-up in a module at a time.
    index: Mutex<Option<Result<Arc<UnitIndex>, LinesRefused>>>,
}

impl DebugLines {
    /// Finds the debug sections of the file with the header `image`: the module itself, or its separate debug file.
    ///
    /// # Errors
    /// When it has none, too much of it, or what cannot be read. The cause is counted with every question that is not put, by
    /// [`count`](Self::count).
    pub fn open(
        source: &dyn ReadAt,
        image: &ElfImage,
        cache: &Arc<DwarfCache>,
    ) -> Result<Self, LinesRefused> {
        let sections = DebugSections::main(source, image, &cache.blocks, &cache.limits)?;
        if sections.section(gimli::SectionId::DebugInfo).len() == 0 {
            return Err(LinesRefused::NoDebugInfo);
        }
        let segments = image.executable_segments().copied().collect();
        let (number, index) = (cache.register(), Mutex::new(None));
        Ok(Self { number, sections, segments, cache: cache.clone(), index })
    }

    /// Counts a question that was not put because [`open`](Self::open) said `cause`.
    pub fn count(cache: &DwarfCache, cause: LinesRefused) {
        cache.refused.count(cause);
    }

    /// The functions at the ELF address `address`, innermost first: those that are inlined there, at last the one that holds the
    /// code. `source` is the file that was opened; `files` opens those
    /// beside it.
    ///
    /// # Errors
    /// When there is nothing to say, counted by cause.
    pub fn lines(
        &self,
        source: SharedSource,
        files: &dyn LinkedFiles,
        address: u64,
    ) -> Result<Vec<SourceLine>, LinesRefused> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let mut splits = SplitUnits::new(files, &self.cache.blocks, &self.cache.limits);
        // What is read here was written by strangers, and by a compiler at that. The checks before leave nothing known that could
        // panic; if something does, it costs this line.
        let found = catch_unwind(AssertUnwindSafe(|| {
            let index =
                index.get_or_insert_with(|| self.build_index(source.clone(), files).map(Arc::new)).clone()?;
            if let Some((supplement, source)) = self.sections.supplement().zip(files.supplement()) {
                supplement.attach(source, self.cache.limits.lookup_blocks);
            }
            self.find(&index, source, &mut splits, address)
        }));
        self.sections.detach();
        let found = found.unwrap_or(Err(LinesRefused::Malformed));
        match &found {
            Ok(lines) if self.lacks_supplement() && lines.iter().any(|line| line.function.is_none()) => {
                self.cache.refused.count(LinesRefused::SupplementaryFile);
            }
            Ok(_) => {}
            Err(cause) => self.cache.refused.count(*cause),
        }
        found
    }

    /// Whether names may be in a file that was not found.
    fn lacks_supplement(&self) -> bool {
        self.sections.is_supplemented && self.sections.supplement().is_none()
    }

    /// Bytes on the heap besides the shared caches. They grow with the first question.
    pub fn heap_bytes(&self) -> usize {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let index =
            index.as_ref().and_then(|index| index.as_ref().ok()).map_or(0, |index| index.heap_bytes());
        size_of::<Self>() + size_of_val(&*self.segments) + self.sections.heap_bytes() + index
    }

    fn build_index(&self, source: SharedSource, files: &dyn LinkedFiles) -> Result<UnitIndex, LinesRefused> {
        let limits = &self.cache.limits;
        if let Some(supplement) = files.supplement().filter(|_| self.sections.is_supplemented) {
            match Supplement::open(supplement, &self.cache.blocks, limits) {
                Ok(supplement) => self.sections.supplement_with(supplement),
                Err(cause) => tracing::debug!(cause = cause.name(), "cannot use a supplementary file"),
            }
        }
        self.sections.file.attach(source, limits.index_blocks);
        let refused = |error| self.sections.file.refused(error);
        let dwarf = self.sections.dwarf().map_err(refused)?;
        UnitIndex::build(&dwarf, self.segments.iter(), limits).map_err(refused)?
    }

    fn find(
        &self,
        index: &UnitIndex,
        source: SharedSource,
        splits: &mut SplitUnits<'_>,
        address: u64,
    ) -> Result<Vec<SourceLine>, LinesRefused> {
        self.sections.file.attach(source, self.cache.limits.lookup_blocks);
        let mut last = LinesRefused::NotCovered;
        for number in index.covering(address) {
            match self.find_in_unit(index, number, splits, address) {
                Err(LinesRefused::NotCovered) => {}
                Err(cause) => last = cause,
                Ok(lines) => return Ok(lines),
            }
        }
        Err(last)
    }

    fn find_in_unit(
        &self,
        index: &UnitIndex,
        number: u32,
        splits: &mut SplitUnits<'_>,
        address: u64,
    ) -> Result<Vec<SourceLine>, LinesRefused> {
        let (key, most) = ((self.number, number), self.cache.unit_budget);
        let unit = self.unit(key, index);
        let mut open = unit.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = open.as_mut().map_err(|cause| *cause)?;
        let lines = opened.lines(&self.sections.file, address, splits, most);
        let bytes = opened.heap_bytes();
        if let Some(cause) = opened.split_refused() {
            self.cache.refused.count(cause);
        }
        // What a library left half-done stays so.
        if let Err(cause @ (LinesRefused::Unreadable | LinesRefused::TooMuchWork)) = lines {
            *open = Err(cause);
        }
        drop(open);
        self.cache.keep(key, &unit, bytes);
        lines
    }

    fn unit(&self, key: UnitKey, index: &UnitIndex) -> Unit {
        if let Some(unit) = self.cache.unit(key) {
            return unit;
        }
        let opened =
            UnitLines::open(&self.sections, index, key.1, &self.cache.limits, self.cache.unit_budget);
        if let Err(cause) = &opened {
            tracing::debug!(unit = key.1, cause = cause.name(), "cannot read a unit's debug information");
        }
        let bytes = opened.as_ref().map_or(0, UnitLines::heap_bytes) + size_of::<UnitLines>();
        let unit = Arc::new(Mutex::new(opened));
        self.cache.keep(key, &unit, bytes);
        unit
    }
}
