//! Reading sample records from an eBPF ring buffer, in batches.

use std::os::fd::{AsFd, BorrowedFd};

use agent_ebpf::{Resume, SampleHeader, flag, walk};
use aya::maps::{MapData, RingBuf};

/// A ring of sample records and the reader's place in it.
pub struct SampleRing {
    ring: RingBuf<MapData>,
}

/// Samples read in one go. The frames of all of them lie in one vector, so a batch costs no allocation
/// once it has grown.
#[derive(Debug, Default)]
pub struct SampleBatch {
    entries: Vec<Entry>,
    frames: Vec<u64>,
    slices: Vec<u8>,
    undecodable: u64,
}

#[derive(Debug)]
struct Entry {
    header: SampleHeader,
    /// Index of its first frame.
    frames: usize,
    resume: Option<Box<Resume>>,
    /// Index of its slice's first byte.
    slice: usize,
}

/// One sample of a batch.
#[derive(Clone, Copy, Debug)]
pub struct RawSample<'a> {
    /// The record's header.
    pub header: &'a SampleHeader,
    /// Kernel addresses, leaf first.
    pub kernel: &'a [u64],
    /// User addresses, leaf first.
    pub user: &'a [u64],
    /// Where the agent has to go on with the user stack, and the stack itself from `slice_start` on.
    pub resume: Option<(&'a Resume, &'a [u8])>,
}

impl SampleRing {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Moves up to `most` records into `batch`, which is emptied first. Whether the ring was emptied.
    pub fn drain(&mut self, batch: &mut SampleBatch, most: usize) -> bool {
        batch.clear();
        for _ in 0..most {
            let Some(record) = self.ring.next() else { return true };
            batch.push(&record);
        }
        false
    }
}

impl AsFd for SampleRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl SampleBatch {
    /// Adds one record, as the eBPF program wrote it.
    pub fn push(&mut self, record: &[u8]) {
        if self.decode(record).is_none() {
            self.undecodable += 1;
        }
    }

    fn decode(&mut self, record: &[u8]) -> Option<()> {
        let (header, body) = record.split_at_checked(size_of::<SampleHeader>())?;
        // SAFETY: the slice has the header's size, and every bit pattern is a valid header (integers only).
        let header = unsafe { header.as_ptr().cast::<SampleHeader>().read_unaligned() };
        let count = usize::from(header.kernel_frames) + usize::from(header.user_frames);
        let (frames, rest) = body.split_at_checked(count * size_of::<u64>())?;
        let resumes = walk::resumes(header.walk) && header.flags & flag::NO_SLICE == 0;
        let (resume, slice) = if resumes { resume(rest)? } else { (None, &[][..]) };
        self.entries.push(Entry { header, frames: self.frames.len(), resume, slice: self.slices.len() });
        let (frames, _) = frames.as_chunks::<8>();
        self.frames.extend(frames.iter().map(|frame| u64::from_ne_bytes(*frame)));
        self.slices.extend_from_slice(slice);
        Some(())
    }

    /// Puts the samples in the order of their time; the ring has them in the order in which CPUs finished.
    pub fn sort_by_time(&mut self) {
        self.entries.sort_by_key(|entry| entry.header.timestamp);
    }

    /// The samples of the batch.
    pub fn samples(&self) -> impl Iterator<Item = RawSample<'_>> {
        self.entries.iter().map(|Entry { header, frames, resume, slice }| {
            let frames = &self.frames[*frames..];
            let (kernel, rest) = frames.split_at(usize::from(header.kernel_frames));
            let user = &rest[..usize::from(header.user_frames)];
            let resume = resume.as_deref();
            let resume = resume.map(|resume| (resume, &self.slices[*slice..][..resume.slice_bytes as usize]));
            RawSample { header, kernel, user, resume }
        })
    }

    /// Records that were too short for what their headers announced.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.frames.clear();
        self.slices.clear();
        self.undecodable = 0;
    }
}

/// The [`Resume`] that `bytes` begin with, and the slice that follows it.
fn resume(bytes: &[u8]) -> Option<(Option<Box<Resume>>, &[u8])> {
    let (resume, slice) = bytes.split_at_checked(size_of::<Resume>())?;
    // SAFETY: the slice has the structure's size, and every bit pattern is valid (integers only).
    let resume = unsafe { resume.as_ptr().cast::<Resume>().read_unaligned() };
    let slice = slice.get(..resume.slice_bytes as usize)?;
    Some((Some(Box::new(resume)), slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kernel_frames: u16, user_frames: u16, frames: &[u64], timestamp: u64) -> Vec<u8> {
        let header = SampleHeader { kernel_frames, user_frames, timestamp, ..SampleHeader::default() };
        // SAFETY: the header is plain data without padding.
        let header: [u8; size_of::<SampleHeader>()] = unsafe { std::mem::transmute(header) };
        let mut record = header.to_vec();
        for frame in frames {
            record.extend(frame.to_ne_bytes());
        }
        record
    }

    /// Frames are split between kernel and user; samples come in the order of time.
    #[test]
    fn records_are_decoded() {
        let mut batch = SampleBatch::default();
        batch.push(&record(1, 2, &[10, 20, 30], 2));
        batch.push(&record(0, 1, &[40, 0], 1));
        batch.sort_by_time();
        let samples: Vec<_> =
            batch.samples().map(|sample| (sample.kernel.to_vec(), sample.user.to_vec())).collect();
        assert_eq!(samples, [(vec![], vec![40]), (vec![10], vec![20, 30])]);
        assert_eq!(batch.undecodable(), 0);
    }

    /// Records that are too short are counted and left out.
    #[test]
    fn short_records_are_counted() {
        let mut batch = SampleBatch::default();
        batch.push(&record(1, 2, &[10, 20], 2));
        batch.push(&[0; 10]);
        assert_eq!((batch.samples().count(), batch.undecodable()), (0, 2));
    }
}
