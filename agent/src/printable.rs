//! Names that foreign processes chose, made safe to show.
//!
//! A process may call itself, its threads and its functions whatever it likes: escape sequences that rewrite
//! the terminal, characters that turn the direction of text, characters that XML forbids.

use std::borrow::Cow;

/// `name` with every character replaced by U+FFFD that a terminal would act upon or XML 1.0 forbids.
pub fn printable(name: &str) -> Cow<'_, str> {
    if name.chars().all(is_printable) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(
            name.chars().map(|c| if is_printable(c) { c } else { char::REPLACEMENT_CHARACTER }).collect(),
        )
    }
}

/// Neither a control character (C0, DEL, C1), nor a line or paragraph separator, nor a bidirectional control
/// (Unicode UAX #9, "Directional Formatting Characters"), nor a non-character that XML 1.0 §2.2 excludes.
fn is_printable(c: char) -> bool {
    !(c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ordinary names, in any script, stay as they are and are not copied.
    #[test]
    fn ordinary_names_are_borrowed() {
        for name in ["", "main", "std::vec::Vec<T>::push", "операция", "処理", "a b"] {
            assert!(matches!(printable(name), Cow::Borrowed(same) if same == name));
        }
    }

    /// Nothing that moves a cursor, turns text round or breaks an XML document gets through.
    #[test]
    fn dangerous_characters_are_replaced() {
        assert_eq!(printable("a\x1b[2Jb"), "a\u{fffd}[2Jb");
        assert_eq!(printable("a\nb\tc\0d\x7fe\u{9b}f"), "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}e\u{fffd}f");
        assert_eq!(printable("\u{202e}gpj.exe\u{2066}"), "\u{fffd}gpj.exe\u{fffd}");
        assert_eq!(printable("\u{ffff}"), "\u{fffd}");
    }
}
