//! Records of our own programs: nobody else writes them, but their lengths are numbers all the same.

use agent::kernel::sample_ring::SampleBatch;
use agent_ebpf::{SampleHeader, kind};

use crate::Target;

pub(super) const TARGET: Target =
    Target { name: "sample_ring", longest_input: 2 << 10, heap_bytes: 256 << 10, read };

/// The input is records, each behind its length in two bytes.
fn read(mut input: &[u8]) -> bool {
    let mut batch = SampleBatch::default();
    let (mut records, mut others) = (0, 0);
    while let Some((length, rest)) = input.split_first_chunk() {
        let (record, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))));
        batch.push(record);
        records += 1;
        others += u64::from(is_sample(record));
        input = rest;
    }
    batch.sort_by_time();
    let samples: Vec<_> = batch.samples().collect();
    // Other records are read, or undecodable.
    assert!((others..=records).contains(&(samples.len() as u64 + batch.undecodable())));
    assert!(samples.is_sorted_by_key(|sample| sample.header.timestamp));
    for sample in &samples {
        assert_eq!(sample.kernel.len(), usize::from(sample.header.kernel_frames));
        assert_eq!(sample.user.len(), usize::from(sample.header.user_frames));
        if let Some((resume, slice)) = sample.resume {
            assert!(slice.len() >= resume.slice_bytes as usize);
        }
    }
    !samples.is_empty() || !batch.waits().is_empty()
}

/// Whether a record, if it is whole, is a sample: it is neither a piece of a stack or a faulted page, which precede their
/// sample, nor the end of a wait.
fn is_sample(record: &[u8]) -> bool {
    let kind = record.get(std::mem::offset_of!(SampleHeader, kind)..).and_then(|kind| kind.first_chunk());
    let kind = kind.map_or(kind::CPU, |kind| u16::from_ne_bytes(*kind));
    !matches!(kind, kind::SLICE | kind::WAIT | kind::TASK_END | kind::FAULTED_PAGE)
}
