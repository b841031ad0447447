//! A progress bar for a person who waits.

use std::cell::Cell;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::output::Output;

/// From this many files on, a person at a terminal wants to see how it goes.
const PROGRESS_FILES_MIN: usize = 16;

/// How often at most the bar is drawn, in milliseconds.
const PROGRESS_INTERVAL_MS: u64 = 100;

/// The bar, from its beginning until it is dropped.
pub(super) struct Progress<'a> {
    output: &'a Output,
    bar: ProgressBar,
    size_bytes: Cell<u64>,
}

impl<'a> Progress<'a> {
    /// Shows a bar for so many files, if somebody is there to see it and it is worth it.
    pub(super) fn begin(output: &'a Output, files: usize) -> Option<Self> {
        let wanted = files >= PROGRESS_FILES_MIN && io::stderr().is_terminal();
        if !wanted || output.is_quiet() {
            return None;
        }
        let bar = ProgressBar::new(files as u64);
        if let Ok(style) =
            ProgressStyle::with_template("{wide_bar} {pos}/{len} files, {msg}, {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_message(HumanBytes(0).to_string());
        bar.enable_steady_tick(Duration::from_millis(PROGRESS_INTERVAL_MS));
        output.set_progress(Some(bar.clone()));
        Some(Progress {
            output,
            bar,
            size_bytes: Cell::new(0),
        })
    }

    /// One more file, of this size.
    pub(super) fn advance(&self, size_bytes: u64) {
        let total = self.size_bytes.get() + size_bytes;
        self.size_bytes.set(total);
        self.bar.inc(1);
        let rate = total as f64 / self.bar.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!(
            "{}, {}/s",
            HumanBytes(total),
            HumanBytes(rate as u64)
        ));
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.output.set_progress(None);
    }
}
