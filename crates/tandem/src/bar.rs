//! How far a walk over objects is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tandem_env::{Clock, SystemClock};

const LINE_EVERY: Duration = Duration::from_secs(5);
const STYLE: &str = "{msg} [{bar:30}] {percent}%, {eta} left";

/// On standard error.
pub struct Bar {
    what: &'static str,
    bar: Option<ProgressBar>,
    quiet: bool,
    last_line: Mutex<Duration>,
}

impl Bar {
    /// `what` is being done, such as `verified`.
    pub fn new(what: &'static str, quiet: bool) -> Self {
        let terminal = !quiet && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self { what, bar, quiet, last_line: Mutex::new(SystemClock.monotonic()) }
    }

    /// So many objects of so many, and so many bytes.
    pub fn tell(&self, done: u64, all: u64, bytes: u64) {
        let megabytes = bytes >> 20;
        let line = format!("{done} of {all} objects {}, {megabytes} MiB", self.what);
        if let Some(bar) = &self.bar {
            bar.set_length(all);
            bar.set_position(done);
            bar.set_message(line);
            return;
        }
        let now = SystemClock.monotonic();
        let mut last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.quiet && now.saturating_sub(*last) >= LINE_EVERY {
            *last = now;
            eprintln!("{line}");
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
