//! Names as compilers write them, names that look like them, and names made to hurt.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::*;
use crate::corruption::Random;

/// Both Rust manglings, without hash, crate disambiguators or LLVM's suffix.
#[test]
fn demangles_rust() {
    for (raw, name) in [
        ("_ZN4core3ptr13drop_in_place17h0123456789abcdefE", "core::ptr::drop_in_place"),
        ("_ZN4core3ptr13drop_in_place17h0123456789abcdefE.llvm.12345678901234", "core::ptr::drop_in_place"),
        (
            "_ZN50_$LT$T$u20$as$u20$core..convert..Into$LT$U$GT$$GT$4into17h0123456789abcdefE",
            "<T as core::convert::Into<U>>::into",
        ),
        ("_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example"),
        ("_RINvNtC3std3mem8align_ofjE.llvm.77", "std::mem::align_of::<usize>"),
        ("_RNvC7mycrate3foo.cold", "mycrate::foo.cold"),
    ] {
        assert_eq!(demangle(raw), name);
    }
}

/// C++ keeps namespaces and template arguments; parameters and return types go.
#[test]
fn demangles_cpp() {
    for (raw, name) in [
        ("_ZN5space3fooEibc", "space::foo"),
        ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"),
        ("_Z3maxIiET_S0_S0_", "max<int>"),
        ("_ZN12_GLOBAL__N_13runEv", "(anonymous namespace)::run"),
        ("_ZN1AD2Ev", "A::~A"),
        ("_ZN3fooC1Ev", "foo::foo"),
        ("_ZZN3foo3barEvENKUlvE_clEv", "foo::bar()::{lambda()#1}::operator()"),
        ("_ZNKRSt6vectorIiSaIiEE4sizeEv", "std::vector<int, std::allocator<int> >::size"),
        ("_ZNO1A1fIJEEEvv", "A::f<>"),
        ("_Z1fI1AIiJEEEvT_", "f<A<int> >"),
        ("_ZN1A1fILi3EEEvv", "A::f<3>"),
        ("_ZNK1AcvRKiEv", "A::operator int const&"),
        ("_ZThn16_N1A1fEv", "non-virtual thunk to A::f"),
        ("_ZTv0_n24_N1A1fEi", "virtual thunk to A::f"),
        ("_ZTch0_h16_N1A1fEv", "covariant return thunk to A::f"),
    ] {
        assert_eq!(demangle(raw), name, "{raw}");
    }
}

/// Marks of clones stay in their order, LLVM's hash and versions go, wherever they stand.
#[test]
fn treats_suffixes() {
    for (raw, name) in [
        ("_ZN5space3fooEi.part.0", "space::foo.part.0"),
        ("_ZN5space3fooEi.constprop.12.isra.0.cold", "space::foo.constprop.12.isra.0.cold"),
        ("_ZN5space3fooEi.llvm.123.cold", "space::foo.cold"),
        ("_ZN5space3fooEi.cold.llvm.123", "space::foo.cold"),
        ("_ZN5space3fooEi@plt", "space::foo@plt"),
        ("_ZNSt3mapEv@@GLIBCXX_3.4", "std::map"),
        ("memcpy@@GLIBC_2.14", "memcpy"),
        ("memcpy@GLIBC_2.2.5", "memcpy"),
        ("memcpy@plt", "memcpy@plt"),
        ("memcpy@GLIBC_2.2.5@plt", "memcpy@plt"),
        ("tcp_sendmsg.llvm.1234", "tcp_sendmsg"),
        ("tcp_sendmsg.isra.0", "tcp_sendmsg.isra.0"),
        ("tcp_sendmsg.llvm.1234@plt", "tcp_sendmsg@plt"),
    ] {
        assert_eq!(demangle(raw), name, "{raw}");
    }
}

/// What is not mangled, or only looks so, is returned as it is, without a copy.
#[test]
fn leaves_other_names_alone() {
    for raw in [
        "",
        "main",
        "_",
        "_Z",
        "_R",
        "_ZN",
        "_Znonsense",
        "_RNonsense",
        "__libc_start_main",
        ".cold",
        "@plt",
        "@",
        "a@b c",
        "@@V",
        "runtime.mallocgc",
        "main.(*T).part.0x",
        "name.llvm",
        "ünïcode",
        "_Zünïcode",
        "_RNvC7mycrate3f\u{f6}o",
    ] {
        assert!(matches!(demangle(raw), Cow::Borrowed(same) if same == raw), "{raw}");
    }
}

/// Names over the input bound are not looked into.
#[test]
fn returns_long_names_raw() {
    let long = format!("_Z{}{}v", MAX_INPUT, "x".repeat(MAX_INPUT));
    assert_eq!(demangle(&long), long);
    let suffixes = format!("_ZN5space3fooEi{}", ".part.0".repeat(2000));
    assert_eq!(demangle(&suffixes), suffixes);
}

/// `f<A<int, int>, …>`: each argument is a pair of the one before, 2^`levels` names in 9 bytes a level.
fn cpp_bomb(levels: usize) -> String {
    let mut bomb = "_Z1fI1AIiiE".to_owned();
    for level in 0..levels {
        let pair = digits(level, b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        write!(bomb, "S_IS{pair}_S{pair}_E").unwrap();
    }
    bomb + "EvT_"
}

/// `a::f::<(u32, u32), …>`, the same with back references to byte positions behind `_R`.
fn rust_bomb(levels: usize) -> String {
    let mut bomb = "_RINvC1a1fTmmE".to_owned();
    let mut last = 8;
    for _ in 0..levels {
        let next = bomb.len() - "_R".len();
        let base62 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let reference = digits(last - 1, base62);
        write!(bomb, "TB{reference}_B{reference}_E").unwrap();
        last = next;
    }
    bomb + "E"
}

fn digits(mut number: usize, alphabet: &[u8]) -> String {
    let mut text = Vec::new();
    loop {
        text.insert(0, alphabet[number % alphabet.len()]);
        number /= alphabet.len();
        if number == 0 {
            return String::from_utf8(text).unwrap();
        }
    }
}

/// Names that double with each of their few bytes end at the output bound, at once, and stay raw.
#[test]
fn survives_template_bombs() {
    for bomb in [cpp_bomb, rust_bomb] {
        let small = bomb(5);
        assert_ne!(demangle(&small), small, "the bomb is a valid name");
        for levels in [12, 20, 40, 400] {
            let (big, start) = (bomb(levels), Instant::now());
            let name = demangle(&big);
            assert!(name.len() <= MAX_OUTPUT);
            assert!(levels < 20 || name == big);
            assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        }
    }
}

/// Names nested thousands deep end at the nesting bound within a megabyte of stack.
#[test]
fn survives_deep_nesting() {
    let names = [
        format!("_Z1fI{}iEvv", "P".repeat(4000)),
        format!("_Z1f{}i", "P".repeat(150)),
        format!("_Z1fI{}i{}Evv", "1AI".repeat(900), "E".repeat(900)),
        format!("_Z1fI{}i{}Evv", "1AI".repeat(30), "E".repeat(30)),
        format!("_Z{}1f{}", "Z".repeat(100), "vE_".repeat(100)),
        format!("_RINvC1a1f{}mE", "R".repeat(4000)),
        format!("_RINvC1a1f{}mE", "R".repeat(400)),
        format!("_RNv{}C1a{}", "Nt".repeat(400), "1b".repeat(401)),
    ];
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let lengths = thread.spawn(move || names.map(|name| demangle(&name).len())).unwrap().join().unwrap();
    assert!(lengths.iter().all(|&length| length <= MAX_OUTPUT));
}

/// A name that is malformed at its innermost is soon given up, however many readings there are on the way there.
#[test]
fn gives_up_on_ambiguous_nesting() {
    let start = Instant::now();
    let nested = (1..100).map(|levels| format!("_Z1f{}", "St4pairI".repeat(levels)));
    // Found by fuzzing, where it took 300 milliseconds and megabytes.
    let found = "_ZNSt6vectorIN3foo3BaxES_Z1fSt4pairIS_IS_INSt6vectorIN3foo3BaxES_Z1fSt4pairIS_IS_Iiinstpp2SZZ4mmaan1xESt6\
                 vectorIN3foo3BaxES_Z1fSt4pairIS_IS_INSt6vectorIN3foo3BaxES_Z1fSt4pairIS_IS_Iiinstpp2SZZ4mmaan1xEqDp1x_";
    for name in nested.chain([found.to_owned()]) {
        assert_eq!(demangle(&name), name);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

/// Names with random letters changed cost neither a panic nor much time.
#[test]
fn survives_mutated_names() {
    let seeds = [
        "_ZNSt6vectorIiSaIiEE9push_backERKi",
        "_ZZN3foo3barEvENKUlvE_clEv",
        "_RINvNtC3std3mem8align_ofjE",
        "_ZN50_$LT$T$u20$as$u20$core..convert..Into$LT$U$GT$$GT$4into17h0123456789abcdefE",
    ];
    let alphabet = b"_ZNSIEKRTtdDsCvi0123456789.$@Lj";
    let mut random = Random::new(1);
    let start = Instant::now();
    for round in 0..20_000 {
        let mut name = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..=round % 5 {
            let at = random.below(name.len());
            name[at] = alphabet[random.below(alphabet.len())];
        }
        let name = String::from_utf8(name).unwrap();
        assert!(demangle(&name).len() <= MAX_OUTPUT);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
