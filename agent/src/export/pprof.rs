//! pprof: the format of google/pprof, `go tool pprof`, Pyroscope, Parca and speedscope.
//!
//! The neutral model has pprof's structure, so this is a walk over its tables: an index becomes an id by
//! adding one. The same profile always gives the same bytes.

pub mod proto;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use crate::profile::model::{Function, Labels, Location, Module, Profile, Sample, ValueType};
use crate::time_format::unix_nanos;

/// The profile as a gzip-compressed `perftools.profiles.Profile` message.
pub fn encode(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = write(profile, &mut bytes);
    debug_assert!(written.is_ok(), "a Vec takes every byte");
    bytes
}

/// Writes what [`encode`] returns.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&message(profile).encode_to_vec())?;
    gzip.finish()?.flush()
}

/// The profile as pprof's message, before it is encoded.
pub fn message(profile: &Profile) -> proto::Profile {
    let mut strings = StringTable::new();
    let flags = symbol_flags(profile);
    let mut message = proto::Profile {
        sample_type: profile.sample_types.iter().map(|value| value_type(value, &mut strings)).collect(),
        sample: profile.samples.iter().map(|each| sample(each, &mut strings)).collect(),
        mapping: profile
            .modules
            .iter()
            .zip(&flags)
            .zip(1..)
            .map(|((module, flags), id)| mapping(module, *flags, id, &mut strings))
            .collect(),
        location: profile.locations.iter().zip(1..).map(|(each, id)| location(each, id)).collect(),
        function: profile
            .functions
            .iter()
            .zip(1..)
            .map(|(each, id)| function(each, id, &mut strings))
            .collect(),
        time_nanos: unix_nanos(profile.started),
        duration_nanos: i64::try_from(profile.duration.as_nanos()).unwrap_or(i64::MAX),
        period_type: Some(value_type(&profile.period_type, &mut strings)),
        period: profile.period,
        comment: comments(profile).iter().map(|text| strings.index(text)).collect(),
        default_sample_type: profile.ranked_value().map_or(0, |(_, value)| strings.index(value.name)),
        ..proto::Profile::default()
    };
    message.string_table = strings.strings;
    message
}

/// What goes with the profile as text: what it is, and the line of honesty.
fn comments(profile: &Profile) -> [String; 2] {
    [
        format!("nodeprof: {} profile of {}", profile.kind.name(), profile.host),
        format!("nodeprof: {}", profile.accounting),
    ]
}

fn value_type(value: &ValueType, strings: &mut StringTable) -> proto::ValueType {
    proto::ValueType { r#type: strings.index(value.name), unit: strings.index(value.unit) }
}

fn sample(sample: &Sample, strings: &mut StringTable) -> proto::Sample {
    proto::Sample {
        location_id: sample.locations.iter().map(|&index| id_of(index)).collect(),
        value: sample.values.clone(),
        label: labels(&sample.labels, strings),
    }
}

/// One value a key, as OTLP and most readers want it. An empty string is the same as no value in protobuf, so
/// that empty names are left out.
fn labels(labels: &Labels, strings: &mut StringTable) -> Vec<proto::Label> {
    let mut all = vec![number_label("pid", labels.pid, strings)];
    all.extend(text_label("comm", &labels.comm, strings));
    if let Some(thread) = &labels.thread {
        all.push(number_label("thread_id", thread.id, strings));
        all.extend(text_label("thread", &thread.name, strings));
    }
    all.extend(labels.state.and_then(|state| text_label("state", state, strings)));
    all.extend(labels.memory.and_then(|memory| text_label("memory", memory, strings)));
    all.extend(labels.lock.and_then(|lock| text_label("lock", lock, strings)));
    all.extend(labels.ended.and_then(|ended| text_label("ended", ended, strings)));
    if let Some(woken) = &labels.woken {
        all.push(number_label("woken_pid", woken.pid, strings));
        all.extend(text_label("woken", &woken.comm, strings));
    }
    all.extend(labels.truncated.and_then(|cause| text_label("truncated", cause, strings)));
    all
}

fn number_label(key: &str, number: u32, strings: &mut StringTable) -> proto::Label {
    proto::Label { key: strings.index(key), num: number.into(), ..proto::Label::default() }
}

fn text_label(key: &str, text: &str, strings: &mut StringTable) -> Option<proto::Label> {
    (!text.is_empty()).then(|| proto::Label {
        key: strings.index(key),
        str: strings.index(text),
        ..proto::Label::default()
    })
}

/// A module whose extent is not known is given the whole address space: readers want a location's address to
/// lie inside its mapping, and `go tool pprof` would join two empty mappings of the same path to one.
fn mapping(module: &Module, flags: SymbolFlags, id: u64, strings: &mut StringTable) -> proto::Mapping {
    proto::Mapping {
        id,
        memory_start: module.start,
        memory_limit: if module.limit > module.start { module.limit } else { u64::MAX },
        file_offset: module.file_offset,
        filename: strings.index(&module.path),
        build_id: strings.index(module.build_id.as_deref().unwrap_or_default()),
        has_functions: flags.functions,
        has_filenames: flags.filenames,
        has_line_numbers: flags.line_numbers,
        has_inline_frames: flags.inline_frames,
    }
}

fn location(location: &Location, id: u64) -> proto::Location {
    proto::Location {
        id,
        mapping_id: location.module.map_or(0, id_of),
        address: location.address,
        line: location
            .lines
            .iter()
            .map(|line| proto::Line { function_id: id_of(line.function), line: line.line.into(), column: 0 })
            .collect(),
        is_folded: false,
    }
}

fn function(function: &Function, id: u64, strings: &mut StringTable) -> proto::Function {
    proto::Function {
        id,
        name: strings.index(&function.name),
        system_name: strings.index(&function.system_name),
        filename: strings.index(function.file.as_deref().unwrap_or_default()),
        start_line: 0,
    }
}

/// pprof's ids begin at 1; 0 means "none".
fn id_of(index: usize) -> u64 {
    index as u64 + 1
}

/// What is known of all the locations of a mapping.
///
/// As in Go's `runtime/pprof`, one location without a name is enough to say that a mapping has no function
/// names: readers look up mappings that say so once more where they have the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the four flags of pprof's Mapping message")]
struct SymbolFlags {
    functions: bool,
    filenames: bool,
    line_numbers: bool,
    inline_frames: bool,
}

fn symbol_flags(profile: &Profile) -> Vec<SymbolFlags> {
    let mut flags: Vec<Option<SymbolFlags>> = vec![None; profile.modules.len()];
    for location in &profile.locations {
        let Some(flags) = location.module.and_then(|module| flags.get_mut(module)) else { continue };
        let functions = || location.lines.iter().filter_map(|line| profile.functions.get(line.function));
        let so_far = flags.unwrap_or(SymbolFlags {
            functions: true,
            filenames: true,
            line_numbers: true,
            inline_frames: false,
        });
        *flags = Some(SymbolFlags {
            functions: so_far.functions && functions().all(Function::is_named),
            filenames: so_far.filenames && functions().all(|function| function.file.is_some()),
            line_numbers: so_far.line_numbers && location.lines.iter().all(|line| line.line != 0),
            inline_frames: so_far.inline_frames || location.lines.len() > 1,
        });
    }
    let nothing_known =
        SymbolFlags { functions: false, filenames: false, line_numbers: false, inline_frames: false };
    flags.into_iter().map(|flags| flags.unwrap_or(nothing_known)).collect()
}

/// The strings of a message, each once, in the order of first use.
struct StringTable {
    strings: Vec<String>,
    indices: HashMap<String, i64>,
}

impl StringTable {
    /// pprof wants `""` at index 0.
    fn new() -> Self {
        Self { strings: vec![String::new()], indices: HashMap::from([(String::new(), 0)]) }
    }

    fn index(&mut self, text: &str) -> i64 {
        if let Some(&index) = self.indices.get(text) {
            return index;
        }
        let index = self.strings.len() as i64;
        self.strings.push(text.to_owned());
        self.indices.insert(text.to_owned(), index);
        index
    }
}
