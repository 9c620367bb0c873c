//! The packed table against a naive list, on broken input and on the running kernel.

use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;

/// Address → (local, name, module): the documented choice among names at one address, made the simple way.
type Model = BTreeMap<u64, (bool, String, Option<String>)>;

fn model_of(text: &str) -> Model {
    let mut model = Model::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let address = u64::from_str_radix(fields[0], 16).unwrap();
        if !["t", "T", "w", "W"].contains(&fields[1]) || address == 0 {
            continue;
        }
        let module = fields.get(3).map(|field| field.trim_matches(['[', ']']).to_owned());
        let new = (fields[1].chars().all(char::is_lowercase), fields[2].to_owned(), module);
        let key = |entry: &(bool, String, Option<String>)| (entry.0, entry.1.len(), entry.1.clone());
        model
            .entry(address)
            .and_modify(|old| {
                if key(&new) < key(old) {
                    *old = new.clone();
                }
            })
            .or_insert(new);
    }
    model
}

/// Every symbol at its first and last byte, and just past its end, as the model has it.
fn assert_matches(kallsyms: &Kallsyms, model: &Model) {
    assert_eq!(kallsyms.len(), model.len());
    let starts: Vec<u64> = model.keys().copied().collect();
    for (index, (&start, (_, name, module))) in model.iter().enumerate() {
        let next = starts.get(index + 1).copied().unwrap_or(u64::MAX);
        let end = next.min(start.saturating_add(MAX_SYMBOL_BYTES));
        for address in [start, end - 1] {
            let found = kallsyms.lookup(address).unwrap();
            assert_eq!((found.start, &found.name, found.module), (start, name, module.as_deref()));
        }
        if end != next {
            assert_eq!(kallsyms.lookup(end), None, "past the end of {name}");
        }
    }
    assert_eq!(kallsyms.lookup(starts[0] - 1), None);
}

/// The running kernel's table, read twice and compared line by line (skipped where addresses are hidden).
#[test]
fn agrees_with_the_running_kernel() {
    let Ok(text) = std::fs::read_to_string("/proc/kallsyms") else { return };
    let model = model_of(&text);
    match Kallsyms::load() {
        Err(KallsymsError::Restricted) => assert!(model.is_empty()),
        Err(error) => panic!("{error}"),
        Ok(kallsyms) => {
            println!(
                "{} symbols, {} bytes each: {:?}",
                kallsyms.len(),
                kallsyms.heap_bytes() as f64 / kallsyms.len() as f64,
                kallsyms.memory_use()
            );
            assert_eq!(kallsyms.skipped_lines(), 0);
            assert!(kallsyms.heap_bytes() <= 20 * kallsyms.len());
            // BPF programs come and go between the two reads.
            let stable = |name: &str| !name.starts_with("bpf_prog_") && !name.starts_with("bpf_trampoline_");
            for (&start, (_, name, module)) in model.iter().filter(|(_, (_, name, _))| stable(name)) {
                let found = kallsyms.lookup(start).unwrap();
                assert_eq!((found.start, &found.name, found.module), (start, name, module.as_deref()));
            }
        }
    }
}

/// One name is chosen where several share an address, whatever the order of the lines.
#[test]
fn prefers_global_then_short_names() {
    let lines =
        ["1000 t aa", "1000 T long_global", "1000 T global_b", "1000 T global_a", "1000 W weak_global"];
    for rotation in 0..lines.len() {
        let mut text = lines;
        text.rotate_left(rotation);
        let kallsyms = Kallsyms::read(Cursor::new(text.join("\n"))).unwrap();
        assert_eq!(kallsyms.len(), 1);
        assert_eq!(kallsyms.lookup(0x1000).unwrap().name, "global_a");
    }
}

/// The symbols of the padding before functions, which are stored as a bit, keep their names.
#[test]
fn keeps_padding_symbols() {
    let text = "1000 t __pfx_f\n1010 T f\n2000 t __pfx_only\n3000 t __pfx_\n4000 t __pfx___pfx_f\n";
    let kallsyms = Kallsyms::read(Cursor::new(text)).unwrap();
    assert_matches(&kallsyms, &model_of(text));
}

/// Bad lines cost only themselves and are counted.
#[test]
fn skips_malformed_lines() {
    let long = format!("5000 T {}", "n".repeat(5000));
    let text = [
        "1000 T good",
        "",
        "zzzz T name",
        "+2000 T name",
        "2000",
        "2000 T",
        "2000 TT name",
        "2000 T name [unclosed",
        "2000 T name []",
        "2000 T name [mod] extra",
        "11112222333344445555 T name",
        "2000 T nul\0name",
        &long,
        "3000 D data",
        "4000 t last\t[mod]",
    ]
    .join("\n");
    let kallsyms = Kallsyms::read(Cursor::new(text)).unwrap();
    assert_eq!(kallsyms.skipped_lines(), 12);
    assert_eq!(kallsyms.len(), 2);
    assert_eq!(kallsyms.lookup(0x3fff).unwrap().name, "good");
    let last = kallsyms.lookup(0x4001).unwrap();
    assert_eq!((last.name.as_str(), last.module, last.start), ("last", Some("mod"), 0x4000));
    assert_eq!(kallsyms.lookup(0x4000 + MAX_SYMBOL_BYTES - 1).unwrap().name, "last");
    assert_eq!(kallsyms.lookup(0x4000 + MAX_SYMBOL_BYTES), None);
    assert_eq!(kallsyms.lookup(0xfff), None);
}

/// Bytes that are no UTF-8 in a name do not cost the symbol.
#[test]
fn keeps_names_that_are_not_utf8() {
    let kallsyms = Kallsyms::read(Cursor::new(b"1000 T na\xffme\n")).unwrap();
    assert_eq!(kallsyms.lookup(0x1000).unwrap().name, "na\u{fffd}me");
}

/// An empty table is an error, not a resolver that never finds anything.
#[test]
fn refuses_empty_input() {
    let error = Kallsyms::read(Cursor::new("1000 D data\nrubbish\n")).unwrap_err();
    assert!(matches!(error, KallsymsError::NoSymbols { skipped_lines: 1 }), "{error}");
    assert!(matches!(Kallsyms::read(Cursor::new("")), Err(KallsymsError::NoSymbols { skipped_lines: 0 })));
}

/// The error for hidden addresses tells the operator both ways out.
#[test]
fn says_what_to_do_when_addresses_are_hidden() {
    let text = "0000000000000000 T _text\n0000000000000000 t f\t[mod]\n";
    let error = Kallsyms::read(Cursor::new(text)).unwrap_err();
    assert!(matches!(error, KallsymsError::Restricted));
    assert!(error.to_string().contains("CAP_SYSLOG") && error.to_string().contains("kptr_restrict"));
}

/// Addresses at both ends of the address space, each in a segment of its own, do not overflow.
#[test]
fn spans_the_address_space() {
    let text = "1 T low\nffffffffffffffff T high\n7fffffffffffffff T middle\n";
    let kallsyms = Kallsyms::read(Cursor::new(text)).unwrap();
    assert_eq!(kallsyms.lookup(u64::MAX).unwrap().name, "high");
    assert_eq!(kallsyms.lookup(u64::MAX - 1), None);
    assert_eq!(kallsyms.lookup(0x8000_0000_0000_0000).unwrap().name, "middle");
    assert_eq!(kallsyms.lookup(1).unwrap().name, "low");
    assert_eq!(kallsyms.lookup(0), None);
}
