//! From linker names to source names: Rust (legacy and v0) and C++ (Itanium ABI).
//!
//! The style is that of a flame graph: short but unambiguous. Namespaces and template arguments stay;
//! function parameters and qualifiers, return types, the types of literal template arguments and Rust's
//! hashes go, so that overloads of one function share a name. (What is local to a C++ function keeps that
//! function's parameters: `f(int)::{lambda()#1}::operator()`.) Names come from foreign files: input, output
//! and recursion are bounded, and a name that passes a bound is shown as it is.

mod style;

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

pub use self::style::{NameStyle, without_arguments};

/// The longest name that is demangled, in bytes.
pub const MAX_INPUT: usize = 8 * 1024;
/// The longest demangled name, in bytes.
pub const MAX_OUTPUT: usize = 16 * 1024;
/// Room that a demangled name has from the beginning, at most.
const MAX_ROOM: usize = 256;
/// Nesting followed while a C++ name is read. The parser tries several readings at each level, so a name that is malformed at its
/// innermost takes three times as long for every five levels: milliseconds and a few megabytes here, hours and gigabytes at 160.
/// Of the 38,917 names of LLVM 22 and libstdc++ all stay below this, and all but 12 below 48.
const MAX_PARSED_NESTING: u32 = 64;
/// Nesting followed while a C++ name is written, which goes through what it refers to. 160 needs less than a megabyte of stack.
const MAX_NESTING: u32 = 160;

/// The source name of the linker name `raw`, or `raw` without its version where it is not mangled or cannot
/// be demangled within [`MAX_OUTPUT`]; `raw` itself when it is longer than [`MAX_INPUT`].
///
/// Of suffixes, a symbol version (`@@GLIBC_2.2`) and LLVM's hash (`.llvm.123`) go; marks of a function's
/// parts and clones (`.cold`, `.part.0`, `.isra.0`, `.constprop.0`, …) and `@plt` stay at the end.
pub fn demangle(raw: &str) -> Cow<'_, str> {
    if raw.len() > MAX_INPUT {
        return Cow::Borrowed(raw);
    }
    let (symbol, plt) = raw.strip_suffix("@plt").map_or((raw, ""), |symbol| (symbol, "@plt"));
    let symbol = without_version(symbol);
    let (stem, clone) = split_clone_suffix(symbol);
    let (clone, llvm) = without_llvm_hash(clone);
    if let Some(mut name) = demangle_stem(stem) {
        name.push_str(&clone);
        name.push_str(plt);
        return Cow::Owned(name);
    }
    match (llvm, plt) {
        (false, "") => Cow::Borrowed(symbol),
        (false, _) if symbol.len() + plt.len() == raw.len() => Cow::Borrowed(raw),
        _ => Cow::Owned(format!("{stem}{clone}{plt}")),
    }
}

/// Without `@VERSION` or `@@VERSION`.
fn without_version(symbol: &str) -> &str {
    let is_version = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    };
    match symbol.split_once('@') {
        Some((name, version)) if !name.is_empty() => {
            let version = version.strip_prefix('@').unwrap_or(version);
            if is_version(version) { name } else { symbol }
        }
        _ => symbol,
    }
}

/// Words that compilers and linkers (GCC, LLVM, BOLT) put behind a dot to tell the parts of a function and
/// its clones apart.
const CLONE_WORDS: [&str; 16] = [
    "cold",
    "warm",
    "hot",
    "part",
    "isra",
    "constprop",
    "lto_priv",
    "localalias",
    "llvm",
    "clone",
    "resolver",
    "ifunc",
    "actor",
    "destroy",
    "specialized",
    "simdclone",
];

/// Splits `name.part.0.cold` into `name` and `.part.0.cold`.
fn split_clone_suffix(symbol: &str) -> (&str, &str) {
    let mut stem = symbol;
    loop {
        let without_number = stem.rsplit_once('.').filter(|(_, last)| is_number(last)).map(|(rest, _)| rest);
        let shorter = [without_number, Some(stem)].into_iter().flatten().find_map(|candidate| {
            let (rest, word) = candidate.rsplit_once('.')?;
            (!rest.is_empty() && CLONE_WORDS.contains(&word)).then_some(rest)
        });
        match shorter {
            Some(shorter) => stem = shorter,
            None => return symbol.split_at(stem.len()),
        }
    }
}

/// LLVM's hashes are decimal, BOLT numbers fragments in decimal too.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The suffix without `.llvm.N`, and whether there was one.
fn without_llvm_hash(suffix: &str) -> (Cow<'_, str>, bool) {
    let Some((before, hash)) = suffix.split_once(".llvm.") else { return (Cow::Borrowed(suffix), false) };
    let after = hash.trim_start_matches(|c: char| c.is_ascii_digit());
    (Cow::Owned(format!("{before}{after}")), true)
}

/// None when `stem` is not mangled or passes a bound.
fn demangle_stem(stem: &str) -> Option<String> {
    if !(stem.starts_with("_R") || stem.starts_with("_Z")) {
        return None;
    }
    // Most names get shorter, and are kept together with the linker's.
    let mut name = Bounded(String::with_capacity(stem.len() + stem.len().min(MAX_ROOM)));
    if let Some(rust) = rust_symbol(stem) {
        write!(name, "{rust:#}").ok()?;
    } else {
        let parse = ParseOptions::default().recursion_limit(MAX_PARSED_NESTING);
        let symbol = Symbol::new_with_options(stem, &parse).ok()?;
        let options = DemangleOptions::new()
            .no_params()
            .no_return_type()
            .hide_expression_literal_types()
            .recursion_limit(MAX_NESTING);
        symbol.structured_demangle(&mut name, &options).ok()?;
        name.0 = tidy_cpp(name.0);
    }
    (!name.0.is_empty()).then_some(name.0)
}

/// Takes from `cpp_demangle`'s text what `c++filt -p` does not print: the qualifiers of a member function
/// whose parameters are gone, the comma before an empty argument pack, the notation of thunks.
fn tidy_cpp(name: String) -> String {
    let mut text = name.as_str();
    while let Some(shorter) =
        [" const", " volatile", " &", " &&"].into_iter().find_map(|qualifier| text.strip_suffix(qualifier))
    {
        text = shorter;
    }
    let thunk = text.strip_prefix("{virtual override thunk({").and_then(|rest| rest.strip_suffix(")}"));
    let tidied = match thunk.and_then(|thunk| thunk.split_once("}, ")) {
        Some((offset, target)) => match target.split_once(")}, ") {
            Some((_, target)) => format!("covariant return thunk to {target}"),
            _ if offset.starts_with("virtual") => format!("virtual thunk to {target}"),
            _ => format!("non-virtual thunk to {target}"),
        },
        None if text.len() == name.len() && !text.contains(", >") => return name,
        None => text.to_owned(),
    };
    if tidied.contains(", >") { tidied.replace(", >", ">") } else { tidied }
}

/// A Rust symbol. Legacy names look like C++ names of nested variables; only the hash tells.
fn rust_symbol(stem: &str) -> Option<rustc_demangle::Demangle<'_>> {
    let has_hash = || {
        let hash = stem.strip_suffix('E').and_then(|stem| stem.get(stem.len().checked_sub(19)?..));
        let digits = hash.and_then(|hash| hash.strip_prefix("17h"));
        digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    if !stem.starts_with("_R") && !has_hash() {
        return None;
    }
    rustc_demangle::try_demangle(stem).ok()
}

/// Text that refuses to grow past [`MAX_OUTPUT`].
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > MAX_OUTPUT {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
