//! Ways to classify, which take turns.

use super::texts::Texts;
use crate::{
    Result,
    bench::{
        candidate::{Candidate, Facts},
        progress::Progress,
        prompt,
    },
};
use inference::{Classification, ClassifyOptions};
use serde::Serialize;
use std::{ops::Range, time::Instant};

/// Sentences of a warm-up, which are no others.
pub(super) const WARM_UP: usize = 32;

/// Tokens of the prefill that rates are compared with.
const PREFILL: usize = 512;

/// How sentences are given to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// All in one call.
    Shared,
    /// A call for each.
    OneByOne,
    /// All in one call of a model that takes nothing from the cache.
    Unshared,
}

impl Kind {
    /// For the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::OneByOne => "one by one",
            Self::Unshared => "unshared",
        }
    }
}

/// A way and what was measured of it.
pub(super) struct Way<'a> {
    candidate: &'a Candidate,
    /// Seconds of a sentence, as far as the warm-up tells.
    expected: f64,
    measured: Measured,
}

/// What was measured of a way.
pub(super) struct Measured {
    pub(super) facts: Facts,
    pub(super) kind: Kind,
    /// Sentences per second, of each round.
    pub(super) rates: Vec<f64>,
    /// Suffix tokens per second, of each round.
    pub(super) tokens: Vec<f64>,
    /// Prompt tokens per second of a prefill, of each round; empty where another way of the same model measures it.
    pub(super) prefill: Vec<f64>,
    /// Tokens that were taken from the cache.
    pub(super) cached: usize,
    /// Of each sentence, the probabilities of the labels.
    pub(super) probabilities: Vec<Vec<f32>>,
}

impl<'a> Way<'a> {
    /// A way, by a loaded model that no other way uses.
    pub(super) fn new(candidate: &'a Candidate, kind: Kind) -> Self {
        let measured = Measured {
            facts: candidate.facts.clone(),
            kind,
            rates: Vec::new(),
            tokens: Vec::new(),
            prefill: Vec::new(),
            cached: 0,
            probabilities: Vec::new(),
        };
        Self { candidate, expected: 0.0, measured }
    }

    /// The way in few words.
    pub(super) fn name(&self) -> String {
        format!("{}, {}", self.measured.facts.name(), self.measured.kind.name())
    }

    /// Runs it, so that the first round is like the others, and tells how long a sentence takes.
    pub(super) fn warm_up(&mut self, texts: &Texts) -> Result<()> {
        let (first, second) = texts.warm_up.split_at(WARM_UP / 2);
        self.classify(texts, first)?;
        let started = Instant::now();
        self.classify(texts, second)?;
        self.expected = started.elapsed().as_secs_f64() / second.len() as f64;
        Ok(())
    }

    /// How long all rounds take, with a prefill in each.
    pub(super) fn seconds(&self, sentences: usize, rounds: usize) -> f64 {
        // A sentence is about twenty tokens: a guess for the bar, no more.
        let prefill = PREFILL as f64 / 20.0 * self.expected;
        self.expected * sentences as f64 + prefill * rounds as f64
    }

    /// Takes its turn.
    pub(super) fn round(
        &mut self,
        texts: &Texts,
        part: Range<usize>,
        round: u64,
        progress: &Progress,
    ) -> Result<()> {
        progress.now(self.name());
        let started = Instant::now();
        let results = self.classify(texts, &texts.prompts[part.clone()])?;
        let seconds = started.elapsed().as_secs_f64();
        let tokens: usize = texts.suffixes[part.clone()].iter().sum();
        let rate = part.len() as f64 / seconds;
        self.measured.rates.push(rate);
        self.measured.tokens.push(tokens as f64 / seconds);
        for result in results {
            self.measured.cached += result.cached_tokens;
            let all = result.labels.iter().map(|l| l.probability).collect();
            self.measured.probabilities.push(all);
        }
        if self.measured.kind == Kind::Shared {
            self.measured.prefill.push(self.prefill(round)?);
        }
        progress.advance(started.elapsed().as_secs_f64());
        progress.line(format!("{}: {rate:.1} sentences/s", self.name()));
        Ok(())
    }

    /// The rate of a prefill whose prompt is new.
    fn prefill(&self, round: u64) -> Result<f64> {
        let model = self.candidate.model().ok_or("a peer does not classify")?;
        // Seeds that no sentence has.
        let prompt = prompt::common(&[model], PREFILL, (1 << 40) + round)?;
        let options = inference::GenerateOptions::default().max_tokens(1);
        let sample = crate::bench::measure::run(model, &[prompt], &options)?;
        Ok(sample.prefill)
    }

    fn classify(&self, texts: &Texts, prompts: &[String]) -> Result<Vec<Classification>> {
        let model = self.candidate.model().ok_or("a peer does not classify")?;
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let options = ClassifyOptions::default().labels(texts.labels.iter().map(String::as_str));
        let results: Vec<_> = match self.measured.kind {
            Kind::OneByOne => {
                prompts.iter().flat_map(|prompt| model.classify(&[prompt], &options)).collect()
            }
            Kind::Shared | Kind::Unshared => model.classify(&prompts, &options),
        };
        results.into_iter().map(|r| r.map_err(|e| e.to_string())).collect()
    }

    pub(super) fn end(self) -> Measured {
        self.measured
    }
}
