//! Classification: the token after a prompt, and the probabilities of labels.

use super::{
    Call, Describe, Pending, ToScore,
    branches::{Branches, same},
};
use crate::{
    Tokenizer,
    generation::{Limits, Shared},
};
use inference_core::{
    Classification, ClassifyOptions, Error, LabelScore, LabelScoring, Result, Token,
};

/// Classifies `prompts`; `options` have been validated. `admit` says whether a sequence of these tokens can run; `submit` puts sequences to work.
pub(crate) fn classify(
    shared: &Shared,
    prompts: &[&str],
    options: &ClassifyOptions,
    limits: Limits,
    admit: &dyn Fn(&[u32]) -> Result<()>,
    submit: impl FnOnce(Vec<ToScore>),
) -> Vec<Result<Classification>> {
    let mut call = Call::new(shared, limits, admit);
    let empty = options.calibrate.as_ref().map(|prompt| Row::new(&mut call, prompt, options));
    let rows: Vec<_> = prompts.iter().map(|p| Row::new(&mut call, p, options)).collect();
    submit(std::mem::take(&mut call.work));
    let mut wait = |row: Result<Row>| row?.wait(&mut call);
    let scores = |labels: Labels| labels.scores(options.label_scoring);
    let empty = empty.map(|row| wait(row).map(scores)).transpose().map_err(of_calibration);
    let results = rows.into_iter().map(|row| {
        let labels = wait(row)?;
        let empty = empty.as_ref().map_err(Error::clone)?;
        labels.result(shared, options, empty.as_deref())
    });
    let results: Vec<_> = results.collect();
    let of = |count: fn(&Classification) -> usize| results.iter().flatten().map(count).sum();
    call.end(of(|c| c.prompt_tokens), of(|c| c.cached_tokens));
    results
}

/// What is wrong with the prompt of [`ClassifyOptions::calibrate`] is wrong with that option.
fn of_calibration(error: Error) -> Error {
    match error {
        Error::InvalidPrompt { reason } => Error::option("calibrate", reason),
        error => error,
    }
}

/// A prompt in flight.
struct Row {
    prompt_tokens: usize,
    pending: Pending,
}

/// A prompt, scored.
struct Labels {
    prompt_tokens: usize,
    cached_tokens: usize,
    token: Token,
    /// Of each label, its tokens' log-probabilities.
    logprobs: Vec<Vec<f32>>,
}

impl Row {
    fn new(call: &mut Call<'_>, prompt: &str, options: &ClassifyOptions) -> Result<Self> {
        let (tokens, shared, labels) = continuations(call.tokenizer(), prompt, &options.labels)?;
        let labels: Vec<&[u32]> = labels.iter().map(Vec::as_slice).collect();
        let branches = Branches::new(&tokens[..shared], &labels, Some(&tokens[shared..]));
        let describe =
            Describe { logprobs: options.logprobs, return_logits: options.return_logits };
        let pending = call.add(branches, Some(describe))?;
        Ok(Self { prompt_tokens: tokens.len(), pending })
    }

    fn wait(self, call: &mut Call<'_>) -> Result<Labels> {
        let found = call.wait(self.pending)?;
        let logprobs = |path: Vec<(f32, bool)>| path.into_iter().map(|(l, _)| l).collect();
        Ok(Labels {
            prompt_tokens: self.prompt_tokens,
            cached_tokens: found.cached.min(self.prompt_tokens),
            token: found.token,
            logprobs: found.paths.into_iter().map(logprobs).collect(),
        })
    }
}

impl Labels {
    /// What each label competes with.
    fn scores(&self, scoring: LabelScoring) -> Vec<f32> {
        let score = |logprobs: &Vec<f32>| match scoring {
            LabelScoring::Mean => sum(logprobs) / logprobs.len() as f32,
            _ => sum(logprobs),
        };
        self.logprobs.iter().map(score).collect()
    }

    /// The result; scores are relative to those of `empty`.
    fn result(
        self,
        shared: &Shared,
        options: &ClassifyOptions,
        empty: Option<&[f32]>,
    ) -> Result<Classification> {
        let mut scores = self.scores(options.label_scoring);
        for (score, empty) in scores.iter_mut().zip(empty.into_iter().flatten()) {
            *score -= empty;
        }
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = scores.iter().map(|s| (s - max).exp()).sum();
        let labels = options.labels.iter().zip(&self.logprobs).zip(scores);
        let labels = labels.map(|((label, logprobs), score)| LabelScore {
            label: label.clone(),
            probability: (score - max).exp() / total,
            score,
            logprob: sum(logprobs),
        });
        let mut token = self.token;
        token.text = shared.tokenizer.decode(&[token.id])?;
        let mut result = Classification::new(token, labels.collect(), self.prompt_tokens);
        result.cached_tokens = self.cached_tokens;
        Ok(result)
    }
}

fn sum(logprobs: &[f32]) -> f32 {
    logprobs.iter().sum()
}

/// The prompt's tokens, how many of them come before the labels, and each label's tokens after those.
///
/// All labels begin at the same place: after what their encodings and the prompt's have in common, which is the whole
/// prompt unless a label changes how its end is encoded.
fn continuations(
    tokenizer: &Tokenizer,
    prompt: &str,
    labels: &[String],
) -> Result<(Vec<u32>, usize, Vec<Vec<u32>>)> {
    let tokens = tokenizer.encode_prompt(prompt)?;
    let space = if prompt.ends_with(char::is_whitespace) { "" } else { " " };
    let mut all = Vec::new();
    let mut shared = tokens.len();
    for label in labels {
        let whole = tokenizer.encode(&format!("{prompt}{space}{}", label.trim()))?;
        shared = shared.min(same(&whole, &tokens)).min(whole.len().saturating_sub(1));
        all.push(whole);
    }
    if shared == 0 {
        let reason = "nothing of it stays when a label follows; it is too short".to_owned();
        return Err(Error::InvalidPrompt { reason });
    }
    let labels = all.into_iter().map(|whole| whole[shared..].to_vec()).collect();
    Ok((tokens, shared, labels))
}
