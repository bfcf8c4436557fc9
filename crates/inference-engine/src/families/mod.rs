//! The families of models: from a `config.json` to an [`Architecture`], and what their tensors are called.

mod base;
mod gemma2;
mod gemma3;
mod llama;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;

use crate::arch::Architecture;
use crate::config::Config;
use inference_core::{Error, Result};

/// All families.
pub static ALL: [Family; 7] = [
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
];

/// The family of models whose configuration says `model_type`.
///
/// # Errors
/// [`Error::UnknownArchitecture`] with all that are known.
pub fn find(model_type: &str) -> Result<&'static Family> {
    ALL.iter().find(|f| f.model_types.contains(&model_type)).ok_or_else(|| {
        let known = ALL.iter().flat_map(|f| f.model_types).map(|&t| t.to_owned());
        Error::UnknownArchitecture { model_type: model_type.to_owned(), known: known.collect() }
    })
}

/// A family, as data. Behind it nobody asks which family a model is of.
#[derive(Debug)]
pub struct Family {
    /// The `model_type`s of `config.json` that mean it; the first is the family's own name.
    pub model_types: &'static [&'static str],
    /// Reads the configuration.
    pub describe: fn(&Config) -> Result<Architecture>,
    /// What its tensors are called.
    pub names: Names,
    /// Added to every norm's weight: 1 where the checkpoint stores `w` and means `1 + w` (Gemma), else 0.
    pub norm_offset: f32,
}

/// What a checkpoint calls its tensors. Layer names follow `layers.<i>.`; `.weight` and `.bias` are appended.
///
/// Which biases and which of the optional norms there are, the checkpoint itself says.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// What may stand before all names but the head's; the first under which there is an embedding counts.
    pub prefixes: &'static [&'static str],
    /// What may stand before the head's name, likewise.
    pub head: &'static [&'static str],
    /// The token embedding.
    pub embed: &'static str,
    /// The norm after the last layer.
    pub norm: &'static str,
    /// The norm before attention.
    pub attn_norm: &'static str,
    /// Queries, keys and values: three maps, or one that is already stacked.
    pub qkv: &'static [&'static str],
    /// The norm over each query head, where there is one.
    pub q_norm: &'static str,
    /// The norm over each key head, where there is one.
    pub k_norm: &'static str,
    /// Attention's output.
    pub out: &'static str,
    /// The norm of attention's output, in families that have it.
    pub attn_post_norm: Option<&'static str>,
    /// The norm before the feed-forward part.
    pub ffn_norm: &'static str,
    /// Gate and up: two maps, or one that is already stacked.
    pub gate_up: &'static [&'static str],
    /// The feed-forward part's output.
    pub down: &'static str,
    /// The norm of the feed-forward part's output, in families that have it.
    pub ffn_post_norm: Option<&'static str>,
}

impl Names {
    /// Llama's, which most families took over.
    const LLAMA: Self = Self {
        // Alone; within a model of several media, as `transformers` 5 writes it and as earlier versions did; bare.
        prefixes: &["model.", "model.language_model.", "language_model.model.", ""],
        head: &["", "language_model."],
        embed: "embed_tokens",
        norm: "norm",
        attn_norm: "input_layernorm",
        qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        q_norm: "self_attn.q_norm",
        k_norm: "self_attn.k_norm",
        out: "self_attn.o_proj",
        attn_post_norm: None,
        ffn_norm: "post_attention_layernorm",
        gate_up: &["mlp.gate_proj", "mlp.up_proj"],
        down: "mlp.down_proj",
        ffn_post_norm: None,
    };

    /// Gemma's, with norms on both sides.
    const GEMMA: Self = Self {
        attn_post_norm: Some("post_attention_layernorm"),
        ffn_norm: "pre_feedforward_layernorm",
        ffn_post_norm: Some("post_feedforward_layernorm"),
        ..Self::LLAMA
    };
}

#[cfg(test)]
mod tests;
