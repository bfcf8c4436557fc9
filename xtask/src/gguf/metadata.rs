//! The keys that tell llama.cpp what a model is.
//!
//! Names: `LLM_KV_NAMES` of llama.cpp's `src/llama-arch.cpp`. What each family needs: `load_hparams` of
//! `src/llama-model.cpp` and `load_arch_hparams` of `src/models/*.cpp`.

use super::{
    config::{Config, Family},
    rope::Scaling,
};
use inference_text::gguf::{GgmlType, Value, Writer};

impl Config {
    /// Whether every layer has a window in a family whose graph in llama.cpp has none.
    ///
    /// The graph `granite_swa` is that of `llama` with windows, and with scales that are left out here. It also has a
    /// sink for every head, which takes `exp(sink)` of the attention: −∞ takes nothing.
    pub(super) fn has_window_everywhere(&self) -> bool {
        self.family == Family::Mistral && self.window.is_some()
    }

    /// `general.architecture`.
    pub(super) fn architecture(&self) -> &'static str {
        match self.family {
            Family::Mistral if self.has_window_everywhere() => "granite_swa",
            Family::Llama | Family::Mistral => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Gemma2 => "gemma2",
            Family::Gemma3 => "gemma3",
            Family::Phi3 => "phi3",
        }
    }

    /// Tokens for which llama.cpp computes the model: it ignores the window of these families, which makes no difference
    /// up to that many.
    pub(super) fn usable_context(&self) -> usize {
        match (self.family, self.window) {
            (Family::Qwen2 | Family::Qwen3 | Family::Phi3, Some(window)) => window,
            _ => self.context,
        }
    }
}

/// `general.file_type` (`llama_ftype` of llama.cpp's `include/llama.h`).
fn file_type(ty: GgmlType) -> u32 {
    match ty {
        GgmlType::F32 => 0,
        GgmlType::F16 => 1,
        GgmlType::Q4_0 => 2,
        GgmlType::Q8_0 => 7,
        GgmlType::Q4_K => 15,
        GgmlType::BF16 => 32,
        // It says that it guesses.
        _ => 1024,
    }
}

/// Sets every key but the tokenizer's.
pub(super) fn set(writer: &mut Writer, config: &Config, name: &str, vocab: usize, ty: GgmlType) {
    let architecture = config.architecture();
    writer.set("general.architecture", architecture);
    writer.set("general.type", "model");
    writer.set("general.name", name);
    writer.set("general.file_type", file_type(ty));
    writer.set("general.quantization_version", 2_u32);
    let mut set = |key: &str, value: Value| {
        writer.set(format!("{architecture}.{key}"), value);
    };
    let size = |size: usize| Value::U32(size as u32);
    set("context_length", size(config.usable_context()));
    set("embedding_length", size(config.hidden));
    set("block_count", size(config.layers));
    set("feed_forward_length", size(config.ffn));
    set("vocab_size", size(vocab));
    set("attention.head_count", size(config.heads));
    set("attention.head_count_kv", size(config.kv_heads));
    set("attention.key_length", size(config.head_dim));
    set("attention.value_length", size(config.head_dim));
    set("attention.layer_norm_rms_epsilon", Value::F32(config.norm_eps as f32));
    if let Some(cap) = config.attention_cap {
        set("attn_logit_softcapping", Value::F32(cap as f32));
    }
    if let Some(cap) = config.logit_cap {
        set("final_logit_softcapping", Value::F32(cap as f32));
    }
    if config.has_window_everywhere() {
        set("logit_scale", Value::F32(1.0));
    }
    if config.has_window_everywhere() || config.family.is_gemma() {
        set("attention.sliding_window", size(config.window.unwrap_or(0)));
        set("attention.sliding_window_pattern", config.windowed.clone().into());
    }
    set("rope.dimension_count", size(config.rope.dims));
    set("rope.freq_base", Value::F32(config.rope.base as f32));
    if let Some(base) = config.rope.window_base {
        set("rope.freq_base_swa", Value::F32(base as f32));
    }
    for (key, value) in scaling(&config.rope.scaling) {
        set(&format!("rope.scaling.{key}"), value);
    }
}

fn scaling(scaling: &Scaling) -> Vec<(&'static str, Value)> {
    let number = |x: f64| Value::F32(x as f32);
    match scaling {
        // The divisors of `llama3` are in a tensor.
        Scaling::None | Scaling::Llama3(_) => Vec::new(),
        Scaling::Linear(factor) => vec![("type", "linear".into()), ("factor", number(*factor))],
        Scaling::Yarn { factor, original, attention } => {
            let mut keys = vec![
                ("type", "yarn".into()),
                ("factor", number(*factor)),
                ("original_context_length", Value::U32(*original as u32)),
            ];
            if *attention != 1.0 {
                keys.push(("attn_factor", number(*attention)));
            }
            keys
        }
        Scaling::Long { original, attention, .. } => vec![
            ("type", "longrope".into()),
            ("original_context_length", Value::U32(*original as u32)),
            ("attn_factor", number(*attention)),
        ],
    }
}
