//! Where members lie in the kernel's structures, from the kernel's own type information (BTF).
//!
//! Rust emits no CO-RE relocations, so the agent looks offsets up and passes them to the programs as constants.
//! Format: `include/uapi/linux/btf.h`, `Documentation/bpf/btf.rst`.

use std::path::Path;
use std::{fs, io};

/// Kind of a structure in a type's `info`.
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_POINTER: u32 = 2;
const KIND_TYPEDEF: u32 = 8;
const KIND_FUNCTION_PROTOTYPE: u32 = 13;
/// Anonymous structures inside structures that are followed to find a member.
const MAX_NESTING: u32 = 8;

/// The kernel's type information.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Where each type begins in `types`; index 0 is type 1.
    offsets: Vec<u32>,
}

/// The type information could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is not there or not readable.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The data is not BTF, or not of this machine's byte order.
    #[error("malformed BTF: {0}")]
    Malformed(&'static str),
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_kernel(path: &Path) -> Result<Self, BtfError> {
        let read = |source| BtfError::Read { path: path.display().to_string(), source };
        Self::parse(&fs::read(path).map_err(read)?)
    }

    /// Parses BTF data, header first.
    pub fn parse(data: &[u8]) -> Result<Self, BtfError> {
        let malformed = BtfError::Malformed;
        if u16_at(data, 0) != Some(0xeb9f) {
            return Err(malformed("no magic number"));
        }
        let field =
            |offset| u32_at(data, offset).map(|value| value as usize).ok_or(malformed("short header"));
        let header = field(4)?;
        let section = |offset: usize, length: usize| {
            let start = header.checked_add(offset)?;
            data.get(start..start.checked_add(length)?)
        };
        let types = section(field(8)?, field(12)?).ok_or(malformed("types lie outside"))?.to_vec();
        let strings = section(field(16)?, field(20)?).ok_or(malformed("strings lie outside"))?.to_vec();
        let offsets = type_offsets(&types).ok_or(malformed("a type is cut off or of an unknown kind"))?;
        Ok(Self { types, strings, offsets })
    }

    /// Offset in bytes of `member` in `structure`, also when it stands in an anonymous structure inside.
    pub fn member_offset(&self, structure: &str, member: &str) -> Option<u32> {
        let at = self.offsets.iter().find(|at| {
            self.kind(**at) == Some(KIND_STRUCT) && self.name(**at) == Some(structure.as_bytes())
        })?;
        let bits = self.member_bits(*at, member.as_bytes(), 0)?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Where the bit field `member` of one bit lies in `structure`: the byte's offset, and a mask for it.
    pub fn flag_position(&self, structure: &str, member: &str) -> Option<(u32, u8)> {
        let at = self.offsets.iter().find(|at| {
            self.kind(**at) == Some(KIND_STRUCT) && self.name(**at) == Some(structure.as_bytes())
        })?;
        let bits = self.member_bits(*at, member.as_bytes(), 0)?;
        // Bit fields are numbered from the least significant bit on little-endian machines.
        Some((bits / 8, 1 << (bits % 8)))
    }

    /// Which arguments of the tracepoint `name` are pointers, in order. (`typedef void (*btf_trace_NAME)(void *, …)` in
    /// `include/trace/bpf_probe.h`; the first parameter is not the tracepoint's.)
    pub fn tracepoint_pointers(&self, name: &str) -> Option<Vec<bool>> {
        let typedef = format!("btf_trace_{name}");
        let at = self.offsets.iter().find(|at| {
            self.kind(**at) == Some(KIND_TYPEDEF) && self.name(**at) == Some(typedef.as_bytes())
        })?;
        let pointer = self.referred(*at).filter(|at| self.kind(*at) == Some(KIND_POINTER))?;
        let prototype =
            self.referred(pointer).filter(|at| self.kind(*at) == Some(KIND_FUNCTION_PROTOTYPE))? as usize;
        let parameters = u32_at(&self.types, prototype + 4)? & 0xffff;
        let is_pointer = |index: u32| {
            let at = self.at(u32_at(&self.types, prototype + 12 + index as usize * 8 + 4)?)?;
            Some(self.kind(at)? == KIND_POINTER)
        };
        (1..parameters).map(is_pointer).collect()
    }

    /// Where the type that the one at `at` refers to begins.
    fn referred(&self, at: u32) -> Option<u32> {
        self.at(u32_at(&self.types, at as usize + 8)?)
    }

    /// Where type `number` begins.
    fn at(&self, number: u32) -> Option<u32> {
        self.offsets.get((number as usize).checked_sub(1)?).copied()
    }

    fn member_bits(&self, at: u32, member: &[u8], nesting: u32) -> Option<u32> {
        if nesting > MAX_NESTING {
            return None;
        }
        let at = at as usize;
        let info = u32_at(&self.types, at + 4)?;
        (0..info & 0xffff).find_map(|index| {
            let entry = at + 12 + index as usize * 12;
            // With the kind flag, the upper byte of an offset is a bit field's size.
            let mask = if info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
            let bits = u32_at(&self.types, entry + 8)? & mask;
            match self.string(u32_at(&self.types, entry)?)? {
                b"" => {
                    let inner =
                        *self.offsets.get((u32_at(&self.types, entry + 4)? as usize).checked_sub(1)?)?;
                    matches!(self.kind(inner)?, KIND_STRUCT | KIND_UNION).then_some(())?;
                    bits.checked_add(self.member_bits(inner, member, nesting + 1)?)
                }
                name => (name == member).then_some(bits),
            }
        })
    }

    fn kind(&self, at: u32) -> Option<u32> {
        Some(u32_at(&self.types, at as usize + 4)? >> 24 & 0x1f)
    }

    fn name(&self, at: u32) -> Option<&[u8]> {
        self.string(u32_at(&self.types, at as usize)?)
    }

    fn string(&self, offset: u32) -> Option<&[u8]> {
        let rest = self.strings.get(offset as usize..)?;
        rest.split(|byte| *byte == 0).next()
    }
}

/// Where each type begins; `None` when one does not end inside, or is of a kind whose length is not known.
fn type_offsets(types: &[u8]) -> Option<Vec<u32>> {
    let mut offsets = Vec::new();
    let mut at = 0usize;
    while at < types.len() {
        offsets.push(u32::try_from(at).ok()?);
        let info = u32_at(types, at + 4)?;
        let members = (info & 0xffff) as usize;
        let behind = match info >> 24 & 0x1f {
            // fwd, ptr, typedef, volatile, const, restrict, func, float, type_tag
            2 | 7..=12 | 16 | 18 => 0,
            // int, var, decl_tag
            1 | 14 | 17 => 4,
            // array
            3 => 12,
            // struct, union, datasec, enum64
            KIND_STRUCT | KIND_UNION | 15 | 19 => members * 12,
            // enum, func_proto
            6 | 13 => members * 8,
            _ => return None,
        };
        at += 12 + behind;
    }
    (at == types.len()).then_some(offsets)
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = "/sys/kernel/btf/vmlinux";

    /// Members that every kernel has lie where they must: one after the other, inside the structure; one that stands in an
    /// anonymous union is found; what does not exist is not.
    #[test]
    fn the_kernels_members_are_found() {
        let Ok(btf) = Btf::of_kernel(Path::new(KERNEL)) else { return };
        let offset = |structure, member| btf.member_offset(structure, member);
        assert_eq!(offset("list_head", "next"), Some(0));
        assert_eq!(offset("list_head", "prev"), Some(8));
        assert!(offset("task_struct", "mm").is_some_and(|offset| offset > 0));
        assert_eq!(offset("pt_regs", "r15"), Some(0));
        assert!(offset("page", "mapping").is_some_and(|offset| offset > 0), "in an anonymous union");
        assert_eq!(offset("task_struct", "no_such_member"), None);
        assert_eq!(offset("no_such_structure", "next"), None);
    }

    /// The scheduler's tracepoint has two tasks among its arguments, one behind the other, and a flag before them; a bit field lies
    /// inside its structure.
    #[test]
    fn tracepoints_arguments_are_told() {
        let Ok(btf) = Btf::of_kernel(Path::new(KERNEL)) else { return };
        let pointers = btf.tracepoint_pointers("sched_switch").expect("every kernel has it");
        assert!(matches!(
            pointers[..],
            [false, true, true] | [false, true, true, false] | [false, false, true, true]
        ));
        assert_eq!(btf.tracepoint_pointers("no_such_tracepoint"), None);
        let (offset, mask) = btf.flag_position("task_struct", "in_iowait").expect("every kernel has it");
        assert!(offset > 0 && mask.is_power_of_two());
    }

    /// Data that is cut off anywhere near a boundary, or garbled, is refused or answered without a panic.
    #[test]
    fn damaged_data_is_refused() {
        let Ok(data) = fs::read(KERNEL) else { return };
        for length in (0..64).chain([data.len() / 2, data.len() - 1]) {
            assert!(Btf::parse(&data[..length]).is_err(), "{length}");
        }
        let mut garbled = data;
        for byte in (24..4096).step_by(7) {
            garbled[byte] = garbled[byte].wrapping_mul(31).wrapping_add(17);
        }
        if let Ok(btf) = Btf::parse(&garbled) {
            btf.member_offset("task_struct", "mm");
        }
    }
}
