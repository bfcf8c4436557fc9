//! The rotary embedding, as a file's metadata and tensors describe it.

use super::{Dialect, number};
use crate::arch::{Architecture, Frequencies};
use crate::weights::gguf::vector;
use inference_core::Result;
use inference_text::gguf::Gguf;
use serde_json::{Map, Value, json};

/// The tensor of numbers by which the frequencies are divided (Llama 3).
pub(crate) const FACTORS: &str = "rope_freqs.weight";

/// Those of LongRoPE: for sequences within the original context, and for longer ones.
pub(crate) const LONG_FACTORS: [&str; 2] =
    ["rope_factors_short.weight", "rope_factors_long.weight"];

/// The base of a file that does not say, in llama.cpp.
const BASE: f64 = 10_000.0;

/// Sets the fields of a configuration for heads of `head_dim`.
pub(super) fn fields(
    gguf: &Gguf,
    dialect: &Dialect,
    head_dim: u32,
    fields: &mut Map<String, Value>,
) -> Result<()> {
    let key = |name: &str| gguf.architecture_key(name);
    let base = number(gguf, "rope.freq_base")?.unwrap_or(BASE);
    fields.insert("rope_theta".to_owned(), base.into());
    let local = number(gguf, "rope.freq_base_swa")?;
    let two = dialect.architecture == "gemma3";
    if two {
        fields.insert("rope_local_base_freq".to_owned(), local.unwrap_or(BASE).into());
    } else if local.is_some_and(|local| local != base) {
        return Err(gguf.wrong(&key("rope.freq_base_swa")?, "is another than `rope.freq_base`"));
    }

    let name = key("rope.dimension_count")?;
    match gguf.get::<u32>(&name)?.unwrap_or(head_dim) {
        dims if dims == head_dim => {}
        dims if dims > 0 && dims < head_dim => {
            // The family takes the whole part of the product; a quarter is there for what division rounds.
            let share = (f64::from(dims) + 0.25) / f64::from(head_dim);
            fields.insert("partial_rotary_factor".to_owned(), share.into());
        }
        dims => {
            let reason = format!("is {dims}, but heads have {head_dim} columns");
            return Err(gguf.wrong(&name, reason));
        }
    }
    if let Some(scaling) = scaling(gguf, two)? {
        fields.insert("rope_scaling".to_owned(), scaling);
        let original = gguf.get::<u32>(&key("rope.scaling.original_context_length")?)?;
        let original = original.map_or_else(|| gguf.context_len(), Ok)?;
        fields.insert("original_max_position_embeddings".to_owned(), original.into());
    }
    Ok(())
}

/// `rope_scaling`. `two`: the layers have two rotations, of which only one is scaled.
fn scaling(gguf: &Gguf, two: bool) -> Result<Option<Value>> {
    let key = |name: &str| gguf.architecture_key(name);
    let kind_key = key("rope.scaling.type")?;
    let kind = gguf.get::<&str>(&kind_key)?.unwrap_or("linear");
    let factor = match number(gguf, "rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => number(gguf, "rope.scale_linear")?,
    };
    // 0 is how some converters write "none".
    let factor = factor.filter(|&factor| factor != 0.0).unwrap_or(1.0);
    let sharper = number(gguf, "rope.scaling.attn_factor")?;
    let long = LONG_FACTORS.map(|name| factors(gguf, name));
    let [short, long] = long;
    let (short, long) = (short?, long?);

    if short.is_some() || long.is_some() {
        let scaled = kind == "yarn" || (kind == "linear" && factor != 1.0);
        let (Some(short), Some(long), false, false) = (short, long, scaled, two) else {
            let reason =
                format!("is {kind}, which does not go with {}", LONG_FACTORS.join(" and "));
            return Err(gguf.wrong(&kind_key, reason));
        };
        let sharper = sharper.unwrap_or(1.0);
        return Ok(Some(json!({"rope_type": "longrope", "short_factor": short,
            "long_factor": long, "attention_factor": sharper})));
    }
    match kind {
        "yarn" if !two => return yarn(gguf, factor, sharper.unwrap_or(1.0)).map(Some),
        "none" | "linear" => {}
        other => {
            return Err(
                gguf.wrong(&kind_key, format_args!("is `{other:.40}`, which is not supported"))
            );
        }
    }
    if sharper.is_some_and(|sharper| sharper != 1.0) {
        let reason = "is not supported without YaRN or LongRoPE";
        return Err(gguf.wrong(&key("rope.scaling.attn_factor")?, reason));
    }
    let scaled = kind == "linear" && factor != 1.0;
    Ok(scaled.then(|| json!({"rope_type": "linear", "factor": factor})))
}

/// YaRN. What cosine and sine are multiplied by is computed as `llama_context` does.
fn yarn(gguf: &Gguf, factor: f64, sharper: f64) -> Result<Value> {
    let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let log = number(gguf, "rope.scaling.yarn_log_multiplier")?.unwrap_or(0.0);
    let attention = sharper * scale(1.0) / if log == 0.0 { 1.0 } else { scale(log) };
    let mut all = json!({"rope_type": "yarn", "factor": factor, "attention_factor": attention});
    for beta in ["beta_fast", "beta_slow"] {
        if let Some(value) = number(gguf, &format!("rope.scaling.yarn_{beta}"))? {
            all[beta] = value.into();
        }
    }
    Ok(all)
}

/// The numbers of a tensor of divisors, if there is one.
fn factors(gguf: &Gguf, name: &str) -> Result<Option<Vec<f32>>> {
    let Some(factors) = vector(gguf, name)? else { return Ok(None) };
    match factors.iter().all(|f| f.is_finite() && *f > 0.0) {
        true => Ok(Some(factors)),
        false => Err(gguf.wrong(name, "has numbers that are not above 0")),
    }
}

/// Divides the frequencies as the file's tensor says, if it has one.
pub(super) fn divide(gguf: &Gguf, architecture: &mut Architecture) -> Result<()> {
    let Some(factors) = factors(gguf, FACTORS)? else { return Ok(()) };
    match &mut architecture.ropes[..] {
        [rope] => match &mut rope.frequencies {
            Frequencies::Fixed(all) if all.len() == factors.len() => {
                all.iter_mut().zip(factors).for_each(|(f, factor)| *f /= f64::from(factor));
                Ok(())
            }
            frequencies => {
                let reason = format!(
                    "has {} numbers for {} frequencies",
                    factors.len(),
                    frequencies.pairs()
                );
                Err(gguf.wrong(FACTORS, reason))
            }
        },
        _ => Err(gguf.wrong(FACTORS, "does not say for which of the rotations it is")),
    }
}
