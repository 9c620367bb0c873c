//! Writes small ELF files, one executable segment and one code section, with any symbols.

/// A symbol to write.
pub(super) struct Symbol {
    pub(super) name: &'static str,
    pub(super) value: u64,
    pub(super) size: u64,
    /// `st_info`: binding in the upper four bits, type in the lower.
    pub(super) info: u8,
    /// `st_shndx`: 1 is `.text`.
    pub(super) section: u16,
}

pub(super) const GLOBAL: u8 = 1 << 4;
pub(super) const WEAK: u8 = 2 << 4;
pub(super) const LOCAL: u8 = 0;
pub(super) const FUNC: u8 = 2;
pub(super) const OBJECT: u8 = 1;
pub(super) const NOTYPE: u8 = 0;
pub(super) const IFUNC: u8 = 10;

/// A function in `.text`.
pub(super) fn func(name: &'static str, value: u64, size: u64) -> Symbol {
    Symbol { name, value, size, info: GLOBAL | FUNC, section: 1 }
}

impl Symbol {
    pub(super) fn info(self, info: u8) -> Self {
        Self { info, ..self }
    }

    pub(super) fn section(self, section: u16) -> Self {
        Self { section, ..self }
    }
}

/// Offsets in the file header of the fields that tests break.
pub(super) const E_SHOFF: usize = 0x28;
pub(super) const E_SHNUM: usize = 0x3c;
/// Bytes of a section header, and the offset of `sh_size` in it.
pub(super) const SECTION_HEADER: usize = 64;
pub(super) const SH_SIZE: usize = 0x20;

/// What to write.
pub(super) struct Writer {
    pub(super) text: std::ops::Range<u64>,
    pub(super) symtab: Vec<Symbol>,
    pub(super) dynsym: Vec<Symbol>,
    pub(super) build_id: Vec<u8>,
}

impl Writer {
    pub(super) fn new(symtab: Vec<Symbol>) -> Self {
        Self { text: 0x1000..0x2000, symtab, dynsym: Vec::new(), build_id: vec![0xab; 20] }
    }

    /// File layout: header, two program headers, note, tables, section headers. `.text` has no bytes in the
    /// file but says that it starts at file offset 0x1000.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut file = vec![0; 64 + 2 * 56];
        let mut names = vec![0];
        let mut sections = vec![[0_u8; SECTION_HEADER]];
        let text_size = self.text.end - self.text.start;
        sections.push(section(&mut names, ".text", [1, 6], [self.text.start, 0x1000, text_size], 0, 0));

        let note_at = file.len();
        for word in [4, self.build_id.len() as u32, 3] {
            file.extend(word.to_le_bytes());
        }
        file.extend(b"GNU\0");
        file.extend(&self.build_id);
        let note = [0, note_at as u64, (file.len() - note_at) as u64];
        sections.push(section(&mut names, ".note.gnu.build-id", [7, 2], note, 0, 0));

        for (symbols, kind, symbols_name, strings_name) in
            [(&self.symtab, 2, ".symtab", ".strtab"), (&self.dynsym, 11, ".dynsym", ".dynstr")]
        {
            let mut strings = vec![0];
            let symbols_at = file.len();
            file.extend([0; 24]);
            for symbol in symbols {
                let name = if symbol.name.is_empty() { 0 } else { strings.len() as u32 };
                file.extend(name.to_le_bytes());
                file.extend([symbol.info, 0]);
                file.extend(symbol.section.to_le_bytes());
                file.extend(symbol.value.to_le_bytes());
                file.extend(symbol.size.to_le_bytes());
                strings.extend(symbol.name.as_bytes());
                strings.push(0);
            }
            let strings_at = file.len();
            file.extend(&strings);
            let link = sections.len() as u32 + 1;
            let place = [0, symbols_at as u64, (strings_at - symbols_at) as u64];
            sections.push(section(&mut names, symbols_name, [kind, 0], place, link, 24));
            let place = [0, strings_at as u64, strings.len() as u64];
            sections.push(section(&mut names, strings_name, [3, 0], place, 0, 0));
        }
        let names_at = file.len() as u64;
        let last = section(&mut names, ".shstrtab", [3, 0], [0, names_at, 0], 0, 0);
        sections.push(last);
        let names_len = names.len() as u64;
        sections.last_mut().unwrap()[SH_SIZE..SH_SIZE + 8].copy_from_slice(&names_len.to_le_bytes());
        file.extend(&names);
        let sections_at = file.len();
        file.extend(sections.concat());
        self.write_headers(&mut file, note, sections_at, sections.len());
        file
    }

    fn write_headers(&self, file: &mut [u8], note: [u64; 3], sections_at: usize, sections: usize) {
        let mut header = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        header.extend([3, 0, 62, 0, 1, 0, 0, 0]);
        for word in [0, 64, sections_at as u64] {
            header.extend(word.to_le_bytes());
        }
        header.extend([0; 4]);
        for half in [64_u16, 56, 2, 64, sections as u16, sections as u16 - 1] {
            header.extend(half.to_le_bytes());
        }
        let text_size = self.text.end - self.text.start;
        for (kind, flags, [address, offset, size]) in
            [(1_u32, 5_u32, [self.text.start, 0x1000, text_size]), (4, 4, note)]
        {
            header.extend(kind.to_le_bytes());
            header.extend(flags.to_le_bytes());
            for word in [offset, address, address, size, size, 4] {
                header.extend(word.to_le_bytes());
            }
        }
        file[..header.len()].copy_from_slice(&header);
    }
}

/// A section header; `place` is address, file offset, size.
fn section(
    names: &mut Vec<u8>,
    name: &str,
    [kind, flags]: [u32; 2],
    [address, offset, size]: [u64; 3],
    link: u32,
    entry_size: u64,
) -> [u8; SECTION_HEADER] {
    let mut bytes = Vec::new();
    bytes.extend((names.len() as u32).to_le_bytes());
    names.extend(name.as_bytes());
    names.push(0);
    bytes.extend(kind.to_le_bytes());
    for word in [u64::from(flags), address, offset, size] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(link.to_le_bytes());
    bytes.extend([0; 4]);
    for word in [8, entry_size] {
        bytes.extend(u64::to_le_bytes(word));
    }
    bytes.try_into().unwrap()
}
