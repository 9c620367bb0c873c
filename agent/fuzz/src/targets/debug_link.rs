//! The sections that lead to other files: `.gnu_debuglink` and `.gnu_debugaltlink`.

use std::path::Component;

use agent::symbol::debug_file::{AltLink, DebugLink};
use agent::symbol::elf::{ElfFile, ElfImage, ElfLimits};

use crate::Target;
use crate::carrier::{self, Section, Shape, X86_64};

/// A section of up to 4 KiB is held once as it is and once as a path, beside the file around it.
pub(super) const TARGET: Target =
    Target { name: "debug_link", longest_input: 5 << 10, heap_bytes: 32 << 10, read };

fn read(input: &[u8]) -> bool {
    let shape = Shape { machine: X86_64, loaded_at: None, headers: true };
    let sections = [".gnu_debuglink", ".gnu_debugaltlink"].map(|name| Section::new(name, input));
    let file = carrier::carry(shape, &sections);
    let image = match ElfImage::parse(&file, &ElfLimits::default()) {
        Ok(image) => image,
        Err(error) => panic!("the carrier is a good file: {error}"),
    };
    let file = ElfFile { source: &file, image: &image };
    let link = DebugLink::of(file);
    if let Some(DebugLink { name, .. }) = &link {
        // Joined to a directory it leads nowhere else.
        let components: Vec<_> = name.components().collect();
        assert!(matches!(components.as_slice(), [Component::Normal(_)]), "{}", name.display());
    }
    let supplement = AltLink::of(file);
    if let Some(AltLink { path, build_id }) = &supplement {
        assert!(path.file_name().is_some() && path.as_os_str().len() < input.len());
        assert!(!build_id.as_bytes().is_empty());
    }
    link.is_some() || supplement.is_some()
}
