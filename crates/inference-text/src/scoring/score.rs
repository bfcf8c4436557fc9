//! Scores: the log-probability of each token of a continuation.

use super::{
    Call, Pending, ToScore,
    branches::{Branches, same},
};
use crate::{
    Detokenizer,
    generation::{Limits, Shared},
};
use inference_core::{Error, Result, Score, Token};

/// Tokens of a prompt that may change the text of those behind it.
const BEFORE: usize = 8;

/// Scores `pairs` of a prompt and a continuation. `admit` says whether a sequence of these tokens can run; `submit` puts
/// sequences to work.
pub(crate) fn score(
    shared: &Shared,
    pairs: &[(&str, &str)],
    limits: Limits,
    admit: &dyn Fn(&[u32]) -> Result<()>,
    submit: impl FnOnce(Vec<ToScore>),
) -> Vec<Result<Score>> {
    let mut call = Call::new(shared, limits, admit);
    let pairs: Vec<_> = pairs.iter().map(|pair| Pair::new(&mut call, *pair)).collect();
    submit(std::mem::take(&mut call.work));
    let results: Vec<_> = pairs.into_iter().map(|pair| pair?.wait(&mut call)).collect();
    let of = |count: fn(&Score) -> usize| results.iter().flatten().map(count).sum();
    call.end(of(|s| s.prompt_tokens), of(|s| s.cached_tokens));
    results
}

/// A pair in flight.
struct Pair {
    /// Of prompt and continuation.
    tokens: Vec<u32>,
    /// Where the continuation's begin.
    from: usize,
    pending: Pending,
}

impl Pair {
    fn new(call: &mut Call<'_>, (prompt, continuation): (&str, &str)) -> Result<Self> {
        let empty = |reason: &str| Error::InvalidPrompt { reason: reason.to_owned() };
        // What the tokenizer puts before an empty text is a prompt that can be continued.
        let before = call.tokenizer().encode(prompt)?;
        let tokens = call.tokenizer().encode(&format!("{prompt}{continuation}"))?;
        let from = same(&before, &tokens);
        if from == tokens.len() {
            return Err(empty("the continuation has no tokens"));
        }
        if from == 0 {
            return Err(empty("no token comes before the continuation's first; begin with a text"));
        }
        let branches = Branches::new(&tokens[..from], &[&tokens[from..]], None);
        let pending = call.add(branches, None)?;
        Ok(Self { tokens, from, pending })
    }

    fn wait(self, call: &mut Call<'_>) -> Result<Score> {
        let Self { tokens, from, pending } = self;
        let mut found = call.wait(pending)?;
        let path = found.paths.pop().unwrap_or_default();
        let mut detokenizer = Detokenizer::new(call.shared.tokenizer.clone());
        for id in &tokens[from.saturating_sub(BEFORE)..from] {
            detokenizer.push(*id)?;
        }
        let mut scored = Vec::new();
        for (&id, (logprob, _)) in tokens[from..].iter().zip(&path) {
            let mut token = Token::new(id, detokenizer.push(id)?);
            token.logprob = Some(*logprob);
            scored.push(token);
        }
        if let Some(last) = scored.last_mut() {
            last.text += &detokenizer.finish();
        }
        let mut score = Score::new(scored, path.iter().all(|(_, best)| *best), from);
        score.cached_tokens = found.cached;
        Ok(score)
    }
}
