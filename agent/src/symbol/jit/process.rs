//! One process's generated code: where its maps are, and what they have told so far.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use crate::printable::printable;
use crate::symbol::jit::code_map::MapFormat;
use crate::symbol::jit::name::WrittenName;
use crate::symbol::jit::process_view::{ProcessView, Status, is_own};
use crate::symbol::jit::runtime::{MappedCode, MappedDump, Runtime};
use crate::symbol::jit::source::{NamePlace, Source};
use crate::symbol::unresolved::UnresolvedReason;

/// Between two looks at a process's maps.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at what the process has mapped: for a runtime that was loaded since, and for jitdumps.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// What is known of a process's generated code.
#[derive(Debug)]
pub(super) struct JitProcess {
    pid: u32,
    /// When the process began; `None` until it was looked at.
    start_time: Option<u64>,
    looked: Option<Instant>,
    searched: Option<Instant>,
    code: MappedCode,
    sources: Vec<Source>,
    /// Whether it has ended, or was never there.
    gone: bool,
    /// Whether there is a map that may not be used.
    refused: bool,
    logged: Logged,
}

/// What was said of a process so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Logged {
    Nothing,
    Loading,
    Found,
}

impl JitProcess {
    /// A process that was not looked at yet.
    pub(super) fn new(pid: u32) -> Self {
        Self {
            pid,
            start_time: None,
            looked: None,
            searched: None,
            code: MappedCode::default(),
            sources: Vec::new(),
            gone: false,
            refused: false,
            logged: Logged::Nothing,
        }
    }

    /// Looks for maps and what was added to them, if the last look is not of just now. The table of each may take `limit` bytes.
    pub(super) fn look(&mut self, now: Instant, limit: usize) {
        if self.gone || self.looked.is_some_and(|looked| now < looked + LOOK_INTERVAL) {
            return;
        }
        self.looked = Some(now);
        match self.look_at_process(now) {
            // Its number belongs to another process by now, and perhaps its map.
            Ok(false) => {
                self.gone = true;
                return;
            }
            Ok(true) => {}
            // What is still open holds what it has written last.
            Err(error) if is_gone(&error) => self.gone = true,
            Err(error) => {
                tracing::debug!(pid = self.pid, %error, "cannot look for maps of generated code");
                self.refused = true;
            }
        }
        for source in &mut self.sources {
            if let Err(error) = source.look(limit) {
                tracing::debug!(pid = self.pid, path = source.path(), %error, "cannot read a map of generated code");
            }
        }
        self.log();
    }

    /// Finds the process's maps and opens them; false when another process has its number.
    fn look_at_process(&mut self, now: Instant) -> io::Result<bool> {
        let view = ProcessView::open(self.pid)?;
        let start_time = view.start_time()?;
        if *self.start_time.get_or_insert(start_time) != start_time {
            return Ok(false);
        }
        if self.searched.is_none_or(|searched| now >= searched + SEARCH_INTERVAL) {
            self.searched = Some(now);
            let mut code = MappedCode::default();
            view.executable_mappings(|entry| code.add(entry))?;
            // A process that is ending shows no mappings; that is not news.
            if code != MappedCode::default() {
                self.code = code;
            }
        }
        let (status, root) = (view.status()?, view.root()?);
        self.refused = false;
        for MappedDump { start, end, path } in self.code.dumps.clone() {
            // Without CAP_CHECKPOINT_RESTORE there is the path only.
            let opened = view.mapped_file(start, end).or_else(|_| root.open_file(&path));
            self.take(MapFormat::Jitdump, printable(&path).into_owned(), opened, &status)?;
        }
        let path = format!("/tmp/perf-{}.map", status.own_pid);
        let opened = root.open_file(&path);
        self.take(MapFormat::PerfMap, path, opened, &status)?;
        Ok(true)
    }

    /// Follows the file at `path`, if it is there and may be believed.
    fn take(
        &mut self,
        format: MapFormat,
        path: String,
        opened: io::Result<File>,
        status: &Status,
    ) -> io::Result<()> {
        let file = match opened {
            Ok(file) => file,
            // A file that was there and is removed keeps telling what it told.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                tracing::debug!(pid = self.pid, path, %error, "cannot open a map of generated code");
                self.refused = true;
                return Ok(());
            }
        };
        if !is_own(&file, status)? {
            if !self.refused {
                tracing::debug!(
                    pid = self.pid,
                    "{path} is not used: it is neither root's nor the process's user's"
                );
            }
            self.refused = true;
            return Ok(());
        }
        let known = self.sources.iter_mut().find(|source| source.format() == format && source.path() == path);
        if let Some(source) = known {
            return source.reopen(file);
        }
        self.sources.push(Source::new(format, path, file)?);
        Ok(())
    }

    /// Says what is there, once.
    fn log(&mut self) {
        let (runtime, pid) = (self.code.runtime, self.pid);
        if self.logged == Logged::Nothing && !self.sources.is_empty() {
            self.logged = Logged::Loading;
            for source in &self.sources {
                let what = match source.format() {
                    MapFormat::PerfMap => "JIT perf-map",
                    MapFormat::Jitdump => "jitdump",
                };
                tracing::info!("Loading {what} for {runtime} process: {}", source.path());
            }
        }
        let found: usize = self.sources.iter().map(Source::len).sum();
        if self.logged == Logged::Loading && found > 0 {
            self.logged = Logged::Found;
            tracing::info!("Found {found} JIT symbols for process {pid}");
            let bad: u64 = self.sources.iter().map(Source::bad).sum();
            if bad > 0 {
                tracing::info!(pid, bad, "lines or records of its maps that make no sense were passed over");
            }
        }
    }

    /// Where the name of the code at `address` stands; else why there is none.
    pub(super) fn find(&self, address: u64) -> Result<NamePlace, UnresolvedReason> {
        // A jitdump comes first: it is exact, where a perf map of the same process is an extract.
        if let Some(place) = self.sources.iter().find_map(|source| source.find(address)) {
            return Ok(place);
        }
        let of_use = self.sources.iter().any(|source| !source.is_refused());
        Err(match self.code.runtime {
            _ if of_use => UnresolvedReason::JitWithoutMap,
            _ if self.refused || !self.sources.is_empty() => UnresolvedReason::Unreadable,
            _ if self.start_time.is_none() && self.gone => UnresolvedReason::Gone,
            Runtime::Other | Runtime::Python => UnresolvedReason::Anonymous,
            _ => UnresolvedReason::JitWithoutMap,
        })
    }

    /// Reads a name that [`JitProcess::find`] has found; `None` where its file cannot be read any more.
    pub(super) fn name(&mut self, place: NamePlace) -> Option<WrittenName> {
        self.read_name(place).or_else(|| {
            self.reopen();
            self.read_name(place)
        })
    }

    fn read_name(&self, place: NamePlace) -> Option<WrittenName> {
        self.sources.iter().find_map(|source| source.name(place)?.ok())
    }

    /// Opens what was closed for others' sake, if the process is still there.
    fn reopen(&mut self) {
        if !self.gone {
            let looked = self.look_at_process(self.searched.unwrap_or_else(Instant::now));
            self.gone = looked.map_or_else(|error| is_gone(&error), |same| !same);
        }
    }

    /// Closes its files. They are opened again when they are needed.
    pub(super) fn close(&mut self) {
        self.sources.iter_mut().for_each(Source::close);
    }

    /// If a HotSpot JVM runs there: the path of its library, as it sees it, and when it began.
    pub(super) fn hotspot(&self) -> Option<(String, u64)> {
        let is_one = self.code.runtime == Runtime::HotSpot && !self.gone;
        self.code.libjvm.clone().filter(|_| is_one).zip(self.start_time)
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        let dumps: usize =
            self.code.dumps.iter().map(|dump| dump.path.capacity() + size_of::<MappedDump>()).sum();
        let sources: usize = self.sources.iter().map(Source::heap_bytes).sum();
        sources + dumps + self.sources.capacity() * size_of::<Source>()
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
impl JitProcess {
    /// So that the process that runs now is another one with the same number.
    pub(super) fn pretend_to_have_begun_earlier(&mut self) {
        self.start_time = self.start_time.map(|time| time - 1);
    }
}
