//! A model whose tokens an owner thread makes: the whole contract, over anything that can run a step.

use crate::{
    ChatTemplate, Generation, Shared, Tokenizer,
    generation::Limits,
    queue::Queue,
    runner::{Forward, Loaded, Runner, Task},
    scheduler::{Sequence, Wanted},
    scoring::{self, ToScore},
};
use inference_core::{
    CancelToken, Classification, ClassifyOptions, Completion, Error, GenerateOptions, Message,
    Metrics, ModelInfo, Priority, RenderOptions, Result, Score, ScoreOptions, TextModel,
    TokenStream,
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What a checkpoint says of texts.
#[derive(Debug)]
pub struct Texts {
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// Tokens that end every output; in any order.
    pub end_tokens: Vec<u32>,
}

/// A model that is served by a thread of its own.
#[derive(Debug)]
pub struct Served {
    info: ModelInfo,
    shared: Arc<Shared>,
    template: Option<ChatTemplate>,
    queue: Arc<Queue>,
    runner: Runner,
}

/// Calls that may wait, where nobody says how many: more than are likely to be meant.
const QUEUE_LEN: usize = 1024;

impl Served {
    /// Starts the thread, on which `load` runs and what it gives then stays.
    ///
    /// # Errors
    /// Those of `load`; [`Error::EngineStopped`] where it panics.
    pub fn start<F: Forward + 'static>(
        texts: Texts,
        load: impl FnOnce() -> Result<Loaded<F>> + Send + 'static,
    ) -> Result<Self> {
        let Texts { tokenizer, template, mut end_tokens } = texts;
        end_tokens.sort_unstable();
        end_tokens.dedup();
        let (runner, info) = Runner::start(tokenizer.vocab_len(), load)?;
        let shared = Shared { tokenizer: Arc::new(tokenizer), end_tokens, last: Mutex::default() };
        let shared = Arc::new(shared);
        let queue = Queue::new(info.parallel_slots.saturating_add(QUEUE_LEN));
        Ok(Self { info, shared, template, queue, runner })
    }

    /// Lets so many calls wait beside as many as there are slots; see
    /// [`LoadOptions::queue_len`](inference_core::LoadOptions::queue_len).
    #[must_use]
    pub fn queue_len(mut self, most: Option<usize>) -> Self {
        let most = most.unwrap_or(QUEUE_LEN);
        self.queue = Queue::new(self.info.parallel_slots.saturating_add(most));
        self
    }

    /// Lets a call in, or has it wait for that.
    fn enter(&self, call: &Call) -> Result<Limits> {
        self.runner.check()?;
        let limits = Limits::new(call.timeout, call.cancel.cloned());
        let goes_on = || self.runner.check().and_then(|()| limits.check());
        let place = self.queue.enter(call.priority, call.wait, goes_on)?;
        Ok(limits.with(place))
    }

    /// Checks that a sequence can run: its tokens exist, and it fits with `max_tokens` more.
    fn admit(&self, tokens: &[u32], max_tokens: usize) -> Result<()> {
        if tokens.is_empty() {
            return Err(Error::InvalidPrompt { reason: "it is empty".to_owned() });
        }
        if let Some(id) = tokens.iter().find(|id| **id as usize >= self.info.vocab_size) {
            let reason = format!(
                "the tokenizer gives token {id}, but the model's vocabulary ends at {}",
                self.info.vocab_size
            );
            return Err(Error::InvalidPrompt { reason });
        }
        let (prompt, context) = (tokens.len(), self.info.context_len);
        if prompt.saturating_add(max_tokens) > context {
            return Err(Error::ContextExceeded { prompt, max_tokens, context });
        }
        Ok(())
    }

    /// A sequence that continues `tokens`, and the stream that it will write.
    fn prepare(
        &self,
        tokens: Vec<u32>,
        options: &GenerateOptions,
        limits: Limits,
    ) -> Result<(Sequence<Task>, TokenStream)> {
        self.admit(&tokens, options.max_tokens)?;
        let (generation, stream) = Generation::new(&self.shared, tokens.len(), options, limits);
        let task = Task::Generate(Box::new(generation));
        Ok((Sequence::new(tokens, Wanted::Last, task).priority(options.priority), stream))
    }

    fn prepare_prompt(
        &self,
        prompt: &str,
        options: &GenerateOptions,
        limits: Limits,
    ) -> Result<(Sequence<Task>, TokenStream)> {
        self.prepare(self.shared.tokenizer.encode_prompt(prompt)?, options, limits)
    }

    /// Checks that a sequence can be scored.
    fn admit_scored(&self, tokens: &[u32]) -> Result<()> {
        self.runner.check()?;
        self.admit(tokens, 0)
    }

    fn submit_scored(&self, work: Vec<ToScore>, priority: Priority) {
        let sequence = |w: ToScore| {
            let task = Task::Score(Box::new(w.scoring));
            Sequence::new(w.tokens, Wanted::From(w.from), task).priority(priority)
        };
        // If the engine is gone, so are the sequences, and whoever waits for them learns it.
        let _ = self.runner.submit(work.into_iter().map(sequence).collect());
    }

    fn template(&self) -> Result<&ChatTemplate> {
        let path = || self.shared.tokenizer.path().to_owned();
        self.template.as_ref().ok_or_else(|| Error::NoChatTemplate { path: path() })
    }
}

/// What a call says about its place among others.
struct Call<'a> {
    timeout: Option<Duration>,
    cancel: Option<&'a CancelToken>,
    priority: Priority,
    wait: Option<Duration>,
}

/// All kinds of options say it in the same words.
macro_rules! call_from {
    ($($options:ty),*) => {$(
        impl<'a> From<&'a $options> for Call<'a> {
            fn from(options: &'a $options) -> Self {
                let (timeout, cancel) = (options.timeout, options.cancel.as_ref());
                Self { timeout, cancel, priority: options.priority, wait: options.wait }
            }
        }
    )*};
}

call_from!(GenerateOptions, ClassifyOptions, ScoreOptions);

impl TextModel for Served {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn generate(&self, prompt: &str, options: &GenerateOptions) -> Result<TokenStream> {
        options.validate()?;
        let limits = self.enter(&Call::from(options))?;
        let (sequence, stream) = self.prepare_prompt(prompt, options, limits)?;
        self.runner.submit(vec![sequence])?;
        Ok(stream)
    }

    fn chat(&self, messages: &[Message], options: &GenerateOptions) -> Result<TokenStream> {
        options.validate()?;
        let limits = self.enter(&Call::from(options))?;
        let rendered = self.template()?.render(messages, &options.render)?;
        let tokens = self.shared.tokenizer.encode_rendered(&rendered)?;
        let (sequence, stream) = self.prepare(tokens, options, limits)?;
        self.runner.submit(vec![sequence])?;
        Ok(stream)
    }

    fn classify(&self, prompts: &[&str], options: &ClassifyOptions) -> Vec<Result<Classification>> {
        let limits = match options.validate().and_then(|()| self.enter(&Call::from(options))) {
            Ok(limits) => limits,
            Err(error) => return prompts.iter().map(|_| Err(error.clone())).collect(),
        };
        let admit = |tokens: &[u32]| self.admit_scored(tokens);
        let submit = |work| self.submit_scored(work, options.priority);
        scoring::classify(&self.shared, prompts, options, limits, &admit, submit)
    }

    fn batch_score(&self, pairs: &[(&str, &str)], options: &ScoreOptions) -> Vec<Result<Score>> {
        let limits = match self.enter(&Call::from(options)) {
            Ok(limits) => limits,
            Err(error) => return pairs.iter().map(|_| Err(error.clone())).collect(),
        };
        let admit = |tokens: &[u32]| self.admit_scored(tokens);
        let submit = |work| self.submit_scored(work, options.priority);
        scoring::score(&self.shared, pairs, limits, &admit, submit)
    }

    fn batch_generate(
        &self,
        prompts: &[&str],
        options: &GenerateOptions,
    ) -> Vec<Result<Completion>> {
        let limits = match options.validate().and_then(|()| self.enter(&Call::from(options))) {
            Ok(limits) => limits,
            Err(error) => return prompts.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut sequences = Vec::new();
        let streams: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let (sequence, stream) = self.prepare_prompt(prompt, options, limits.clone())?;
                sequences.push(sequence);
                Ok(stream)
            })
            .collect();
        // If the engine is gone, so are the sequences, and their streams say so.
        let _ = self.runner.submit(sequences);
        let all: Vec<_> = streams.into_iter().map(|s: Result<TokenStream>| s?.finish()).collect();
        let metrics = Metrics::of_batch(all.iter().flatten().map(|c| &c.metrics));
        self.shared.finished(metrics);
        all
    }

    fn tokenise(&self, text: &str) -> Result<Vec<u32>> {
        self.runner.check()?;
        self.shared.tokenizer.encode(text)
    }

    fn detokenise(&self, ids: &[u32]) -> Result<String> {
        self.runner.check()?;
        self.shared.tokenizer.decode(ids)
    }

    fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String> {
        self.runner.check()?;
        Ok(self.template()?.render(messages, options)?.text())
    }

    fn metrics(&self) -> Metrics {
        *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.runner.close();
    }
}
