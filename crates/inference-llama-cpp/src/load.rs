//! From a file to a model that is served: what can be checked is checked before llama.cpp sees the file, for it aborts
//! where it is surprised.

use crate::{
    NAME,
    context::{Cells, Context, Owned},
    devices, library, system,
};
use inference_core::{
    CacheDtype, DeviceChoice, Error, GpuLayers, LoadOptions, ModelInfo, Progress, Result,
};
use inference_text::{
    ChatTemplate, MemoryUse, Served, Texts, Tokenizer,
    gguf::Gguf,
    runner::{Capacity, Loaded},
    step::Lengths,
};
use llama_cpp_2::{
    LlamaBackendDevice, LlamaBackendDeviceType,
    context::params::{KvCacheType, LlamaContextParams},
    llama_backend::LlamaBackend,
    model::{LlamaModel, params::LlamaModelParams},
};
use std::{num::NonZeroU32, path::Path};

/// Sequences at once, where the caller does not say.
const SLOTS: usize = 8;

/// Most sequences that llama.cpp runs at once (`LLAMA_MAX_SEQ`).
const MOST_SLOTS: usize = 256;

/// Prompt tokens of a step.
const STEP_TOKENS: usize = 512;

/// Tokens in which the scheduler counts; llama.cpp itself counts in single cells.
const BLOCK: usize = 32;

/// llama.cpp rounds the size of its cache up to a multiple of this.
const CELLS: usize = 256;

/// Bytes to leave free for llama.cpp's work space and for others, where the caller sets no limit.
const RESERVE: u64 = 1 << 30;

/// Loads a `.gguf` file, or the first of a split set.
pub(crate) fn load(path: &Path, options: &LoadOptions) -> Result<Served> {
    options.validate()?;
    if options.quantise.is_some() {
        return Err(Error::unsupported("quantise", NAME));
    }
    if options.exact_activations {
        return Err(Error::unsupported("exact_activations", NAME));
    }
    if options.prefix_cache.is_some_and(|bytes| bytes > 0) {
        return Err(Error::unsupported("prefix_cache other than 0", NAME));
    }
    let slots = options.parallel_slots.unwrap_or(SLOTS);
    if slots > MOST_SLOTS {
        let reason = format!("{slots}; llama.cpp runs at most {MOST_SLOTS} sequences at once");
        return Err(Error::option("parallel_slots", reason));
    }
    let library = library().map_err(|reason| Error::Device { reason })?;
    let device = device(options)?;
    let gguf = Gguf::open(path)?;
    let tokenizer = Tokenizer::from_gguf(&gguf)?;
    let template = ChatTemplate::from_gguf(&gguf, &tokenizer)?;
    let end_tokens = tokenizer.end_tokens();
    let plan = Plan::new(&gguf, options, slots, &device)?;
    let (path, options, queue_len) = (path.to_owned(), options.clone(), options.queue_len);
    let served = Served::start(Texts { tokenizer, template, end_tokens }, move || {
        place(&path, &gguf, &options, library, &device, plan)
    })?;
    Ok(served.queue_len(queue_len))
}

/// The device that the options name, else the first.
fn device(options: &LoadOptions) -> Result<LlamaBackendDevice> {
    let mut all = devices();
    let names: Vec<_> = all.iter().map(|d| d.name.clone()).collect();
    let place = match &options.device {
        None => Some(0),
        Some(DeviceChoice::Index(index)) => Some(*index),
        Some(DeviceChoice::Id(id)) => names.iter().position(|n| n == id),
    };
    match place.filter(|i| *i < all.len()) {
        Some(place) => Ok(all.swap_remove(place)),
        None => {
            let choice = options.device.as_ref();
            let reason =
                format!("{choice:?}; llama.cpp was built for and finds {}", names.join(", "));
            Err(Error::option("device", reason))
        }
    }
}

/// How many layers go to a GPU.
fn gpu_layers(options: &LoadOptions, device: &LlamaBackendDevice) -> Result<u32> {
    let cpu = device.device_type == LlamaBackendDeviceType::Cpu;
    match options.gpu_layers {
        GpuLayers::Count(n) if cpu && n > 0 => {
            Err(Error::unsupported("gpu_layers as a number without a GPU", NAME))
        }
        GpuLayers::Count(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX >> 1)),
        GpuLayers::None => Ok(0),
        GpuLayers::All if cpu => Ok(0),
        GpuLayers::All => Ok(u32::MAX >> 1),
    }
}

/// What fits, priced before anything is placed.
#[derive(Debug, Clone, Copy)]
struct Plan {
    context_len: usize,
    cells: usize,
    slots: usize,
    bytes_per_token: u64,
    cache: KvCacheType,
}

impl Plan {
    fn new(
        gguf: &Gguf,
        options: &LoadOptions,
        slots: usize,
        device: &LlamaBackendDevice,
    ) -> Result<Self> {
        let (cache, size) = match options.cache_dtype {
            None | Some(CacheDtype::F16) => (KvCacheType::F16, 2),
            Some(CacheDtype::F32) => (KvCacheType::F32, 4),
            Some(CacheDtype::Bf16) => (KvCacheType::BF16, 2),
            Some(other) => return Err(Error::unsupported(format!("cache_dtype {other:?}"), NAME)),
        };
        let bytes_per_token = gguf.cached_numbers_per_token()?.saturating_mul(size);
        let most = gguf.context_len()? as usize;
        let wanted = options.context_len.unwrap_or(most);
        if wanted > most {
            let reason = format!("{wanted}; the model was made for at most {most}");
            return Err(Error::option("context_len", reason));
        }
        let free = (device.memory_free as u64).saturating_sub(RESERVE);
        let limit = options.memory_limit.unwrap_or(free);
        let weights = gguf.weight_bytes();
        let room = limit.saturating_sub(weights) / bytes_per_token.max(1);
        let room = usize::try_from(room).unwrap_or(usize::MAX) / CELLS * CELLS;
        let cells_of = |tokens: usize| tokens.next_multiple_of(CELLS);
        // Whoever names a length gets it or an error; the default takes what fits.
        let least = options.context_len.map_or(CELLS, cells_of);
        if room < least {
            return Err(Error::OutOfMemory {
                what: format!("the model with a context of {wanted} tokens"),
                needed: weights.saturating_add((least as u64).saturating_mul(bytes_per_token)),
                available: limit,
                advice: "take a smaller context_len or model, or raise memory_limit".to_owned(),
            });
        }
        // llama.cpp fills its whole cache at once, so sequences share the room of one, unless the caller says how many
        // there will be.
        let sequences = options.parallel_slots.unwrap_or(1);
        let cells = cells_of(wanted).saturating_mul(sequences).min(room).min(1 << 30);
        let context_len = wanted.min(cells);
        Ok(Self { context_len, cells, slots, bytes_per_token, cache })
    }
}

/// The part of loading that runs on the model's own thread.
fn place(
    path: &Path,
    gguf: &Gguf,
    options: &LoadOptions,
    library: &LlamaBackend,
    device: &LlamaBackendDevice,
    plan: Plan,
) -> Result<Loaded<Context>> {
    let total = gguf.weight_bytes();
    let mut parameters =
        LlamaModelParams::default().with_n_gpu_layers(gpu_layers(options, device)?);
    if device.device_type != LlamaBackendDeviceType::Cpu {
        parameters = parameters
            .with_devices(&[device.index])
            .map_err(|e| Error::Device { reason: e.to_string() })?;
    }
    if let Some(progress) = options.progress.clone() {
        parameters = parameters.with_progress_callback(move |done| {
            progress(Progress { done: (f64::from(done) * total as f64) as u64, total });
            true
        });
    }
    let refused = |what: &str, e: &dyn std::fmt::Display| {
        Error::file(
            path,
            format!("llama.cpp could not {what}: {e}; its log says why (RUST_LOG=debug)"),
        )
    };
    let model = LlamaModel::load_from_file(library, path, &parameters)
        .map_err(|e| refused("load it", &e))?;
    // Of what the cache keeps, llama.cpp decides; that it shares nothing can be had.
    let rewinds = !(model.is_recurrent() || model.is_hybrid() || options.prefix_cache == Some(0));

    let threads = options.threads.unwrap_or_else(physical_cores);
    let threads = i32::try_from(threads).unwrap_or(i32::MAX);
    let batch = STEP_TOKENS + plan.slots;
    let context = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(plan.cells as u32))
        .with_n_batch(batch as u32)
        .with_n_ubatch(STEP_TOKENS as u32)
        .with_n_seq_max(plan.slots as u32)
        .with_kv_unified(true)
        // Windowed layers keep everything, so that the beginning of a sequence can be copied and continued.
        .with_swa_full(true)
        .with_type_k(plan.cache)
        .with_type_v(plan.cache)
        .with_n_threads(threads)
        .with_n_threads_batch(threads);
    let info = info(gguf, &model, plan, device)?;
    let memory = info.weight_bytes + plan.cells as u64 * plan.bytes_per_token;
    let owned = Owned::try_new(Box::new(model), |model| {
        model.new_context(library, context).map_err(|e| refused("make a context for it", &e))
    })?;
    let cells = Cells { cells: plan.cells, slots: plan.slots, batch, rewinds };
    let capacity = Capacity {
        blocks: plan.cells / BLOCK,
        block_len: BLOCK,
        slots: plan.slots,
        step_tokens: STEP_TOKENS,
        lengths: Lengths::default(),
        kept: 0,
    };
    let memory = MemoryUse { active: memory, peak: memory };
    Ok(Loaded { forward: Context::new(owned, &cells, memory), capacity, info })
}

fn info(
    gguf: &Gguf,
    model: &LlamaModel,
    plan: Plan,
    device: &LlamaBackendDevice,
) -> Result<ModelInfo> {
    let mut info = ModelInfo::default();
    info.architecture = gguf.architecture()?.to_owned();
    info.vocab_size = usize::try_from(model.n_vocab()).unwrap_or_default();
    info.layers = model.n_layer() as usize;
    info.hidden_size = usize::try_from(model.n_embd()).unwrap_or_default();
    info.quantisation = gguf.quantisation();
    info.context_len = plan.context_len;
    info.parallel_slots = plan.slots;
    info.parameters = model.n_params();
    info.weight_bytes = gguf.weight_bytes();
    info.cache_bytes_per_token = plan.bytes_per_token;
    info.backend = NAME.to_owned();
    info.device = format!("{}; llama.cpp: {}", device.description.trim(), system::info());
    Ok(info)
}

/// Threads where the caller does not say.
fn physical_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
