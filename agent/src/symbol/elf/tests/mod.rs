//! The index against other readers, against small files made for one rule each, and against broken files.

mod hostile;
mod oracle;
mod plt;
mod rules;
mod sections;
mod writer;

use super::{ElfError, ElfFile, ElfImage, ElfLimits, FunctionIndex, NameOrigin, SymtabKind};
use crate::symbol::read_at::ReadAt;

/// Headers and index with the default limits.
fn open(source: &dyn ReadAt) -> Result<(ElfImage, FunctionIndex), ElfError> {
    let limits = ElfLimits::default();
    let image = ElfImage::parse(source, &limits)?;
    let index = FunctionIndex::build(source, &image, &limits)?;
    Ok((image, index))
}

/// The name of the function at `address`, as the resolver will ask for it.
fn name_at(source: &dyn ReadAt, index: &FunctionIndex, address: u64) -> Option<String> {
    let symbol = index.lookup(address)?;
    Some(index.name(source, &symbol).unwrap())
}
