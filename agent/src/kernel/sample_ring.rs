//! Reading sample records from an eBPF ring buffer, in batches.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use agent_ebpf::{
    FaultedPage, Resume, SampleHeader, SlicePiece, Wait, WaitTotal, flag, kind, wait_state, walk,
};
use aya::maps::{MapData, RingBuf};

/// Bytes of stack in a batch after which it ends.
const BATCH_BYTES: usize = 1 << 20;

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
    waits: Vec<WaitEnd>,
    /// By scratch record, pieces of stack whose sample is still to come.
    pieces: HashMap<u16, Pieces>,
    /// The same of faulted pages.
    pages: HashMap<u16, FaultedPage>,
    undecodable: u64,
}

/// The end of a wait, or of a task.
#[derive(Clone, Debug)]
pub struct WaitEnd {
    /// What the program says of it.
    pub wait: Wait,
    /// Where in the kernel the task waited, leaf first; empty where its stack was taken when the wait began.
    pub kernel: Vec<u64>,
    /// Where the task has ended: its short waits, by state.
    pub totals: Option<[WaitTotal; wait_state::COUNT]>,
}

/// Pieces of stack, put together.
#[derive(Debug)]
struct Pieces {
    sequence: u64,
    start: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    header: SampleHeader,
    /// Index of its first frame.
    frames: usize,
    resume: Option<Box<Resume>>,
    /// Index of its slice's first byte.
    slice: usize,
    /// Bytes of its slice, with the pieces that came before.
    slice_bytes: usize,
    page: Option<FaultedPage>,
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
    /// Where the agent has to go on with the user stack, and the stack itself from `slice_start` on: also what lies above the
    /// record's own slice, if it came along.
    pub resume: Option<(&'a Resume, &'a [u8])>,
    /// Of a page fault: what it is about.
    pub page: Option<&'a FaultedPage>,
}

impl SampleRing {
    pub(crate) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Moves up to `most` records into `batch`; fewer when they hold a lot of stack. Whether the ring was emptied.
    pub fn drain(&mut self, batch: &mut SampleBatch, most: usize) -> bool {
        let begun = batch.slices.len();
        for _ in 0..most {
            let Some(record) = self.ring.next() else { return true };
            batch.push(&record);
            if batch.slices.len() - begun >= BATCH_BYTES {
                break;
            }
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
        let kind = record.get(std::mem::offset_of!(SampleHeader, kind)..)?.first_chunk()?;
        match u16::from_ne_bytes(*kind) {
            kind::SLICE => self.decode_piece(record),
            kind::WAIT | kind::TASK_END => self.decode_wait(record),
            kind::FAULTED_PAGE => self.decode_page(record),
            _ => self.decode_sample(record),
        }
    }

    fn decode_wait(&mut self, record: &[u8]) -> Option<()> {
        let (wait, rest) = record.split_at_checked(size_of::<Wait>())?;
        // SAFETY: the slice has the structure's size, and every bit pattern is valid (integers only).
        let wait = unsafe { wait.as_ptr().cast::<Wait>().read_unaligned() };
        let (kernel, rest) = rest.split_at_checked(usize::from(wait.kernel_frames) * size_of::<u64>())?;
        let (kernel, _) = kernel.as_chunks::<8>();
        let kernel = kernel.iter().map(|frame| u64::from_ne_bytes(*frame)).collect();
        let totals = if wait.kind == kind::TASK_END { Some(totals(rest)?) } else { None };
        self.waits.push(WaitEnd { wait, kernel, totals });
        Some(())
    }

    fn decode_page(&mut self, record: &[u8]) -> Option<()> {
        let (page, _) = record.split_at_checked(size_of::<FaultedPage>())?;
        // SAFETY: the slice has the structure's size, and every bit pattern is valid (integers only).
        let page = unsafe { page.as_ptr().cast::<FaultedPage>().read_unaligned() };
        // One that is there already belongs to a sample that the ring had no room for.
        self.pages.insert(page.slot, page);
        Some(())
    }

    fn decode_piece(&mut self, record: &[u8]) -> Option<()> {
        let (piece, bytes) = record.split_at_checked(size_of::<SlicePiece>())?;
        // SAFETY: the slice has the structure's size, and every bit pattern is valid (integers only).
        let piece = unsafe { piece.as_ptr().cast::<SlicePiece>().read_unaligned() };
        let bytes = bytes.get(..usize::try_from(piece.bytes).ok()?)?;
        let SlicePiece { sequence, start, slot, .. } = piece;
        match self.pieces.get_mut(&slot) {
            Some(pieces)
                if pieces.sequence == sequence
                    && pieces.start.wrapping_add(pieces.bytes.len() as u64) == start =>
            {
                pieces.bytes.extend_from_slice(bytes);
            }
            // Others that are there belong to a sample that the ring had no room for.
            _ => {
                self.pieces.insert(slot, Pieces { sequence, start, bytes: bytes.to_vec() });
            }
        }
        Some(())
    }

    fn decode_sample(&mut self, record: &[u8]) -> Option<()> {
        let (header, body) = record.split_at_checked(size_of::<SampleHeader>())?;
        // SAFETY: the slice has the header's size, and every bit pattern is a valid header (integers only).
        let header = unsafe { header.as_ptr().cast::<SampleHeader>().read_unaligned() };
        let count = usize::from(header.kernel_frames) + usize::from(header.user_frames);
        let (frames, rest) = body.split_at_checked(count * size_of::<u64>())?;
        let resumes = walk::resumes(header.walk) && header.flags & flag::NO_SLICE == 0;
        let (resume, slice) = if resumes { resume(rest)? } else { (None, &[][..]) };
        let pieces = self.pieces.remove(&header.slot).filter(|pieces| {
            let end =
                resume.as_ref().map(|resume| resume.slice_start.wrapping_add(u64::from(resume.slice_bytes)));
            pieces.sequence == header.sequence && end == Some(pieces.start)
        });
        let page = if header.kind == kind::PAGE_FAULT { self.pages.remove(&header.slot) } else { None };
        let page = page.filter(|page| page.sequence == header.sequence);
        let above = pieces.map_or(Vec::new(), |pieces| pieces.bytes);
        let slice_bytes = slice.len() + above.len();
        let entry =
            Entry { header, frames: self.frames.len(), resume, slice: self.slices.len(), slice_bytes, page };
        self.entries.push(entry);
        let (frames, _) = frames.as_chunks::<8>();
        self.frames.extend(frames.iter().map(|frame| u64::from_ne_bytes(*frame)));
        self.slices.extend_from_slice(slice);
        self.slices.extend_from_slice(&above);
        Some(())
    }

    /// Puts the samples in the order of their time; the ring has them in the order in which CPUs finished.
    pub fn sort_by_time(&mut self) {
        self.entries.sort_by_key(|entry| entry.header.timestamp);
    }

    /// The samples of the batch.
    pub fn samples(&self) -> impl Iterator<Item = RawSample<'_>> {
        self.entries.iter().map(|Entry { header, frames, resume, slice, slice_bytes, page }| {
            let frames = &self.frames[*frames..];
            let (kernel, rest) = frames.split_at(usize::from(header.kernel_frames));
            let user = &rest[..usize::from(header.user_frames)];
            let resume = resume.as_deref();
            let resume = resume.map(|resume| (resume, &self.slices[*slice..][..*slice_bytes]));
            RawSample { header, kernel, user, resume, page: page.as_ref() }
        })
    }

    /// Waits and tasks that have ended, in the order of the ring.
    pub fn waits(&self) -> &[WaitEnd] {
        &self.waits
    }

    /// Records that were too short for what their headers announced.
    pub fn undecodable(&self) -> u64 {
        self.undecodable
    }

    /// Empties the batch. Pieces of stack whose sample is still to come are kept.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.frames.clear();
        self.slices.clear();
        self.waits.clear();
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

fn totals(bytes: &[u8]) -> Option<[WaitTotal; wait_state::COUNT]> {
    let (words, _) = bytes.as_chunks::<8>();
    let word = |index: usize| words.get(index).map(|word| u64::from_ne_bytes(*word));
    let mut totals = [WaitTotal::default(); wait_state::COUNT];
    for (index, total) in totals.iter_mut().enumerate() {
        *total = WaitTotal { count: word(2 * index)?, nanoseconds: word(2 * index + 1)? };
    }
    Some(totals)
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

    fn piece(slot: u16, sequence: u64, start: u64, stack: &[u8]) -> Vec<u8> {
        let bytes = stack.len() as u64;
        let piece = SlicePiece { sequence, start, bytes, slot, kind: kind::SLICE, ..SlicePiece::default() };
        // SAFETY: plain data without padding.
        let piece: [u8; size_of::<SlicePiece>()] = unsafe { std::mem::transmute(piece) };
        [&piece[..], stack].concat()
    }

    fn sample_with_slice(slot: u16, sequence: u64, start: u64, stack: &[u8]) -> Vec<u8> {
        let header = SampleHeader { sequence, slot, walk: walk::COLD_PAGE, ..SampleHeader::default() };
        let resume = Resume {
            ip: 0,
            sp: 0,
            fp: 0,
            slice_start: start,
            returned: 0,
            slice_bytes: stack.len() as u32,
            registers: [0; agent_ebpf::REGISTERS],
        };
        // SAFETY: plain data without padding, both.
        let (header, resume) = unsafe {
            (
                std::mem::transmute::<SampleHeader, [u8; size_of::<SampleHeader>()]>(header),
                std::mem::transmute::<Resume, [u8; size_of::<Resume>()]>(resume),
            )
        };
        [&header[..], &resume, stack].concat()
    }

    /// Pieces of stack go behind the slice of the sample that they came before, whatever is put together in other records meanwhile; those of a
    /// sample that never came, or that do not follow on, go nowhere.
    #[test]
    fn pieces_of_stack_find_their_sample() {
        let mut batch = SampleBatch::default();
        batch.push(&piece(1, 6, 0x1008, &[9; 8]));
        batch.push(&piece(1, 7, 0x1008, &[2; 8]));
        batch.push(&piece(0, 7, 0x2010, &[5; 8]));
        batch.push(&piece(1, 7, 0x1010, &[3; 8]));
        batch.push(&sample_with_slice(1, 7, 0x1000, &[1; 8]));
        batch.push(&sample_with_slice(0, 7, 0x2000, &[4; 8]));
        batch.push(&sample_with_slice(1, 8, 0x1000, &[6; 8]));
        let slices: Vec<_> = batch.samples().filter_map(|sample| Some(sample.resume?.1.to_vec())).collect();
        let whole: Vec<u8> = [[1; 8], [2; 8], [3; 8]].concat();
        assert_eq!(slices, [whole, vec![4; 8], vec![6; 8]]);
        assert_eq!((batch.undecodable(), batch.pieces.len()), (0, 0));
    }

    /// What a page fault is about goes with the sample of the same number that follows it in the same scratch record, and with no
    /// other.
    #[test]
    fn faulted_pages_find_their_sample() {
        let page = |slot: u16, sequence: u64, address: u64| {
            let kind = kind::FAULTED_PAGE;
            let page = FaultedPage { sequence, address, slot, kind, ..FaultedPage::default() };
            // SAFETY: plain data without padding.
            unsafe { std::mem::transmute::<FaultedPage, [u8; size_of::<FaultedPage>()]>(page) }
        };
        let sample = |slot: u16, sequence: u64, kind: u16| {
            let header = SampleHeader { sequence, slot, kind, ..SampleHeader::default() };
            // SAFETY: plain data without padding.
            unsafe { std::mem::transmute::<SampleHeader, [u8; size_of::<SampleHeader>()]>(header) }
        };
        let mut batch = SampleBatch::default();
        // The ring had no room for the sample of the first.
        batch.push(&page(1, 6, 10));
        batch.push(&page(1, 7, 20));
        batch.push(&page(0, 7, 30));
        batch.push(&sample(1, 5, kind::CPU));
        batch.push(&sample(1, 7, kind::PAGE_FAULT));
        batch.push(&sample(0, 8, kind::PAGE_FAULT));
        let pages: Vec<_> = batch.samples().map(|sample| sample.page.map(|page| page.address)).collect();
        assert_eq!(pages, [None, Some(20), None]);
        batch.push(&page(1, 8, 40)[..40]);
        assert_eq!((batch.undecodable(), batch.pages.len()), (1, 0));
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
