//! A checkpoint on a device, as a model that is served.

use crate::{
    arch::{Architecture, Attention},
    checkpoint::Checkpoint,
    decoder::{Decoder, Source},
    device::Device,
    weights::{DType, Kind, Quantising, Weights},
};
use inference_core::{CacheDtype, Error, GpuLayers, LoadOptions, ModelInfo, Progress, Result};
use inference_text::{
    MemoryUse, Served,
    logits::{Asked, Logits},
    runner::{Capacity, Forward, Loaded},
    scheduler::Reuse,
    step::Step,
};
use std::{cell::Cell, path::Path, thread};

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

/// Columns that share a scale where weights are quantised while they are loaded.
const GROUP: usize = 64;

/// The part of the free memory, one in so many, that prefixes may hold when nobody uses them.
const IDLE_SHARE: u64 = 4;

/// A checkpoint's decoder on a device, with its cache.
struct OnDevice<D: Device> {
    device: D,
    decoder: Decoder<D>,
    cache: D::Cache,
}

impl<D: Device> Forward for OnDevice<D> {
    fn forward(&mut self, step: &Step) -> Result<Vec<f32>> {
        let logits = self.decoder.forward(&self.device, &mut self.cache, step)?;
        self.device.read(logits)
    }

    fn answer(&mut self, step: &Step, asked: &Asked) -> Result<Logits> {
        let logits = self.decoder.forward(&self.device, &mut self.cache, step)?;
        self.device.answer(logits, asked)
    }

    fn recycle(&mut self, logits: Logits) {
        self.device.recycle(logits.into_numbers());
    }

    fn memory(&self) -> MemoryUse {
        let memory = self.device.memory();
        MemoryUse { active: memory.active, peak: memory.peak }
    }
}

impl<D: Device> Reuse for OnDevice<D> {}

/// Loads the folder or the GGUF file `path` onto the device that `open` gives. `open` runs on the model's own thread, where the device
/// then stays.
///
/// # Errors
/// Anything wrong with the checkpoint or the options, too little memory, the device's own.
pub fn load<D: Device + 'static>(
    path: &Path,
    options: &LoadOptions,
    setup: Setup,
    open: impl FnOnce() -> Result<D> + Send + 'static,
) -> Result<Served> {
    options.validate()?;
    if let GpuLayers::Count(_) = options.gpu_layers {
        return Err(Error::unsupported("gpu_layers as a number", setup.backend));
    }
    let checkpoint = Checkpoint::open(path)?;
    let (texts, options) = (checkpoint.texts()?, options.clone());
    let queue_len = options.queue_len;
    let served = Served::start(texts, move || place(&checkpoint, &options, &setup, open()?))?;
    Ok(served.queue_len(queue_len))
}

/// The part of loading that runs on the engine's thread.
fn place<D: Device>(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    setup: &Setup,
    device: D,
) -> Result<Loaded<OnDevice<D>>> {
    let stored = checkpoint.weights()?;
    let source = checkpoint.source(&*stored, &|_| ());
    let architecture = checkpoint.architecture();
    if let Some(what) = device.unsupported(architecture) {
        return Err(Error::unsupported(what, setup.backend));
    }
    let quantising = quantising(options, &source, architecture)?;
    let weights = quantising.as_ref().map_or(source.weights, |q| q as &dyn Weights);
    let (total, done) = (weights.bytes(), Cell::new(0));
    let progress = |bytes: u64| {
        done.set((done.get() + bytes).min(total));
        if let Some(progress) = &options.progress {
            progress(Progress { done: done.get(), total });
        }
    };
    let source = Source { weights, progress: &progress, ..source };
    let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
    let kind = || weights.kind(&source.embedding());
    let dtype = options.cache_dtype.map_or_else(|| kind().map(|k| like(&k)), Ok)?;
    if !device.stores(dtype) {
        return Err(Error::unsupported(format!("cache_dtype {dtype:?}"), setup.backend));
    }
    let slots = options.parallel_slots.unwrap_or(setup.slots);
    // The caller's limit is for weights and cache; of what the machine has free, something is left for the rest.
    let free = || device.memory().available.saturating_sub(setup.reserve);
    let limit = options.memory_limit.unwrap_or_else(free);
    let plan = Plan::new(&device, &layers, dtype, architecture, options, slots, total, limit)?;
    let decoder = Decoder::load(&device, architecture.clone(), source)?;
    progress(total);
    let cache = device.cache(&layers, plan.blocks, dtype)?;
    let mut info = ModelInfo::default();
    info.architecture = checkpoint.family().model_types[0].to_owned();
    info.vocab_size = architecture.vocab;
    info.layers = architecture.layers.len();
    info.hidden_size = architecture.hidden;
    info.quantisation = weights.quantisation();
    info.context_len = plan.context_len;
    info.parallel_slots = slots;
    info.parameters = weights.parameters();
    info.weight_bytes = total;
    info.cache_bytes_per_token = plan.bytes_per_token;
    info.backend = setup.backend.to_owned();
    info.device = setup.device.clone();
    let capacity = Capacity {
        blocks: plan.blocks,
        block_len: device.block_len(),
        slots,
        step_tokens: setup.step_tokens,
        lengths: architecture.lengths(),
        kept: plan.kept,
    };
    Ok(Loaded { forward: OnDevice { device, decoder, cache }, capacity, info })
}

/// The checkpoint as [`LoadOptions::quantise`] asks for it. `None`: as it is, which may be quantised to these bits.
fn quantising<'a>(
    options: &LoadOptions,
    source: &Source<'a>,
    architecture: &Architecture,
) -> Result<Option<Quantising<'a>>> {
    let Some(bits) = options.quantise else { return Ok(None) };
    match source.weights.quantisation() {
        None => {}
        Some(already) if already.bits == bits => return Ok(None),
        Some(already) => {
            let reason =
                format!("{bits} bits; the checkpoint's weights have {} already", already.bits);
            return Err(Error::option("quantise", reason));
        }
    }
    let modules = source.modules(architecture).into_iter().map(|module| (module, bits));
    let threads = || thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(threads);
    Quantising::new(source.weights, source.path, modules, GROUP, threads).map(Some)
}

/// The type of a cache for weights like these: what they lost, the cache needn't keep.
fn like(weights: &Kind) -> CacheDtype {
    match weights.dtype {
        DType::F32 if weights.quantisation.is_some() => CacheDtype::F16,
        DType::F32 => CacheDtype::F32,
        DType::F16 => CacheDtype::F16,
        DType::Bf16 => CacheDtype::Bf16,
    }
}

/// How long a sequence may be and how many blocks the cache has: priced before anything is placed.
struct Plan {
    context_len: usize,
    blocks: usize,
    /// Blocks that are kept when their sequences have ended.
    kept: usize,
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
        // A limit was meant for all; without one, what is idle is not to fill the machine.
        let idle = if options.memory_limit.is_some() { limit } else { limit / IDLE_SHARE };
        let kept = match options.prefix_cache {
            Some(bytes) => bytes / block_bytes.max(1),
            None => (idle / block_bytes.max(1)).max(1),
        };
        let kept = kept.min(blocks as u64) as usize;
        let bytes_per_token = block_bytes / block_len as u64;
        Ok(Self { context_len, blocks, kept, bytes_per_token })
    }
}
