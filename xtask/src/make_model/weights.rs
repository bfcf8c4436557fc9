//! Random weights, streamed to a safetensors file (<https://github.com/huggingface/safetensors#format>).

use super::shapes::Tensor;
use clap::ValueEnum;
use half::{bf16, f16};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{Result, Write},
    path::Path,
    sync::mpsc::sync_channel,
    thread,
};

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// The upper half of a 32-bit number
    Bf16,
    /// 16-bit IEEE
    F16,
    /// 32-bit IEEE
    F32,
}

impl Dtype {
    /// As `config.json` calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    /// As a safetensors header calls it.
    fn tag(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    /// Bytes of a weight.
    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

/// The deviation of the weights: what published models are initialised with.
const DEVIATION: f32 = 0.02;
/// Weights that are made at once; a multiple of 4.
const CHUNK: usize = 1 << 20;

/// Writes all tensors; one thread makes weights while this one writes. Never holds more than a few chunks.
pub(super) fn write(
    path: &Path,
    tensors: &[Tensor],
    dtype: Dtype,
    norm: f32,
    seed: u64,
) -> Result<()> {
    let header = header(tensors, dtype);
    let total = tensors.iter().map(|t| count(t) * dtype.bytes()).sum::<usize>() as u64;
    let bar = ProgressBar::new(total);
    if let Ok(style) =
        ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec}")
    {
        bar.set_style(style);
    }
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header.as_bytes())?;
    thread::scope(|scope| {
        let (send, receive) = sync_channel(2);
        scope.spawn(move || {
            for (index, tensor) in tensors.iter().enumerate() {
                for start in (0..count(tensor)).step_by(CHUNK) {
                    let len = CHUNK.min(count(tensor) - start);
                    let fill =
                        if tensor.shape.len() == 1 { Fill::Constant(norm) } else { Fill::Random };
                    // The receiver is gone if writing failed, and that error is the one to tell.
                    if send.send(chunk(fill, dtype, stream(seed, index), start, len)).is_err() {
                        return;
                    }
                }
            }
        });
        for bytes in receive {
            file.write_all(&bytes)?;
            bar.inc(bytes.len() as u64);
        }
        Ok::<_, std::io::Error>(())
    })?;
    bar.finish_and_clear();
    Ok(())
}

fn count(tensor: &Tensor) -> usize {
    tensor.shape.iter().product()
}

/// The header: names, shapes and places, padded with spaces so that the weights are aligned to 8 bytes.
fn header(tensors: &[Tensor], dtype: Dtype) -> String {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
    let mut start = 0;
    for tensor in tensors {
        let end = start + count(tensor) * dtype.bytes();
        let entry =
            json!({ "dtype": dtype.tag(), "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut header = Value::Object(entries).to_string();
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    header
}

#[derive(Clone, Copy)]
enum Fill {
    Constant(f32),
    Random,
}

/// Weights `start..start + len` of a tensor, as bytes.
fn chunk(fill: Fill, dtype: Dtype, stream: u64, start: usize, len: usize) -> Vec<u8> {
    let mut weights = vec![0.0; len.next_multiple_of(4)];
    match fill {
        Fill::Constant(value) => weights.fill(value),
        Fill::Random => random(&mut weights, stream, start as u64 / 4),
    }
    weights.truncate(len);
    match dtype {
        Dtype::F32 => weights.iter().flat_map(|w| w.to_le_bytes()).collect(),
        Dtype::F16 => weights.iter().flat_map(|w| f16::from_f32(*w).to_le_bytes()).collect(),
        Dtype::Bf16 => weights.iter().flat_map(|w| bf16::from_f32(*w).to_le_bytes()).collect(),
    }
}

/// Uniform with the deviation; four weights of each hashed counter, so any stretch can be made by itself.
fn random(weights: &mut [f32], stream: u64, first: u64) {
    // A uniform distribution of half-width w has the deviation w / √3.
    let scale = DEVIATION * 3.0_f32.sqrt() / 32768.0;
    for (four, counter) in weights.chunks_exact_mut(4).zip(first..) {
        let bits = hash(stream.wrapping_add(counter));
        for (weight, shift) in four.iter_mut().zip([0, 16, 32, 48]) {
            *weight = f32::from((bits >> shift) as i16) * scale;
        }
    }
}

/// A tensor's own stretch of counters.
fn stream(seed: u64, tensor: usize) -> u64 {
    hash(seed ^ hash(tensor as u64))
}

/// SplitMix64's output of a counter (<https://prng.di.unimi.it/splitmix64.c>).
pub(crate) fn hash(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
