//! Lines of `/proc/PID/maps`, whose paths are the process's to choose.

use agent::process::maps::parse_executable;

use crate::Target;

pub(super) const TARGET: Target = Target { name: "maps", longest_input: 512, heap_bytes: 8 << 10, read };

fn read(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let mut any = false;
    for line in text.lines() {
        if let Some(entry) = parse_executable(line) {
            assert!(entry.start < entry.end);
            assert!(line.ends_with(entry.path));
            any = true;
        }
    }
    any
}
