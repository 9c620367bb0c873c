//! The headers of an ELF file: segments, sections, build id.

use std::mem::size_of_val;

use object::LittleEndian as LE;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, FileHeader64, FileType, Machine, PF_X, PN_XNUM, PT_GNU_EH_FRAME,
    PT_LOAD, PT_NOTE, ProgramHeader64, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS, SHT_NOTE, SectionFlags,
    SectionHeader64, SectionType,
};

use super::table::{Strings, Table, read_bytes, read_record};
use super::{ElfError, ElfLimits, note};
use crate::build_id::BuildId;
use crate::symbol::read_at::ReadAt;

/// A program header: a range of the file and where the loader maps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset in the file of the first byte (`p_offset`).
    pub file_offset: u64,
    /// Bytes taken from the file (`p_filesz`).
    pub file_size: u64,
    /// Address the file was linked for (`p_vaddr`): what symbols and unwind tables use.
    pub address: u64,
    /// Bytes in memory (`p_memsz`).
    pub memory_size: u64,
    /// Whether `PF_X` is set.
    pub executable: bool,
}

/// A section header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Offset of the name in the section name string table.
    pub name: u32,
    /// `sh_type`.
    pub kind: SectionType,
    /// `sh_flags`.
    pub flags: SectionFlags,
    /// Address the section was linked for; 0 when it is not loaded.
    pub address: u64,
    /// Offset in the file of the first byte.
    pub file_offset: u64,
    /// Bytes, in the file unless `kind` is `SHT_NOBITS`.
    pub size: u64,
    /// `sh_link`: for a symbol table the index of its string table.
    pub link: u32,
}

impl Section {
    /// Whether the section holds code that is loaded.
    pub fn is_code(&self) -> bool {
        self.flags.0 & SHF_EXECINSTR.0 != 0 && self.flags.0 & SHF_ALLOC.0 != 0
    }

    /// Whether the file holds the section's bytes. In a separate debug file it does not hold the code's.
    pub fn is_in_file(&self) -> bool {
        self.kind != SHT_NOBITS
    }
}

/// The headers of one ELF file.
#[derive(Debug)]
pub struct ElfImage {
    elf_type: FileType,
    machine: Machine,
    segments: Box<[Segment]>,
    unwind_header: Option<Segment>,
    sections: Box<[Section]>,
    section_names: Strings,
    build_id: Option<BuildId>,
}

impl ElfImage {
    /// Reads the headers and the build id of a 64-bit little-endian ELF file.
    ///
    /// # Errors
    /// [`ElfError::NotElf`] and [`ElfError::Unsupported`] by the first bytes; [`ElfError::Malformed`] and
    /// [`ElfError::TooLarge`] for header tables that do not fit the file or the limits.
    pub fn parse(source: &dyn ReadAt, limits: &ElfLimits) -> Result<Self, ElfError> {
        let header = read_file_header(source)?;
        let counts = HeaderCounts::new(source, &header)?;
        let Segments { loaded: segments, unwind_header, mut notes } =
            read_segments(source, &header, counts.programs, limits)?;
        let sections = read_sections(source, &header, counts.sections, limits)?;
        let of_sections = sections.iter().filter(|section| section.kind == SHT_NOTE);
        // An alignment of 4 or 8 is the linker's only choice for notes; sections do not keep theirs here.
        notes.extend(of_sections.map(|section| (section.file_offset, section.size, 4)));
        let section_names = sections
            .get(counts.names as usize)
            .map(|section| Strings::new(source, section.file_offset, section.size))
            .unwrap_or_default();
        Ok(Self {
            elf_type: header.e_type.get(LE),
            machine: header.e_machine.get(LE),
            segments,
            unwind_header,
            sections,
            section_names,
            build_id: find_build_id(source, &notes),
        })
    }

    /// `ET_EXEC`, `ET_DYN`, …
    pub fn elf_type(&self) -> FileType {
        self.elf_type
    }

    /// `EM_X86_64`, `EM_AARCH64`, …
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// The GNU build id, from a `PT_NOTE` segment, else from an `SHT_NOTE` section.
    pub fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// All `PT_LOAD` segments, in the order of the program headers.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The `PT_LOAD` segments with code.
    pub fn executable_segments(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.executable)
    }

    /// The first `PT_GNU_EH_FRAME` segment: `.eh_frame_hdr`, as the loader knows it without section headers.
    pub fn unwind_header(&self) -> Option<&Segment> {
        self.unwind_header.as_ref()
    }

    /// The executable segment with the most bytes in memory; of equals the first.
    pub fn text_segment(&self) -> Option<&Segment> {
        self.executable_segments().min_by_key(|segment| std::cmp::Reverse(segment.memory_size))
    }

    /// All section headers, index 0 included; empty when the file has none.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The first section of that name. Names are compared in the file, none is kept.
    pub fn section_named(&self, source: &dyn ReadAt, name: &str) -> Option<&Section> {
        self.sections.iter().skip(1).find(|section| {
            // One byte more, so that a longer name differs.
            let found = self.section_names.read(source, u64::from(section.name), name.len() + 1);
            found.is_ok_and(|found| found == name.as_bytes())
        })
    }

    /// The link-time address of the byte at `file_offset`, as `PT_LOAD` headers map it; an executable segment
    /// wins where two contain it. None outside every segment's file bytes.
    pub fn file_offset_to_address(&self, file_offset: u64) -> Option<u64> {
        let within = |segment: &&Segment| {
            file_offset.checked_sub(segment.file_offset).is_some_and(|into| into < segment.file_size)
        };
        let code = self.executable_segments().find(within);
        let segment = code.or_else(|| self.segments.iter().find(within))?;
        segment.address.checked_add(file_offset - segment.file_offset)
    }

    /// Heap bytes held.
    pub fn heap_bytes(&self) -> usize {
        let build_id = self.build_id.as_ref().map_or(0, |id| id.as_bytes().len() + 2 * size_of::<usize>());
        size_of_val(&*self.segments) + size_of_val(&*self.sections) + build_id
    }
}

fn read_file_header(source: &dyn ReadAt) -> Result<FileHeader64<LE>, ElfError> {
    if source.len() < size_of::<FileHeader64<LE>>() as u64 {
        return Err(ElfError::NotElf);
    }
    let header: FileHeader64<LE> = read_record(source, "file header", 0)?;
    if header.e_ident.magic != ELFMAG {
        return Err(ElfError::NotElf);
    }
    if header.e_ident.class != ELFCLASS64 {
        return Err(ElfError::Unsupported("not 64-bit"));
    }
    if header.e_ident.data != ELFDATA2LSB {
        return Err(ElfError::Unsupported("not little endian"));
    }
    Ok(header)
}

/// Table lengths, which the file header alone cannot always hold (gabi, chapter 4, "ELF Header").
struct HeaderCounts {
    programs: u64,
    sections: u64,
    /// Index of the section with the section names.
    names: u32,
}

impl HeaderCounts {
    fn new(source: &dyn ReadAt, header: &FileHeader64<LE>) -> Result<Self, ElfError> {
        let mut counts = Self {
            programs: u64::from(header.e_phnum.get(LE)),
            sections: u64::from(header.e_shnum.get(LE)),
            names: u32::from(header.e_shstrndx.get(LE).0),
        };
        let offset = header.e_shoff.get(LE);
        if offset == 0 {
            counts.sections = 0;
            return Ok(counts);
        }
        // Each has an escape value that says to look into section 0.
        let escaped = counts.sections == 0
            || header.e_phnum.get(LE) == PN_XNUM
            || header.e_shstrndx.get(LE) == object::elf::SHN_XINDEX;
        if escaped {
            let first: SectionHeader64<LE> = read_record(source, "section header 0", offset)?;
            if counts.sections == 0 {
                counts.sections = first.sh_size.get(LE);
            }
            if header.e_phnum.get(LE) == PN_XNUM {
                counts.programs = u64::from(first.sh_info.get(LE));
            }
            if header.e_shstrndx.get(LE) == object::elf::SHN_XINDEX {
                counts.names = first.sh_link.get(LE);
            }
        }
        Ok(counts)
    }
}

/// (file offset, size, alignment) of notes.
type NoteRange = (u64, u64, u64);

/// What the program headers say.
struct Segments {
    loaded: Box<[Segment]>,
    unwind_header: Option<Segment>,
    notes: Vec<NoteRange>,
}

fn read_segments(
    source: &dyn ReadAt,
    header: &FileHeader64<LE>,
    count: u64,
    limits: &ElfLimits,
) -> Result<Segments, ElfError> {
    let what = "program header table";
    if count > 0 && usize::from(header.e_phentsize.get(LE)) != size_of::<ProgramHeader64<LE>>() {
        return Err(ElfError::Malformed { what, reason: "has entries of an unknown size" });
    }
    let table =
        Table::new::<ProgramHeader64<LE>>(source, what, header.e_phoff.get(LE), count, limits.header_bytes)?;
    let (mut loaded, mut unwind_header, mut notes) = (Vec::new(), None, Vec::new());
    table.for_each(source, |_, program: &ProgramHeader64<LE>| {
        let segment = Segment {
            file_offset: program.p_offset.get(LE),
            file_size: program.p_filesz.get(LE),
            address: program.p_vaddr.get(LE),
            memory_size: program.p_memsz.get(LE),
            executable: program.p_flags.get(LE).0 & PF_X.0 != 0,
        };
        let kind = program.p_type.get(LE);
        if kind == PT_NOTE {
            notes.push((segment.file_offset, segment.file_size, program.p_align.get(LE)));
        } else if kind == PT_GNU_EH_FRAME {
            unwind_header.get_or_insert(segment);
        } else if kind == PT_LOAD {
            let wraps = segment.file_offset.checked_add(segment.file_size).is_none()
                || segment.address.checked_add(segment.memory_size).is_none();
            if wraps {
                return Err(ElfError::Malformed { what: "segment", reason: "wraps around" });
            }
            loaded.push(segment);
        }
        Ok(())
    })?;
    Ok(Segments { loaded: loaded.into_boxed_slice(), unwind_header, notes })
}

fn read_sections(
    source: &dyn ReadAt,
    header: &FileHeader64<LE>,
    count: u64,
    limits: &ElfLimits,
) -> Result<Box<[Section]>, ElfError> {
    let what = "section header table";
    if count > 0 && usize::from(header.e_shentsize.get(LE)) != size_of::<SectionHeader64<LE>>() {
        return Err(ElfError::Malformed { what, reason: "has entries of an unknown size" });
    }
    let table =
        Table::new::<SectionHeader64<LE>>(source, what, header.e_shoff.get(LE), count, limits.header_bytes)?;
    let mut sections = Vec::with_capacity(count as usize);
    table.for_each(source, |_, section: &SectionHeader64<LE>| {
        sections.push(Section {
            name: section.sh_name.get(LE),
            kind: section.sh_type.get(LE),
            flags: section.sh_flags.get(LE),
            address: section.sh_addr.get(LE),
            file_offset: section.sh_offset.get(LE),
            size: section.sh_size.get(LE),
            link: section.sh_link.get(LE),
        });
        Ok(())
    })?;
    Ok(sections.into_boxed_slice())
}

/// A file has a handful of notes; more than this is an attempt to keep the reader busy.
const MAX_NOTE_RANGES: usize = 64;

fn find_build_id(source: &dyn ReadAt, notes: &[NoteRange]) -> Option<BuildId> {
    notes.iter().take(MAX_NOTE_RANGES).find_map(|&(offset, size, align)| {
        // A separate debug file's program headers may point past its end: that note is none.
        let size = size.min(note::MAX_NOTE_BYTES);
        let bytes = read_bytes(source, "notes", offset, size, note::MAX_NOTE_BYTES).ok()?;
        note::build_id(&bytes, align)
    })
}
