//! Rows against other readers of the same files, against code made for one rule each, and against broken files.

mod cases;
mod figures;
mod files;
mod framehop;
mod go;
mod hostile;
#[cfg(target_arch = "x86_64")]
mod live;
mod pages;
mod readelf;
mod trampoline;
mod writer;
