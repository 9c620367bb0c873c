//! Flame graph: one self-contained SVG that zooms and searches in a browser, drawn by `inferno`.

use std::io::{self, Write};

use inferno::flamegraph::color::{BackgroundColor, Color, MultiPalette, Palette, PaletteMap};
use inferno::flamegraph::{self, Options, TextTruncateDirection};

use super::folded;
use crate::printable::printable;
use crate::profile::accounting::Accounting;
use crate::profile::model::{Profile, ProfileKind, ValueType, is_placeholder};
use crate::report::quantity;
use crate::time_format::rfc3339;

/// What is no code: the whole, and the processes.
const TASK: Color = Color { r: 176, g: 192, b: 208 };
/// What has no name: frames without a symbol, and markers.
const NAMELESS: Color = Color { r: 200, g: 200, b: 200 };
/// Characters of the subtitle that fit the initial width (1200 px) beside some margin.
const SUBTITLE_CHARS: usize = 160;

/// Writes the flame graph of the value that reports rank by (CPU time, shown in milliseconds).
///
/// Colours say what a frame is: blue-grey a process, grey nameless, and the rest by `inferno`'s annotated
/// palette: orange kernel, aqua inlined, yellow C++ and Rust, green managed code, red other native code. They
/// depend on names only, so that two graphs can be compared.
pub fn write(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let (value_index, value) = profile.ranked_value().unwrap_or((0, profile.period_type));
    let lines = folded::lines(profile, value_index);
    if lines.is_empty() {
        return write_empty(profile, out);
    }
    let mut colors = special_colors(&lines);
    let mut options = options(profile, value);
    options.palette_map = Some(&mut colors);
    // Sorted as lines, `f(int)` would stand between `f` and `f;g`, and `f` would be drawn twice. "Flame
    // chart" is inferno's way to take lines in the order given, from the last to the first.
    options.flame_chart = true;
    flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), out)
}

fn options<'a>(profile: &Profile, value: ValueType) -> Options<'a> {
    let (factor, count_name) = scale(value);
    let mut options = Options::default();
    options.title = title(profile);
    options.subtitle = Some(subtitle(&profile.accounting));
    options.notes = profile.accounting.to_string();
    options.colors = Palette::Multi(MultiPalette::Java);
    options.bgcolors = Some(BackgroundColor::Grey);
    options.deterministic = true;
    options.factor = factor;
    options.count_name = count_name;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options
}

/// The colours of frames that are no named code. The frame of the whole has the empty name.
fn special_colors(lines: &[String]) -> PaletteMap {
    let mut colors = PaletteMap::default();
    for line in lines {
        let stack = line.rsplit_once(' ').map_or(line.as_str(), |(stack, _)| stack);
        let mut frames = stack.split(';');
        let process = frames.next().unwrap_or_default();
        for frame in frames {
            let name = frame.strip_suffix("_[k]").unwrap_or(frame);
            let is_marker = name.starts_with('[') && name.ends_with(']');
            if is_marker || is_placeholder(name) {
                colors.insert(frame, NAMELESS);
            }
        }
        colors.insert(process, TASK);
    }
    colors.insert("", TASK);
    colors
}

/// What a value is multiplied by for display, and the unit it has then.
fn scale(value: ValueType) -> (f64, String) {
    match value.unit {
        "nanoseconds" => (1e-6, "ms".to_owned()),
        "bytes" => (1.0 / 1024.0, "KiB".to_owned()),
        "count" => (1.0, value.name.to_owned()),
        unit => (1.0, unit.to_owned()),
    }
}

/// `CPU time, node-1, 2024-02-29T12:34:56Z, 10.0 s`
fn title(profile: &Profile) -> String {
    let what = match profile.kind {
        ProfileKind::Cpu => "CPU time",
        ProfileKind::OffCpu => "Off-CPU time",
        ProfileKind::PageFaults => "Memory made resident",
        ProfileKind::OffCpuWakers => "Off-CPU time by who ended it",
        ProfileKind::Mutex => "Waits for locks",
        ProfileKind::MutexHolders => "Waits for locks by holder",
    };
    let host = printable(&profile.host);
    let parts = [what, &host, &rfc3339(profile.started), &quantity::length(profile.duration)];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

/// The line of honesty; without its causes where it would not fit. The file's `NOTES` comment has it in full.
fn subtitle(accounting: &Accounting) -> String {
    let full = accounting.to_string();
    if full.chars().count() <= SUBTITLE_CHARS {
        return full;
    }
    format!(
        "expected {}, emitted {}, {}lost {}, truncated {}, unresolved frames {} of {}",
        accounting.expected,
        accounting.emitted,
        accounting.left_out,
        accounting.lost_total(),
        accounting.truncated_total(),
        accounting.unresolved_total(),
        accounting.frames
    )
}

/// `inferno` draws an error where there is nothing to draw; having seen nothing is not an error.
fn write_empty(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    let text = |y: u32, size: u32, text: &str| {
        format!("<text x=\"50%\" y=\"{y}\" font-size=\"{size}\">{}</text>\n", escape(text))
    };
    write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg version=\"1.1\" width=\"100%\" height=\"140\" xmlns=\"http://www.w3.org/2000/svg\" \
         font-family=\"monospace\" text-anchor=\"middle\">\n\
         <rect width=\"100%\" height=\"140\" fill=\"#f8f8f8\"/>\n\
         {}{}{}</svg>\n",
        text(24, 17, &title(profile)),
        text(48, 12, &subtitle(&profile.accounting)),
        text(95, 17, "no samples"),
    )?;
    out.flush()
}

/// XML 1.0 §2.4: what may not stand literally in character data.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::accounting::{LostCause, TruncatedCause, UnresolvedReason};
    use crate::profile::example;

    fn svg(profile: &Profile) -> String {
        let mut out = Vec::new();
        write(profile, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// Title, line of honesty, and every frame with its time and share.
    #[test]
    fn the_example_is_drawn() {
        let svg = svg(&example::profile());
        for part in [
            "CPU time, node-1, 2024-02-29T12:34:56Z, 200 ms",
            "expected 12, emitted 10, lost 2 (kernel_skipped 2)",
            "<title>all (100 ms, 100%)</title>",
            "<title>app (90 ms, 90.00%)</title>",
            "<title>app::hash (30 ms, 30.00%)</title>",
            "<title>vfs_read (10 ms, 10.00%)</title>",
            "<title>[truncated: depth] (10 ms, 10.00%)</title>",
        ] {
            assert!(svg.contains(part), "{part:?} not in\n{svg}");
        }
    }

    /// Processes, nameless frames and kernel code are told apart by colour.
    #[test]
    fn colours_tell_frames_apart() {
        let svg = svg(&example::profile());
        let color_of = |name: &str| {
            let (_, after) = svg.split_once(&format!("<title>{name} (")).unwrap();
            let (_, fill) = after.split_once("fill=\"").unwrap();
            fill.split('"').next().unwrap()
        };
        assert_eq!(color_of("app"), "rgb(176,192,208)");
        for nameless in ["libc.so.6+0x1f00", "[unknown]", "[truncated: depth]"] {
            assert_eq!(color_of(nameless), "rgb(200,200,200)", "{nameless}");
        }
        let named = ["main", "app::walk", "app::hash", "vfs_read"].map(color_of);
        for (index, color) in named.iter().enumerate() {
            assert!(!["rgb(176,192,208)", "rgb(200,200,200)"].contains(color));
            assert!(!named[..index].contains(color), "{named:?}");
        }
    }

    /// A caller is drawn once even if another function's name sorts between it and its callees.
    #[test]
    fn a_caller_is_one_frame() {
        let mut profile = example::profile();
        profile.functions[0].name = "f".into();
        profile.functions[1].name = "f(int)".into();
        profile.samples[2].locations = vec![1];
        profile.samples[2].labels = profile.samples[0].labels.clone();
        let mut leaf = profile.samples[0].clone();
        leaf.locations = vec![0];
        profile.samples.push(leaf);
        let svg = svg(&profile);
        assert_eq!(svg.matches("<title>f (").count(), 1, "{svg}");
    }

    /// The file asks the network for nothing: addresses occur only as names of XML namespaces, in the
    /// document type and in comments.
    #[test]
    fn the_file_is_self_contained() {
        for svg in [svg(&example::profile()), svg(&example::empty())] {
            assert!(!svg.contains("href=") && !svg.contains("src=") && !svg.contains("@import"));
            assert_eq!(svg.matches("url(").count(), svg.matches("url(#background)").count());
        }
    }

    /// Two runs give the same bytes, colours included.
    #[test]
    fn drawing_is_deterministic() {
        assert_eq!(svg(&example::profile()), svg(&example::profile()));
    }

    /// No samples: a picture that says so, with hostile host names disarmed.
    #[test]
    fn nothing_is_drawn_as_nothing() {
        let empty = Profile { host: "<a>&\u{1}".into(), ..example::empty() };
        let svg = svg(&empty);
        assert!(svg.starts_with("<?xml") && svg.ends_with("</svg>\n"));
        assert!(svg.contains(">no samples</text>"));
        assert!(svg.contains("&lt;a&gt;&amp;\u{fffd}"), "{svg}");
    }

    /// A line that would run out of the picture gives up its causes, not its numbers.
    #[test]
    fn long_subtitles_are_shortened() {
        let many = 123_456_789_012;
        let accounting = Accounting {
            ticks: many,
            expected: many,
            emitted: many,
            frames: many,
            lost: [many; LostCause::ALL.len()],
            truncated: [many; TruncatedCause::ALL.len()],
            unresolved: [many; UnresolvedReason::ALL.len()],
            ..Accounting::default()
        };
        let short = subtitle(&accounting);
        assert!(short.chars().count() <= SUBTITLE_CHARS, "{short}");
        let lost = many * LostCause::ALL.len() as u64;
        assert!(short.starts_with(&format!("expected 123456789012, emitted 123456789012, lost {lost}")));
        assert_eq!(subtitle(&Accounting::default()), Accounting::default().to_string());
    }
}
