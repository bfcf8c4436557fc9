//! GGUF files with random weights of every type: any bytes are a quantised matrix, as long as its scales are sane, and
//! random ones use every bit of them.

use crate::{
    fixtures::{self, Prompt},
    greedy,
};
use half::{bf16, f16};
use inference_core::{CacheDtype, Format};
use inference_engine::{
    check::Noise, checkpoint::Checkpoint, decoder::Source, device::Device, weights::GgufWeights,
};
use inference_text::gguf::{GgmlType, Gguf, Writer};
use std::{fs::File, io::BufWriter, path::Path};

/// Every type that can be read.
pub const TYPES: [GgmlType; 16] = [
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
    GgmlType::Q2_K,
    GgmlType::Q3_K,
    GgmlType::Q4_K,
    GgmlType::Q5_K,
    GgmlType::Q6_K,
    GgmlType::IQ4_NL,
    GgmlType::IQ4_XS,
    GgmlType::MXFP4,
];

/// Of logits of a device that rounds activations, with those of the reference device.
pub const ROUNDED: f64 = 3e-2;

/// Width of a row: one block of the largest.
const HIDDEN: u64 = 256;
const FFN: u64 = 512;
const HEADS: u32 = 4;
const KV_HEADS: u32 = 2;
const HEAD_DIM: u64 = 64;

/// Writes a model of `layers` layers and an architecture (`llama`, `qwen2` or `qwen3`), whose matrices are of `ty`, with
/// the tokenizer of the fixture of that name.
///
/// # Panics
/// Where it can't be written.
pub fn write(architecture: &str, ty: GgmlType, layers: u32, path: &Path) {
    let fixture = fixtures::model(architecture, Format::Gguf).expect("converts");
    let fixture = Gguf::open(&fixture).expect("opens");
    let vocab = u64::from(fixture.vocab_size().expect("says"));
    let mut writer = Writer::new();
    writer.set("general.architecture", architecture);
    writer.set("general.name", "random");
    for (key, value) in fixture.values().iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        writer.set(key, value.clone());
    }
    for (key, number) in [
        ("context_length", 512),
        ("embedding_length", HIDDEN as u32),
        ("block_count", layers),
        ("feed_forward_length", FFN as u32),
        ("vocab_size", vocab as u32),
        ("attention.head_count", HEADS),
        ("attention.head_count_kv", KV_HEADS),
        ("attention.key_length", HEAD_DIM as u32),
        ("attention.value_length", HEAD_DIM as u32),
        ("rope.dimension_count", HEAD_DIM as u32),
    ] {
        writer.set(format!("{architecture}.{key}"), number);
    }
    writer.set(format!("{architecture}.attention.layer_norm_rms_epsilon"), 1e-6_f32);
    let (q, kv) = (u64::from(HEADS) * HEAD_DIM, u64::from(KV_HEADS) * HEAD_DIM);
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), vec![HIDDEN, vocab]),
        ("output_norm.weight".to_owned(), vec![HIDDEN]),
        ("output.weight".to_owned(), vec![HIDDEN, vocab]),
    ];
    for layer in 0..layers {
        let mut add = |name: &str, dims: &[u64]| {
            tensors.push((format!("blk.{layer}.{name}"), dims.to_vec()));
        };
        add("attn_norm.weight", &[HIDDEN]);
        add("attn_q.weight", &[HIDDEN, q]);
        add("attn_k.weight", &[HIDDEN, kv]);
        add("attn_v.weight", &[HIDDEN, kv]);
        add("attn_output.weight", &[q, HIDDEN]);
        add("ffn_norm.weight", &[HIDDEN]);
        add("ffn_gate.weight", &[HIDDEN, FFN]);
        add("ffn_up.weight", &[HIDDEN, FFN]);
        add("ffn_down.weight", &[FFN, HIDDEN]);
        match architecture {
            "qwen2" => {
                add("attn_q.bias", &[q]);
                add("attn_k.bias", &[kv]);
                add("attn_v.bias", &[kv]);
            }
            "qwen3" => {
                add("attn_q_norm.weight", &[HEAD_DIM]);
                add("attn_k_norm.weight", &[HEAD_DIM]);
            }
            _ => {}
        }
    }
    let of = |dims: &[u64]| if dims.len() == 1 { GgmlType::F32 } else { ty };
    for (name, dims) in &tensors {
        writer.tensor(name, dims, of(dims));
    }
    let mut noise = Noise::new(ty.code().into());
    let mut out = BufWriter::new(File::create(path).expect("can be made"));
    let data = |index: usize, out: &mut dyn std::io::Write| {
        let (name, dims) = &tensors[index];
        let numbers: u64 = dims.iter().product();
        if name.contains("norm") {
            let ones: Vec<u8> =
                (0..numbers).flat_map(|_| (1.0 + 0.1 * noise.number()).to_le_bytes()).collect();
            return out.write_all(&ones);
        }
        let deviation = 1.0 / (dims[0] as f32).sqrt();
        out.write_all(&random(&mut noise, of(dims), numbers, deviation))
    };
    writer.write(&mut out, data).expect("is written");
}

/// The logits after a made-up prompt, with the file's weights as `exact` or not.
///
/// # Panics
/// Where the file can't be read, or the device fails.
pub fn logits<D: Device>(device: &D, path: &Path, exact: bool) -> Vec<f32> {
    let checkpoint = Checkpoint::open(path).expect("is described");
    let weights = GgufWeights::open(&Gguf::open(path).expect("opens")).expect("opens");
    let weights = if exact { weights.exact() } else { weights };
    let source: Source<'_> = checkpoint.source(&weights, &|_| {});
    let prompt = Prompt {
        name: "made up".to_owned(),
        text: None,
        tokens: (0..40).map(|i| i * 37 % 256 + 3).collect(),
        logits: Vec::new(),
        greedy: vec![0],
        greedy_text: String::new(),
        margins: Vec::new(),
    };
    let architecture = checkpoint.architecture().clone();
    greedy::run(device, architecture, source, &prompt, CacheDtype::F32, 16).0
}

/// The bytes of `numbers` numbers around 0 that deviate by about `deviation`.
fn random(noise: &mut Noise, ty: GgmlType, numbers: u64, deviation: f32) -> Vec<u8> {
    let (len, size) = (numbers / ty.block_len(), ty.block_bytes() as usize);
    let mut all = Vec::with_capacity(len as usize * size);
    for _ in 0..len {
        all.extend(block(noise, ty, size, deviation));
    }
    all
}

/// A block. Layouts: `block_*` in <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h>.
fn block(noise: &mut Noise, ty: GgmlType, size: usize, deviation: f32) -> Vec<u8> {
    let x = noise.number() * deviation;
    match ty {
        GgmlType::F32 => return x.to_le_bytes().to_vec(),
        GgmlType::F16 => return f16::from_f32(x).to_le_bytes().to_vec(),
        GgmlType::BF16 => return bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => {}
    }
    let mut bytes: Vec<u8> = (0..size).map(|_| (noise.bits() >> 24) as u8).collect();
    if ty == GgmlType::MXFP4 {
        // E2M1 deviates by 3 where all its codes are as likely.
        bytes[0] = (127.0 + (deviation / 3.0).log2().round()) as u8;
        return bytes;
    }
    // Where the scale is, how much the numbers deviate that it multiplies; where the minimum is, and how many scales it
    // takes for the numbers to be around 0.
    let (scale_at, of_one, min) = match ty {
        GgmlType::Q4_0 => (0, 4.6, None),
        GgmlType::Q4_1 => (0, 4.6, Some((2, -7.5))),
        GgmlType::Q5_0 => (0, 9.2, None),
        GgmlType::Q5_1 => (0, 9.2, Some((2, -15.5))),
        GgmlType::Q8_0 | GgmlType::IQ4_NL => (0, 74.0, None),
        GgmlType::IQ4_XS => (0, 74.0 * 18.5, None),
        GgmlType::Q2_K => (80, 14.0, Some((82, 1.5))),
        GgmlType::Q3_K => (108, 18.5 * 2.3, None),
        GgmlType::Q4_K => (0, 200.0, Some((2, 7.5))),
        GgmlType::Q5_K => (0, 400.0, Some((2, 15.5))),
        GgmlType::Q6_K => (208, 74.0 * 18.5, None),
        other => panic!("{other} is not written"),
    };
    let varied = deviation / of_one * (0.5 + (noise.bits() % 1000) as f32 / 1000.0);
    // Types without a minimum may have scales below 0.
    let sign = if min.is_none() && noise.bits() % 2 == 1 { -1.0 } else { 1.0 };
    let mut put = |at: usize, x: f32| {
        bytes[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
    };
    put(scale_at, sign * varied);
    if let Some((at, scales)) = min {
        put(at, scales * varied);
    }
    bytes
}
