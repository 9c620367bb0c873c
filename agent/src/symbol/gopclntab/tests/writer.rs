//! Writes small ELF files without sections that have Go tables of any layout.
//!
//! Code at file offset 0x1000, linked for [`TEXT`]; tables at 0x3000, linked for [`TABLES`]; then the runtime's description of the
//! program, linked for [`DATA`].

use super::super::header::Layout;

pub(crate) const TEXT: u64 = 0x40_1000;
pub(crate) const TEXT_BYTES: u64 = 0x2000;
pub(crate) const TABLES: u64 = 0x50_0000;
const TABLES_AT: usize = 0x3000;
const DATA: u64 = 0x60_0000;

/// A function to write. Tables are (value, bytes of code it holds for).
#[derive(Clone, Default)]
pub(crate) struct Function {
    pub(crate) name: &'static str,
    /// Bytes from the text's beginning.
    pub(crate) start: u64,
    pub(crate) id: u8,
    pub(crate) flags: u8,
    pub(crate) stack: Vec<(i32, u32)>,
    /// Indexes of the file's two names.
    pub(crate) files: Vec<(i32, u32)>,
    pub(crate) lines: Vec<(i32, u32)>,
    /// Indexes into `inlined`, -1 for none.
    pub(crate) inline: Vec<(i32, u32)>,
    /// Name, and where in the function the call is.
    pub(crate) inlined: Vec<(&'static str, u32)>,
}

pub(crate) fn function(name: &'static str, start: u64, stack: &[(i32, u32)]) -> Function {
    Function { name, start, stack: stack.to_vec(), ..Function::default() }
}

/// What to write.
pub(crate) struct Writer {
    pub(crate) layout: Layout,
    /// Whether the header says where the text is; from Go 1.26 on it does not.
    pub(crate) says_text: bool,
    pub(crate) functions: Vec<Function>,
    pub(crate) code: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(layout: Layout, functions: Vec<Function>) -> Self {
        Self { layout, says_text: true, functions, code: Vec::new() }
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut parts = Parts::default();
        parts.files.extend(b"/one.go\0/two.go\0");
        parts.units = [0_u32, 8].iter().flat_map(|file| file.to_le_bytes()).collect();
        // Offset 0 is no table.
        parts.values.push(0);
        let entry_bytes = if self.layout == Layout::Go116 { 16 } else { 8 };
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut functab = Vec::new();
        let mut offset = self.functions.len() * entry_bytes + entry_bytes / 2;
        offset += (8 - offset % 8) % 8;
        for function in &self.functions {
            self.entry(&mut functab, function.start, Some(offset as u64));
            let record = self.record(&mut parts, function);
            offset += record.len();
            records.push(record);
        }
        self.entry(&mut functab, TEXT_BYTES, None);
        functab.resize(functab.len() + (8 - functab.len() % 8) % 8, 0);
        functab.extend(records.concat());
        self.file(&parts, &functab)
    }

    fn entry(&self, functab: &mut Vec<u8>, start: u64, record: Option<u64>) {
        if self.layout == Layout::Go116 {
            functab.extend((TEXT + start).to_le_bytes());
            functab.extend(record.iter().flat_map(|record| record.to_le_bytes()));
        } else {
            functab.extend((start as u32).to_le_bytes());
            functab.extend(record.iter().flat_map(|record| (*record as u32).to_le_bytes()));
        }
    }

    fn record(&self, parts: &mut Parts, function: &Function) -> Vec<u8> {
        let tree = self.tree(parts, function);
        let tables = [&function.stack, &function.files, &function.lines, &function.inline];
        let [stack, files, lines, inline] = tables.map(|runs| parts.table(runs));
        let mut record = Vec::new();
        match self.layout {
            Layout::Go116 => record.extend((TEXT + function.start).to_le_bytes()),
            _ => record.extend((function.start as u32).to_le_bytes()),
        }
        let name = parts.name(function.name);
        for word in [name, 0, 0, stack, files, lines, 3, 0] {
            record.extend(word.to_le_bytes());
        }
        if self.layout == Layout::Go120 {
            record.extend(7_u32.to_le_bytes());
        }
        record.extend([function.id, function.flags, 0, 4]);
        for word in [0, 0, inline] {
            record.extend(word.to_le_bytes());
        }
        if self.layout == Layout::Go116 {
            record.resize(record.len() + (8 - record.len() % 8) % 8, 0);
            for index in 0..4 {
                let tree = tree.filter(|_| index == 3).map_or(0, |tree| TABLES + FUNC_DATA + u64::from(tree));
                record.extend(tree.to_le_bytes());
            }
        } else {
            for index in 0..4 {
                record.extend(tree.filter(|_| index == 3).unwrap_or(u32::MAX).to_le_bytes());
            }
        }
        record.resize(record.len() + (8 - record.len() % 8) % 8, 0);
        record
    }

    fn tree(&self, parts: &mut Parts, function: &Function) -> Option<u32> {
        let start = parts.trees.len() as u32;
        for (name, call) in &function.inlined {
            let name = parts.name(name);
            let words: &[u32] =
                if self.layout == Layout::Go120 { &[0, name, *call, 1] } else { &[0, 0, 9, name, *call] };
            parts.trees.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        (!function.inlined.is_empty()).then_some(start)
    }

    /// Header, parts at fixed places, the description.
    fn file(&self, parts: &Parts, functab: &[u8]) -> Vec<u8> {
        let magic: u32 = match self.layout {
            Layout::Go116 => 0xffff_fffa,
            Layout::Go118 => 0xffff_fff0,
            Layout::Go120 => 0xffff_fff1,
        };
        let text = if self.says_text { TEXT } else { 0 };
        let count = self.functions.len() as u64;
        let offsets = [NAMES, UNITS, FILES, VALUES, FUNCTAB];
        let mut tables = [&magic.to_le_bytes()[..], &[0, 0, 1, 8]].concat();
        let text_word: &[u64] = if self.layout == Layout::Go116 { &[] } else { &[text] };
        for word in [&[count, 2], text_word, &offsets].concat() {
            tables.extend(word.to_le_bytes());
        }
        let all = [&parts.names, &parts.units, &parts.files, &parts.values];
        for (offset, part) in offsets.into_iter().zip(all.map(Vec::as_slice).into_iter().chain([functab])) {
            put(&mut tables, offset, part);
        }
        put(&mut tables, FUNC_DATA, &parts.trees);
        let section = [0, TEXT_BYTES, TEXT].map(u64::to_le_bytes).concat();
        put(&mut tables, SECTIONS, &section);
        let data_at = (TABLES_AT + tables.len()).next_multiple_of(0x1000);
        let mut file = header([
            (0x1000, TEXT, TEXT_BYTES, 5),
            (TABLES_AT as u64, TABLES, tables.len() as u64, 4),
            (data_at as u64, DATA, 0x400, 6),
        ]);
        put(&mut file, 0x1000, &self.code);
        put(&mut file, TABLES_AT as u64, &tables);
        put(&mut file, data_at as u64 + 0x20, &self.description(offsets));
        file.resize(data_at + 0x400, 0);
        file
    }

    /// As `runtime.moduledata` begins in Go 1.19, 1.20 and 1.27: what lies between differs in length.
    fn description(&self, offsets: [u64; 5]) -> Vec<u8> {
        let mut words = vec![0; 34];
        words[0] = TABLES;
        for (place, offset) in [1, 4, 7, 10, 16].into_iter().zip(offsets) {
            words[place] = TABLES + offset;
        }
        words[13] = TABLES + FUNCTAB;
        words[22] = TEXT;
        words[23] = TEXT + TEXT_BYTES;
        let between = match (self.layout, self.says_text) {
            (Layout::Go116 | Layout::Go118, _) => 4,
            (Layout::Go120, true) => 6,
            (Layout::Go120, false) => 9,
        };
        words.extend(std::iter::repeat_n(0, between - 1));
        words.push(TABLES - 0x1000);
        words.push(TABLES + FUNC_DATA);
        if !self.says_text {
            words.push(TABLES + SECTIONS + 24);
        }
        words.extend([TABLES + SECTIONS, 1, 1]);
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

const NAMES: u64 = 0x60;
const UNITS: u64 = 0x800;
const FILES: u64 = 0x840;
const VALUES: u64 = 0x880;
const FUNCTAB: u64 = 0x1800;
const FUNC_DATA: u64 = 0x3000;
const SECTIONS: u64 = 0x3800;

#[derive(Default)]
struct Parts {
    names: Vec<u8>,
    units: Vec<u8>,
    files: Vec<u8>,
    values: Vec<u8>,
    trees: Vec<u8>,
}

impl Parts {
    fn name(&mut self, name: &str) -> u32 {
        let at = self.names.len();
        self.names.extend(name.as_bytes());
        self.names.push(0);
        at as u32
    }

    /// Offset of the table with these runs; 0 for none.
    fn table(&mut self, runs: &[(i32, u32)]) -> u32 {
        if runs.is_empty() {
            return 0;
        }
        let at = self.values.len();
        let mut last = -1;
        for (value, length) in runs {
            let delta: i32 = value - last;
            varint(&mut self.values, (delta << 1 ^ delta >> 31) as u32);
            varint(&mut self.values, *length);
            last = *value;
        }
        self.values.push(0);
        at as u32
    }
}

fn varint(to: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let end = at as usize + bytes.len();
    file.resize(file.len().max(end), 0);
    file[at as usize..end].copy_from_slice(bytes);
}

/// File and program headers of an x86-64 program; (offset, address, size, flags) of each segment.
fn header(segments: [(u64, u64, u64, u32); 3]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [TEXT, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [0_u16, 0, 64, 56, 3, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for (offset, address, size, flags) in segments {
        file.extend([1_u32, flags].iter().flat_map(|word| word.to_le_bytes()));
        file.extend(
            [offset, address, address, size, size, 0x1000].iter().flat_map(|word| word.to_le_bytes()),
        );
    }
    file
}
