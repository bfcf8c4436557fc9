//! How far the bench has come, on stderr.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// A bar over the seconds that the runs are expected to take.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// A bar over the expected seconds of the cells that follow.
    pub(super) fn new(seconds: f64) -> Self {
        let style = "{bar:30} {percent:>3} %, {elapsed} gone, about {eta} left: {msg}";
        let bar = ProgressBar::new(milliseconds(seconds));
        // A template that does not parse leaves the default bar.
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        let progress = Self(bar);
        progress.line(format!("about {:.1} minutes", seconds / 60.0));
        progress
    }

    /// What is being measured.
    pub(super) fn now(&self, what: String) {
        self.0.set_message(what);
    }

    /// A run is over that was expected to take so many seconds.
    pub(super) fn advance(&self, seconds: f64) {
        self.0.inc(milliseconds(seconds));
    }

    /// Rounds that were expected and are left out.
    pub(super) fn shorten(&self, seconds: f64) {
        let length = self.0.length().unwrap_or_default();
        self.0.set_length(length.saturating_sub(milliseconds(seconds)));
    }

    /// A line that stays; where stderr is no terminal, lines are all there is.
    pub(super) fn line(&self, text: String) {
        if self.0.is_hidden() { eprintln!("{text}") } else { self.0.println(text) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1e3) as u64
}
