//! Reading sample records from an eBPF ring buffer, in batches.

use std::os::fd::{AsFd, BorrowedFd};

use agent_ebpf::SampleHeader;
use aya::maps::{MapData, RingBuf};

/// A ring of sample records and the reader's place in it.
pub struct SampleRing {
    ring: RingBuf<MapData>,
}

/// Samples read in one go. The frames of all of them lie in one vector, so a batch costs no allocation
/// once it has grown.
#[derive(Debug, Default)]
pub struct SampleBatch {
    headers: Vec<(SampleHeader, usize)>,
    frames: Vec<u64>,
    undecodable: u64,
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
        let (header, frames) = record.split_at_checked(size_of::<SampleHeader>())?;
        // SAFETY: the slice has the header's size, and every bit pattern is a valid header (integers only).
        let header = unsafe { header.as_ptr().cast::<SampleHeader>().read_unaligned() };
        let count = usize::from(header.kernel_frames) + usize::from(header.user_frames);
        let (frames, _) = frames.as_chunks::<8>();
        let frames = frames.get(..count)?;
        self.headers.push((header, self.frames.len()));
        self.frames.extend(frames.iter().map(|frame| u64::from_ne_bytes(*frame)));
        Some(())
    }

    /// Puts the samples in the order of their time; the ring has them in the order in which CPUs finished.
    pub fn sort_by_time(&mut self) {
        self.headers.sort_by_key(|(header, _)| header.timestamp);
    }

    /// The samples of the batch.
    pub fn samples(&self) -> impl Iterator<Item = RawSample<'_>> {
        self.headers.iter().map(|(header, start)| {
            let frames = &self.frames[*start..];
            let (kernel, rest) = frames.split_at(usize::from(header.kernel_frames));
            RawSample { header, kernel, user: &rest[..usize::from(header.user_frames)] }
        })
    }

    /// Records that were too short for what their headers announced.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    fn clear(&mut self) {
        self.headers.clear();
        self.frames.clear();
        self.undecodable = 0;
    }
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
