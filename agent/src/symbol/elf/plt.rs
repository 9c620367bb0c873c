//! PLT stubs: which imported function each jumps to.
//!
//! A stub loads its target from a slot of the GOT, and a relocation says which symbol the loader puts into
//! that slot. So stubs are found by decoding the one load, whatever the layout of the PLT: `.plt`,
//! `.plt.sec` (CET) and `.plt.got`, of GNU ld and lld. Layouts: the x86-64 psABI, section 5.2 and 13.2, and
//! the linkers' aarch64 stubs (`adrp x16; ldr x17; add; br x17`).

use object::LittleEndian as LE;
use object::elf::{
    EM_AARCH64, EM_X86_64, R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT,
    Rela64, SHT_DYNSYM, SHT_RELA, Sym64,
};

use super::candidates::SymbolTable;
use super::table::{Table, read_bytes};
use super::{ElfError, ElfImage, ElfLimits, Section};
use crate::symbol::read_at::ReadAt;

/// Stubs read from one section, in bytes: 65,536 of 16 bytes.
const MAX_PLT_BYTES: u64 = 1 << 20;
/// Relocations read from one section, in bytes. `.rela.plt` stays far below; a `.rela.dyn` above this is
/// one of millions of relative relocations, not worth reading for the few stubs of `.plt.got`.
const MAX_RELOCATION_BYTES: u64 = 4 << 20;

/// A stub and the name of what it calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PltStub {
    pub(super) address: u64,
    /// Bytes up to the next stub, at most 24.
    pub(super) size: u32,
    /// Offset of the name in `.dynsym`'s string table.
    pub(super) name: u32,
}

/// The stubs whose target is known by name; none for other machines than x86_64 and aarch64.
pub(super) fn stubs(
    source: &dyn ReadAt,
    image: &ElfImage,
    limits: &ElfLimits,
) -> Result<Vec<PltStub>, ElfError> {
    let mut stubs = Vec::new();
    let names = [".plt", ".plt.sec", ".plt.got"];
    let sections: Vec<&Section> = names
        .iter()
        .filter_map(|name| image.section_named(source, name))
        .filter(|section| section.is_code() && section.is_in_file() && section.size > 0)
        .collect();
    let dynsym = SymbolTable::find(source, image, SHT_DYNSYM, limits)?;
    let Some(dynsym) = dynsym.filter(|_| !sections.is_empty()) else { return Ok(stubs) };
    let slots = got_slots(source, image)?;
    for section in sections {
        let code = read_bytes(source, "PLT", section.file_offset, section.size, MAX_PLT_BYTES)?;
        let found = match image.machine() {
            EM_X86_64 => x86_64_stubs(&code, section.address),
            EM_AARCH64 => aarch64_stubs(&code, section.address),
            _ => return Ok(stubs),
        };
        name_stubs(source, &found, section, &slots, &dynsym, &mut stubs)?;
    }
    Ok(stubs)
}

/// A decoded stub: where it starts and which GOT slot it loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decoded {
    address: u64,
    slot: u64,
}

fn name_stubs(
    source: &dyn ReadAt,
    found: &[Decoded],
    section: &Section,
    slots: &[(u64, u32)],
    dynsym: &SymbolTable,
    stubs: &mut Vec<PltStub>,
) -> Result<(), ElfError> {
    let ends = found.iter().skip(1).map(|next| next.address);
    let ends = ends.chain([section.address.saturating_add(section.size)]);
    for (stub, end) in found.iter().zip(ends) {
        let Ok(slot) = slots.binary_search_by_key(&stub.slot, |slot| slot.0) else { continue };
        let Some(&(_, symbol)) = slots.get(slot) else { continue };
        let symbol: Option<Sym64<LE>> = dynsym.symbols.get(source, u64::from(symbol))?;
        let name = symbol.map_or(0, |symbol| symbol.st_name.get(LE));
        if name != 0 {
            let size = end.saturating_sub(stub.address).min(24) as u32;
            stubs.push(PltStub { address: stub.address, size, name });
        }
    }
    Ok(())
}

/// (address of the GOT slot, index of the dynamic symbol) by ascending address.
fn got_slots(source: &dyn ReadAt, image: &ElfImage) -> Result<Vec<(u64, u32)>, ElfError> {
    let types = match image.machine() {
        EM_X86_64 => [R_X86_64_JUMP_SLOT, R_X86_64_GLOB_DAT],
        EM_AARCH64 => [R_AARCH64_JUMP_SLOT, R_AARCH64_GLOB_DAT],
        _ => return Ok(Vec::new()),
    };
    let mut slots = Vec::new();
    let is_dynsym =
        |link: u32| image.sections().get(link as usize).is_some_and(|section| section.kind == SHT_DYNSYM);
    let small = |section: &&Section| section.size <= MAX_RELOCATION_BYTES;
    let sections = image.sections().iter().filter(|s| s.kind == SHT_RELA && is_dynsym(s.link));
    // A file has two such sections.
    for section in sections.filter(small).take(4) {
        let count = section.size / size_of::<Rela64<LE>>() as u64;
        let table = Table::new::<Rela64<LE>>(
            source,
            "relocation table",
            section.file_offset,
            count,
            MAX_RELOCATION_BYTES,
        )?;
        table.for_each(source, |_, relocation: &Rela64<LE>| {
            if types.contains(&relocation.r_type(LE, false)) {
                slots.push((relocation.r_offset.get(LE), relocation.r_sym(LE, false)));
            }
            Ok(())
        })?;
    }
    slots.sort_unstable();
    Ok(slots)
}

/// `[endbr64] [bnd] jmp *slot(%rip)`.
fn x86_64_stubs(code: &[u8], address: u64) -> Vec<Decoded> {
    const JUMP: [u8; 2] = [0xff, 0x25];
    let mut stubs = Vec::new();
    let mut position = 0;
    while let Some(rest) = code.get(position..) {
        let Some((&[first, second, d0, d1, d2, d3], _)) = rest.split_first_chunk::<6>() else { break };
        if [first, second] != JUMP {
            position += 1;
            continue;
        }
        let displacement = i64::from(i32::from_le_bytes([d0, d1, d2, d3]));
        let end = address.wrapping_add(position as u64 + 6);
        let before = code.get(..position).unwrap_or_default();
        let unbound = before.strip_suffix(&[0xf2]).unwrap_or(before);
        let start = unbound.strip_suffix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(unbound).len();
        stubs.push(Decoded {
            address: address.wrapping_add(start as u64),
            slot: end.wrapping_add_signed(displacement),
        });
        position += 6;
    }
    stubs
}

/// `[bti c] adrp x16, page; ldr x17, [x16, #offset]`.
fn aarch64_stubs(code: &[u8], address: u64) -> Vec<Decoded> {
    const BTI_C: u32 = 0xd503_245f;
    let (words, _) = code.as_chunks::<4>();
    let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    let mut stubs = Vec::new();
    let mut previous = 0;
    for (pair, position) in words.windows(2).zip((0_u64..).step_by(4)) {
        let &[adrp, ldr] = pair else { continue };
        let at = address.wrapping_add(position);
        let is_load = adrp & 0x9f00_001f == 0x9000_0010 && ldr & 0xffc0_03ff == 0xf940_0211;
        if is_load {
            let pages = (adrp >> 5 & 0x7_ffff) << 2 | (adrp >> 29 & 3);
            // 21 bits, signed.
            let pages = i64::from((pages << 11).cast_signed() >> 11);
            let page = (at & !0xfff).wrapping_add_signed(pages * 4096);
            let offset = u64::from(ldr >> 10 & 0xfff) * 8;
            let start = if previous == BTI_C { at.wrapping_sub(4) } else { at };
            stubs.push(Decoded { address: start, slot: page.wrapping_add(offset) });
        }
        previous = adrp;
    }
    stubs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stubs of the three x86_64 layouts, as GNU ld writes them.
    #[test]
    fn decodes_x86_64_stubs() {
        let mut code = vec![0xff, 0x25, 0x10, 0, 0, 0, 0x68, 0, 0, 0, 0, 0xe9, 0, 0, 0, 0];
        code.extend([0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0]);
        code.extend([0xff, 0x25, 0, 0, 0, 0, 0x66, 0x90]);
        code.extend([0xff, 0x25]);
        let found = x86_64_stubs(&code, 0x1000);
        assert_eq!(
            found,
            [
                Decoded { address: 0x1000, slot: 0x1016 },
                Decoded { address: 0x1010, slot: 0x101b - 16 },
                Decoded { address: 0x1020, slot: 0x1026 },
            ]
        );
    }

    /// Stubs with and without `bti c`; pages before and after the stub. The instructions are those of
    /// `llvm-mc -arch=aarch64 -show-encoding`.
    #[test]
    fn decodes_aarch64_stubs() {
        // bti c; adrp x16, #0x10000; ldr x17, [x16, #24]; add x16, x16, #24; br x17; nop
        let with_bti = [0xd503_245f_u32, 0x9000_0090, 0xf940_0e11, 0x9100_6210, 0xd61f_0220, 0xd503_201f];
        // adrp x16, #-0x1000; ldr x17, [x16, #4088]; add x16, x16, #4088; br x17
        let backwards = [0xf0ff_fff0_u32, 0xf947_fe11, 0x913f_e210, 0xd61f_0220];
        let code: Vec<u8> = with_bti.iter().chain(&backwards).flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(
            aarch64_stubs(&code, 0x40_0020),
            [
                Decoded { address: 0x40_0020, slot: 0x41_0018 },
                Decoded { address: 0x40_0038, slot: 0x3f_fff8 },
            ]
        );
    }
}
