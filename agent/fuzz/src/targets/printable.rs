//! Names that are made harmless before they are shown.

use agent::printable::printable;

use crate::Target;

pub(super) const TARGET: Target =
    Target { name: "printable", longest_input: 512, heap_bytes: 16 << 10, read };

/// The result has as many characters, none of which is to be replaced.
fn read(input: &[u8]) -> bool {
    let name = String::from_utf8_lossy(input);
    let shown = printable(&name);
    assert_eq!(shown.chars().count(), name.chars().count());
    assert_eq!(printable(&shown), shown);
    assert!(!shown.contains(char::is_control));
    shown != name
}
