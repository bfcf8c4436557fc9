//! How far it has come, and how fast it goes.

use super::input::Input;
use crate::report;
use indicatif::{ProgressBar, ProgressStyle};
use inference::Classification;
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Counts, and shows a bar on stderr if that is a terminal.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    started: Instant,
    /// Texts that an earlier run has done.
    before: u64,
    texts: u64,
    failed: u64,
    prompt_tokens: usize,
    cached_tokens: usize,
}

impl Progress {
    /// From now on; `before` texts were done by an earlier run.
    pub(super) fn new(input: &Input, before: u64) -> Self {
        Self {
            bar: std::io::stderr().is_terminal().then(|| bar(input)),
            started: Instant::now(),
            before,
            texts: 0,
            failed: 0,
            prompt_tokens: 0,
            cached_tokens: 0,
        }
    }

    /// Texts that are done, by this run or an earlier one.
    pub(super) fn done(&self) -> u64 {
        self.before + self.texts
    }

    /// A batch is written.
    pub(super) fn advance(&mut self, input: &Input, results: &[inference::Result<Classification>]) {
        self.texts += results.len() as u64;
        for result in results {
            match result {
                Ok(c) => {
                    self.prompt_tokens += c.prompt_tokens;
                    self.cached_tokens += c.cached_tokens;
                }
                Err(_) => self.failed += 1,
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_position(input.position());
            bar.set_message(format!("{} texts, {:.1} texts/s", self.done(), self.rate()));
        }
    }

    /// Texts per second of this run.
    fn rate(&self) -> f64 {
        self.texts as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// The bar is gone.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Lines on stderr about the whole run.
    pub(super) fn report(&self) {
        let seconds = self.started.elapsed().as_secs_f64();
        let before = match self.before {
            0 => String::new(),
            n => format!(" after {n} of an earlier run"),
        };
        report::to_stderr(format_args!(
            "texts        {}{before}, {:.1} texts/s in {seconds:.1} s",
            self.texts,
            self.rate()
        ));
        report::to_stderr(format_args!("failed       {}", self.failed));
        report::to_stderr(format_args!(
            "prompt       {} tokens ({} from the cache)",
            self.prompt_tokens, self.cached_tokens
        ));
    }
}

/// Over the input's bytes, where their number is known.
fn bar(input: &Input) -> ProgressBar {
    let (bar, style) = match input.len() {
        Some(len) => (ProgressBar::new(len), "{bar:30} {percent:>3} %, about {eta} left: {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    // A template that does not parse leaves the default style.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
