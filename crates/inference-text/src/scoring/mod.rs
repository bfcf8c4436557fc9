//! Scoring: how likely given tokens are at given places, in forward passes without decoding.

mod branches;
mod classify;
mod score;

pub(crate) use classify::classify;
pub(crate) use score::score;

use crate::{
    MemoryUse, Tokenizer,
    generation::{Limits, Shared},
    math::{extent, position},
    sampling::{check, logprobs},
};
use branches::{Branch, Branches, Place};
use inference_core::{Error, Metrics, Result, Token};
use std::sync::mpsc;

/// A sequence whose tokens are scored and not continued, on the engine's thread.
pub(crate) struct Scoring {
    /// For each wanted row, from the first, the tokens whose log-probabilities are asked for.
    targets: Vec<Vec<u32>>,
    /// The row of which to describe the most likely token, and how.
    describe: Option<(usize, Describe)>,
    /// Rows beyond this are padding, which no text can come from.
    vocab_len: usize,
    limits: Limits,
    /// An error as soon as a row is not sound.
    scored: Result<Scored>,
    reply: mpsc::Sender<Result<Scored>>,
}

/// What to report of the most likely token.
#[derive(Debug, Clone, Copy)]
struct Describe {
    logprobs: Option<usize>,
    return_logits: bool,
}

/// What scoring found.
#[derive(Debug, Default)]
struct Scored {
    /// As the wanted rows.
    rows: Vec<Row>,
    /// The most likely token after the row that was to be described, without its text.
    token: Option<Token>,
    cost: Cost,
}

/// What it took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Tokens that were taken from the cache and not computed.
    pub(crate) cached: usize,
    /// How often the sequence had to start over.
    pub(crate) preemptions: usize,
    /// Memory at the end.
    pub(crate) memory: MemoryUse,
}

/// What one row says.
#[derive(Debug)]
struct Row {
    /// The log-probabilities of its targets.
    logprobs: Vec<f32>,
    /// The most likely token.
    best: u32,
}

impl Scoring {
    /// Takes the model's logits of wanted row `row`, one per vocabulary entry. Rows come in order, and again from the
    /// first on where the sequence had to start over.
    pub(crate) fn row(&mut self, row: usize, logits: &[f32]) {
        let Ok(scored) = &mut self.scored else { return };
        let max = match check(logits) {
            Ok(max) => max,
            Err(error) => {
                self.scored = Err(error);
                return;
            }
        };
        let real = &logits[..logits.len().min(self.vocab_len)];
        let best = position(real, max).or_else(|| position(real, extent(real).max));
        let best = best.unwrap_or_default() as u32;
        let described = self.describe.filter(|(described, _)| *described == row);
        let top = described.and_then(|(_, describe)| describe.logprobs);
        let mut ids = self.targets.get(row).cloned().unwrap_or_default();
        ids.extend(described.map(|_| best));
        let (mut logprobs, top_logprobs) = match &ids[..] {
            [] => Default::default(),
            ids => logprobs(logits, ids, top.unwrap_or(0)),
        };
        if let Some((_, describe)) = described {
            let mut token = Token::new(best, "");
            token.logits = describe.return_logits.then(|| logits.into());
            token.logprob = logprobs.pop();
            token.top_logprobs = top_logprobs;
            scored.token = Some(token);
        }
        scored.rows.truncate(row);
        scored.rows.push(Row { logprobs, best });
    }

    /// All rows are in.
    pub(crate) fn complete(&mut self, cost: Cost) {
        let scored = std::mem::replace(&mut self.scored, Ok(Scored::default()));
        self.limits.leave();
        // A caller that is gone does not want it.
        let _ = self.reply.send(scored.map(|scored| Scored { cost, ..scored }));
    }

    /// Ends with an error.
    pub(crate) fn fail(&mut self, error: Error) {
        self.limits.leave();
        let _ = self.reply.send(Err(error));
    }

    /// Whether it is to end before it is complete.
    ///
    /// # Errors
    /// [`Error::Cancelled`] or [`Error::TimedOut`].
    pub(crate) fn interrupted(&self) -> Result<()> {
        self.limits.check()
    }
}

/// A sequence to be scored.
pub(crate) struct ToScore {
    /// Its tokens, at least one.
    pub(crate) tokens: Vec<u32>,
    /// The rows from this position on are wanted.
    pub(crate) from: usize,
    /// What takes these rows.
    pub(crate) scoring: Scoring,
}

/// A call that scores: puts work together, all of it before anything is waited for, so that it runs in one batch.
struct Call<'a> {
    shared: &'a Shared,
    limits: Limits,
    /// Says whether a sequence of these tokens can run.
    admit: &'a dyn Fn(&[u32]) -> Result<()>,
    work: Vec<ToScore>,
    metrics: Metrics,
}

/// Branches in flight.
struct Pending {
    places: Vec<Vec<Place>>,
    receivers: Vec<mpsc::Receiver<Result<Scored>>>,
}

impl<'a> Call<'a> {
    fn new(shared: &'a Shared, limits: Limits, admit: &'a dyn Fn(&[u32]) -> Result<()>) -> Self {
        Self { shared, limits, admit, work: Vec::new(), metrics: Metrics::default() }
    }

    fn tokenizer(&self) -> &Tokenizer {
        &self.shared.tokenizer
    }

    /// Adds branches, all of them or none; the most likely token after the watched text is described as `describe` says.
    fn add(&mut self, branches: Branches, describe: Option<Describe>) -> Result<Pending> {
        branches.all.iter().try_for_each(|b| (self.admit)(&b.tokens))?;
        let receivers = branches.all.into_iter().enumerate().map(|(i, branch)| {
            let Branch { tokens, from, targets } = branch;
            let (reply, receiver) = mpsc::channel();
            let scoring = Scoring {
                targets,
                describe: describe.and_then(|d| {
                    let (branch, row) = branches.watched?;
                    (branch == i).then_some((row, d))
                }),
                vocab_len: self.shared.tokenizer.vocab_len(),
                limits: self.limits.clone(),
                scored: Ok(Scored::default()),
                reply,
            };
            self.work.push(ToScore { tokens, from, scoring });
            receiver
        });
        Ok(Pending { receivers: receivers.collect(), places: branches.places })
    }

    /// Waits for branches.
    fn wait(&mut self, pending: Pending) -> Result<Found> {
        // A sender that is gone without a word was in a queue that has been closed.
        let wait = |r: mpsc::Receiver<Result<Scored>>| r.recv().unwrap_or(Err(Error::Closed));
        // Those that are left when one has failed still have the call's place.
        let all: Vec<_> = pending.receivers.into_iter().map(wait).collect();
        for Cost { preemptions, memory, .. } in all.iter().flatten().map(|scored| scored.cost) {
            self.metrics.preemptions += preemptions;
            self.metrics.peak_memory = memory.peak.max(self.metrics.peak_memory);
            self.metrics.active_memory = memory.active;
        }
        found(&pending.places, all.into_iter().collect::<Result<_>>()?)
    }

    /// The call's metrics, now that it has ended.
    fn end(mut self, prompt_tokens: usize, cached_tokens: usize) {
        self.metrics.prompt_tokens = prompt_tokens;
        self.metrics.cached_tokens = cached_tokens;
        self.metrics.total = self.limits.elapsed();
        self.metrics.prefill = self.metrics.total;
        self.shared.finished(self.metrics);
    }
}

/// What all branches found.
struct Found {
    /// For each continuation, its tokens' log-probabilities, and whether each was the most likely one.
    paths: Vec<Vec<(f32, bool)>>,
    /// The described token, if one was to be.
    token: Token,
    /// Tokens of the first branch that were taken from the cache.
    cached: usize,
}

/// Puts together what the branches have found.
fn found(places: &[Vec<Place>], mut scored: Vec<Scored>) -> Result<Found> {
    let of = |place: &Place| {
        let row = scored[place.branch].rows.get(place.row)?;
        Some((*row.logprobs.get(place.target)?, row.best == place.token))
    };
    let missing = || Error::EngineStopped { reason: "a row was not computed".to_owned() };
    let path = |path: &Vec<Place>| path.iter().map(|p| of(p).ok_or_else(missing)).collect();
    let paths = places.iter().map(path).collect::<Result<_>>()?;
    let cached = scored.first().map_or(0, |s| s.cost.cached);
    let token = scored.iter_mut().find_map(|s| s.token.take()).unwrap_or_default();
    Ok(Found { paths, token, cached })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_starts_over_gives_each_row_once() {
        let (reply, receiver) = mpsc::channel();
        let mut scoring = Scoring {
            targets: vec![vec![0], vec![1], vec![0, 1]],
            describe: None,
            vocab_len: 2,
            limits: Limits::new(None, None),
            scored: Ok(Scored::default()),
            reply,
        };
        let rows = [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]];
        for row in [0, 1, 0, 1, 2] {
            scoring.row(row, &rows[row]);
        }
        scoring.complete(Cost::default());
        let scored = receiver.recv().unwrap().unwrap();
        let best: Vec<_> = scored.rows.iter().map(|r| (r.best, r.logprobs.len())).collect();
        assert_eq!(best, [(1, 1), (0, 1), (0, 2)]);
    }
}
