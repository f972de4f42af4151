//! Telling how far an import is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tandem_env::{Clock, SystemClock};

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
const BAR: &str = "{msg} [{bar:30}] {percent}% {bytes}/{total_bytes}, {eta} left";

/// How an import goes, on standard error.
pub struct Progress {
    clock: SystemClock,
    begun: Duration,
    last_line: Duration,
    bar: Option<ProgressBar>,
    quiet: bool,
    bytes_total: u64,
    /// Bytes read of the files as they are stored.
    pub bytes: Arc<AtomicU64>,
}

impl Progress {
    pub fn new(bytes_total: u64, quiet: bool) -> Self {
        let clock = SystemClock;
        let begun = clock.monotonic();
        let terminal = !quiet && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(bytes_total).with_style(style)
        });
        Self { clock, begun, last_line: begun, bar, quiet, bytes_total, bytes: Arc::default() }
    }

    /// Begins to measure: what was before is not part of it.
    pub fn begin(&mut self) {
        self.begun = self.clock.monotonic();
        self.last_line = self.begun;
    }

    /// Tells that `rows` are on their way.
    pub fn rows(&mut self, rows: u64) {
        let bytes = self.bytes.load(Ordering::Relaxed).min(self.bytes_total);
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{rows} rows, {} rows/s", self.rate(rows)));
            bar.set_position(bytes);
            return;
        }
        let now = self.clock.monotonic();
        if !self.quiet && now.saturating_sub(self.last_line) >= LINE_EVERY {
            self.last_line = now;
            let percent = bytes.saturating_mul(100).checked_div(self.bytes_total).unwrap_or(100);
            eprintln!("{rows} rows, {} rows/s, {percent}% read", self.rate(rows));
        }
    }

    /// What says a line without spoiling the bar; says nothing if nothing is to be said.
    pub fn remark(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let (bar, quiet) = (self.bar.clone(), self.quiet);
        move |text| match &bar {
            Some(bar) => bar.println(text),
            None if quiet => {}
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away, so that other text can follow.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Seconds since the beginning.
    pub fn seconds(&self) -> f64 {
        self.clock.monotonic().saturating_sub(self.begun).as_secs_f64()
    }

    /// Rows per second so far.
    pub fn rate(&self, rows: u64) -> u64 {
        let seconds = self.seconds();
        if seconds > 0.0 { (rows as f64 / seconds) as u64 } else { rows }
    }
}
