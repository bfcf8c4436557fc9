//! Tokens as they are made, and how a call went.

use crate::{Error, Result};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use std::{
    task::{Context, Poll},
    time::Duration,
};

/// One generated token.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Token {
    /// Its id in the vocabulary.
    pub id: u32,
    /// What it adds to the output; always valid UTF-8, and empty where it only completes a later character.
    pub text: String,
    /// Its log-probability, if asked for: natural logarithm, of the model's own distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logprob: Option<f32>,
    /// The most likely tokens at its place, best first, if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub top_logprobs: Vec<TokenLogprob>,
    /// The model's own logits that it was chosen from, one per vocabulary entry, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Box<[f32]>>,
}

impl Token {
    /// A token without probabilities.
    pub fn new(id: u32, text: impl Into<String>) -> Self {
        Self { id, text: text.into(), ..Self::default() }
    }
}

/// A token that could have been.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TokenLogprob {
    /// Its id in the vocabulary.
    pub id: u32,
    /// Its log-probability (natural logarithm).
    pub logprob: f32,
}

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model ended it, or a stop token or stop text did.
    Stop,
    /// `max_tokens` was reached, or the context is full.
    Length,
    /// The caller cancelled.
    Cancelled,
    /// The caller's time limit passed.
    TimedOut,
}

/// How a call went. Of a batch, the sum.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that were taken from the cache and not computed.
    pub cached_tokens: usize,
    /// Tokens delivered.
    pub generated_tokens: usize,
    /// How often a sequence had to give up its place in the cache to another and was computed again later.
    pub preemptions: usize,
    /// From the first work on the prompt to the first token.
    pub prefill: Duration,
    /// From the first token to the end.
    pub decode: Duration,
    /// From the call to the end, waiting included.
    pub total: Duration,
    /// Most bytes of memory that the device has held so far.
    pub peak_memory: u64,
    /// Bytes of memory that the device held at the end.
    pub active_memory: u64,
}

impl Metrics {
    /// The metrics of calls that ran together: counts summed, times those of the longest, the last memory.
    pub fn of_batch<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        all.into_iter().fold(Self::default(), |sum, m| Self {
            prompt_tokens: sum.prompt_tokens + m.prompt_tokens,
            cached_tokens: sum.cached_tokens + m.cached_tokens,
            generated_tokens: sum.generated_tokens + m.generated_tokens,
            preemptions: sum.preemptions + m.preemptions,
            prefill: sum.prefill.max(m.prefill),
            decode: sum.decode.max(m.decode),
            total: sum.total.max(m.total),
            peak_memory: sum.peak_memory.max(m.peak_memory),
            active_memory: m.active_memory,
        })
    }

    /// Prompt tokens computed per second; 0 where there was no time.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prompt_tokens.saturating_sub(self.cached_tokens), self.prefill)
    }

    /// Generated tokens per second after the first; 0 where there was no time.
    pub fn decode_rate(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { tokens as f64 / time.as_secs_f64() }
}

impl Serialize for Metrics {
    /// Durations in seconds, rates in tokens per second, memory in bytes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut s = serializer.serialize_struct("Metrics", 11)?;
        s.serialize_field("prompt_tokens", &self.prompt_tokens)?;
        s.serialize_field("cached_tokens", &self.cached_tokens)?;
        s.serialize_field("generated_tokens", &self.generated_tokens)?;
        s.serialize_field("preemptions", &self.preemptions)?;
        s.serialize_field("prefill_seconds", &self.prefill.as_secs_f64())?;
        s.serialize_field("decode_seconds", &self.decode.as_secs_f64())?;
        s.serialize_field("total_seconds", &self.total.as_secs_f64())?;
        s.serialize_field("prefill_tokens_per_second", &self.prefill_rate())?;
        s.serialize_field("decode_tokens_per_second", &self.decode_rate())?;
        s.serialize_field("peak_memory_bytes", &self.peak_memory)?;
        s.serialize_field("active_memory_bytes", &self.active_memory)?;
        s.end()
    }
}

/// A finished output.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Completion {
    /// The tokens, in order.
    pub tokens: Vec<Token>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// How it went.
    pub metrics: Metrics,
}

impl Completion {
    /// The tokens' texts, joined.
    pub fn text(&self) -> String {
        self.tokens.iter().map(|t| t.text.as_str()).collect()
    }
}

/// Where a stream's tokens come from. What an engine implements; applications see [`TokenStream`].
pub trait TokenSource: Send {
    /// Waits for the next token; `None` after the last. Fused.
    fn next(&mut self) -> Option<Result<Token>>;

    /// The same without waiting: `Pending` once the context's waker is registered.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Token>>>;

    /// Why it ended; `None` while it runs, and after an error.
    fn finish_reason(&self) -> Option<FinishReason>;

    /// How it went, so far.
    fn metrics(&self) -> Metrics;
}

/// Tokens as they are made, with their own errors, finish reason and metrics.
///
/// Dropping it cancels the call and frees its memory.
///
/// With the feature `async` it is a `futures_core::Stream` as well: no runtime is needed, since the engine's thread wakes
/// whoever polled last. Both ways may take turns on one stream.
///
/// An end token is not delivered. A token whose text is not settled yet (an incomplete character, or what may become
/// a stop text) is delivered together with the one that settles it, so that the joined texts equal the decoding of all
/// ids, up to a stop text.
pub struct TokenStream(Box<dyn TokenSource>);

impl TokenStream {
    /// The stream of `source`.
    pub fn new(source: impl TokenSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Why it ended; `None` while it runs, and after an error.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.0.finish_reason()
    }

    /// How it went, so far.
    pub fn metrics(&self) -> Metrics {
        self.0.metrics()
    }

    /// Waits for the rest and joins the texts.
    ///
    /// # Errors
    /// The stream's own error; what came before it is lost, so iterate where that matters.
    pub fn text(self) -> Result<String> {
        self.map(|token| token.map(|t| t.text)).collect()
    }

    /// Waits for the rest.
    ///
    /// # Errors
    /// The stream's own error; what came before it is lost, so iterate where that matters.
    pub fn finish(mut self) -> Result<Completion> {
        let tokens = self.by_ref().collect::<Result<Vec<_>>>()?;
        let finish_reason = self.finish_reason().ok_or(Error::Closed)?;
        Ok(Completion { tokens, finish_reason, metrics: self.metrics() })
    }
}

impl Iterator for TokenStream {
    type Item = Result<Token>;
    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

#[cfg(feature = "async")]
impl futures_core::Stream for TokenStream {
    type Item = Result<Token>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.0.poll_next(cx)
    }
}

impl std::fmt::Debug for TokenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenStream").field("finish_reason", &self.finish_reason()).finish()
    }
}
