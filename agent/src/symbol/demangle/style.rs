//! How much of a name is shown: `--demangle`.

use std::borrow::Cow;

use clap::ValueEnum;

use crate::symbol::function_name::FunctionName;

/// How functions are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NameStyle {
    /// Source names with template and generic arguments
    #[default]
    Full,
    /// Source names without these: what is instantiated for many types is one function
    Short,
    /// As they stand in the file or map, as linkers and compilers write them
    None,
}

impl NameStyle {
    /// `function` in this style. What has no name of its own (`module+0xoffset`) is called the same in all.
    /// `None` where it is so already.
    pub(in crate::symbol) fn apply(self, function: &FunctionName) -> Option<FunctionName> {
        let (name, system_name) = (function.name(), function.system_name());
        // A name that was not demangled is its own: a `<` in it is not an argument list.
        if self == Self::Full || system_name.is_empty() || name == system_name {
            return None;
        }
        match self {
            Self::None => Some(FunctionName::new(system_name, system_name)),
            Self::Short if is_mangled(system_name) => match without_arguments(name) {
                Cow::Owned(short) => Some(FunctionName::new(short, system_name)),
                Cow::Borrowed(_) => None,
            },
            Self::Full | Self::Short => None,
        }
    }
}

fn is_mangled(system_name: &str) -> bool {
    system_name.starts_with("_Z") || system_name.starts_with("_R")
}

/// What may stand behind `operator`; the longest that fits counts.
const OPERATORS: [&str; 12] = ["<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "<", ">", "()"];

/// The demangled `name` without lists of template and generic arguments. Rust's `<T as Trait>` and `<impl Trait for T>` stay, because they
/// are no arguments but say whose function it is; a name whose angle brackets do not match stays as it is.
pub fn without_arguments(name: &str) -> Cow<'_, str> {
    if !name.contains('<') {
        return Cow::Borrowed(name);
    }
    let mut short = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(letter) = rest.chars().next() {
        if let Some(operator) = operator_at(&short, rest) {
            short.push_str(operator);
            rest = &rest[operator.len()..];
        } else if letter == '<' && begins_arguments(&short, rest) {
            let Some(length) = length_of_arguments(rest) else { return Cow::Borrowed(name) };
            rest = &rest[length..];
            // Rust's `f::<T>`, and C++'s `operator< <T>`.
            let kept = short.strip_suffix("::").unwrap_or(&short).trim_end().len();
            short.truncate(kept);
        } else {
            short.push(letter);
            rest = &rest[letter.len_utf8()..];
        }
    }
    Cow::Owned(short)
}

/// The operator that `rest` begins with, where `before` ends with the word.
fn operator_at<'a>(before: &str, rest: &'a str) -> Option<&'a str> {
    let stem = before.strip_suffix("operator")?;
    if stem.ends_with(is_of_identifier) {
        return None;
    }
    let operator = OPERATORS.iter().find(|operator| rest.starts_with(**operator))?;
    rest.get(..operator.len())
}

/// Whether the `<` that `rest` begins with opens a list of arguments of what `before` ends with.
fn begins_arguments(before: &str, rest: &str) -> bool {
    if let Some(path) = before.strip_suffix("::") {
        return path.ends_with(|letter| is_of_identifier(letter) || letter == '}')
            && !rest.starts_with("<impl ");
    }
    let is_operator = || {
        let stem =
            before.trim_end().trim_end_matches(|letter: char| letter.is_ascii_punctuation() && letter != '_');
        stem.len() < before.len() && stem.ends_with("operator")
    };
    before.ends_with(|letter| is_of_identifier(letter) || matches!(letter, '}' | ')' | ']')) || is_operator()
}

/// Bytes of the list that `rest` begins with, its brackets included; `None` when it has no end.
fn length_of_arguments(rest: &str) -> Option<usize> {
    let (mut depth, mut parentheses) = (0_usize, 0_usize);
    let mut at = 0;
    while let Some(letter) = rest[at..].chars().next() {
        if let Some(operator) = operator_at(&rest[..at], &rest[at..]) {
            at += operator.len();
            continue;
        }
        match letter {
            '(' => parentheses += 1,
            ')' => parentheses = parentheses.checked_sub(1)?,
            '<' => depth += 1,
            // `->` of a function's type.
            '>' if !rest[..at].ends_with('-') => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += letter.len_utf8();
        if depth == 0 {
            return (parentheses == 0).then_some(at);
        }
    }
    None
}

fn is_of_identifier(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments go, wherever they stand; operators, Rust's qualified paths and what does not match stay.
    #[test]
    fn arguments_are_cut() {
        for (name, short) in [
            ("space::foo", "space::foo"),
            ("std::vector<int, std::allocator<int> >::push_back", "std::vector::push_back"),
            ("max<int>", "max"),
            ("A::f<void (*)(B<int>), (C)3>::g<D>", "A::f::g"),
            ("A::f<&A::operator< >::g", "A::f::g"),
            ("std::function<void (int)>::operator()", "std::function::operator()"),
            ("operator< <int>", "operator<"),
            ("A<int>::operator<<", "A::operator<<"),
            ("A<int>::operator<< <char>", "A::operator<<"),
            ("A::operator-><B>", "A::operator->"),
            ("A<int>::operator<=>", "A::operator<=>"),
            ("A::my_operator<int>", "A::my_operator"),
            ("f(A<int>)::{lambda()#1}::operator()<B>", "f(A)::{lambda()#1}::operator()"),
            ("std::mem::align_of::<usize>", "std::mem::align_of"),
            ("<T as core::convert::Into<U>>::into", "<T as core::convert::Into>::into"),
            ("<alloc::vec::Vec<u8>>::push", "<alloc::vec::Vec>::push"),
            ("core::str::<impl str>::len", "core::str::<impl str>::len"),
            ("a::b::<impl a::Trait<X> for Y<Z>>::f", "a::b::<impl a::Trait for Y>::f"),
            ("a::call::<fn(u8) -> u8, dyn Fn(B<C>) -> D>::{closure#0}", "a::call::{closure#0}"),
            ("broken<int", "broken<int"),
            ("broken<(int>)", "broken<(int>)"),
            ("f>g", "f>g"),
            ("max<int>.part.0", "max.part.0"),
        ] {
            assert_eq!(without_arguments(name), short, "{name}");
        }
    }

    /// Each style of a mangled name, of one that is none, and of a frame that has none.
    #[test]
    fn styles_of_names() {
        let in_styles = |name: &str, system_name: &str| {
            [NameStyle::Full, NameStyle::Short, NameStyle::None].map(|style| {
                let function = FunctionName::new(name, system_name);
                let function = style.apply(&function).unwrap_or(function);
                assert_eq!(function.system_name(), system_name);
                function.name().to_owned()
            })
        };
        assert_eq!(in_styles("max<int>", "_Z3maxIiET_S0_S0_"), ["max<int>", "max", "_Z3maxIiET_S0_S0_"]);
        assert_eq!(in_styles("odd<name>", "odd<name>"), ["odd<name>"; 3]);
        assert_eq!(in_styles("a.so+0x10", ""), ["a.so+0x10"; 3]);
        let java = ["java.util.Map<init>", "java.util.Map<init>", "Ljava/util/Map;::<init>()V"];
        assert_eq!(in_styles(java[0], java[2]), java);
    }
}
