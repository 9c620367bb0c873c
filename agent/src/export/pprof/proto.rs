//! The messages of google/pprof's `proto/profile.proto` (package `perftools.profiles`).
//!
//! Written by hand: eight small messages do not justify a protobuf compiler in the build. Field numbers,
//! types and meaning are those of <https://github.com/google/pprof/blob/main/proto/profile.proto>. Where the
//! documentation says "string", the field is an index into [`Profile::string_table`].

/// The root message of a profile file.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Profile {
    /// Name and unit of each element of [`Sample::value`].
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// The samples.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// Address ranges and the files mapped there.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// Code addresses.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions that locations refer to.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// Every string of the profile; the first one is `""`.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// String: a regular expression; matching functions and what they call are dropped on display.
    #[prost(int64, tag = "7")]
    pub drop_frames: i64,
    /// String: a regular expression; matching functions are kept despite `drop_frames`.
    #[prost(int64, tag = "8")]
    pub keep_frames: i64,
    /// Start of the collection, in nanoseconds since the Unix epoch, UTC.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// Length of the collection in nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What `period` counts.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// Events between two samples.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Strings: free text.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// String: the sample type that viewers show first; 0 means the last one.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
    /// String: a link to documentation.
    #[prost(int64, tag = "15")]
    pub doc_url: i64,
}

/// Name and unit of a value.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ValueType {
    /// String: what is counted.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// String: its unit.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// The values seen in one context.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sample {
    /// Ids of locations, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value for each sample type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// What else is known of the context.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A key with either a string or a number.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Label {
    /// String: the key.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// String: the value, for a string label.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// The value, for a numeric label.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// String: the unit of `num`; viewers take the key as the unit where it is missing.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// An address range that a file is mapped to.
#[expect(clippy::struct_excessive_bools, reason = "the message has these four fields")]
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Mapping {
    /// Unique and not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// First address behind the range.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Offset in the file of `memory_start`.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// String: path of the file, or a name in brackets such as `[vdso]`.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// String: the build id in hex.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// Function names are complete.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Source file names are complete.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Line numbers are complete.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Inlined functions are given.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A code address and what stands there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Location {
    /// Unique and not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Id of the mapping; 0 where there is none.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The address, inside the mapping.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Innermost inlined function first; the last one is the function that holds the code.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
    /// Several symbols stand at the address, and `line` names one of them.
    #[prost(bool, tag = "5")]
    pub is_folded: bool,
}

/// A function at a location.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Line {
    /// Id of the function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Source line; 0 where it is not known.
    #[prost(int64, tag = "2")]
    pub line: i64,
    /// Source column; 0 where it is not known.
    #[prost(int64, tag = "3")]
    pub column: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Function {
    /// Unique and not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// String: the name that people read.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// String: the name in the symbol table.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// String: source file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
    /// Source line on which the function begins; 0 where it is not known.
    #[prost(int64, tag = "5")]
    pub start_line: i64,
}
