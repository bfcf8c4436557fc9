//! What is measured: prompts of how many tokens, how many new ones, how many at once.

use super::measure::Sample;
use serde::Serialize;
use std::fmt;

/// Tokens of the prompt of a cell at depth 0: nothing beside what is decoded, and enough for any tokenizer.
const SHALLOW: usize = 8;

/// Seconds that one measured run should take at least; shorter ones are repeated.
const LONG_ENOUGH: f64 = 0.5;
/// Seconds that repeating must not exceed on the slowest candidate.
const TOO_LONG: f64 = 4.0;
/// Most repetitions within a run.
const MOST_REPEATS: usize = 16;

/// One kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    /// Tokens of each prompt.
    pub(super) prompt: usize,
    /// Tokens that are decoded, after the one that prefill gives; 0: prefill alone.
    pub(super) generate: usize,
    /// Prompts at once.
    pub(super) batch: usize,
    /// Whether the speed of prefill is reported.
    pub(super) prefill: bool,
}

/// A speed that a cell shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Prompt tokens per second.
    Prefill,
    /// Generated tokens per second, of the whole batch.
    Decode,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        })
    }
}

/// The cells of `--grid`.
pub(super) fn standard() -> Vec<Cell> {
    let prefill = |prompt| Cell { prompt, generate: 0, batch: 1, prefill: true };
    let decode = |prompt, generate, batch| Cell { prompt, generate, batch, prefill: false };
    vec![
        prefill(16),
        prefill(128),
        prefill(512),
        decode(SHALLOW, 64, 1),
        decode(2048, 32, 1),
        decode(SHALLOW, 64, 4),
        decode(SHALLOW, 64, 8),
    ]
}

/// Every combination; the batch varies last. Prefill is reported once of those that differ in what they decode.
pub(super) fn product(prompts: &[usize], generates: &[usize], batches: &[usize]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &batch in batches {
        for &prompt in prompts {
            cells.extend(generates.iter().enumerate().map(|(at, &generate)| Cell {
                prompt,
                generate,
                batch,
                prefill: at == 0,
            }));
        }
    }
    cells
}

impl Cell {
    /// The speeds that it shows.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        let prefill = self.prefill.then_some(Kind::Prefill);
        prefill.into_iter().chain((self.generate > 0).then_some(Kind::Decode))
    }

    /// What is measured, in few words.
    pub(super) fn label(&self, kind: Kind) -> String {
        let what = match kind {
            Kind::Prefill => format!("prefill {}", self.prompt),
            Kind::Decode if self.prompt <= SHALLOW => format!("decode {} at 0", self.generate),
            Kind::Decode => format!("decode {} at {}", self.generate, self.prompt),
        };
        if self.batch > 1 { format!("{what} x {}", self.batch) } else { what }
    }

    /// About how long a run takes where the warm-up went as fast as `warm_up`.
    pub(super) fn seconds(&self, warm_up: &Sample) -> f64 {
        // A batch of eight takes about three times as long as one sequence: a guess for the bar, no more.
        let steps = self.generate as f64 * (1.0 + 0.3 * (self.batch - 1) as f64);
        (self.prompt * self.batch) as f64 / warm_up.prefill.max(1e-3)
            + steps / warm_up.decode.max(1e-3)
    }

    /// How often a run is repeated so that the fastest candidate takes long enough; `seconds` of one run of each.
    pub(super) fn repeats(seconds: &[f64]) -> usize {
        let fastest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let slowest = seconds.iter().copied().fold(0.0, f64::max);
        let wanted = (LONG_ENOUGH / fastest).ceil().min(TOO_LONG / slowest) as usize;
        wanted.clamp(1, MOST_REPEATS)
    }
}

/// How many rounds fit into `budget` seconds where one takes `round`: at least three, at most `most`.
pub(super) fn rounds(round: f64, budget: f64, most: usize) -> usize {
    ((budget / round.max(1e-9)) as usize).max(3).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_give_every_combination() {
        let cells = product(&[16, 512], &[0, 8], &[1, 4]);
        let all: Vec<_> = cells.iter().map(|c| (c.prompt, c.generate, c.batch)).collect();
        let one = [(16, 0, 1), (16, 8, 1), (512, 0, 1), (512, 8, 1)];
        let four = one.map(|(prompt, generate, _)| (prompt, generate, 4));
        assert_eq!(all, [one, four].concat());
    }

    #[test]
    fn labels_are_different_and_say_what_is_measured() {
        let labels: Vec<_> =
            standard().iter().flat_map(|c| c.kinds().map(|k| c.label(k))).collect();
        let want = [
            "prefill 16",
            "prefill 128",
            "prefill 512",
            "decode 64 at 0",
            "decode 32 at 2048",
            "decode 64 at 0 x 4",
            "decode 64 at 0 x 8",
        ];
        assert_eq!(labels, want);
        let both = product(&[512], &[64], &[2]);
        let labels: Vec<_> = both[0].kinds().map(|k| both[0].label(k)).collect();
        assert_eq!(labels, ["prefill 512 x 2", "decode 64 at 512 x 2"]);
    }

    #[test]
    fn nothing_is_reported_twice() {
        let cells = product(&[16, 512], &[0, 8, 64], &[1, 4]);
        let all: Vec<_> = cells.iter().flat_map(|c| c.kinds().map(|k| c.label(k))).collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (12, 12), "{all:?}");
    }

    #[test]
    fn short_runs_are_repeated_and_long_ones_not() {
        for (seconds, want) in [
            (&[0.1][..], 5),
            (&[0.1, 0.2], 5),
            (&[0.1, 2.0], 2),
            (&[0.1, 9.0], 1),
            (&[3.0], 1),
            (&[1e-6], MOST_REPEATS),
            (&[0.0], MOST_REPEATS),
        ] {
            assert_eq!(Cell::repeats(seconds), want, "{seconds:?}");
        }
    }

    #[test]
    fn rounds_stay_within_the_time_but_are_never_too_few() {
        for (round, budget, most, want) in
            [(1.0, 60.0, 5, 5), (15.0, 60.0, 5, 4), (40.0, 60.0, 5, 3), (40.0, 60.0, 1, 1)]
        {
            assert_eq!(rounds(round, budget, most), want);
        }
    }
}
