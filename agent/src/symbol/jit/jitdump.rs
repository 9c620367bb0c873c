//! jitdump: binary files of records, one for each function that is made or moved, which hold its name and its code
//! (`tools/perf/Documentation/jitdump-specification.txt`, version 1).
//!
//! Records carry the time at which the code was made. A frame knows no time, so here too the latest code counts.

use std::collections::HashMap;
use std::io;

use crate::symbol::jit::code_table::{Code, CodeTable};
use crate::symbol::jit::perf_map::Progress;
use crate::symbol::read_at::ReadAt;

/// `JiTD` as a number in the order of bytes of whoever wrote it.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
/// Bytes of the file's header up to its flags, which is all that version 1 has.
const HEADER: usize = 40;
/// Bytes of the header of a record: kind, size, time.
const RECORD: usize = 16;
/// Bytes of a load record before the name, of a move record, both with the header.
const LOAD: usize = RECORD + 40;
const MOVE: usize = RECORD + 48;
/// `JIT_CODE_LOAD` and `JIT_CODE_MOVE`. Debug information, unwinding information and the end are passed over.
const KIND_LOAD: u32 = 0;
const KIND_MOVE: u32 = 1;
/// Bytes read in one go. Code that is larger is not read.
const CHUNK: usize = 64 << 10;
/// Machine that this program is for (`e_machine` of ELF).
const MACHINE: u32 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

/// A file that says it is a jitdump, but cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JitdumpError {
    /// Not a jitdump.
    #[error("it begins with {0:#010x}, which is not a jitdump's magic number")]
    Magic(u32),
    /// Written in the other order of bytes.
    #[error("its magic number is {0:#010x}: it was written in the other order of bytes")]
    ByteOrder(u32),
    /// A version that is not known.
    #[error("it is of version {0}, and only 1 is known")]
    Version(u32),
    /// Code of another machine.
    #[error("its code is for machine {0} (ELF's e_machine)")]
    Machine(u32),
    /// A header that is smaller than version 1 has it.
    #[error("its header is of {0} bytes")]
    HeaderSize(u32),
}

/// Checks the file's header and returns where the records begin; `None` when the header is not all there yet.
pub(super) fn first_record(
    dump: &(impl ReadAt + ?Sized),
    end: u64,
) -> io::Result<Option<Result<u64, JitdumpError>>> {
    if end < HEADER as u64 {
        return Ok(None);
    }
    let mut header = [0; HEADER];
    dump.read_exact_at(0, &mut header)?;
    let [magic, version, size, machine] = [0, 4, 8, 12].map(|at| u32_at(&header, at));
    Ok(Some(match (magic, version, machine) {
        _ if magic == MAGIC.swap_bytes() => Err(JitdumpError::ByteOrder(magic)),
        _ if magic != MAGIC => Err(JitdumpError::Magic(magic)),
        _ if version != VERSION => Err(JitdumpError::Version(version)),
        _ if machine != MACHINE => Err(JitdumpError::Machine(machine)),
        _ if (size as usize) < HEADER => Err(JitdumpError::HeaderSize(size)),
        _ if u64::from(size) > end => return Ok(None),
        _ => Ok(size.into()),
    }))
}

/// Adds the records of `dump` from `offset` to `end` to `table`, which may grow to `limit` bytes. A record that is not all there
/// yet is left for the next look; one whose size is absurd makes the rest unreadable, which counts as `full`.
///
/// # Errors
/// When the file cannot be read, or ends before `end` because it is being rewritten.
pub(super) fn read(
    dump: &(impl ReadAt + ?Sized),
    offset: u64,
    end: u64,
    table: &mut CodeTable,
    limit: usize,
) -> io::Result<Progress> {
    let mut progress = Progress { offset, ..Progress::default() };
    let mut window = Window { dump, end, start: 0, bytes: Vec::new() };
    // Names of code that the table does not show before it has settled, by address.
    let mut fresh = HashMap::new();
    while let Some(header) = window.at(progress.offset, RECORD)? {
        let (kind, size) = (u32_at(header, 0), u32_at(header, 4));
        if (size as usize) < RECORD {
            progress.bad += 1;
            progress.full = true;
            break;
        }
        let Some(next) = progress.offset.checked_add(size.into()).filter(|next| *next <= end) else { break };
        let wanted = match kind {
            KIND_LOAD => LOAD + 1,
            KIND_MOVE => MOVE,
            _ => 0,
        };
        if wanted > 0 {
            let body = if size as usize >= wanted { window.at(progress.offset, wanted)? } else { None };
            let code = body.and_then(|record| match kind {
                KIND_LOAD => loaded(record, progress.offset),
                _ => moved(record, table, &fresh),
            });
            match code {
                Some(code) => {
                    table.push(code);
                    fresh.insert(code.start, code.name_at);
                }
                None => progress.bad += 1,
            }
        }
        progress.offset = next;
        if fresh.len() >= LONGEST_MEMORY {
            table.settle();
            fresh.clear();
        }
        if table.is_full(limit) {
            progress.full = true;
            break;
        }
    }
    table.settle();
    Ok(progress)
}

/// Entries of `fresh`: some 128 KiB.
const LONGEST_MEMORY: usize = 4096;

/// A load record: process, thread, virtual address, code address, size, index, name, code.
fn loaded(record: &[u8], at: u64) -> Option<Code> {
    let has_name = record[LOAD] != 0;
    Code::new(u64_at(record, 32), u64_at(record, 40), at + LOAD as u64).filter(|_| has_name)
}

/// A move record: process, thread, virtual address, old and new code address, size, index.
fn moved(record: &[u8], table: &CodeTable, fresh: &HashMap<u64, u32>) -> Option<Code> {
    let (old, new, size) = (u64_at(record, 32), u64_at(record, 40), u64_at(record, 48));
    let known = || table.find(old).filter(|code| code.start == old).map(|code| code.name_at);
    let name_at = fresh.get(&old).copied().or_else(known)?;
    Code::new(new, size, name_at.into())
}

/// A part of the file that was read ahead.
struct Window<'a, R: ?Sized> {
    dump: &'a R,
    end: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<R: ReadAt + ?Sized> Window<'_, R> {
    /// `length` bytes from `offset` on, at most a chunk; `None` where the file ends before.
    fn at(&mut self, offset: u64, length: usize) -> io::Result<Option<&[u8]>> {
        if self.end.saturating_sub(offset) < length as u64 {
            return Ok(None);
        }
        let end = offset + length as u64;
        if offset < self.start || end > self.start + self.bytes.len() as u64 {
            let ahead = usize::try_from(self.end - offset).unwrap_or(usize::MAX).min(CHUNK);
            self.bytes.resize(ahead, 0);
            self.start = offset;
            self.dump.read_exact_at(offset, &mut self.bytes)?;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(&self.bytes[from..from + length]))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]))
}

#[cfg(test)]
mod tests;
