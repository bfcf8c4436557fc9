//! Penalties on tokens that were there before.

use super::{Candidates, History, Stage};
use std::collections::{HashMap, HashSet};

/// Over prompt and output, once per distinct token: a logit above 0 is divided, one below 0 multiplied
/// (<https://arxiv.org/abs/1909.05858>, section 4.1, with the sign handled as `transformers` does).
pub(super) struct Repeat {
    penalty: f32,
    /// Distinct tokens of the history up to `seen`.
    distinct: HashSet<u32>,
    seen: usize,
}

impl Repeat {
    pub(super) fn new(penalty: f32) -> Self {
        Self { penalty, distinct: HashSet::new(), seen: 0 }
    }
}

impl Stage for Repeat {
    fn apply(&mut self, history: History<'_>, candidates: &mut Candidates<'_>) {
        self.distinct.extend(history.tokens[self.seen..].iter().copied());
        self.seen = history.tokens.len();
        for &id in &self.distinct {
            candidates.adjust(id, |l| if l > 0.0 { l / self.penalty } else { l * self.penalty });
        }
    }
}

/// Over the output: an amount for being there, and an amount for each time.
pub(super) struct Count {
    presence: f32,
    frequency: f32,
    /// How often each token is in the output up to `seen`.
    counts: HashMap<u32, usize>,
    seen: usize,
}

impl Count {
    pub(super) fn new(presence: f32, frequency: f32) -> Self {
        Self { presence, frequency, counts: HashMap::new(), seen: 0 }
    }
}

impl Stage for Count {
    fn apply(&mut self, history: History<'_>, candidates: &mut Candidates<'_>) {
        for &id in &history.output()[self.seen..] {
            *self.counts.entry(id).or_default() += 1;
        }
        self.seen = history.output().len();
        for (&id, &count) in &self.counts {
            candidates.adjust(id, |l| l - self.presence - self.frequency * count as f32);
        }
    }
}
