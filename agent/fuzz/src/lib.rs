//! Fuzz targets: everything that the agent reads and did not write, under a bound of time and memory.
//!
//! A [`Target`] takes any bytes, gives them to one reader, asks the result everything that the agent would ask, and checks what
//! must hold whatever the bytes are. `cargo xtask fuzz` lets LLVM's libFuzzer choose the bytes (`src/main.rs`); the tests
//! here give it the seeds, among which are the inputs that once broke something. [`targets`] says how to add one.

pub mod heap;
pub mod targets;

mod carrier;
mod cfi;
mod code_map;
mod dwarf;
mod xz;

/// One reader under test.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called: the name of its file and of its directory of seeds.
    pub name: &'static str,
    /// Bytes of the longest input that the engine tries. Long enough for every bound that the reader has per entry, short enough
    /// for thousands of executions a second.
    pub longest_input: usize,
    /// Heap bytes that one execution may hold at once, the target's own included.
    pub heap_bytes: usize,
    /// Reads the bytes; whether they were what the reader reads. Panics when something does not hold.
    pub read: fn(&[u8]) -> bool,
}

impl Target {
    /// Reads `input` within the target's heap. Whether it was taken for what the reader reads.
    pub fn execute(&self, input: &[u8]) -> bool {
        heap::within(self.heap_bytes, || (self.read)(input))
    }
}

#[cfg(test)]
mod tests;
