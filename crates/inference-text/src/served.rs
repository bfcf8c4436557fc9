//! A model whose tokens an owner thread makes: the whole contract, over anything that can run a step.

use crate::{
    ChatTemplate, Generation, Shared, Tokenizer,
    runner::{Forward, Loaded, Runner, Task},
    scheduler::{Sequence, Wanted},
    scoring::{self, ToScore},
};
use inference_core::{
    Classification, ClassifyOptions, Completion, Error, GenerateOptions, Message, Metrics,
    ModelInfo, RenderOptions, Result, Score, ScoreOptions, TextModel, TokenStream,
};
use std::sync::{Arc, Mutex, PoisonError};

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
    runner: Runner,
}

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
        let (runner, info) = Runner::start(load)?;
        let shared = Shared { tokenizer: Arc::new(tokenizer), end_tokens, last: Mutex::default() };
        Ok(Self { info, shared: Arc::new(shared), template, runner })
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
    ) -> Result<(Sequence<Task>, TokenStream)> {
        self.admit(&tokens, options.max_tokens)?;
        let (generation, stream) = Generation::new(&self.shared, tokens.len(), options);
        let task = Task::Generate(Box::new(generation));
        Ok((Sequence::new(tokens, Wanted::Last, task), stream))
    }

    fn prepare_prompt(
        &self,
        prompt: &str,
        options: &GenerateOptions,
    ) -> Result<(Sequence<Task>, TokenStream)> {
        self.runner.check()?;
        options.validate()?;
        self.prepare(self.shared.tokenizer.encode_prompt(prompt)?, options)
    }

    /// Checks that a sequence can be scored.
    fn admit_scored(&self, tokens: &[u32]) -> Result<()> {
        self.runner.check()?;
        self.admit(tokens, 0)
    }

    fn submit_scored(&self, work: Vec<ToScore>) {
        let sequence = |w: ToScore| {
            let task = Task::Score(Box::new(w.scoring));
            Sequence::new(w.tokens, Wanted::From(w.from), task)
        };
        // If the engine is gone, so are the sequences, and whoever waits for them learns it.
        let _ = self.runner.submit(work.into_iter().map(sequence).collect());
    }

    fn template(&self) -> Result<&ChatTemplate> {
        let path = || self.shared.tokenizer.path().to_owned();
        self.template.as_ref().ok_or_else(|| Error::NoChatTemplate { path: path() })
    }
}

impl TextModel for Served {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn generate(&self, prompt: &str, options: &GenerateOptions) -> Result<TokenStream> {
        let (sequence, stream) = self.prepare_prompt(prompt, options)?;
        self.runner.submit(vec![sequence])?;
        Ok(stream)
    }

    fn chat(&self, messages: &[Message], options: &GenerateOptions) -> Result<TokenStream> {
        self.runner.check()?;
        options.validate()?;
        let rendered = self.template()?.render(messages, &options.render)?;
        let tokens = self.shared.tokenizer.encode_rendered(&rendered)?;
        let (sequence, stream) = self.prepare(tokens, options)?;
        self.runner.submit(vec![sequence])?;
        Ok(stream)
    }

    fn classify(&self, prompts: &[&str], options: &ClassifyOptions) -> Vec<Result<Classification>> {
        let admit = |tokens: &[u32]| self.admit_scored(tokens);
        scoring::classify(&self.shared, prompts, options, &admit, |work| self.submit_scored(work))
    }

    fn batch_score(&self, pairs: &[(&str, &str)], options: &ScoreOptions) -> Vec<Result<Score>> {
        let admit = |tokens: &[u32]| self.admit_scored(tokens);
        scoring::score(&self.shared, pairs, options, &admit, |work| self.submit_scored(work))
    }

    fn batch_generate(
        &self,
        prompts: &[&str],
        options: &GenerateOptions,
    ) -> Vec<Result<Completion>> {
        let mut sequences = Vec::new();
        let streams: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let (sequence, stream) = self.prepare_prompt(prompt, options)?;
                sequences.push(sequence);
                Ok(stream)
            })
            .collect();
        // If the engine is gone, so are the sequences, and their streams say so.
        let _ = self.runner.submit(sequences);
        let all: Vec<_> = streams.into_iter().map(|s: Result<TokenStream>| s?.finish()).collect();
        let metrics = Metrics::of_batch(all.iter().flatten().map(|c| &c.metrics));
        *self.shared.last.lock().unwrap_or_else(PoisonError::into_inner) = metrics;
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
