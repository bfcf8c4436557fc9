//! One run: some prompts at once, and how fast they went.

use super::{grid::Kind, prompt::Prompt};
use crate::Result;
use inference::{FinishReason, GenerateOptions, Metrics, TextModel};
use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// How fast a run went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Prompt tokens per second.
    pub(super) prefill: f64,
    /// Generated tokens per second, of all sequences together.
    pub(super) decode: f64,
    /// Most bytes that the device held.
    pub(super) peak_memory: u64,
    /// Whether the model ended a text before the length was reached.
    pub(super) ended_early: bool,
}

impl Sample {
    /// Tokens per second.
    pub(super) fn rate(&self, kind: Kind) -> f64 {
        match kind {
            Kind::Prefill => self.prefill,
            Kind::Decode => self.decode,
        }
    }

    /// Several runs of the same, one after the other, as one. `None` without any.
    pub(super) fn joined(runs: &[Self]) -> Option<Self> {
        let first = *runs.first()?;
        // All have as many tokens, so the speed of all is the harmonic mean.
        let mean = |rate: fn(&Self) -> f64| {
            let seconds: f64 = runs.iter().map(|r| 1.0 / rate(r)).sum();
            if seconds.is_finite() { runs.len() as f64 / seconds } else { 0.0 }
        };
        Some(runs.iter().fold(
            Self { prefill: mean(|r| r.prefill), decode: mean(|r| r.decode), ..first },
            |all, run| Self {
                peak_memory: all.peak_memory.max(run.peak_memory),
                ended_early: all.ended_early || run.ended_early,
                ..all
            },
        ))
    }
}

/// What came of one prompt.
struct Output {
    metrics: Metrics,
    finish_reason: Option<FinishReason>,
    /// From the common start; one per token.
    arrivals: Vec<Duration>,
}

/// Runs all prompts at once.
pub(super) fn run(
    model: &dyn TextModel,
    prompts: &[Prompt],
    options: &GenerateOptions,
) -> Result<Sample> {
    let barrier = Barrier::new(prompts.len());
    let outputs: Vec<Output> = thread::scope(|scope| {
        let threads: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                scope.spawn(|| {
                    barrier.wait();
                    one(model, &prompt.text, options)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| t.join().map_err(|_| "a thread of the bench panicked".to_owned())?)
            .collect::<Result<_>>()
    })?;
    if let Some(o) = outputs.iter().find(|o| o.metrics.cached_tokens > 0) {
        let n = o.metrics.cached_tokens;
        return Err(format!(
            "{n} tokens of a new prompt came from the cache: nothing was measured"
        ));
    }
    let (prefill, decode) = match outputs.as_slice() {
        [only] => (only.metrics.prefill_rate(), only.metrics.decode_rate()),
        _ => (batch_prefill(&outputs), batch_decode(&outputs)),
    };
    Ok(Sample {
        prefill,
        decode,
        peak_memory: outputs.iter().map(|o| o.metrics.peak_memory).max().unwrap_or_default(),
        ended_early: outputs.iter().any(|o| o.finish_reason == Some(FinishReason::Stop)),
    })
}

fn one(model: &dyn TextModel, prompt: &str, options: &GenerateOptions) -> Result<Output> {
    let start = Instant::now();
    let mut stream = model.generate(prompt, options).map_err(|e| e.to_string())?;
    let mut arrivals = Vec::new();
    for token in stream.by_ref() {
        token.map_err(|e| e.to_string())?;
        arrivals.push(start.elapsed());
    }
    Ok(Output { metrics: stream.metrics(), finish_reason: stream.finish_reason(), arrivals })
}

/// All prompt tokens until the last sequence has its first token.
fn batch_prefill(outputs: &[Output]) -> f64 {
    let tokens: usize = outputs.iter().map(|o| o.metrics.prompt_tokens).sum();
    rate(tokens, last_first_token(outputs))
}

/// Tokens that arrive while every sequence decodes: from the last one's first token to the first one's end.
fn batch_decode(outputs: &[Output]) -> f64 {
    let start = last_first_token(outputs);
    let end = outputs.iter().filter_map(|o| o.arrivals.last()).min().copied().unwrap_or_default();
    let during = |at: &&Duration| **at > start && **at <= end;
    let tokens: usize = outputs.iter().map(|o| o.arrivals.iter().filter(during).count()).sum();
    rate(tokens, end.saturating_sub(start))
}

fn last_first_token(outputs: &[Output]) -> Duration {
    outputs.iter().filter_map(|o| o.arrivals.first()).max().copied().unwrap_or_default()
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(prompt: usize, seconds: &[u64]) -> Output {
        let mut metrics = Metrics::default();
        metrics.prompt_tokens = prompt;
        let arrivals = seconds.iter().copied().map(Duration::from_secs).collect();
        Output { metrics, finish_reason: Some(FinishReason::Length), arrivals }
    }

    #[test]
    fn a_batch_decodes_while_all_of_it_does() {
        let outputs = [output(6, &[1, 2, 3, 4, 5]), output(6, &[3, 4, 5, 6, 7])];
        assert_eq!(batch_prefill(&outputs), 4.0);
        assert_eq!(batch_decode(&outputs), 2.0);
    }

    #[test]
    fn runs_are_joined_by_their_time() {
        let run = |prefill, peak_memory| Sample {
            prefill,
            decode: 0.0,
            peak_memory,
            ended_early: peak_memory > 1,
        };
        let joined = Sample::joined(&[run(1.0, 1), run(3.0, 2)]);
        assert_eq!(joined, Some(run(1.5, 2)));
        assert_eq!(Sample::joined(&[]), None);
    }

    #[test]
    fn sequences_that_never_decode_together_have_no_rate() {
        assert_eq!(batch_decode(&[output(6, &[1, 2]), output(6, &[3, 4])]), 0.0);
    }
}
