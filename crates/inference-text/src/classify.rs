//! Classification: the token after a prompt, and the probabilities of labels.

use crate::{
    Tokenizer,
    generation::{Limits, Shared},
    sampling::{check, logprobs},
};
use inference_core::{Classification, ClassifyOptions, Error, LabelScore, Result, Token};
use std::sync::mpsc;

/// A sequence whose tokens are scored and not continued, on the engine's thread.
pub(crate) struct Scoring {
    /// For each wanted row, from the first, the tokens whose log-probabilities are asked for.
    targets: Vec<Vec<u32>>,
    /// Describe the most likely token of the first row.
    describe: Option<Describe>,
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
    /// Rows beyond this are padding.
    vocab_len: usize,
}

/// What scoring found.
#[derive(Debug, Default)]
struct Scored {
    /// As the targets.
    logprobs: Vec<Vec<f32>>,
    /// The most likely token after the first row, without its text.
    token: Token,
}

impl Scoring {
    /// Takes the model's logits of wanted row `row`, one per vocabulary entry.
    pub(crate) fn row(&mut self, row: usize, logits: &[f32]) {
        let Ok(scored) = &mut self.scored else { return };
        if let Err(error) = check(logits) {
            self.scored = Err(error);
            return;
        }
        if let (Some(describe), 0) = (self.describe, row) {
            scored.token = describe.token(logits);
        }
        if let Some(targets) = self.targets.get(row) {
            scored.logprobs.resize(scored.logprobs.len().max(row + 1), Vec::new());
            scored.logprobs[row] = logprobs(logits, targets, 0).0;
        }
    }

    /// All rows are in.
    pub(crate) fn complete(&mut self) {
        self.limits.leave();
        // A caller that is gone does not want it.
        let _ = self.reply.send(std::mem::replace(&mut self.scored, Ok(Scored::default())));
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

impl Describe {
    fn token(self, logits: &[f32]) -> Token {
        let real = &logits[..logits.len().min(self.vocab_len)];
        let best = (0..real.len()).rev().max_by(|&a, &b| real[a].total_cmp(&real[b]));
        let id = best.unwrap_or_default() as u32;
        let mut token = Token::new(id, "");
        token.logits = self.return_logits.then(|| logits.into());
        if let Some(n) = self.logprobs {
            let (own, top) = logprobs(logits, &[id], n);
            token.logprob = own.first().copied();
            token.top_logprobs = top;
        }
        token
    }
}

/// A sequence to be scored.
pub(crate) struct ToScore {
    /// Its tokens, at least one.
    pub(crate) tokens: Vec<u32>,
    /// The rows from this position on are wanted.
    pub(crate) from: usize,
    /// What takes them.
    pub(crate) scoring: Scoring,
}

/// Classifies `prompts`. `admit` says whether a sequence of these tokens can run; `submit` puts sequences to work, all
/// of them before anything is waited for, so that they run in one batch.
pub(crate) fn classify(
    shared: &Shared,
    prompts: &[&str],
    options: &ClassifyOptions,
    limits: &Limits,
    admit: impl Fn(&[u32]) -> Result<()>,
    submit: impl FnOnce(Vec<ToScore>),
) -> Vec<Result<Classification>> {
    let mut all = Vec::new();
    let pending: Vec<_> = prompts
        .iter()
        .map(|prompt| {
            options.validate()?;
            let (pending, work) = Pending::new(shared, prompt, options, limits, &admit)?;
            all.extend(work);
            Ok(pending)
        })
        .collect();
    submit(all);
    pending.into_iter().map(|p| p?.finish(shared, options)).collect()
}

/// A prompt's work in flight.
struct Pending {
    prompt_tokens: usize,
    /// The prompt itself: the token, and those labels that are one token after it.
    base: mpsc::Receiver<Result<Scored>>,
    /// Per label, what follows its first token; or all of it where the label changes how the prompt's end is encoded.
    rest: Vec<Option<mpsc::Receiver<Result<Scored>>>>,
    /// Whether the labels' first tokens are scored with the prompt.
    joined: bool,
}

impl Pending {
    fn new(
        shared: &Shared,
        prompt: &str,
        options: &ClassifyOptions,
        limits: &Limits,
        admit: &impl Fn(&[u32]) -> Result<()>,
    ) -> Result<(Self, Vec<ToScore>)> {
        let (tokens, labels) = continuations(&shared.tokenizer, prompt, &options.labels)?;
        let describe = Describe {
            logprobs: options.logprobs,
            return_logits: options.return_logits,
            vocab_len: shared.tokenizer.vocab_len(),
        };
        let mut work = Vec::new();
        let mut send = |tokens: Vec<u32>, from, targets, describe| {
            admit(&tokens)?;
            let (reply, receiver) = mpsc::channel();
            let (limits, scored) = (limits.clone(), Ok(Scored::default()));
            let scoring = Scoring { targets, describe, limits, scored, reply };
            work.push(ToScore { tokens, from, scoring });
            Ok::<_, Error>(receiver)
        };
        let shared_len = labels.first().map_or(tokens.len(), |(from, _)| *from);
        let joined = shared_len == tokens.len();
        let firsts = match joined {
            true => labels.iter().map(|(from, all)| all[*from]).collect(),
            false => Vec::new(),
        };
        let prompt_tokens = tokens.len();
        let base = send(tokens, prompt_tokens - 1, vec![firsts], Some(describe))?;
        let skip = usize::from(joined);
        let rest = labels
            .into_iter()
            .map(|(from, mut all)| {
                let targets: Vec<_> = all[from + skip..].iter().map(|&id| vec![id]).collect();
                all.pop();
                (!targets.is_empty()).then(|| send(all, from + skip - 1, targets, None)).transpose()
            })
            .collect::<Result<_>>()?;
        Ok((Self { prompt_tokens, base, rest, joined }, work))
    }

    fn finish(self, shared: &Shared, options: &ClassifyOptions) -> Result<Classification> {
        let wait = |r: mpsc::Receiver<Result<Scored>>| r.recv().unwrap_or(Err(Error::Closed));
        let base = wait(self.base)?;
        let mut token = base.token;
        token.text = shared.tokenizer.decode(&[token.id])?;
        let mut sums = Vec::new();
        for (i, rest) in self.rest.into_iter().enumerate() {
            let mut sum = if self.joined { base.logprobs[0][i] } else { 0.0 };
            if let Some(rest) = rest {
                sum += wait(rest)?.logprobs.iter().flatten().sum::<f32>();
            }
            sums.push(sum);
        }
        let max = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = sums.iter().map(|s| (s - max).exp()).sum();
        let score = |(label, logprob): (&String, f32)| LabelScore {
            label: label.clone(),
            probability: (logprob - max).exp() / total,
            logprob,
        };
        let labels = options.labels.iter().zip(sums).map(score).collect();
        Ok(Classification::new(token, labels, self.prompt_tokens))
    }
}

/// The prompt's tokens, and for each label where it begins and the tokens of prompt and label together.
///
/// All labels begin at the same place: after what their encodings and the prompt's have in common, which is the whole
/// prompt unless a label changes how its end is encoded.
#[expect(clippy::type_complexity, reason = "two lists of tokens")]
fn continuations(
    tokenizer: &Tokenizer,
    prompt: &str,
    labels: &[String],
) -> Result<(Vec<u32>, Vec<(usize, Vec<u32>)>)> {
    let tokens = tokenizer.encode_prompt(prompt)?;
    let space = if prompt.ends_with(char::is_whitespace) { "" } else { " " };
    let mut all = Vec::new();
    let mut shared = tokens.len();
    for label in labels {
        let whole = tokenizer.encode(&format!("{prompt}{space}{}", label.trim()))?;
        let same = whole.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        shared = shared.min(same).min(whole.len().saturating_sub(1));
        all.push(whole);
    }
    if shared == 0 && !labels.is_empty() {
        let reason = "nothing of it stays when a label follows; it is too short".to_owned();
        return Err(Error::InvalidPrompt { reason });
    }
    Ok((tokens, all.into_iter().map(|whole| (shared, whole)).collect()))
}
