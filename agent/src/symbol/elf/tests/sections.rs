//! Compressed sections and MiniDebugInfo, as binutils and xz write them, whole, lying and broken.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::unpack::{Codec, Packed};
use super::super::{SectionData, mini_debug_info};
use super::writer::{E_SHOFF, SECTION_HEADER, SH_SIZE, Writer, func};
use super::*;

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What `tool` makes of `input`.
fn piped(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(tool);
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads all");
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// A program with debug information, uncompressed.
fn program(directory: &Path) -> PathBuf {
    let (source, program) = (directory.join("program.c"), directory.join("program"));
    let body: Vec<_> = (0..200).map(|n| format!("int function_{n}(int a) {{ return a * {n}; }}\n")).collect();
    let body = body.concat();
    std::fs::write(&source, body + "int main(void) { return function_7(6); }\n").unwrap();
    run(Command::new("gcc").args(["-O1", "-g", "-gz=none", "-o"]).arg(&program).arg(&source));
    program
}

fn section(file: &[u8], name: &str, limit: u64) -> Result<Vec<u8>, ElfError> {
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    assert!(image.has_section(&file, name));
    let data = image.section_data(&file, name, limit)?.expect("it is there");
    assert!(!data.is_empty());
    data.into_bytes(&file, limit)
}

/// Sections compressed by zlib, in today's form and in that of `.zdebug_*`, and by zstd (which this binutils may not write),
/// hold what the uncompressed ones do; one byte less of limit refuses them.
#[test]
fn compressed_sections_read_as_plain_ones() {
    if !["gcc", "objcopy", "zstd"].iter().all(|tool| has(tool)) {
        println!("skipped: needs gcc, objcopy and zstd");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let plain = program(directory.path());
    let bytes = std::fs::read(&plain).unwrap();
    for form in ["zlib-gabi", "zlib-gnu"] {
        let packed = directory.path().join(form);
        run(Command::new("objcopy").arg(format!("--compress-debug-sections={form}")).args([&plain, &packed]));
        let packed = std::fs::read(&packed).unwrap();
        assert!(packed.len() < bytes.len());
        for name in [".debug_info", ".debug_str"] {
            let expected = section(&bytes, name, u64::MAX).unwrap();
            let size = expected.len() as u64;
            assert_eq!(section(&packed, name, size).unwrap(), expected, "{name} as {form}");
            let error = section(&packed, name, size - 1).unwrap_err();
            assert!(matches!(error, ElfError::TooLarge { .. }), "{name} as {form}: {error}");
        }
    }
    let expected = section(&bytes, ".debug_info", u64::MAX).unwrap();
    for frames in [1, 3] {
        // The body of a section with `ELFCOMPRESS_ZSTD`: frames one after the other.
        let parts = expected.chunks(expected.len().div_ceil(frames));
        let body: Vec<u8> = parts.flat_map(|part| piped("zstd", &["-19", "-c"], part)).collect();
        let packed = Packed { what: "test", codec: Codec::Zstd, offset: 0, size: body.len() as u64 };
        let size = expected.len() as u64;
        assert_eq!(packed.unpack(&body, size, size).unwrap(), expected, "{frames} frames");
        for wrong in [size - 1, size + 1] {
            let error = packed.unpack(&body, wrong, u64::MAX).unwrap_err();
            assert!(matches!(error, ElfError::Malformed { .. }), "{error}");
        }
        for end in (0..body.len()).step_by(97) {
            assert!(packed.unpack(&&body[..end], size, size).is_err(), "cut at {end}");
        }
    }
}

/// A whole section with the header of one that is compressed by zstd: as clang and lld write them.
#[test]
fn zstd_sections_are_told_by_their_header() {
    if !has("zstd") {
        println!("skipped: needs zstd");
        return;
    }
    let held = b"what the section holds, ".repeat(100);
    let mut body = [2, held.len() as u64, 1].map(u64::to_le_bytes).concat();
    body.extend(piped("zstd", &["-c"], &held));
    let mut file = Writer::new(vec![]).write();
    // The build id's note becomes the section: its header says so.
    let sections_at = usize::try_from(u64::from_le_bytes(file[E_SHOFF..][..8].try_into().unwrap())).unwrap();
    let header = sections_at + 2 * SECTION_HEADER;
    let at = file.len() as u64;
    file[header + 4..][..4].copy_from_slice(&1_u32.to_le_bytes());
    file[header + 8..][..8].copy_from_slice(&(1_u64 << 11).to_le_bytes());
    file[header + 24..][..8].copy_from_slice(&at.to_le_bytes());
    file[header + SH_SIZE..][..8].copy_from_slice(&(body.len() as u64).to_le_bytes());
    file.extend(body);
    assert_eq!(section(&file, ".note.gnu.build-id", 1 << 20).unwrap(), held);
    let at = at as usize;
    file[at] = 3;
    assert!(matches!(section(&file, ".note.gnu.build-id", 1 << 20), Err(ElfError::Unsupported(_))));
    file[at] = 2;
    file[at + 15] = 1;
    assert!(matches!(section(&file, ".note.gnu.build-id", 1 << 20), Err(ElfError::TooLarge { .. })));
}

/// What is not compressed is not read and needs no limit until it is asked for.
#[test]
fn plain_sections_stay_in_the_file() {
    let file = Writer::new(vec![func("one", 0x1000, 4)]).write();
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    let data = image.section_data(&file, ".strtab", 0).unwrap().expect("it is there");
    assert!(matches!(data, SectionData::InFile { size: 5, .. }), "{data:?}");
    assert!(image.section_data(&file, ".debug_info", u64::MAX).unwrap().is_none());
    assert!(!image.has_section(&file, ".debug_info") && image.has_section(&file, ".strtab"));
    assert!(matches!(data.into_bytes(&file, 4), Err(ElfError::TooLarge { .. })));
}

fn xz(bytes: &[u8]) -> Packed {
    Packed { what: "test", codec: Codec::Xz, offset: 0, size: bytes.len() as u64 }
}

/// Half a gigabyte of zeroes in 76 KB of xz is refused once it has given what the limit allows, and so is a bomb of zlib; of a
/// limit of 1 MiB nothing more than that is in memory.
#[test]
fn bombs_are_refused() {
    if !has("xz") {
        println!("skipped: needs xz");
        return;
    }
    let bomb = {
        let zeroes = piped("head", &["-c", "512M", "/dev/zero"], b"");
        piped("xz", &["-1", "-c"], &zeroes)
    };
    assert!(bomb.len() < 1 << 20);
    let limit = 1 << 20;
    let error = xz(&bomb).unpack_up_to(&bomb, limit).unwrap_err();
    assert!(matches!(error, ElfError::TooLarge { bytes, .. } if bytes == limit + 1), "{error}");

    let mut zlib = Vec::new();
    let zeroes = std::io::Read::take(std::io::repeat(0), 64 << 20);
    let mut encoder = flate2::read::ZlibEncoder::new(zeroes, flate2::Compression::best());
    std::io::Read::read_to_end(&mut encoder, &mut zlib).unwrap();
    let packed = Packed { what: "test", codec: Codec::Zlib, offset: 0, size: zlib.len() as u64 };
    let error = packed.unpack_up_to(&zlib, limit).unwrap_err();
    assert!(matches!(error, ElfError::TooLarge { bytes, .. } if bytes == limit + 1), "{error}");

    // Much that holds nothing costs time: it is refused by its size.
    let endless = vec![0; 2 << 20];
    assert!(matches!(xz(&endless).unpack_up_to(&endless, limit), Err(ElfError::TooLarge { .. })));
}

/// MiniDebugInfo that is cut short anywhere, or changed anywhere, is refused or gives what it gave, and never panics; so does a
/// file that ends within the section.
#[test]
fn broken_xz_is_refused() {
    if !has("xz") {
        println!("skipped: needs xz");
        return;
    }
    let held: Vec<u8> = (0..20_000_u32).flat_map(|n| (n * n / 32).to_le_bytes()).collect();
    for arguments in [&["-c"][..], &["-c", "--check=sha256"], &["-9", "-c", "--x86", "--lzma2"]] {
        let whole = piped("xz", arguments, &held);
        assert_eq!(xz(&whole).unpack_up_to(&whole, 1 << 20).unwrap(), held, "{arguments:?}");
        for end in (0..whole.len()).step_by(whole.len() / 150).chain([whole.len() - 1]).skip(1) {
            let cut = &whole[..end];
            assert!(xz(cut).unpack_up_to(&cut, 1 << 20).is_err(), "{arguments:?} cut at {end}");
            assert!(xz(&whole).unpack_up_to(&cut, 1 << 20).is_err(), "{arguments:?}, the file ends at {end}");
        }
        for at in (0..whole.len()).step_by(whole.len() / 150) {
            let mut changed = whole.clone();
            changed[at] ^= 0x41;
            if let Ok(bytes) = xz(&changed).unpack_up_to(&changed, 1 << 20) {
                assert_eq!(bytes, held, "{arguments:?} changed at {at}");
            }
        }
    }
}

/// A file without the section has no MiniDebugInfo, and that is no error.
#[test]
fn most_files_have_no_mini_debug_info() {
    let file = Writer::new(vec![]).write();
    let image = ElfImage::parse(&file, &ElfLimits::default()).unwrap();
    assert!(mini_debug_info(&file, &image, &ElfLimits::default()).unwrap().is_none());
}
