//! A loaded model, and what goes into it and comes out.

use crate::{
    Classification, ClassifyOptions, Completion, Error, GenerateOptions, Metrics, Result, Score,
    ScoreOptions, TokenStream,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A loaded model.
///
/// All methods take `&self` and may be called from many threads; what is in flight at the same time runs in one batch,
/// and nobody's text depends on who else is there.
pub trait TextModel: Send + Sync {
    /// What the model is.
    fn info(&self) -> &ModelInfo;

    /// The family, as `model_type` of its configuration says, such as `qwen3`.
    fn model_type(&self) -> &str {
        &self.info().architecture
    }

    /// Continues `prompt`. The work runs elsewhere; the stream gives the tokens as they are made.
    ///
    /// The tokenizer adds what the checkpoint says (such as one BOS, unless the prompt begins with it), and special
    /// tokens spelled in the prompt are taken as such: the prompt is the program's, not the user's.
    ///
    /// # Errors
    /// Before any work: an invalid option, an empty prompt, one that does not fit, [`Error::Busy`], a closed model.
    fn generate(&self, prompt: &str, options: &GenerateOptions) -> Result<TokenStream>;

    /// Answers `messages`, rendered by the checkpoint's own chat template.
    ///
    /// Special tokens that a message's text spells stay text.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and [`Error::NoChatTemplate`] or [`Error::ChatTemplate`].
    fn chat(&self, messages: &[Message], options: &GenerateOptions) -> Result<TokenStream>;

    /// One forward pass per prompt, no decoding; results in the order of the prompts, a bad prompt is one error.
    /// What the prompts have in common at their beginning is computed once.
    fn classify(&self, prompts: &[&str], options: &ClassifyOptions) -> Vec<Result<Classification>>;

    /// How likely `continuation` is after `prompt`, token by token: see [`Score`].
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and for a continuation without tokens.
    fn score(&self, prompt: &str, continuation: &str, options: &ScoreOptions) -> Result<Score> {
        self.batch_score(&[(prompt, continuation)], options).pop().unwrap_or(Err(Error::Closed))
    }

    /// Scores pairs of a prompt and a continuation in one batch; results in their order, a bad pair is one error. What
    /// they have in common at their beginning, such as the question before several answers, is computed once.
    fn batch_score(&self, pairs: &[(&str, &str)], options: &ScoreOptions) -> Vec<Result<Score>>;

    /// Continues all prompts at once; results in their order. One prompt's failure is never another's,
    /// and each text is exactly what its prompt gives alone.
    fn batch_generate(
        &self,
        prompts: &[&str],
        options: &GenerateOptions,
    ) -> Vec<Result<Completion>> {
        let streams: Vec<_> = prompts.iter().map(|p| self.generate(p, options)).collect();
        streams.into_iter().map(|s| s?.finish()).collect()
    }

    /// The tokens of a prompt, as [`generate`](Self::generate) would make them.
    ///
    /// # Errors
    /// A text that the tokenizer can't encode; a closed model.
    fn tokenise(&self, text: &str) -> Result<Vec<u32>>;

    /// The text of `ids`, without special tokens: what a stream of these ids would join to.
    ///
    /// # Errors
    /// An id that the tokenizer does not have; a closed model.
    fn detokenise(&self, ids: &[u32]) -> Result<String>;

    /// The prompt that the chat template makes of `messages`.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] or [`Error::ChatTemplate`]; a closed model.
    fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String>;

    /// The metrics of the call that finished last. A stream carries its own: [`TokenStream::metrics`].
    fn metrics(&self) -> Metrics;

    /// Waits for the running step, ends all streams with [`Error::Closed`], and frees the device.
    /// Calls afterwards give [`Error::Closed`]; closing again does nothing. Dropping the model does the same.
    fn close(&self);
}

/// What a model is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// The family, such as `gemma3`, `qwen3` or `llama`.
    pub architecture: String,
    /// Entries of the vocabulary, padding included: the length of a row of logits.
    pub vocab_size: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// How the weights are quantised; `None`: they are not.
    pub quantisation: Option<Quantisation>,
    /// Most tokens of one sequence, as loaded: prompt and output together.
    pub context_len: usize,
    /// Most sequences that run at once; more wait.
    pub parallel_slots: usize,
    /// Parameters.
    pub parameters: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes that keys and values of one token take in the cache.
    pub cache_bytes_per_token: u64,
    /// The backend's name.
    pub backend: String,
    /// The device's name.
    pub device: String,
}

/// How weights are quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quantisation {
    /// Bits of a weight.
    pub bits: u8,
    /// Weights that share a scale, where the format has groups.
    pub group_size: Option<usize>,
}

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// As templates and JSON call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
    /// A message of [`Role::System`].
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }
    /// A message of [`Role::User`].
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }
    /// A message of [`Role::Assistant`].
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }
    /// A message of [`Role::Tool`].
    pub fn tool(content: impl Into<String>) -> Self {
        Self::new(Role::Tool, content)
    }
}

/// How a chat template is rendered; the names are those of `transformers`' `apply_chat_template`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RenderOptions {
    /// End with the opening of the model's turn. Default true.
    pub add_generation_prompt: bool,
    /// Leave the last message open, to be continued. Excludes `add_generation_prompt`.
    pub continue_final_message: bool,
    /// Tools that the model may call, as JSON schemas.
    pub tools: Vec<Value>,
    /// Documents that the answer may draw on.
    pub documents: Vec<Value>,
    /// Which of several named templates. `None`: the one called `default`, or `tool_use` when there are tools.
    pub template: Option<String>,
    /// Further variables of the template, such as `enable_thinking`.
    pub variables: Map<String, Value>,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            add_generation_prompt: true,
            continue_final_message: false,
            tools: Vec::new(),
            documents: Vec::new(),
            template: None,
            variables: Map::new(),
        }
    }
}

impl RenderOptions {
    /// Sets a variable of the template.
    #[must_use]
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Leaves the last message open, to be continued by the model.
    #[must_use]
    pub fn continue_final_message(mut self) -> Self {
        self.continue_final_message = true;
        self.add_generation_prompt = false;
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] where two options exclude each other.
    pub fn validate(&self) -> Result<()> {
        if self.continue_final_message && self.add_generation_prompt {
            return Err(Error::option(
                "continue_final_message",
                "it excludes add_generation_prompt: the last message stays open",
            ));
        }
        Ok(())
    }
}
