//! How much of the BPF stack the programs take. Kernels before 6.13 grant a program and what it calls 512 bytes together; newer ones
//! give perf events' programs a stack of their own and would not notice that an older one refuses them.

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// Bytes that a program and what it calls may take (`MAX_BPF_STACK`).
const LIMIT: u64 = 512;
/// What each function's part is rounded up to (`check_max_stack_depth_subprog` in `kernel/bpf/verifier.c`).
const ROUND: u64 = 32;
/// Section of functions that are called by programs.
const CALLED: &str = ".text";

/// A function of the object and the bytes of stack that it takes.
#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    is_program: bool,
    stack: u64,
}

/// Refuses an object with a program whose stack, with that of what it calls, an older kernel would not grant.
pub(crate) fn check(object: &[u8]) -> Result<()> {
    let functions = functions(object)?;
    let called = functions.iter().filter(|function| !function.is_program);
    let deepest = called.map(|function| function.stack).max().unwrap_or(0);
    for Function { name, stack, .. } in functions.iter().filter(|function| function.is_program) {
        let together = stack + deepest;
        if together > LIMIT {
            bail!(
                "{name} takes {stack} bytes of stack and what it calls {deepest}: {together} of {LIMIT}. Kernels before 6.13 \
                 would refuse it; keep fewer values across calls, or in the scratch record"
            );
        }
    }
    Ok(())
}

fn functions(object: &[u8]) -> Result<Vec<Function>> {
    let file = object::File::parse(object).context("the eBPF object is not an ELF file")?;
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let Some(section) = symbol.section_index() else { continue };
        let section = file.section_by_index(section)?;
        let start = symbol.address() as usize;
        let code = section.data()?.get(start..start + symbol.size() as usize);
        let code =
            code.with_context(|| format!("{} lies outside its section", symbol.name().unwrap_or("?")))?;
        functions.push(Function {
            name: symbol.name()?.to_owned(),
            is_program: section.name()? != CALLED,
            stack: deepest_use(code).next_multiple_of(ROUND),
        });
    }
    Ok(functions)
}

/// How far below the frame pointer (r10) a function's code reaches: by loads and stores, and by addresses that it makes of r10
/// (`mov r, r10; add r, -n`). Instructions as in `Documentation/bpf/standardization/instruction-set.rst`.
fn deepest_use(code: &[u8]) -> u64 {
    const FRAME_POINTER: u8 = 10;
    const MOV_X: u8 = 0xbf;
    const ADD_K: u8 = 0x07;
    const CLASS: u8 = 0x07;
    const LDX: u8 = 0x01;
    const ST: u8 = 0x02;
    const STX: u8 = 0x03;
    let mut is_frame_pointer = [false; 16];
    is_frame_pointer[usize::from(FRAME_POINTER)] = true;
    let mut deepest = 0;
    for instruction in code.as_chunks::<8>().0 {
        let [opcode, registers, low, high, immediate @ ..] = *instruction;
        let (to, from) = (registers & 15, registers >> 4);
        let offset = i64::from(i16::from_le_bytes([low, high]));
        let immediate = i64::from(i32::from_le_bytes(immediate));
        let reach = match opcode & CLASS {
            LDX if from == FRAME_POINTER => offset,
            ST | STX if to == FRAME_POINTER => offset,
            _ if opcode == ADD_K && is_frame_pointer[usize::from(to)] => immediate,
            _ => 0,
        };
        deepest = deepest.max(reach.min(0).unsigned_abs());
        if to != FRAME_POINTER && !matches!(opcode & CLASS, ST | STX) {
            is_frame_pointer[usize::from(to)] = opcode == MOV_X && from == FRAME_POINTER;
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stores, loads and addresses below the frame pointer count; other registers' offsets and sums do not.
    #[test]
    fn what_lies_below_the_frame_pointer_counts() {
        let code = [
            // *(u64 *)(r10 - 8) = r1
            [0x7b, 0x1a, 0xf8, 0xff, 0, 0, 0, 0],
            // r2 = r10; r2 += -72
            [0xbf, 0xa2, 0, 0, 0, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0xb8, 0xff, 0xff, 0xff],
            // r2 += -500: it is no longer the frame pointer
            [0x07, 0x02, 0, 0, 0x0c, 0xfe, 0xff, 0xff],
            // r1 = *(u64 *)(r3 - 400)
            [0x79, 0x31, 0x70, 0xfe, 0, 0, 0, 0],
        ];
        assert_eq!(deepest_use(&code.concat()), 72);
        // r4 = *(u32 *)(r10 - 96)
        assert_eq!(deepest_use(&[0x61, 0xa4, 0xa0, 0xff, 0, 0, 0, 0]), 96);
    }

    /// The object that the agent embeds fits.
    #[test]
    fn the_embedded_object_fits() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-ebpf/prebuilt/agent-ebpf.o");
        let object = std::fs::read(path).expect("it is committed");
        let functions = functions(&object).expect("an ELF file");
        assert!(functions.iter().any(|function| function.is_program && function.stack > 0), "{functions:?}");
        println!("{functions:#?}");
        check(&object).expect("every supported kernel takes it");
    }
}
