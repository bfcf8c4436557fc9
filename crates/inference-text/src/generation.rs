//! One running sequence's output: sampling, detokenising, stop rules, its stream and its metrics.

use crate::{
    Detokenizer, Tokenizer,
    channel::{Sender, channel},
    logits::{Ask, Row},
    queue::Place,
    sampling::{self, History, Sampler, logprobs},
    stop::StopTexts,
};
use inference_core::{
    CancelToken, Error, FinishReason, GenerateOptions, Metrics, Result, Token, TokenStream,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What all generations of a model share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The checkpoint's tokenizer.
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Tokens that end every output, as the checkpoint declares.
    pub(crate) end_tokens: Vec<u32>,
    /// The metrics of the call that finished last.
    pub(crate) last: Mutex<Metrics>,
}

impl Shared {
    /// A call has finished, with these metrics.
    pub(crate) fn finished(&self, metrics: Metrics) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = metrics;
    }
}

/// When a call is to end early, and the place that it has until its end. Clones are parts of one call.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    started: Instant,
    timeout: Option<Duration>,
    cancel: Option<CancelToken>,
    place: Option<Arc<Place>>,
}

impl Limits {
    /// From now on; without a place.
    pub(crate) fn new(timeout: Option<Duration>, cancel: Option<CancelToken>) -> Self {
        Self { started: Instant::now(), timeout, cancel, place: None }
    }

    /// With a place among the calls that run and wait.
    pub(crate) fn with(mut self, place: Place) -> Self {
        self.place = Some(Arc::new(place));
        self
    }

    /// This part of the call has ended. Its last part gives the place back, before anybody learns of the end: whoever
    /// calls again after it must find it free.
    pub(crate) fn leave(&mut self) {
        self.place = None;
    }

    /// How long ago the call began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Why the call is to end now, if it is.
    pub(crate) fn reached(&self) -> Option<FinishReason> {
        if self.cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
            return Some(FinishReason::Cancelled);
        }
        let timed_out = self.timeout.is_some_and(|t| self.started.elapsed() >= t);
        timed_out.then_some(FinishReason::TimedOut)
    }

    /// The same as an error, for calls that have nothing to show yet.
    ///
    /// # Errors
    /// [`Error::Cancelled`] or [`Error::TimedOut`].
    pub(crate) fn check(&self) -> Result<()> {
        match self.reached() {
            None => Ok(()),
            Some(FinishReason::TimedOut) => {
                Err(Error::TimedOut { after: self.timeout.unwrap_or_default() })
            }
            Some(_) => Err(Error::Cancelled),
        }
    }
}

/// The output of one sequence, on the engine's thread.
pub(crate) struct Generation {
    shared: Arc<Shared>,
    sampler: Sampler,
    ask: Ask,
    detokenizer: Detokenizer,
    stop: StopTexts,
    /// A stop text was found; nothing behind it counts.
    stopped: bool,
    stop_tokens: Vec<u32>,
    max_tokens: usize,
    logprobs: Option<usize>,
    return_logits: bool,
    limits: Limits,
    sender: Sender,
    /// Tokens whose text is not settled.
    held: Vec<Token>,
    prompt_len: usize,
    generated: usize,
    metrics: Metrics,
    first_work: Option<Instant>,
    first_token: Option<Instant>,
}

/// Bytes of device memory: held now, and the most that was ever held.
#[derive(Debug, Clone, Copy, Default)]
pub struct MemoryUse {
    /// Held now.
    pub active: u64,
    /// Most that was ever held.
    pub peak: u64,
}

impl Generation {
    /// The output of a prompt of `prompt_len` tokens, and the stream that the caller reads it from.
    /// `options` have been validated.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        prompt_len: usize,
        options: &GenerateOptions,
        limits: Limits,
    ) -> (Self, TokenStream) {
        let (sender, receiver) = channel();
        let generation = Self {
            sampler: Sampler::new(options),
            ask: sampling::ask(options),
            detokenizer: Detokenizer::new(shared.tokenizer.clone()),
            stop: StopTexts::new(&options.stop),
            stopped: false,
            stop_tokens: options.stop_tokens.clone(),
            max_tokens: options.max_tokens,
            logprobs: options.logprobs,
            return_logits: options.return_logits,
            limits,
            sender,
            held: Vec::new(),
            prompt_len,
            generated: 0,
            metrics: Metrics::default(),
            first_work: None,
            first_token: None,
            shared: shared.clone(),
        };
        (generation, TokenStream::new(receiver))
    }

    /// Why it is to end before its next token, if it is: cancelled, out of time, or nobody reads.
    pub(crate) fn interrupted(&self) -> Option<FinishReason> {
        match self.sender.is_dropped() {
            true => Some(FinishReason::Cancelled),
            false => self.limits.reached(),
        }
    }

    /// Notes when a step that works on it began, how often it has had to start over by then, and how many of its tokens
    /// were in the cache at first.
    pub(crate) fn begun(&mut self, at: Instant, preemptions: usize, cached: usize) {
        self.first_work.get_or_insert(at);
        self.metrics.preemptions = preemptions;
        self.metrics.cached_tokens = cached;
    }

    /// Which logits of the newest token it needs.
    pub(crate) fn ask(&self) -> Ask {
        self.ask
    }

    /// Chooses the token after `tokens` (prompt and output) from the model's own logits, which it changes. `None`: the output
    /// has ended, and so has the stream.
    pub(crate) fn next(
        &mut self,
        tokens: &[u32],
        logits: Row<'_>,
        memory: &dyn Fn() -> MemoryUse,
    ) -> Option<u32> {
        match self.choose(tokens, logits) {
            Err(error) => {
                self.fail(error, memory);
                None
            }
            Ok((token, None)) => Some(token),
            Ok((_, Some(reason))) => {
                self.end(reason, memory);
                None
            }
        }
    }

    fn choose(&mut self, tokens: &[u32], logits: Row<'_>) -> Result<(u32, Option<FinishReason>)> {
        let history = History { tokens, prompt_len: self.prompt_len };
        let (mut whole, mut before) = (None, None);
        let id = match logits {
            Row::All(logits) => {
                whole = self.return_logits.then(|| (&*logits).into());
                before = self.logprobs.map(|_| logits.to_vec());
                // Rows beyond the tokenizer's vocabulary are padding, which no text can come from.
                let real = logits.len().min(self.shared.tokenizer.vocab_len());
                self.sampler.sample(history, &mut logits[..real])?
            }
            Row::Largest(ids, logits) => ids[self.sampler.sample(history, logits)? as usize],
        };
        self.first_token.get_or_insert_with(Instant::now);
        if self.stop_tokens.contains(&id) || self.shared.end_tokens.contains(&id) {
            return Ok((id, Some(FinishReason::Stop)));
        }
        self.generated += 1;
        let mut token = Token::new(id, "");
        token.logits = whole;
        if let (Some(n), Some(before)) = (self.logprobs, before) {
            let (own, top) = logprobs(&before, &[id], n);
            token.logprob = own.first().copied();
            token.top_logprobs = top;
        }
        self.held.push(token);
        let text = self.detokenizer.push(id)?;
        if self.settle(&text) {
            return Ok((id, Some(FinishReason::Stop)));
        }
        let full = self.generated >= self.max_tokens;
        Ok((id, full.then_some(FinishReason::Length)))
    }

    /// Takes text that only stop texts may still change, and delivers the tokens that it settles.
    /// `true`: it held a stop text, and the output ends before it.
    fn settle(&mut self, text: &str) -> bool {
        let scanned = self.stop.push(text);
        self.stopped = scanned.stopped;
        let holds = !self.stopped && (self.stop.holds() || self.detokenizer.holds());
        // While text is held back, so is the newest token: at the end there must be one to carry the text.
        if !holds || !scanned.text.is_empty() {
            self.deliver(&scanned.text, usize::from(holds));
        }
        self.stopped
    }

    /// Delivers the held tokens but the last `keep`; `text` goes with the last of those delivered.
    fn deliver(&mut self, text: &str, keep: usize) {
        let count = self.held.len().saturating_sub(keep);
        if let Some(token) = self.held[..count].last_mut() {
            token.text += text;
        } else if let Some(token) = self.held.first_mut() {
            token.text += text;
        }
        self.metrics.prompt_tokens = self.prompt_len;
        for token in self.held.drain(..count) {
            self.metrics.generated_tokens += 1;
            self.sender.send(token, self.metrics);
        }
    }

    /// Delivers all that is held back, if no stop text has ended the output before.
    fn flush(&mut self) {
        let rest = self.detokenizer.finish();
        if !self.stopped && !self.settle(&rest) {
            let rest = self.stop.finish();
            self.deliver(&rest, 0);
        }
    }

    /// Ends the output: delivers what was held back, then the reason.
    pub(crate) fn end(&mut self, reason: FinishReason, memory: &dyn Fn() -> MemoryUse) {
        self.flush();
        self.finish_metrics(memory);
        let reason = if self.stopped { FinishReason::Stop } else { reason };
        self.limits.leave();
        self.sender.end(Ok(reason), self.metrics);
    }

    /// Ends the output with an error, after what was held back.
    pub(crate) fn fail(&mut self, error: Error, memory: &dyn Fn() -> MemoryUse) {
        self.flush();
        self.finish_metrics(memory);
        self.limits.leave();
        self.sender.end(Err(error), self.metrics);
    }

    fn finish_metrics(&mut self, memory: &dyn Fn() -> MemoryUse) {
        let now = Instant::now();
        let first_token = self.first_token.unwrap_or(now);
        let metrics = &mut self.metrics;
        metrics.prompt_tokens = self.prompt_len;
        metrics.prefill = self.first_work.map_or(Duration::ZERO, |t| first_token.duration_since(t));
        metrics.decode = now.duration_since(first_token);
        metrics.total = self.limits.started.elapsed();
        let memory = memory();
        metrics.peak_memory = memory.peak;
        metrics.active_memory = memory.active;
        self.shared.finished(*metrics);
    }
}
