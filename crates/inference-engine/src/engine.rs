//! A checkpoint on a device, as a [`TextModel`].

use crate::{
    arch::{Architecture, Attention},
    blocks::BlockPool,
    config::{self, Config},
    decoder::{Decoder, Source},
    device::Device,
    families::{self, Family},
    runner::{Loaded, Runner, Task},
    scheduler::{Scheduler, Sequence, Wanted},
    weights::{DType, SafeTensors, Weights},
};
use inference_core::{
    CacheDtype, Classification, ClassifyOptions, Completion, Error, GenerateOptions, GpuLayers,
    LoadOptions, Message, Metrics, ModelInfo, Progress, RenderOptions, Result, TextModel,
    TokenStream,
};
use inference_text::{ChatTemplate, Generation, Shared, ToScore, Tokenizer};
use std::{
    cell::Cell,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// What a backend says of itself and its device.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The backend's name.
    pub backend: &'static str,
    /// The device's name.
    pub device: String,
    /// How many sequences may run at once, where the caller does not say.
    pub slots: usize,
    /// Most prompt tokens of a step. More make prefill faster; fewer make others wait less and cancelling quicker.
    pub step_tokens: usize,
    /// Bytes to leave free for activations, and for others, where the caller sets no limit.
    pub reserve: u64,
}

/// A checkpoint on a device.
#[derive(Debug)]
pub struct Engine {
    info: ModelInfo,
    shared: Arc<Shared>,
    template: Option<ChatTemplate>,
    runner: Runner,
}

/// What the thread reports once everything is in place.
struct Report {
    context_len: usize,
    slots: usize,
    parameters: u64,
    weight_bytes: u64,
    cache_bytes_per_token: u64,
}

impl Engine {
    /// Loads the folder `path` onto the device that `open` gives. `open` runs on the engine's own thread,
    /// where the device then stays.
    ///
    /// # Errors
    /// Anything wrong with the checkpoint or the options, too little memory, the device's own.
    pub fn load<D: Device + 'static>(
        path: &Path,
        options: &LoadOptions,
        setup: Setup,
        open: impl FnOnce() -> Result<D> + Send + 'static,
    ) -> Result<Self> {
        options.validate()?;
        if options.quantise.is_some() {
            return Err(Error::unsupported("quantise", setup.backend));
        }
        if let GpuLayers::Count(_) = options.gpu_layers {
            return Err(Error::unsupported("gpu_layers as a number", setup.backend));
        }
        let config = Config::open(path)?;
        let family = families::find(config.model_type()?)?;
        let architecture = (family.describe)(&config)?;
        let tokenizer = Tokenizer::open(path)?;
        let template = ChatTemplate::open(path, &tokenizer)?;
        let mut end_tokens = config::end_tokens(path)?;
        end_tokens.extend(tokenizer.end_tokens());
        end_tokens.sort_unstable();
        end_tokens.dedup();

        let mut info = ModelInfo::default();
        info.architecture = family.model_types[0].to_owned();
        info.vocab_size = architecture.vocab;
        info.layers = architecture.layers.len();
        info.hidden_size = architecture.hidden;
        info.backend = setup.backend.to_owned();
        info.device = setup.device.clone();

        let (owned_path, owned_options) = (path.to_owned(), options.clone());
        let (runner, report) = Runner::start(move || {
            load(&owned_path, &owned_options, &setup, family, architecture, open()?)
        })?;
        info.context_len = report.context_len;
        info.parallel_slots = report.slots;
        info.parameters = report.parameters;
        info.weight_bytes = report.weight_bytes;
        info.cache_bytes_per_token = report.cache_bytes_per_token;
        let last = Mutex::default();
        let shared = Arc::new(Shared { tokenizer: Arc::new(tokenizer), end_tokens, last });
        Ok(Self { info, shared, template, runner })
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

    fn template(&self) -> Result<&ChatTemplate> {
        let path = || self.shared.tokenizer.path().to_owned();
        self.template.as_ref().ok_or_else(|| Error::NoChatTemplate { path: path() })
    }
}

impl TextModel for Engine {
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
        let admit = |tokens: &[u32]| {
            self.runner.check()?;
            self.admit(tokens, 0)
        };
        inference_text::classify(&self.shared, prompts, options, admit, |work| {
            let sequence = |w: ToScore| {
                let task = Task::Score(Box::new(w.scoring));
                Sequence::new(w.tokens, Wanted::From(w.from), task)
            };
            // If the engine is gone, so are the sequences, and whoever waits for them learns it.
            let _ = self.runner.submit(work.into_iter().map(sequence).collect());
        })
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

/// The part of loading that runs on the engine's thread.
fn load<D: Device>(
    path: &Path,
    options: &LoadOptions,
    setup: &Setup,
    family: &Family,
    architecture: Architecture,
    device: D,
) -> Result<(Loaded<D>, Report)> {
    let weights = SafeTensors::open(path)?;
    let (total, done) = (weights.bytes(), Cell::new(0));
    let progress = |bytes: u64| {
        done.set((done.get() + bytes).min(total));
        if let Some(progress) = &options.progress {
            progress(Progress { done: done.get(), total });
        }
    };
    let source = Source {
        weights: &weights,
        names: &family.names,
        norm_offset: family.norm_offset,
        path,
        progress: &progress,
    };
    let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
    let dtype = options.cache_dtype.unwrap_or(match source.dtype()? {
        DType::F32 => CacheDtype::F32,
        DType::F16 => CacheDtype::F16,
        DType::Bf16 => CacheDtype::Bf16,
    });
    let slots = options.parallel_slots.unwrap_or(setup.slots);
    // The caller's limit is for weights and cache; of what the machine has free, something is left for the rest.
    let free = || device.memory().available.saturating_sub(setup.reserve);
    let limit = options.memory_limit.unwrap_or_else(free);
    let plan = Plan::new(&device, &layers, dtype, &architecture, options, slots, total, limit)?;
    let decoder = Decoder::load(&device, architecture, source)?;
    progress(total);
    let cache = device.cache(&layers, plan.blocks, dtype)?;
    let pool = BlockPool::new(plan.blocks, device.block_len());
    let report = Report {
        context_len: plan.context_len,
        slots,
        parameters: weights.parameters(),
        weight_bytes: total,
        cache_bytes_per_token: plan.bytes_per_token,
    };
    let restart_above = decoder.architecture().restart_above();
    let scheduler = Scheduler::new(pool, slots, setup.step_tokens).restart_above(restart_above);
    Ok((Loaded { device, decoder, cache, scheduler }, report))
}

/// How long a sequence may be and how many blocks the cache has: priced before anything is placed.
struct Plan {
    context_len: usize,
    blocks: usize,
    bytes_per_token: u64,
}

impl Plan {
    #[expect(clippy::too_many_arguments, reason = "it is what memory depends on")]
    fn new<D: Device>(
        device: &D,
        layers: &[Attention],
        dtype: CacheDtype,
        architecture: &Architecture,
        options: &LoadOptions,
        slots: usize,
        weights: u64,
        limit: u64,
    ) -> Result<Self> {
        let block_len = device.block_len();
        let block_bytes = device.block_bytes(layers, dtype);
        let room = limit.saturating_sub(weights) / block_bytes.max(1);
        let wanted = options.context_len.unwrap_or(architecture.context);
        if wanted > architecture.context {
            let reason =
                format!("{wanted}; the model was made for at most {}", architecture.context);
            return Err(Error::option("context_len", reason));
        }
        let blocks_of = |tokens: usize| tokens.div_ceil(block_len) as u64;
        // Whoever names a length gets it or an error; the default takes what fits.
        let least = if options.context_len.is_some() { blocks_of(wanted) } else { 1 };
        if room < least {
            return Err(Error::OutOfMemory {
                what: format!("the model with a context of {wanted} tokens"),
                needed: weights.saturating_add(least.saturating_mul(block_bytes)),
                available: limit,
                advice: "take a smaller context_len or model, or raise memory_limit".to_owned(),
            });
        }
        // Blocks are named by 32-bit numbers.
        let useful = blocks_of(wanted).saturating_mul(slots as u64).min(u64::from(u32::MAX));
        let blocks = room.min(useful) as usize;
        let context_len = wanted.min(blocks * block_len);
        Ok(Self { context_len, blocks, bytes_per_token: block_bytes / block_len as u64 })
    }
}
