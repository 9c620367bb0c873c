//! From the text of `/proc/kallsyms` to the packed tables, without ever holding the text.

use std::io::{self, BufRead};

use super::names::{FrontCoded, FrontCoder};
use super::{Kallsyms, KallsymsError, ModuleRun, PREFIX, PREFIXED, Segment};

/// A line holds an address, a type, a name (at most 512 bytes, `KSYM_NAME_LEN`) and a module (at most 56).
const MAX_LINE: usize = 1024;
/// Fourteen times what a large kernel has.
const MAX_SYMBOLS: usize = 2_000_000;
const MAX_NAME_BYTES: usize = 128 << 20;
const MAX_MODULES: usize = u16::MAX as usize;

/// A code symbol while loading: 16 bytes, the name in [`Collected::text`].
#[derive(Clone, Copy, Debug)]
struct Collect {
    address: u64,
    /// Offset of the name.
    name: u32,
    /// Length of the name, and [`LOCAL`] for a symbol that is not global.
    name_len: u16,
    /// Index into [`Collected::modules`] plus one; 0 for the kernel image.
    module: u16,
}

/// Above any length of a name, which a line bounds.
const LOCAL: u16 = 1 << 15;
const _: () = assert!(MAX_LINE < LOCAL as usize);

impl Collect {
    fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        let rest = text.get(self.name as usize..).unwrap_or_default();
        rest.get(..usize::from(self.name_len & !LOCAL)).unwrap_or_default()
    }

    fn is_local(&self) -> bool {
        self.name_len & LOCAL != 0
    }
}

#[derive(Debug, Default)]
struct Collected {
    text: Vec<u8>,
    symbols: Vec<Collect>,
    modules: Vec<Box<str>>,
    skipped_lines: u64,
    zero_addresses: u64,
}

/// The body of [`Kallsyms::read`].
pub(super) fn read(mut reader: impl BufRead) -> Result<Kallsyms, KallsymsError> {
    let mut collected = Collected::default();
    let mut line = Vec::with_capacity(MAX_LINE);
    while let Some(whole) = next_line(&mut reader, &mut line)? {
        match Line::parse(&line).filter(|_| whole) {
            None => collected.skipped_lines += 1,
            Some(line) if !line.is_code() => {}
            Some(line) if line.address == 0 => collected.zero_addresses += 1,
            Some(line) => collected.add(&line)?,
        }
    }
    if collected.symbols.is_empty() {
        return Err(if collected.zero_addresses > 0 {
            KallsymsError::Restricted
        } else {
            KallsymsError::NoSymbols { skipped_lines: collected.skipped_lines }
        });
    }
    collected.pack()
}

/// Reads a line without its newline into `line`; None at the end of the input, `Some(false)` when the line
/// is longer than [`MAX_LINE`] and was cut.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let (mut any, mut whole) = (false, true);
    loop {
        let buffer = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if buffer.is_empty() {
            return Ok(any.then_some(whole));
        }
        any = true;
        let newline = buffer.iter().position(|&byte| byte == b'\n');
        let taken = buffer.get(..newline.unwrap_or(buffer.len())).unwrap_or_default();
        let room = MAX_LINE - line.len();
        whole &= taken.len() <= room;
        line.extend(taken.iter().take(room));
        let consumed = taken.len() + usize::from(newline.is_some());
        reader.consume(consumed);
        if newline.is_some() {
            return Ok(Some(whole));
        }
    }
}

/// One line's fields.
#[derive(Debug)]
struct Line<'a> {
    address: u64,
    kind: u8,
    name: &'a [u8],
    module: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let digits = std::str::from_utf8(fields.next()?).ok()?;
        // `from_str_radix` would take a sign.
        let address = digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(digits)?;
        let address = u64::from_str_radix(address, 16).ok()?;
        let &[kind] = fields.next()? else { return None };
        let name = fields.next()?;
        if name.contains(&0) {
            return None;
        }
        let module = match fields.next() {
            None => None,
            Some(field) => {
                let inner = field.strip_prefix(b"[")?.strip_suffix(b"]")?;
                Some(std::str::from_utf8(inner).ok().filter(|inner| !inner.is_empty())?)
            }
        };
        fields.next().is_none().then_some(Self { address, kind, name, module })
    }

    fn is_code(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }
}

impl Collected {
    fn add(&mut self, line: &Line<'_>) -> Result<(), KallsymsError> {
        if self.symbols.len() >= MAX_SYMBOLS {
            return Err(KallsymsError::TooLarge { what: "symbols", limit: MAX_SYMBOLS as u64 });
        }
        if self.text.len() + line.name.len() >= MAX_NAME_BYTES {
            return Err(KallsymsError::TooLarge { what: "bytes of names", limit: MAX_NAME_BYTES as u64 });
        }
        let module = match line.module {
            None => 0,
            Some(module) => self.module_number(module)?,
        };
        let local = if line.kind.is_ascii_lowercase() { LOCAL } else { 0 };
        let name_len = line.name.len() as u16 | local;
        let name = self.text.len() as u32;
        self.text.extend_from_slice(line.name);
        self.symbols.push(Collect { address: line.address, name, name_len, module });
        Ok(())
    }

    /// Index plus one. The symbols of a module follow each other, so the newest module is tried first.
    fn module_number(&mut self, module: &str) -> Result<u16, KallsymsError> {
        if let Some(index) = self.modules.iter().rposition(|known| &**known == module) {
            return Ok(index as u16 + 1);
        }
        if self.modules.len() >= MAX_MODULES {
            return Err(KallsymsError::TooLarge { what: "modules", limit: MAX_MODULES as u64 });
        }
        self.modules.push(module.into());
        Ok(self.modules.len() as u16)
    }

    fn pack(mut self) -> Result<Kallsyms, KallsymsError> {
        self.keep_one_per_address();
        let Self { text, symbols, modules, skipped_lines, .. } = self;
        let (segments, offsets) = pack_addresses(&symbols);
        let runs = pack_runs(&symbols);
        let (names, ranks) = pack_names(&text, &symbols)?;
        let modules = modules.into_boxed_slice();
        Ok(Kallsyms { segments, offsets, ranks, names, runs, modules, skipped_lines })
    }

    /// Sorts by address and, of the names at one address, keeps the first in the documented order.
    fn keep_one_per_address(&mut self) {
        let text = &self.text;
        let worth = |symbol: &Collect| {
            let name = symbol.name(text);
            (symbol.is_local(), name.len(), name, symbol.module)
        };
        self.symbols.sort_unstable_by(|a, b| a.address.cmp(&b.address).then_with(|| worth(a).cmp(&worth(b))));
        self.symbols.dedup_by_key(|symbol| symbol.address);
    }
}

/// The sorted names and, parallel to `symbols`, their ranks.
fn pack_names(text: &[u8], symbols: &[Collect]) -> Result<(FrontCoded, Box<[u32]>), KallsymsError> {
    let stem_of = |index: u32| {
        let name = symbols.get(index as usize).map(|symbol| symbol.name(text)).unwrap_or_default();
        name.strip_prefix(PREFIX).map_or((name, 0), |stem| (stem, PREFIXED))
    };
    let mut by_name: Vec<u32> = (0..symbols.len() as u32).collect();
    by_name.sort_unstable_by_key(|&index| stem_of(index));
    let mut coder = FrontCoder::default();
    let mut ranks = vec![0; symbols.len()].into_boxed_slice();
    for index in by_name {
        let (stem, prefixed) = stem_of(index);
        let rank = coder
            .push(stem)
            .ok_or(KallsymsError::TooLarge { what: "bytes of names", limit: u64::from(u32::MAX) })?;
        if let Some(slot) = ranks.get_mut(index as usize) {
            *slot = rank | prefixed;
        }
    }
    Ok((coder.finish(), ranks))
}

/// `symbols` ascend by address.
fn pack_addresses(symbols: &[Collect]) -> (Box<[Segment]>, Box<[u32]>) {
    let mut segments: Vec<Segment> = Vec::new();
    let mut offsets = Vec::with_capacity(symbols.len());
    for (first, symbol) in (0..).zip(symbols) {
        let near = segments.last().and_then(|s| u32::try_from(symbol.address - s.base).ok());
        let offset = near.unwrap_or_else(|| {
            segments.push(Segment { base: symbol.address, first });
            0
        });
        offsets.push(offset);
    }
    (segments.into_boxed_slice(), offsets.into_boxed_slice())
}

fn pack_runs(symbols: &[Collect]) -> Box<[ModuleRun]> {
    let mut runs: Vec<ModuleRun> = Vec::new();
    for (first, symbol) in (0..).zip(symbols) {
        let module = symbol.module.checked_sub(1);
        if runs.last().is_none_or(|run| run.module != module) {
            runs.push(ModuleRun { first, module });
        }
    }
    runs.into_boxed_slice()
}
