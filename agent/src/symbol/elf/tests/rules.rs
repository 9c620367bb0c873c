//! One small file for each rule of the index.

use super::writer::{FUNC, GLOBAL, IFUNC, LOCAL, NOTYPE, OBJECT, Symbol, WEAK, Writer, func};
use super::*;

fn index_of(symtab: Vec<Symbol>) -> (Vec<u8>, FunctionIndex) {
    let file = Writer::new(symtab).write();
    let (_, index) = open(&file).unwrap();
    (file, index)
}

/// The headers say what was written.
#[test]
fn reads_headers() {
    let file = Writer::new(vec![]).write();
    let (image, index) = open(&file).unwrap();
    assert_eq!(image.build_id().unwrap().to_string(), "ab".repeat(20));
    assert_eq!(image.machine(), object::elf::EM_X86_64);
    assert_eq!(image.elf_type(), object::elf::ET_DYN);
    assert_eq!(image.text_segment().unwrap().address, 0x1000);
    assert_eq!(image.section_named(&file, ".text").unwrap().address, 0x1000);
    assert!(image.section_named(&file, ".tex").is_none() && image.section_named(&file, ".text2").is_none());
    assert!(index.is_empty() && index.lookup(0x1000).is_none());
}

/// Offsets map through the segment that holds them and nowhere else.
#[test]
fn maps_file_offsets_to_addresses() {
    let mut writer = Writer::new(vec![]);
    writer.text = 0x40_1000..0x40_1800;
    let image = ElfImage::parse(&writer.write(), &ElfLimits::default()).unwrap();
    assert_eq!(image.file_offset_to_address(0x1000), Some(0x40_1000));
    assert_eq!(image.file_offset_to_address(0x17ff), Some(0x40_17ff));
    assert_eq!(image.file_offset_to_address(0x1800), None);
    assert_eq!(image.file_offset_to_address(0xfff), None);
    assert_eq!(image.file_offset_to_address(u64::MAX), None);
}

/// Without a `PT_NOTE` the build id comes from the note section.
#[test]
fn falls_back_to_the_note_section() {
    let mut file = Writer::new(vec![]).write();
    // The second program header's type becomes PT_NULL.
    file[64 + 56..64 + 60].fill(0);
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    assert_eq!(image.build_id().unwrap().to_string(), "ab".repeat(20));
}

/// Many addresses at once, in whatever order, are looked up as each for itself.
#[test]
fn many_lookups_are_as_single_ones() {
    let mut symbols = vec![func("around", 0x1000, 0x400)];
    symbols.extend((0..30).map(|number| func("inner", 0x1008 + 24 * number, 1 + number)));
    let (_, index) = index_of(symbols);
    let mut addresses: Vec<u64> = (0xff0..0x1500).step_by(3).chain([0, u64::MAX]).collect();
    for _ in 0..2 {
        let single: Vec<_> = addresses.iter().map(|address| index.lookup(*address)).collect();
        assert!(single.iter().flatten().count() > 300);
        assert_eq!(index.lookup_all(&addresses), single);
        addresses.reverse();
    }
    let (_, empty) = index_of(vec![]);
    assert_eq!(empty.lookup_all(&[0, 0x1000]), [None, None]);
}

/// A sized symbol covers its bytes and not the gap behind them; an unsized one covers up to the next symbol,
/// the last one to the end of its section.
#[test]
fn sizes_bound_symbols() {
    let (file, index) =
        index_of(vec![func("sized", 0x1000, 0x10), func("open", 0x1100, 0), func("last", 0x1200, 0)]);
    let at = |address| name_at(&file, &index, address);
    assert_eq!(at(0xfff), None);
    assert_eq!(at(0x100f).as_deref(), Some("sized"));
    assert_eq!(at(0x1010), None);
    assert_eq!(at(0x11ff).as_deref(), Some("open"));
    assert_eq!(at(0x1fff).as_deref(), Some("last"));
    assert_eq!(at(0x2000), None);
    assert_eq!(index.lookup(0x1100).unwrap().size, 0x100);
}

/// The innermost of nested symbols wins; behind it the enclosing one takes over again.
#[test]
fn nested_symbols_give_the_innermost() {
    let (file, index) = index_of(vec![
        func("outer", 0x1000, 0x800),
        func("inner", 0x1100, 0x100),
        func("innermost", 0x1110, 0x10),
        func("overlapping", 0x17f0, 0x100),
    ]);
    let at = |address| name_at(&file, &index, address).unwrap();
    assert_eq!(at(0x10ff), "outer");
    assert_eq!(at(0x1115), "innermost");
    assert_eq!(at(0x1120), "inner");
    assert_eq!(at(0x1200), "outer");
    assert_eq!(at(0x17f0), "overlapping");
    assert_eq!(at(0x18ef), "overlapping");
}

/// Each preference decides among symbols at one address, in every order of the table.
#[test]
fn prefers_by_the_documented_order() {
    let groups: [[fn() -> Symbol; 2]; 7] = [
        [|| func("typed", 0x1000, 4).info(LOCAL | FUNC), || func("untyped", 0x1000, 4).info(GLOBAL | NOTYPE)],
        [|| func("global_long", 0x1000, 0), || func("weak", 0x1000, 4).info(WEAK | FUNC)],
        [|| func("weak_long", 0x1000, 4).info(WEAK | FUNC), || func("local", 0x1000, 4).info(LOCAL | FUNC)],
        [|| func("sized_long", 0x1000, 4), || func("unsized", 0x1000, 0)],
        [|| func("malloc_long", 0x1000, 4), || func("__malloc", 0x1000, 4)],
        [|| func("cfree", 0x1000, 4), || func("cfree2", 0x1000, 4)],
        [|| func("abc", 0x1000, 4), || func("abd", 0x1000, 4).info(GLOBAL | IFUNC)],
    ];
    for [better, worse] in groups {
        for symtab in [vec![better(), worse()], vec![worse(), better()]] {
            let (file, index) = index_of(symtab);
            assert_eq!(index.len(), 1);
            assert_eq!(name_at(&file, &index, 0x1000).unwrap(), better().name);
        }
    }
}

/// Both tables are read; at one address `.symtab` wins unless `.dynsym` has the better symbol.
#[test]
fn unites_both_tables() {
    let mut writer = Writer::new(vec![
        func("same_in_symtab", 0x1000, 8),
        func("local_in_symtab", 0x1100, 8).info(LOCAL | FUNC),
    ]);
    writer.dynsym =
        vec![func("same", 0x1000, 8), func("global_in_dynsym", 0x1100, 8), func("only_dynamic", 0x1200, 8)];
    let file = writer.write();
    let (_, index) = open(&file).unwrap();
    let at = |address| name_at(&file, &index, address).unwrap();
    assert_eq!(at(0x1000), "same_in_symtab");
    assert_eq!(at(0x1100), "global_in_dynsym");
    assert_eq!(at(0x1200), "only_dynamic");
}

/// Data, imports, nameless symbols, mapping symbols, local labels, symbols of no code section and labels
/// inside functions name nothing.
#[test]
fn ignores_what_is_no_function() {
    let (file, index) = index_of(vec![
        func("function", 0x1000, 0x100),
        func("data", 0x1200, 8).info(GLOBAL | OBJECT),
        func("imported", 0x1200, 8).section(0),
        func("", 0x1200, 8),
        func("$x", 0x1200, 0).info(LOCAL | NOTYPE),
        func(".Lloop", 0x1200, 0).info(LOCAL | NOTYPE),
        func("in_no_section", 0x1200, 0).info(LOCAL | NOTYPE).section(2),
        func("absolute", 0x1200, 0).info(LOCAL | NOTYPE).section(0xfff1),
        func("label_inside", 0x1080, 0).info(LOCAL | NOTYPE),
        func("outside_all_code", 0x9000, 8),
        func("assembly", 0x1300, 0).info(LOCAL | NOTYPE),
    ]);
    let names: Vec<String> = index.iter().map(|symbol| index.name(&file, &symbol).unwrap()).collect();
    assert_eq!(names, ["function", "assembly"]);
    assert_eq!(index.skipped(), 1);
    assert_eq!(index.heap_bytes(), 2 * 12);
}

/// Code spread over more than 4 GiB is refused, over just less is served.
#[test]
fn refuses_a_spread_beyond_4_gib() {
    for (far, fits) in [(0x1000 + 0xffff_ffff, true), (0x1000 + 0x1_0000_0000, false)] {
        let mut writer = Writer::new(vec![func("near", 0x1000, 8), func("far", far, 0)]);
        writer.text = 0x1000..far + 8;
        let file = writer.write();
        match open(&file) {
            Ok((_, index)) => {
                assert!(fits);
                assert_eq!(index.lookup(far), None, "no byte of it lies within 4 GiB");
                assert_eq!(name_at(&file, &index, 0x1007).unwrap(), "near");
            }
            Err(error) => {
                assert!(!fits);
                assert!(matches!(error, ElfError::TooLarge { .. }), "{error}");
            }
        }
    }
}

/// Addresses at the top of the address space do not overflow.
#[test]
fn serves_the_top_of_the_address_space() {
    let mut writer = Writer::new(vec![func("top", u64::MAX - 0xfff, u64::MAX)]);
    writer.text = u64::MAX - 0xfff..u64::MAX;
    let file = writer.write();
    let (_, index) = open(&file).unwrap();
    assert_eq!(name_at(&file, &index, u64::MAX).unwrap(), "top");
    assert_eq!(index.lookup(0), None);
}

/// Names of `.symtab` lose their version, and are compared without it; a name that is nothing else keeps it.
#[test]
fn versions_are_no_part_of_names() {
    let (file, index) = index_of(vec![
        func("start@@GLIBC_2.34", 0x1000, 8),
        func("_start@GLIBC_2.2.5", 0x1000, 8),
        func("begin_", 0x1000, 8),
        func("@odd", 0x1100, 8),
    ]);
    assert_eq!(name_at(&file, &index, 0x1000).as_deref(), Some("start"));
    assert_eq!(name_at(&file, &index, 0x1100).as_deref(), Some("@odd"));
}

/// With `.symtab` in another file its names win as in one file, if it is whole; with what is left of it, all names compete.
#[test]
fn unites_tables_of_two_files() {
    let mut own = Writer::new(vec![]);
    own.dynsym = vec![func("plain", 0x1000, 8), func("global", 0x1100, 8), func("only_dynamic", 0x1200, 8)];
    let own = own.write();
    let symtab = Writer::new(vec![
        func("not_so_plain", 0x1000, 8),
        func("local", 0x1100, 8).info(LOCAL | FUNC),
        func("only_symtab", 0x1300, 8),
        func("outside", 0x9000, 8),
    ]);
    let symtab = symtab.write();
    let limits = ElfLimits::default();
    let images = [&own, &symtab].map(|file| ElfImage::parse(file, &limits).unwrap());
    let own_file = ElfFile { source: &own, image: &images[0] };
    let other = ElfFile { source: &symtab, image: &images[1] };
    for (kind, tied) in [(SymtabKind::Whole, "not_so_plain"), (SymtabKind::Rest, "plain")] {
        let index = FunctionIndex::build_with_symtab(own_file, other, kind, &limits).unwrap();
        let names: Vec<_> = index
            .iter()
            .map(|symbol| {
                let source = if symbol.origin() == NameOrigin::Symtab { &symtab } else { &own };
                index.name(source, &symbol).unwrap()
            })
            .collect();
        assert_eq!(names, [tied, "global", "only_dynamic", "only_symtab"], "{kind:?}");
        assert!(index.has_symtab() && index.skipped() == 1);
    }
    assert!(!FunctionIndex::build(&own, &images[0], &limits).unwrap().has_symtab());
}
