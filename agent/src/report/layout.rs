//! Text that fits a terminal: cutting, wrapping, colour.

use std::borrow::Cow;

/// How a piece of text stands out on a terminal with colour (ECMA-48 SGR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Headings.
    Heading,
    /// What matters less.
    Faint,
    /// A share that is worth a look.
    Warm,
    /// A share that dominates.
    Hot,
    /// Something to know before believing the numbers.
    Warning,
    /// Something is broken.
    Alarm,
}

impl Style {
    fn sequence(self) -> &'static str {
        match self {
            Self::Heading => "\x1b[1m",
            Self::Faint => "\x1b[2m",
            Self::Warm | Self::Warning => "\x1b[33m",
            Self::Hot => "\x1b[1;31m",
            Self::Alarm => "\x1b[1;37;41m",
        }
    }
}

/// `text` in `style` if there is colour, else as it is.
pub fn paint(text: &str, style: Style, color: bool) -> Cow<'_, str> {
    if color { Cow::Owned(format!("{}{text}\x1b[0m", style.sequence())) } else { Cow::Borrowed(text) }
}

/// `text` in at most `width` characters: a longer one loses its middle, because both the beginning and the
/// end of a function's name tell it from others.
pub fn elide(text: &str, width: usize) -> Cow<'_, str> {
    let length = text.chars().count();
    if length <= width {
        return Cow::Borrowed(text);
    }
    let kept = width.saturating_sub(1);
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(length - tail).collect();
    Cow::Owned(format!("{head}…{tail}"))
}

/// `text` in lines of at most `width` characters, broken at spaces; all but the first line begin with
/// `indent` spaces. A word that is longer than a line stays whole.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut wrapped = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            wrapped.push('\n');
            wrapped.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if column > 0 {
            wrapped.push(' ');
            column += 1;
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names keep both ends, and the result is never wider than asked for.
    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(elide("short", 5), "short");
        assert_eq!(elide("abcdefghij", 7), "abc…hij");
        assert_eq!(elide("abcdefghij", 6), "abc…ij");
        assert_eq!(elide("äöüßäöüß", 4), "äö…ß");
        assert_eq!(elide("abc", 1), "…");
        assert_eq!(elide("abc", 0), "…");
    }

    /// Lines stay within the width and lose no word.
    #[test]
    fn lines_are_wrapped_at_spaces() {
        assert_eq!(wrap("one two three four", 9, 2), "one two\n  three\n  four");
        assert_eq!(wrap("one two", 80, 2), "one two");
        assert_eq!(wrap("extraordinarily long", 5, 1), "extraordinarily\n long");
    }

    /// Colour is added only where it is wanted, and always ended.
    #[test]
    fn paint_needs_colour() {
        assert_eq!(paint("x", Style::Hot, false), "x");
        assert_eq!(paint("x", Style::Heading, true), "\x1b[1mx\x1b[0m");
    }
}
