//! What a GGUF file says of its model: its metadata, as the configuration that the family reads.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#llm>. Meanings and defaults are llama.cpp's:
//! `load_hparams` in <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-model.cpp>, and `load_arch_hparams` in
//! `src/models/*.cpp` beside it.

mod dialect;
mod neutral;
mod rope;
#[cfg(test)]
mod tests;

pub(crate) use dialect::{Dialect, Part};
pub(crate) use rope::{FACTORS, LONG_FACTORS};

use crate::arch::Architecture;
use crate::config::Config;
use crate::families::{self, Family, Names};
use dialect::Windows;
use inference_core::{Error, Result};
use inference_text::gguf::{Array, AttentionShape, Gguf, Value};
use serde_json::{Map, json};

/// The family of a file's model, and the model.
///
/// # Errors
/// [`Error::UnknownArchitecture`]; [`Error::InvalidFile`] with the key for a value that is missing, impossible, or would
/// change the result and isn't implemented.
pub(crate) fn describe(gguf: &Gguf) -> Result<(&'static Family, Architecture)> {
    let dialect = Dialect::of(gguf)?;
    neutral::check(gguf)?;
    let config = Config::of(gguf.path(), fields(gguf, dialect)?);
    let family = families::find(config.model_type()?)?;
    let architecture = (family.describe)(&config);
    let mut architecture = architecture.map_err(|error| match error {
        // The names in it are those of a configuration.
        Error::InvalidFile { path, reason } => Error::InvalidFile {
            path,
            reason: format!("its metadata, as a configuration: {reason}"),
        },
        other => other,
    })?;
    rope::divide(gguf, &mut architecture)?;
    Ok((family, architecture))
}

/// What the tensors of a file of the family are called.
pub(crate) fn names(gguf: &Gguf, family: &Family) -> Names {
    const FUSED: &str = "blk.0.attn_qkv.weight";
    let qkv: &[&str] = match gguf.tensors().iter().any(|t| t.name == FUSED) {
        true => &["self_attn.qkv_proj"],
        false => &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    };
    Names { prefixes: &["model."], head: &[""], qkv, ..family.names }
}

/// The attention that all layers have.
///
/// # Errors
/// As [`describe`]; layers that differ.
pub(crate) fn attention(gguf: &Gguf) -> Result<AttentionShape> {
    let shape = uniform(gguf, "attention.head_count", &gguf.attention()?)?;
    if shape.key_len == shape.value_len {
        return Ok(shape);
    }
    let reason = format!("is {}, but keys have {}", shape.value_len, shape.key_len);
    Err(gguf.wrong(&gguf.architecture_key("attention.value_length")?, reason))
}

/// What is the same in all layers.
fn uniform<T: Copy + PartialEq>(gguf: &Gguf, name: &str, layers: &[T]) -> Result<T> {
    match layers {
        [first, rest @ ..] if rest.iter().all(|other| other == first) => Ok(*first),
        _ => Err(gguf.wrong(&gguf.architecture_key(name)?, "differs between layers")),
    }
}

/// The finite number of the architecture's key `name`.
fn number(gguf: &Gguf, name: &str) -> Result<Option<f64>> {
    let key = gguf.architecture_key(name)?;
    match gguf.get::<f64>(&key)? {
        Some(number) if !number.is_finite() => Err(gguf.wrong(&key, format_args!("is {number}"))),
        number => Ok(number),
    }
}

/// The fields of a `config.json` that says the same.
fn fields(gguf: &Gguf, dialect: &Dialect) -> Result<Map<String, serde_json::Value>> {
    let shape = attention(gguf)?;
    let (hidden, layers) = (gguf.hidden_size()?, gguf.layers()?);
    let context = gguf.context_len()?;
    let eps = "attention.layer_norm_rms_epsilon";
    let Some(eps) = number(gguf, eps)? else {
        return Err(gguf.wrong(&gguf.architecture_key(eps)?, "is missing"));
    };
    let embedding = gguf.tensors().iter().find(|t| t.name == "token_embd.weight");
    let vocab = match embedding.map(|t| &t.dims[..]) {
        Some([_, rows]) => *rows,
        _ => gguf.vocab_size()?.into(),
    };
    let mut fields = Map::new();
    let mut set = |name: &str, value| fields.insert(name.to_owned(), value);
    set("model_type", dialect.model_type.into());
    set("hidden_size", hidden.into());
    set("num_hidden_layers", layers.into());
    set("num_attention_heads", shape.heads.into());
    set("num_key_value_heads", shape.kv_heads.into());
    set("head_dim", shape.key_len.into());
    set("intermediate_size", uniform(gguf, "feed_forward_length", &gguf.feed_forward()?)?.into());
    set("vocab_size", vocab.into());
    set("max_position_embeddings", context.into());
    set("rms_norm_eps", eps.into());
    for cap in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if let Some(cap_) = number(gguf, cap)? {
            set(cap, cap_.into());
        }
    }
    if let Some(large) = dialect.large {
        // llama.cpp knows by the number of layers which of these models divides by another number.
        let per_head = if layers == large { hidden.checked_div(shape.heads) } else { None };
        set("query_pre_attn_scalar", per_head.unwrap_or(shape.key_len).into());
    }
    windows(gguf, dialect, layers, context, &mut fields)?;
    rope::fields(gguf, dialect, shape.key_len, &mut fields)?;
    Ok(fields)
}

/// How far layers see.
fn windows(
    gguf: &Gguf,
    dialect: &Dialect,
    layers: u32,
    context: u32,
    fields: &mut Map<String, serde_json::Value>,
) -> Result<()> {
    let key = gguf.architecture_key("attention.sliding_window")?;
    let window = gguf.get::<u32>(&key)?.filter(|&window| window > 0);
    let mut slides = pattern(gguf, layers)?;
    if let (Windows::Every(default), None) = (dialect.windows, &slides) {
        slides = Some((0..layers).map(|i| i % default != default - 1).collect());
    }
    let slides = slides.unwrap_or_else(|| vec![true; layers as usize]);
    let window = match dialect.windows {
        Windows::Every(_) => window.or(dialect.window),
        // One that is no shorter than the context is none.
        _ => window.filter(|&window| window < context && slides.contains(&true)),
    };
    let Some(window) = window else {
        fields.insert("sliding_window".to_owned(), json!(null));
        if let Windows::Every(_) = dialect.windows {
            let full = vec!["full_attention"; layers as usize];
            fields.insert("layer_types".to_owned(), json!(full));
        }
        return Ok(());
    };
    match dialect.windows {
        Windows::Refused => {
            let reason = format!("is {window}, but `{}` has no window", dialect.architecture);
            return Err(gguf.wrong(&key, reason));
        }
        Windows::Everywhere(model_type) => {
            fields.insert("model_type".to_owned(), model_type.into());
        }
        Windows::Every(_) => {}
    }
    let reach = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
    fields.insert("sliding_window".to_owned(), window.into());
    fields.insert("layer_types".to_owned(), slides.iter().map(reach).collect::<Vec<_>>().into());
    Ok(())
}

/// Which layers have the window, where the file says so: for each, or all but every so manieth; 0: all.
fn pattern(gguf: &Gguf, layers: u32) -> Result<Option<Vec<bool>>> {
    let key = gguf.architecture_key("attention.sliding_window_pattern")?;
    let slides = match gguf.values().get(&key) {
        None => return Ok(None),
        Some(Value::Array(Array::Bool(slides))) => slides.clone(),
        Some(Value::Array(_)) => {
            gguf.require::<Vec<u32>>(&key)?.into_iter().map(|slides| slides != 0).collect()
        }
        Some(_) => {
            let every = gguf.require::<u32>(&key)?;
            (0..layers).map(|i| every == 0 || i % every < every - 1).collect()
        }
    };
    if slides.len() == layers as usize {
        return Ok(Some(slides));
    }
    Err(gguf.wrong(&key, format_args!("has {} values for {layers} layers", slides.len())))
}
