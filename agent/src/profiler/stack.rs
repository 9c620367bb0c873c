//! Turning a sample's addresses into frames that outlive the process.

use agent_ebpf::SampleHeader;

use crate::process::mappings::Mappings;
use crate::process::module::ModuleId;
use crate::symbol::frame::Frame;

/// Builds one stack after the other in the same memory.
#[derive(Debug, Default)]
pub(super) struct StackBuilder {
    frames: Vec<Frame>,
}

impl StackBuilder {
    /// Begins a stack with its kernel frames, leaf first. All but the leaf are return addresses: the call lies before.
    pub(super) fn begin(&mut self, kernel: &[u64]) {
        self.frames.clear();
        let address = |(index, address): (usize, &u64)| address.saturating_sub(u64::from(index > 0));
        let frames = kernel.iter().enumerate().map(|frame| Frame::Kernel { address: address(frame) });
        self.frames.extend(frames);
    }

    /// Adds the frame of the sampled process whose code is at `address`. Without mappings nothing is known of the process.
    pub(super) fn push_user(
        &mut self,
        &SampleHeader { pid, image, .. }: &SampleHeader,
        mappings: Option<&Mappings>,
        address: u64,
        guessed: bool,
    ) {
        let mapping = mappings.map(|mappings| mappings.find(address));
        self.frames.push(match mapping {
            None => Frame::UnknownProcess,
            Some(None) => Frame::Unmapped,
            Some(Some(mapping)) if mapping.module == ModuleId::ANONYMOUS => {
                Frame::Anonymous { pid, image, start: mapping.start, address, guessed }
            }
            Some(Some(mapping)) => {
                let file_offset = (address - mapping.start).wrapping_add(mapping.file_offset);
                Frame::User { module: mapping.module, file_offset, guessed }
            }
        });
    }

    /// The stack, leaf first.
    pub(super) fn frames(&self) -> &[Frame] {
        &self.frames
    }
}
