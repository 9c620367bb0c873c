//! Records of our own programs: nobody else writes them, but their lengths are numbers all the same.

use agent::kernel::sample_ring::SampleBatch;

use crate::Target;

pub(super) const TARGET: Target =
    Target { name: "sample_ring", longest_input: 2 << 10, heap_bytes: 256 << 10, read };

/// The input is records, each behind its length in two bytes.
fn read(mut input: &[u8]) -> bool {
    let mut batch = SampleBatch::default();
    let mut records = 0;
    while let Some((length, rest)) = input.split_first_chunk() {
        let (record, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes(*length))));
        batch.push(record);
        records += 1;
        input = rest;
    }
    batch.sort_by_time();
    let samples: Vec<_> = batch.samples().collect();
    assert_eq!(samples.len() as u64 + batch.undecodable(), records);
    assert!(samples.is_sorted_by_key(|sample| sample.header.timestamp));
    for sample in &samples {
        assert_eq!(sample.kernel.len(), usize::from(sample.header.kernel_frames));
        assert_eq!(sample.user.len(), usize::from(sample.header.user_frames));
        if let Some((resume, slice)) = sample.resume {
            assert_eq!(slice.len(), resume.slice_bytes as usize);
        }
    }
    !samples.is_empty()
}
