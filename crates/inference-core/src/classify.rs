//! Classification and scores: what may be asked for, and what comes back.

use crate::{
    CancelToken, Error, Priority, Result, Token,
    options::{at_most_logprobs, setters},
};
use serde::Serialize;
use std::{collections::HashSet, time::Duration};

/// How to classify.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ClassifyOptions {
    /// Only these compete; each gets a probability. Empty: the most likely token is the answer.
    ///
    /// A label is scored as the text that follows the prompt, after one space unless the prompt ends in white space.
    /// A label of several tokens is scored as a whole: see [`label_scoring`](Self::label_scoring).
    pub labels: Vec<String>,
    /// What becomes of a label's log-probabilities where it has several tokens. Default: their sum.
    pub label_scoring: LabelScoring,
    /// Subtract from each label's score the one that it gets after this prompt, which is to be like the others but to
    /// have an empty text, or one that says nothing (such as `N/A`), where theirs have what is classified. What a label
    /// is worth on its own, for its frequency or its place in the instruction, then counts no more (contextual
    /// calibration, <https://arxiv.org/abs/2102.09690>).
    ///
    /// A prompt is given whole, so only the caller knows which part of it is the text; no prompt's result depends on
    /// the others of its call.
    pub calibrate: Option<String>,
    /// Report the logits, one per vocabulary entry, at the prompt's last position.
    pub return_logits: bool,
    /// Report the log-probabilities of the `n` most likely tokens; that of the token itself always is.
    pub logprobs: Option<usize>,
    /// Time limit for the whole call; rows that are not done by then are [`Error::TimedOut`].
    pub timeout: Option<Duration>,
    /// Cancels the call from elsewhere; rows that are not done by then are [`Error::Cancelled`].
    pub cancel: Option<CancelToken>,
    /// Who goes first where callers compete.
    pub priority: Priority,
    /// How long the call may wait for a place in a queue that is full: see
    /// [`LoadOptions::queue_len`](crate::LoadOptions::queue_len). `None`, the default: it does not wait, and every row
    /// is [`Error::Busy`] at once.
    pub wait: Option<Duration>,
}

/// From the log-probabilities of a label's tokens to its score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LabelScoring {
    /// Their sum: how likely the model is to write the label. Of labels that are equally good, the shorter wins.
    #[default]
    Sum,
    /// Their mean: length does not count, but the tokens within a long label, which follow from those before, help it.
    Mean,
}

impl ClassifyOptions {
    setters! {
        labels: impl IntoIterator<Item = impl Into<String>> => labels.into_iter().map(Into::into).collect(),
        label_scoring: LabelScoring => label_scoring,
        calibrate: impl Into<String> => Some(calibrate.into()),
        return_logits: bool => return_logits,
        logprobs: usize => Some(logprobs),
        timeout: Duration => Some(timeout),
        cancel: CancelToken => Some(cancel),
        priority: Priority => priority,
        wait: Duration => Some(wait),
    }

    /// Checks every value; backends call it before any work starts.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] that names the first option whose value means nothing.
    pub fn validate(&self) -> Result<()> {
        if self.labels.iter().any(|l| l.trim().is_empty()) {
            return Err(Error::option("labels", "a label is empty"));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = self.labels.iter().find(|l| !seen.insert(l.trim())) {
            return Err(Error::option("labels", format!("{twice:?} is there twice")));
        }
        if self.calibrate.is_some() && self.labels.is_empty() {
            return Err(Error::option("calibrate", "there are no labels whose scores it changes"));
        }
        at_most_logprobs(self.logprobs)
    }
}

/// What one prompt was classified as.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Classification {
    /// The most likely token after the prompt, of the whole vocabulary, with its log-probability.
    pub token: Token,
    /// The labels' scores, in the order of [`ClassifyOptions::labels`]; empty without labels.
    pub labels: Vec<LabelScore>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were taken from the cache and not computed.
    pub cached_tokens: usize,
}

impl Classification {
    /// A classification from its parts, of a prompt that was computed whole.
    pub fn new(token: Token, labels: Vec<LabelScore>, prompt_tokens: usize) -> Self {
        Self { token, labels, prompt_tokens, cached_tokens: 0 }
    }

    /// The label with the highest score, of equal ones the first; `None` without labels.
    pub fn best(&self) -> Option<&LabelScore> {
        self.labels.iter().rev().max_by(|a, b| a.score.total_cmp(&b.score))
    }

    /// How much more probable the best label is than the next one, from 0 to 1; of a single label, 1. `None` without
    /// labels.
    pub fn margin(&self) -> Option<f32> {
        let mut all: Vec<f32> = self.labels.iter().map(|l| l.probability).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        Some(all.first()? - all.get(1).unwrap_or(&0.0))
    }
}

/// How likely a label is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelScore {
    /// The label, as it was given.
    pub label: String,
    /// Its probability among the labels, the softmax of their scores; all of them sum to 1.
    pub probability: f32,
    /// What it competes with: its log-probability, or the mean of its tokens' ([`ClassifyOptions::label_scoring`]), less
    /// what it gets without a text ([`ClassifyOptions::calibrate`]).
    pub score: f32,
    /// Its log-probability after the prompt, among everything that could follow: the sum of its tokens' (natural
    /// logarithm).
    pub logprob: f32,
}

/// When a call for scores is to end early, and its place among others.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScoreOptions {
    /// Time limit for the whole call; pairs that are not done by then are [`Error::TimedOut`].
    pub timeout: Option<Duration>,
    /// Cancels the call from elsewhere; pairs that are not done by then are [`Error::Cancelled`].
    pub cancel: Option<CancelToken>,
    /// Who goes first where callers compete.
    pub priority: Priority,
    /// How long the call may wait for a place in a queue that is full: see
    /// [`LoadOptions::queue_len`](crate::LoadOptions::queue_len). `None`, the default: it does not wait, and every pair
    /// is [`Error::Busy`] at once.
    pub wait: Option<Duration>,
}

impl ScoreOptions {
    setters! {
        timeout: Duration => Some(timeout),
        cancel: CancelToken => Some(cancel),
        priority: Priority => priority,
        wait: Duration => Some(wait),
    }
}

/// How likely a text is after another.
///
/// The two are joined as they are, without a space between them, and encoded as one. Where that makes a token of the
/// prompt's end and the continuation's begin together, the token counts as the continuation's.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Score {
    /// The continuation's tokens, at least one, each with its own log-probability; their texts join to the text that
    /// they add to the prompt.
    pub tokens: Vec<Token>,
    /// Whether each of its tokens is the most likely one at its place.
    pub is_greedy: bool,
    /// Tokens of prompt and continuation that come before [`tokens`](Self::tokens).
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were taken from the cache and not computed.
    pub cached_tokens: usize,
}

impl Score {
    /// A score of `tokens` that come after `prompt_tokens` others, which were computed.
    pub fn new(tokens: Vec<Token>, is_greedy: bool, prompt_tokens: usize) -> Self {
        Self { tokens, is_greedy, prompt_tokens, cached_tokens: 0 }
    }

    /// The continuation's log-probability: the sum of its tokens' (natural logarithm).
    pub fn logprob(&self) -> f32 {
        self.tokens.iter().filter_map(|t| t.logprob).map(f64::from).sum::<f64>() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(probabilities: &[f32]) -> Classification {
        let label = |(i, &probability): (usize, &f32)| LabelScore {
            label: i.to_string(),
            probability,
            score: probability.ln(),
            logprob: 0.0,
        };
        let labels = probabilities.iter().enumerate().map(label).collect();
        Classification::new(Token::default(), labels, 1)
    }

    #[test]
    fn the_best_label_leads_by_its_margin() {
        for (probabilities, best, margin) in [
            (&[][..], None, None),
            (&[1.0], Some("0"), Some(1.0)),
            (&[0.25, 0.75], Some("1"), Some(0.5)),
            (&[0.5, 0.25, 0.25], Some("0"), Some(0.25)),
            (&[0.25, 0.25, 0.5], Some("2"), Some(0.25)),
            (&[0.5, 0.5], Some("0"), Some(0.0)),
        ] {
            let all = with(probabilities);
            assert_eq!(all.best().map(|l| l.label.as_str()), best, "{probabilities:?}");
            assert_eq!(all.margin(), margin, "{probabilities:?}");
        }
    }

    #[test]
    fn calibration_needs_labels() {
        let options = ClassifyOptions::default().calibrate("Text:\n");
        assert!(matches!(
            options.validate(),
            Err(Error::InvalidOption { option: "calibrate", .. })
        ));
        assert!(options.labels(["a", "b"]).validate().is_ok());
    }
}
