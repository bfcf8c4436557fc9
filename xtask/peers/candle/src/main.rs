//! candle-transformers as a candidate of `cargo xtask bench`.
//!
//! The argument is a folder of safetensors or a GGUF file of the family qwen3. The first line on stdout says what was
//! loaded; then each line of stdin is a request, `{"prompt": [ids], "generate": n}`, and each gets a line in return,
//! `{"prefill_seconds": …, "decode_seconds": …, "peak_memory": …}` or `{"error": …}`.
//! Every request begins with an empty cache, and no token ends a text.

use candle_core::{
    D, DType, Device, Result, Tensor, bail,
    quantized::{GgmlDType as G, gguf_file},
    safetensors,
};
use candle_nn::VarBuilder;
use candle_transformers::models::{quantized_qwen3, qwen3};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    time::Instant,
};

/// As in Cargo.toml.
const ENGINE: &str = "candle-transformers 0.11.1";

/// What was loaded.
#[derive(Serialize)]
struct Loaded {
    /// The engine and its version.
    engine: &'static str,
    /// How the weights are held in memory.
    weights: String,
    /// What a reader of the figures must know.
    note: &'static str,
    /// Bytes of the weights in memory.
    weight_bytes: u64,
    /// Bytes that keys and values of one token take.
    cache_bytes_per_token: u64,
}

#[derive(Deserialize)]
struct Request {
    prompt: Vec<u32>,
    /// Tokens after the one that prefill gives.
    generate: usize,
}

#[derive(Serialize)]
struct Reply {
    prefill_seconds: f64,
    decode_seconds: f64,
    /// Most bytes that the process held after loading; `None` where the system does not tell.
    peak_memory: Option<u64>,
}

/// The two implementations of the family.
enum Model {
    Full(qwen3::ModelForCausalLM),
    Quantised(quantized_qwen3::ModelWeights),
}

fn main() -> Result<()> {
    let path = PathBuf::from(std::env::args_os().nth(1).unwrap_or_default());
    let (mut model, loaded) = if path.is_dir() { full(&path)? } else { quantised(&path)? };
    forget_peak();
    print(&loaded)?;
    for line in std::io::stdin().lock().lines() {
        match serde_json::from_str(&line?)
            .map_err(candle_core::Error::wrap)
            .and_then(|r| answer(&mut model, &r))
        {
            Ok(reply) => print(&reply)?,
            Err(error) => print(&HashMap::from([("error", error.to_string())]))?,
        }
    }
    Ok(())
}

fn print(line: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line).map_err(candle_core::Error::wrap)?)?;
    Ok(out.flush()?)
}

fn answer(model: &mut Model, request: &Request) -> Result<Reply> {
    model.clear();
    let start = Instant::now();
    let mut next = model.next(&request.prompt, 0)?;
    let prefilled = Instant::now();
    for n in 0..request.generate {
        next = model.next(&[next], request.prompt.len() + n)?;
    }
    Ok(Reply {
        prefill_seconds: (prefilled - start).as_secs_f64(),
        decode_seconds: prefilled.elapsed().as_secs_f64(),
        peak_memory: peak(),
    })
}

impl Model {
    /// The most likely token after `tokens`, of which the first stands at `position`.
    fn next(&mut self, tokens: &[u32], position: usize) -> Result<u32> {
        let tokens = Tensor::new(tokens, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match self {
            Self::Full(model) => model.forward(&tokens, position)?,
            Self::Quantised(model) => model.forward(&tokens, position)?,
        };
        logits.flatten_all()?.argmax(D::Minus1)?.to_scalar()
    }

    fn clear(&mut self) {
        match self {
            Self::Full(model) => model.clear_kv_cache(),
            Self::Quantised(model) => model.clear_kv_cache(),
        }
    }
}

/// A folder of safetensors, held in f32: candle 0.11.1 multiplies bf16 on a CPU by widening both matrices in every call,
/// so its own examples take f32 there too.
fn full(folder: &Path) -> Result<(Model, Loaded)> {
    let config = fs::read(folder.join("config.json"))?;
    let config: qwen3::Config =
        serde_json::from_slice(&config).map_err(candle_core::Error::wrap)?;
    let mut tensors = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            tensors.extend(safetensors::load(&path, &Device::Cpu)?);
        }
    }
    let dtype = DType::F32;
    let elements: usize = tensors.values().map(Tensor::elem_count).sum();
    let model = qwen3::ModelForCausalLM::new(
        &config,
        VarBuilder::from_tensors(tensors, dtype, &Device::Cpu),
    )?;
    let cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim;
    let loaded = Loaded {
        engine: ENGINE,
        weights: "f32".to_owned(),
        note: "no bf16 product on CPUs: the weights are widened to f32 when loaded",
        weight_bytes: (elements * dtype.size_in_bytes()) as u64,
        cache_bytes_per_token: (cached * dtype.size_in_bytes()) as u64,
    };
    Ok((Model::Full(model), loaded))
}

/// A GGUF file; its quantised products take and give f32.
fn quantised(path: &Path) -> Result<(Model, Loaded)> {
    let mut file = BufReader::new(File::open(path)?);
    let content = gguf_file::Content::read(&mut file)?;
    let number = |key: &str| match content.metadata.get(key) {
        Some(value) => value.to_u32().map(|n| n as usize),
        None => bail!("no {key} in {}", path.display()),
    };
    let cached = 2
        * number("qwen3.block_count")?
        * number("qwen3.attention.head_count_kv")?
        * number("qwen3.attention.key_length")?;
    let largest = content.tensor_infos.values().max_by_key(|t| t.shape.elem_count());
    let dtype = largest.map_or(G::F32, |t| t.ggml_dtype);
    let widened = matches!(dtype, G::F32 | G::F16 | G::BF16);
    let bytes = |t: &gguf_file::TensorInfo| match t.ggml_dtype {
        G::F32 | G::F16 | G::BF16 => 4 * t.shape.elem_count(),
        dtype => t.shape.elem_count() / dtype.block_size() * dtype.type_size(),
    };
    let loaded = Loaded {
        engine: ENGINE,
        weights: if widened { "f32".to_owned() } else { format!("{dtype:?}").to_lowercase() },
        note: if widened {
            "weights that are not quantised are widened to f32 when loaded"
        } else {
            ""
        },
        weight_bytes: content.tensor_infos.values().map(bytes).sum::<usize>() as u64,
        cache_bytes_per_token: (cached * DType::F32.size_in_bytes()) as u64,
    };
    let model = quantized_qwen3::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
    Ok((Model::Quantised(model), loaded))
}

/// Makes the system count the process's peak from here on, so that it is not that of loading.
fn forget_peak() {
    // https://docs.kernel.org/filesystems/proc.html: 5 resets the peak. A system without the file reports none at all.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Most bytes of memory that the process held.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}
