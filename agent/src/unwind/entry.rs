//! One FDE at a time: its bytes and its CIE's, put together as a section of their own for the parser.
//!
//! The parser wants a section in memory. The file's may be many MiB, of which a text page needs a few hundred bytes; so the
//! two entries are copied into a buffer, and the base for PC-relative pointers is chosen such that the FDE seems to lie
//! where it does in the file.

use std::collections::VecDeque;

use gimli::{
    BaseAddresses, EhFrame, EhFrameOffset, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindSection as _, Vendor,
};

use super::CfiError;
use super::registers::Architecture;
use super::window::Window;
use crate::symbol::read_at::ReadAt;

/// Bytes read at once: the FDEs of 16 KiB of text take 2 to 6 KiB.
const WINDOW: usize = 8 << 10;
/// Bytes read at once for a CIE, which may lie far from its FDEs.
const CIE_WINDOW: usize = 64;
/// CIEs that are kept. Functions with and without exception handlers, which alternate, have one each.
const KEPT_CIES: usize = 4;
/// The longest FDE that is read. Those of the largest functions known take some 100 KiB.
const MAX_FDE: u64 = 1 << 20;
/// The longest CIE that is read. Known ones have less than 100 bytes.
const MAX_CIE: u64 = 1 << 10;
/// What precedes the instructions in an FDE fits into this, length field included.
const HEADER: u64 = 64;

/// The bytes that an FDE's parser reads from.
pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;

/// What a section with CFI is called, which decides how entries refer to their CIE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionKind {
    EhFrame,
    DebugFrame,
}

/// A stretch of the file with entries in it. For `.debug_frame`, which is not loaded, addresses are offsets in the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) address: u64,
    pub(super) file_offset: u64,
    pub(super) size: u64,
}

/// Where entries lie.
#[derive(Debug)]
pub(super) struct EntrySection {
    pub(super) architecture: Architecture,
    pub(super) kind: SectionKind,
    pub(super) extents: Box<[Extent]>,
    /// What a compressed section held: then the extent lies there, not in the file.
    pub(super) inflated: Option<Vec<u8>>,
}

impl EntrySection {
    /// File offset of `address`, and the bytes that follow it in its extent.
    fn locate(&self, address: u64) -> Result<(u64, u64), CfiError> {
        let found = self.extents.iter().find_map(|extent| {
            let into = address.checked_sub(extent.address).filter(|&into| into < extent.size)?;
            Some((extent.file_offset.checked_add(into)?, extent.size - into))
        });
        found.ok_or(CfiError::Malformed("an entry lies outside the file"))
    }

    /// What begins at `address`, read through `window`.
    fn start_of(&self, window: &mut Window<'_>, address: u64) -> Result<EntryStart, CfiError> {
        let (offset, room) = self.locate(address)?;
        let length = match (room >= 4).then(|| window.u32(offset)).transpose()? {
            None | Some(0) => return Ok(EntryStart::Terminator),
            Some(u32::MAX) => {
                let size = window.get(offset + 4, 8)?.try_into().map_or(0, u64::from_le_bytes);
                return Ok(EntryStart::Wide { size: size.saturating_add(12) });
            }
            Some(length) => length,
        };
        let size = u64::from(length) + 4;
        if length < 4 || size > room {
            return Err(CfiError::Malformed("an entry has an impossible length"));
        }
        let id = window.u32(offset + 4)?;
        let cie = match self.kind {
            SectionKind::EhFrame if id == 0 => None,
            SectionKind::EhFrame => Some(address.wrapping_add(4).wrapping_sub(u64::from(id))),
            SectionKind::DebugFrame if id == u32::MAX => None,
            SectionKind::DebugFrame => Some(u64::from(id)),
        };
        Ok(EntryStart::Entry { size, cie })
    }
}

/// What an entry's first eight bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryStart {
    /// A length of 0, four bytes long. Linkers leave some in the middle of sections.
    Terminator,
    /// Bytes of the whole entry, its length field included, and the address of an FDE's CIE.
    Entry { size: u64, cie: Option<u64> },
    /// An entry in 64-bit DWARF, of this size: skipped.
    Wide { size: u64 },
}

/// An FDE in a section of its own.
pub(super) struct Fde<'a> {
    pub(super) entry: FrameDescriptionEntry<Bytes<'a>>,
    pub(super) section: EhFrame<Bytes<'a>>,
    pub(super) bases: BaseAddresses,
}

/// Loads FDEs of one file. The last CIEs are kept, because neighbours share theirs.
pub(super) struct Entries<'a> {
    section: &'a EntrySection,
    window: Window<'a>,
    cie_window: Window<'a>,
    /// Address and bytes, the last loaded last.
    cies: VecDeque<(u64, Vec<u8>)>,
    buffer: Vec<u8>,
    budget: u64,
}

impl<'a> Entries<'a> {
    /// `budget` is how many bytes of entries may be loaded in all.
    pub(super) fn new(source: &'a dyn ReadAt, section: &'a EntrySection, budget: u64) -> Self {
        let source = section.inflated.as_ref().map_or(source, |inflated| inflated);
        let (window, cie_window) = (Window::new(source, WINDOW), Window::new(source, CIE_WINDOW));
        Self { section, window, cie_window, cies: VecDeque::new(), buffer: Vec::new(), budget }
    }

    /// What begins at `address`.
    pub(super) fn start_of(&mut self, address: u64) -> Result<EntryStart, CfiError> {
        self.section.start_of(&mut self.window, address)
    }

    /// The FDE at `address`.
    pub(super) fn load(&mut self, address: u64) -> Result<Fde<'_>, CfiError> {
        self.load_up_to(address, MAX_FDE)
    }

    /// The FDE at `address` without the end of a long program: good for its range only.
    pub(super) fn load_header(&mut self, address: u64) -> Result<Fde<'_>, CfiError> {
        self.load_up_to(address, HEADER)
    }

    fn load_up_to(&mut self, address: u64, most: u64) -> Result<Fde<'_>, CfiError> {
        let EntryStart::Entry { size, cie: Some(cie_address) } = self.start_of(address)? else {
            return Err(CfiError::Malformed("an FDE is none"));
        };
        if size > MAX_FDE {
            return Err(CfiError::TooLarge { what: "an FDE", bytes: size, limit: MAX_FDE });
        }
        let size = size.min(most);
        self.load_cie(cie_address)?;
        let cie = self.cies.iter().find(|(held, _)| *held == cie_address);
        let cie = cie.map_or(&[][..], |(_, bytes)| bytes);
        let at = cie.len();
        self.budget = (self.budget.checked_sub(size + at as u64))
            .ok_or(CfiError::Malformed("more entries cover the code than it can need"))?;
        let (offset, _) = self.section.locate(address)?;
        self.buffer.clear();
        self.buffer.extend_from_slice(cie);
        // The length, which may have been cut, then the way back to the CIE from its own field.
        self.buffer.extend((size as u32 - 4).to_le_bytes());
        self.buffer.extend((at as u32 + 4).to_le_bytes());
        let rest = self.window.get(offset, size as usize)?;
        self.buffer.extend_from_slice(rest.get(8..).unwrap_or_default());

        let mut section = EhFrame::new(&self.buffer, LittleEndian);
        section.set_address_size(8);
        if self.section.architecture == Architecture::Aarch64 {
            // Functions that sign their return address say so by an instruction of the vendor's.
            section.set_vendor(Vendor::AArch64);
        }
        let bases = BaseAddresses::default().set_eh_frame(address.wrapping_sub(at as u64));
        let entry = section.fde_from_offset(&bases, EhFrameOffset(at), EhFrame::cie_from_offset)?;
        Ok(Fde { entry, section, bases })
    }

    /// Makes the CIE at `address` one of those that are kept.
    fn load_cie(&mut self, address: u64) -> Result<(), CfiError> {
        if self.cies.iter().any(|(held, _)| *held == address) {
            return Ok(());
        }
        let start = self.section.start_of(&mut self.cie_window, address)?;
        let EntryStart::Entry { size, cie: None } = start else {
            return Err(CfiError::Malformed("a CIE is none"));
        };
        if size > MAX_CIE {
            return Err(CfiError::TooLarge { what: "a CIE", bytes: size, limit: MAX_CIE });
        }
        let (offset, _) = self.section.locate(address)?;
        let bytes = self.cie_window.get(offset, size as usize)?;
        let bytes = match self.section.kind {
            SectionKind::EhFrame => bytes.to_vec(),
            SectionKind::DebugFrame => as_eh_frame(bytes)?,
        };
        if self.cies.len() == KEPT_CIES {
            self.cies.pop_front();
        }
        self.cies.push_back((address, bytes));
        Ok(())
    }
}

/// A CIE of `.debug_frame` as `.eh_frame` would have it: another id, and without the sizes of addresses and segment selectors
/// that version 4 has after the augmentation string (DWARF 5, section 6.4.1).
fn as_eh_frame(cie: &[u8]) -> Result<Vec<u8>, CfiError> {
    const VERSION: usize = 8;
    let mut bytes = cie.to_vec();
    bytes.get_mut(4..VERSION).ok_or(CfiError::Malformed("a CIE is too short"))?.fill(0);
    if bytes.get(VERSION) == Some(&4) {
        let augmentation = bytes.get(VERSION + 1..).unwrap_or_default();
        let end = augmentation.iter().position(|&byte| byte == 0).map(|length| VERSION + 2 + length);
        let sizes =
            end.and_then(|end| Some(end..end + 2).filter(|sizes| bytes.get(sizes.clone()) == Some(&[8, 0])));
        let sizes = sizes.ok_or(CfiError::Unsupported("addresses that are not 64-bit"))?;
        bytes.drain(sizes);
        let length = (bytes.len() as u32).wrapping_sub(4).to_le_bytes();
        bytes.get_mut(..4).unwrap_or_default().copy_from_slice(&length);
    }
    Ok(bytes)
}
