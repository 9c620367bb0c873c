//! `NT_GNU_BUILD_ID` among the notes of a file.

use object::LittleEndian as LE;
use object::elf::{ELF_NOTE_GNU, NT_GNU_BUILD_ID, NoteHeader64};
use object::pod;

use crate::build_id::BuildId;

/// Notes read from one segment or section, in bytes. Build ids come within the first hundred.
pub(super) const MAX_NOTE_BYTES: u64 = 64 * 1024;

/// The build id in `notes`, the contents of a `PT_NOTE` segment or an `SHT_NOTE` section.
///
/// `align` is that of the segment: 8 pads names and descriptors to 8 bytes (`.note.gnu.property`), all else
/// to 4 (gabi, chapter 5, "Note Section").
pub(super) fn build_id(mut notes: &[u8], align: u64) -> Option<BuildId> {
    let align = if align == 8 { 8 } else { 4 };
    while let Ok((header, rest)) = pod::from_bytes::<NoteHeader64<LE>>(notes) {
        let name_bytes = header.n_namesz.get(LE) as usize;
        let descriptor_bytes = header.n_descsz.get(LE) as usize;
        let header_bytes = size_of::<NoteHeader64<LE>>();
        let descriptor_start = padded(header_bytes.checked_add(name_bytes)?, align)?;
        let descriptor_end = descriptor_start.checked_add(descriptor_bytes)?;
        let name = rest.get(..name_bytes)?;
        let descriptor = notes.get(descriptor_start..descriptor_end)?;
        if header.n_type.get(LE) == NT_GNU_BUILD_ID && name.strip_suffix(&[0]) == Some(ELF_NOTE_GNU) {
            return BuildId::new(descriptor);
        }
        // The padding after the last descriptor may be missing.
        notes = notes.get(padded(descriptor_end, align)?..)?;
    }
    None
}

fn padded(length: usize, align: usize) -> Option<usize> {
    length.checked_next_multiple_of(align)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, descriptor: &[u8], align: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, descriptor.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes.extend(descriptor);
        bytes.resize(bytes.len().next_multiple_of(align), 0);
        bytes
    }

    /// The build id is found behind other notes, in both paddings, and only under the owner "GNU".
    #[test]
    fn finds_the_build_id_among_other_notes() {
        for align in [4, 8] {
            let mut notes = note(b"GNU\0", 5, &[7; 20], align);
            notes.extend(note(b"Go\0", 3, &[1; 20], align));
            notes.extend(note(b"GNU\0", 3, &[9, 8, 7], align));
            assert_eq!(build_id(&notes, align as u64).unwrap().as_bytes(), [9, 8, 7]);
        }
        assert_eq!(build_id(&note(b"Go\0", 3, &[1; 20], 4), 4), None);
    }

    /// Lengths that point outside the notes end the search.
    #[test]
    fn survives_absurd_lengths() {
        let mut notes = note(b"GNU\0", 3, &[1; 20], 4);
        for at in [0, 4] {
            notes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert_eq!(build_id(&notes, 4), None);
        }
        assert_eq!(build_id(&[0; 12], 4), None);
        assert_eq!(build_id(&[], 8), None);
    }
}
