//! What a caller may ask for, with defaults.

use crate::{Error, Priority, RenderOptions, Result};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How to continue a prompt.
///
/// The default is greedy, at most 256 tokens. Setters may be chained:
///
/// ```
/// # use inference_core::GenerateOptions;
/// let options = GenerateOptions::default().max_tokens(64).temperature(0.7).top_p(0.9).seed(1);
/// assert!(options.validate().is_ok());
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Most tokens to generate; at least 1. Default 256.
    pub max_tokens: usize,
    /// Divides the logits before sampling. 0, the default, is always greedy, whatever else is set.
    pub temperature: f32,
    /// Sample among the `k` most likely tokens only.
    pub top_k: Option<usize>,
    /// Sample among the fewest most likely tokens whose probabilities sum to at least this, in (0, 1].
    pub top_p: Option<f32>,
    /// Drop tokens less likely than this share of the most likely one's probability, in [0, 1].
    pub min_p: Option<f32>,
    /// Makes tokens of the prompt and of the output less likely, once per distinct token:
    /// a logit above 0 is divided by it, one below 0 multiplied. 1 is no penalty.
    pub repeat_penalty: Option<f32>,
    /// Subtracted from the logit of every token that the output already holds (not the prompt).
    pub presence_penalty: Option<f32>,
    /// Subtracted from a token's logit once for each time that the output already holds it.
    pub frequency_penalty: Option<f32>,
    /// Added to the logits of single tokens, before everything else. −∞ bans a token.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Makes sampling repeatable: the same seed gives the same text, alone or in a batch.
    pub seed: Option<u64>,
    /// Further tokens that end the output. The model's own end tokens always do as well.
    pub stop_tokens: Vec<u32>,
    /// Texts that end the output right before them, wherever the token borders fall.
    pub stop: Vec<String>,
    /// Report each token's log-probability, and those of the `n` most likely tokens at its place.
    ///
    /// They are natural logarithms of the model's own distribution: before bias, penalties and temperature.
    pub logprobs: Option<usize>,
    /// Report the logits, one per vocabulary entry, that each token was chosen from.
    pub return_logits: bool,
    /// Time limit, from the call on. What was generated until then is delivered;
    /// the stream ends with [`FinishReason::TimedOut`](crate::FinishReason::TimedOut).
    pub timeout: Option<Duration>,
    /// Cancels the call from elsewhere.
    pub cancel: Option<CancelToken>,
    /// Who goes first where callers compete.
    pub priority: Priority,
    /// How long the call may wait, before it returns, for a place in a queue that is full: see
    /// [`LoadOptions::queue_len`]. `None`, the default: it does not wait, and is [`Error::Busy`] at once.
    pub wait: Option<Duration>,
    /// How `chat` renders its messages; `generate` does not look at it.
    pub render: RenderOptions,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            repeat_penalty: None,
            presence_penalty: None,
            frequency_penalty: None,
            logit_bias: BTreeMap::new(),
            seed: None,
            stop_tokens: Vec::new(),
            stop: Vec::new(),
            logprobs: None,
            return_logits: false,
            timeout: None,
            cancel: None,
            priority: Priority::Normal,
            wait: None,
            render: RenderOptions::default(),
        }
    }
}

/// Most alternatives that [`GenerateOptions::logprobs`] may ask for.
const MAX_LOGPROBS: usize = 1000;

/// Most threads that [`LoadOptions::threads`] may ask for: more than any machine has cores.
const MAX_THREADS: usize = 4096;

/// Writes one chainable setter per line, documented by the field it sets.
macro_rules! setters {
    ($($name:ident: $arg:ty => $value:expr),* $(,)?) => {$(
        #[doc = concat!("Sets [`", stringify!($name), "`](Self::", stringify!($name), ").")]
        #[must_use]
        pub fn $name(mut self, $name: $arg) -> Self {
            self.$name = $value;
            self
        }
    )*};
}

pub(crate) use setters;

impl GenerateOptions {
    setters! {
        max_tokens: usize => max_tokens,
        temperature: f32 => temperature,
        top_k: usize => Some(top_k),
        top_p: f32 => Some(top_p),
        min_p: f32 => Some(min_p),
        repeat_penalty: f32 => Some(repeat_penalty),
        presence_penalty: f32 => Some(presence_penalty),
        frequency_penalty: f32 => Some(frequency_penalty),
        logit_bias: impl IntoIterator<Item = (u32, f32)> => logit_bias.into_iter().collect(),
        seed: u64 => Some(seed),
        stop_tokens: impl IntoIterator<Item = u32> => stop_tokens.into_iter().collect(),
        stop: impl IntoIterator<Item = impl Into<String>> => stop.into_iter().map(Into::into).collect(),
        logprobs: usize => Some(logprobs),
        return_logits: bool => return_logits,
        timeout: Duration => Some(timeout),
        cancel: CancelToken => Some(cancel),
        priority: Priority => priority,
        wait: Duration => Some(wait),
        render: RenderOptions => render,
    }

    /// Checks every value; backends call it before any work starts.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] that names the first option whose value means nothing.
    pub fn validate(&self) -> Result<()> {
        if self.max_tokens == 0 {
            return Err(Error::option("max_tokens", "0 asks for nothing; it must be at least 1"));
        }
        in_range("temperature", Some(self.temperature), 0.0, f32::MAX)?;
        if self.top_k == Some(0) {
            return Err(Error::option("top_k", "0 leaves no token; it must be at least 1"));
        }
        in_range("top_p", self.top_p, f32::MIN_POSITIVE, 1.0)?;
        in_range("min_p", self.min_p, 0.0, 1.0)?;
        in_range("repeat_penalty", self.repeat_penalty, f32::MIN_POSITIVE, f32::MAX)?;
        in_range("presence_penalty", self.presence_penalty, f32::MIN, f32::MAX)?;
        in_range("frequency_penalty", self.frequency_penalty, f32::MIN, f32::MAX)?;
        for (id, bias) in &self.logit_bias {
            if bias.is_nan() || *bias == f32::INFINITY {
                let reason = format!("{bias} for token {id}; it must be finite or -inf");
                return Err(Error::option("logit_bias", reason));
            }
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::option("stop", "an empty text would end every output at once"));
        }
        at_most_logprobs(self.logprobs)
    }
}

fn in_range(option: &'static str, value: Option<f32>, min: f32, max: f32) -> Result<()> {
    match value {
        Some(v) if v.is_nan() || v < min || v > max => {
            let bounds = match (min, max) {
                (f32::MIN, f32::MAX) => "it must be finite".to_owned(),
                (f32::MIN_POSITIVE, f32::MAX) => "it must be finite and above 0".to_owned(),
                (f32::MIN_POSITIVE, _) => format!("it must be above 0 and at most {max}"),
                (_, f32::MAX) => format!("it must be finite and at least {min}"),
                _ => format!("it must be from {min} to {max}"),
            };
            Err(Error::option(option, format!("{v}; {bounds}")))
        }
        _ => Ok(()),
    }
}

pub(crate) fn at_most_logprobs(n: Option<usize>) -> Result<()> {
    match n {
        Some(n) if n > MAX_LOGPROBS => {
            Err(Error::option("logprobs", format!("{n}; it must be at most {MAX_LOGPROBS}")))
        }
        _ => Ok(()),
    }
}

/// A switch that ends calls from elsewhere; clones share it.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A switch that is not thrown yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends every call that holds this token: during prefill at the next chunk, in decoding at the next token.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How to load a model.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The backend, by name; `None` takes the first in the order of preference that is available and reads the format.
    pub backend: Option<String>,
    /// Most tokens of one sequence, prompt and output together. `None`: the model's own, bounded by what fits in memory.
    pub context_len: Option<usize>,
    /// Layers to keep on the GPU. Default: all.
    pub gpu_layers: GpuLayers,
    /// How many sequences may run at once; more wait. `None`: the backend's choice.
    pub parallel_slots: Option<usize>,
    /// How many calls may wait for others to end, beside as many as there are slots; a call beyond that is
    /// [`Error::Busy`], unless it may [wait](GenerateOptions::wait). A batch is one call, however many rows it has.
    /// `None`: 1024.
    pub queue_len: Option<usize>,
    /// Called while loading, from the loading thread.
    pub progress: Option<ProgressFn>,
    /// Which device. `None`: the backend's first.
    pub device: Option<DeviceChoice>,
    /// Quantise the weights while loading, to 2, 3, 4, 5, 6 or 8 bits: MLX's way, in groups of 64 columns, or of 32
    /// where 64 does not divide them, or not at all where 32 does not. Embedding and head are quantised too.
    ///
    /// A checkpoint that is quantised already must have these bits, and stays as it is.
    pub quantise: Option<u8>,
    /// Multiply activations as they are. Else a CPU backend may round them, which is faster: to 8 bits in groups where
    /// they meet quantised weights (decision 0017), to bf16 where they meet bf16 (decision 0007).
    pub exact_activations: bool,
    /// How keys and values are stored. `None`: as the weights are, but never wider than 32 or narrower than 16 bits.
    /// [`CacheDtype::Int8`] rounds them.
    pub cache_dtype: Option<CacheDtype>,
    /// Most bytes for weights and cache together. `None`: what the device has free.
    pub memory_limit: Option<u64>,
    /// Most bytes of keys and values that are kept when their sequences have ended, for others that begin alike; those
    /// that were not used for the longest time leave first, and all leave where a running sequence needs the room.
    /// `None`: as much as the cache holds, and of what the device has free, without a `memory_limit`, at most a quarter.
    ///
    /// 0, or less than one block of the cache takes (32 tokens, on most devices), shares nothing: each sequence computes
    /// all of its tokens, even where another with the same beginning runs.
    pub prefix_cache: Option<u64>,
    /// Threads of a CPU backend. `None`: one per physical core.
    pub threads: Option<usize>,
}

impl LoadOptions {
    setters! {
        backend: impl Into<String> => Some(backend.into()),
        context_len: usize => Some(context_len),
        gpu_layers: GpuLayers => gpu_layers,
        parallel_slots: usize => Some(parallel_slots),
        queue_len: usize => Some(queue_len),
        device: DeviceChoice => Some(device),
        quantise: u8 => Some(quantise),
        exact_activations: bool => exact_activations,
        cache_dtype: CacheDtype => Some(cache_dtype),
        memory_limit: u64 => Some(memory_limit),
        prefix_cache: u64 => Some(prefix_cache),
        threads: usize => Some(threads),
    }

    /// Sets [`progress`](Self::progress).
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Checks every value; the registry calls it before it asks a backend.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] that names the first option whose value means nothing.
    pub fn validate(&self) -> Result<()> {
        let zero = |option, value: Option<usize>| match value {
            Some(0) => Err(Error::option(option, "0; it must be at least 1")),
            _ => Ok(()),
        };
        zero("context_len", self.context_len)?;
        zero("parallel_slots", self.parallel_slots)?;
        at_most_threads(self.threads)?;
        match self.quantise {
            Some(bits) => possible_bits("quantise", bits),
            None => Ok(()),
        }
    }
}

/// Whether there can be so many threads.
pub(crate) fn at_most_threads(threads: Option<usize>) -> Result<()> {
    let reason = match threads {
        Some(0) => "0; it must be at least 1".to_owned(),
        Some(n) if n > MAX_THREADS => format!("{n}; it must be at most {MAX_THREADS}"),
        _ => return Ok(()),
    };
    Err(Error::option("threads", reason))
}

/// Whether weights can have so many bits.
pub(crate) fn possible_bits(option: &'static str, bits: u8) -> Result<()> {
    if [2, 3, 4, 5, 6, 8].contains(&bits) {
        return Ok(());
    }
    Err(Error::option(option, format!("{bits} bits; it must be 2, 3, 4, 5, 6 or 8")))
}

impl fmt::Debug for LoadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("backend", &self.backend)
            .field("context_len", &self.context_len)
            .field("gpu_layers", &self.gpu_layers)
            .field("parallel_slots", &self.parallel_slots)
            .field("queue_len", &self.queue_len)
            .field("progress", &self.progress.is_some())
            .field("device", &self.device)
            .field("quantise", &self.quantise)
            .field("exact_activations", &self.exact_activations)
            .field("cache_dtype", &self.cache_dtype)
            .field("memory_limit", &self.memory_limit)
            .field("prefix_cache", &self.prefix_cache)
            .field("threads", &self.threads)
            .finish()
    }
}

/// Called with the state of a load.
pub type ProgressFn = Arc<dyn Fn(Progress) + Send + Sync>;

/// How far a load has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of weights that are in place.
    pub done: u64,
    /// Bytes of weights in all.
    pub total: u64,
}

/// How many layers to keep on the GPU. A backend without a GPU takes [`All`](Self::All) and [`None`](Self::None) alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuLayers {
    /// Every layer.
    #[default]
    All,
    /// No layer.
    None,
    /// This many; the rest stays on the CPU. Not every backend can.
    Count(usize),
}

/// A device of a backend, as [`Backend::devices`](crate::Backend::devices) lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// By its place in the list.
    Index(usize),
    /// By its stable id.
    Id(String),
}

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheDtype {
    /// 32-bit IEEE floating point.
    F32,
    /// 16-bit IEEE floating point.
    F16,
    /// The upper half of a 32-bit IEEE number.
    Bf16,
    /// Whole numbers of 8 bits, with a scale for each token and head: half the memory of 16 bits. Not every backend can.
    Int8,
}

impl std::str::FromStr for CacheDtype {
    type Err = Error;

    /// `f32`, `f16`, `bf16` or `int8`, in any case.
    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().as_str() {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::option("cache_dtype", format!("{text:?}; use f32, f16, bf16 or int8"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_threads_than_any_machine_has_are_refused() {
        let with = |threads| LoadOptions::default().threads(threads).validate();
        assert!(with(1).is_ok() && with(MAX_THREADS).is_ok());
        for threads in [0, MAX_THREADS + 1, usize::MAX] {
            assert!(matches!(with(threads), Err(Error::InvalidOption { option: "threads", .. })));
        }
    }
}
