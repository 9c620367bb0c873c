//! Decoding of side-band records: `MMAP2`, `COMM`, `FORK`, `EXIT`, `KSYMBOL`, `LOST`.
//!
//! Layouts: `include/uapi/linux/perf_event.h`, `enum perf_event_type`. With `sample_id_all` and
//! `PERF_SAMPLE_TIME` alone, every record ends with its time.

use perf_event_open_sys::bindings as abi;

/// Something that happened to a process, with its `CLOCK_MONOTONIC` time in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessEvent {
    /// When it happened.
    pub time: u64,
    /// What happened.
    pub what: ProcessChange,
}

/// What happened to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// Executable memory was mapped.
    Map(NewMapping),
    /// A thread got a name; `exec` when that is because it executed a new program.
    Comm {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
        /// Whether the process image was replaced.
        exec: bool,
        /// The name.
        comm: String,
    },
    /// A thread (or, when `pid != parent_pid`, a process) began.
    Fork {
        /// Process id of the new thread.
        pid: u32,
        /// Process id of the thread that made it.
        parent_pid: u32,
        /// Thread id of the new thread.
        tid: u32,
    },
    /// A thread ended.
    Exit {
        /// Process id.
        pid: u32,
        /// Thread id.
        tid: u32,
    },
}

/// Executable memory that a process has just mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMapping {
    /// Process id.
    pub pid: u32,
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// Offset of the first address in the file.
    pub file_offset: u64,
    /// Which file, as far as the kernel says.
    pub file: FileHint,
    /// The inode's generation: file systems that give an inode number to another file give that another generation. 0 where they have none.
    pub generation: u64,
    /// The file's path in the process's mount namespace, or `[vdso]`, `//anon`, …
    pub path: String,
}

/// The inode of a mapped file, a hint for finding it again. Never its identity: overlayfs gives every container another device for
/// the same layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileHint {
    /// `makedev(major, minor)`.
    pub device: u64,
    /// Inode number; 0 for memory without a file.
    pub inode: u64,
}

/// Code that the kernel has just loaded: a BPF program, or something that it generates itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCode {
    /// First address.
    pub start: u64,
    /// Length in bytes.
    pub length: u32,
    /// As in kallsyms: `bpf_prog_6deef7357e7b4530_name`.
    pub name: String,
    /// Whether it is BPF's.
    pub is_bpf: bool,
}

/// One record of the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Something happened to a process.
    Process(ProcessEvent),
    /// Kernel code was loaded; `None` when some was unloaded, of which the record says no more.
    Kernel(Option<KernelCode>),
    /// The ring was full, and so many records are missing.
    Lost(u64),
    /// A record of a type that is of no interest, or that could not be decoded.
    Other,
}

/// Decodes one whole record, header included. Never fails: what cannot be decoded is [`Record::Other`].
pub fn decode(record: &[u8]) -> Record {
    decode_known(record).unwrap_or(Record::Other)
}

fn decode_known(record: &[u8]) -> Option<Record> {
    let mut fields = Fields(record);
    let record_type = fields.u32()?;
    let misc = u32::from(fields.u16()?);
    fields.u16()?;
    if record_type == abi::PERF_RECORD_LOST {
        fields.u64()?;
        return Some(Record::Lost(fields.u64()?));
    }
    let time = fields.take_time()?;
    if record_type == abi::PERF_RECORD_KSYMBOL {
        return kernel_code(&mut fields);
    }
    let what = match record_type {
        abi::PERF_RECORD_MMAP2 => ProcessChange::Map(mapping(&mut fields)?),
        abi::PERF_RECORD_COMM => ProcessChange::Comm {
            pid: fields.u32()?,
            tid: fields.u32()?,
            exec: misc & abi::PERF_RECORD_MISC_COMM_EXEC != 0,
            comm: fields.text(),
        },
        abi::PERF_RECORD_FORK => {
            let (pid, parent_pid, tid) = (fields.u32()?, fields.u32()?, fields.u32()?);
            ProcessChange::Fork { pid, parent_pid, tid }
        }
        abi::PERF_RECORD_EXIT => {
            let (pid, _parent_pid, tid) = (fields.u32()?, fields.u32()?, fields.u32()?);
            ProcessChange::Exit { pid, tid }
        }
        _ => return None,
    };
    Some(Record::Process(ProcessEvent { time, what }))
}

/// `PERF_RECORD_MISC_MMAP_BUILD_ID` is not believed: as long as somebody else's event asks for build ids, the kernel sets it in
/// everybody's records (`perf_event_mmap_output` does not restore `misc`). Ours hold inodes, because we ask for nothing else.
fn mapping(fields: &mut Fields<'_>) -> Option<NewMapping> {
    let (pid, _tid) = (fields.u32()?, fields.u32()?);
    let (start, length, file_offset) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let (major, minor, inode) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let (generation, _protection, _flags) = (fields.u64()?, fields.u32()?, fields.u32()?);
    let file = FileHint { device: libc::makedev(major, minor), inode };
    Some(NewMapping { pid, start, length, file_offset, file, generation, path: fields.text() })
}

/// `perf_event_ksymbol` in `kernel/events/core.c`.
fn kernel_code(fields: &mut Fields<'_>) -> Option<Record> {
    let (start, length) = (fields.u64()?, fields.u32()?);
    let (kind, flags) = (u32::from(fields.u16()?), u32::from(fields.u16()?));
    let is_bpf = kind == abi::PERF_RECORD_KSYMBOL_TYPE_BPF;
    let code = KernelCode { start, length, name: fields.text(), is_bpf };
    Some(Record::Kernel((flags & abi::PERF_RECORD_KSYMBOL_FLAGS_UNREGISTER == 0).then_some(code)))
}

/// What is left to decode of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_ne_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_ne_bytes)
    }

    /// Takes the time off the record's end.
    fn take_time(&mut self) -> Option<u64> {
        let (rest, time) = self.0.split_last_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*time))
    }

    /// The text that fills the rest of the record up to its first NUL.
    fn text(&mut self) -> String {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        String::from_utf8_lossy(&self.0[..length]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(record_type: u32, misc: u32, body: &[&[u8]], time: u64) -> Vec<u8> {
        let mut bytes = record_type.to_ne_bytes().to_vec();
        bytes.extend((misc as u16).to_ne_bytes());
        let size = 8 + body.iter().map(|part| part.len()).sum::<usize>() + 8;
        bytes.extend((size as u16).to_ne_bytes());
        for part in body {
            bytes.extend_from_slice(part);
        }
        bytes.extend(time.to_ne_bytes());
        bytes
    }

    fn map_record(misc: u32, identity: &[u8; 24]) -> Vec<u8> {
        let ids = [7u32, 8].map(u32::to_ne_bytes).concat();
        let place = [0x1000u64, 0x2000, 0x3000].map(u64::to_ne_bytes).concat();
        record(
            abi::PERF_RECORD_MMAP2,
            misc,
            &[&ids, &place, identity, &[0; 8], b"/bin/true\0\0\0\0\0\0\0"],
            99,
        )
    }

    /// A mapping, also with the flag that somebody else's event puts there.
    #[test]
    fn a_mapping() {
        let mut identity = [0; 24];
        identity[..4].copy_from_slice(&8u32.to_ne_bytes());
        identity[4..8].copy_from_slice(&1u32.to_ne_bytes());
        identity[8..16].copy_from_slice(&4242u64.to_ne_bytes());
        identity[16..].copy_from_slice(&77u64.to_ne_bytes());
        let expected = NewMapping {
            pid: 7,
            start: 0x1000,
            length: 0x2000,
            file_offset: 0x3000,
            file: FileHint { device: libc::makedev(8, 1), inode: 4242 },
            generation: 77,
            path: "/bin/true".into(),
        };
        let event = ProcessEvent { time: 99, what: ProcessChange::Map(expected) };
        for misc in [0, abi::PERF_RECORD_MISC_MMAP_BUILD_ID] {
            assert_eq!(decode(&map_record(misc, &identity)), Record::Process(event.clone()));
        }
    }

    /// `COMM` with and without exec, `FORK`, `EXIT` and `LOST`.
    #[test]
    fn the_small_records() {
        let ids = [7u32, 8].map(u32::to_ne_bytes).concat();
        let comm = record(abi::PERF_RECORD_COMM, abi::PERF_RECORD_MISC_COMM_EXEC, &[&ids, b"sleep\0\0\0"], 5);
        let what = ProcessChange::Comm { pid: 7, tid: 8, exec: true, comm: "sleep".into() };
        assert_eq!(decode(&comm), Record::Process(ProcessEvent { time: 5, what }));

        let task = [7u32, 1, 8, 1].map(u32::to_ne_bytes).concat();
        let fork = record(abi::PERF_RECORD_FORK, 0, &[&task, &[0; 8]], 6);
        let what = ProcessChange::Fork { pid: 7, parent_pid: 1, tid: 8 };
        assert_eq!(decode(&fork), Record::Process(ProcessEvent { time: 6, what }));

        let exit = record(abi::PERF_RECORD_EXIT, 0, &[&task, &[0; 8]], 6);
        let what = ProcessChange::Exit { pid: 7, tid: 8 };
        assert_eq!(decode(&exit), Record::Process(ProcessEvent { time: 6, what }));

        let lost = record(abi::PERF_RECORD_LOST, 0, &[&[0; 8], &3u64.to_ne_bytes()], 6);
        assert_eq!(decode(&lost), Record::Lost(3));
    }

    /// Kernel code that is loaded, BPF's and other, and that is unloaded.
    #[test]
    fn kernel_code_is_told() {
        let told = |kind: u32, flags: u16| {
            let place = 0xffff_ffff_c000_10cc_u64.to_ne_bytes();
            let rest = [(kind as u16).to_ne_bytes(), flags.to_ne_bytes()].concat();
            let name = b"bpf_prog_1_x\0\0\0\0";
            decode(&record(abi::PERF_RECORD_KSYMBOL, 0, &[&place, &77u32.to_ne_bytes(), &rest, name], 6))
        };
        let code = |is_bpf| {
            let name = "bpf_prog_1_x".to_owned();
            Record::Kernel(Some(KernelCode { start: 0xffff_ffff_c000_10cc, length: 77, name, is_bpf }))
        };
        assert_eq!(told(abi::PERF_RECORD_KSYMBOL_TYPE_BPF, 0), code(true));
        assert_eq!(told(abi::PERF_RECORD_KSYMBOL_TYPE_OOL, 0), code(false));
        assert_eq!(told(abi::PERF_RECORD_KSYMBOL_TYPE_BPF, 1), Record::Kernel(None));
    }

    /// Records cut off anywhere are refused without a panic.
    #[test]
    fn truncated_records_are_other() {
        let whole = map_record(0, &[0; 24]);
        for length in 0..80 {
            assert_eq!(decode(&whole[..length.min(whole.len())]), Record::Other, "{length}");
        }
    }
}
