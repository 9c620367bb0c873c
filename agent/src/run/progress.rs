//! Progress of a window on a terminal; silence everywhere else.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar on standard error that fills up as the window passes.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    /// A bar for a window of `duration`, if standard error is a terminal.
    pub(super) fn new(duration: Duration) -> Self {
        let target = if std::io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(duration.as_millis() as u64), target);
        if let Ok(style) =
            ProgressStyle::with_template("profiling [{bar:40}] {elapsed} {msg} (Ctrl-C ends it early)")
        {
            bar.set_style(style.progress_chars("=> "));
        }
        Self { bar, started: Instant::now() }
    }

    /// Shows the time passed and the samples taken so far.
    pub(super) fn show(&self, samples: u64) {
        self.bar.set_position(self.started.elapsed().as_millis() as u64);
        self.bar.set_message(format!("{samples} samples"));
    }

    /// Takes the bar off the screen.
    pub(super) fn done(&self) {
        self.bar.finish_and_clear();
    }
}
