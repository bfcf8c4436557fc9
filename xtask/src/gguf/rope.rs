//! How positions are turned into rotations, as both formats say it.
//!
//! The kinds and their formulas are those of `modeling_rope_utils.py` in `transformers`; a file for llama.cpp holds the
//! result for `llama3` and `longrope`, as divisors of the frequencies.

use super::config::Family;
use crate::Result;
use serde_json::Value;
use std::f64::consts::PI;

/// The rotation of a model's layers.
#[derive(Debug)]
pub(super) struct Rope {
    /// The base of the frequencies.
    pub(super) base: f64,
    /// The base in layers with a window, where it is another one.
    pub(super) window_base: Option<f64>,
    /// Rotated numbers of a head.
    pub(super) dims: usize,
    pub(super) scaling: Scaling,
}

/// How the rotation is stretched for longer texts.
#[derive(Debug, PartialEq)]
pub(super) enum Scaling {
    None,
    /// All frequencies are divided by it.
    Linear(f64),
    /// The frequencies of each pair are divided by it.
    Llama3(Vec<f32>),
    /// YaRN (<https://arxiv.org/abs/2309.00071>).
    Yarn {
        factor: f64,
        /// Tokens that the model was trained with at first.
        original: usize,
        /// What queries and keys are multiplied by beyond YaRN's own `0.1 ln factor + 1`.
        attention: f64,
    },
    /// LongRoPE (<https://arxiv.org/abs/2402.13753>): divisors for texts beyond `original` tokens, and for others.
    Long {
        long: Vec<f32>,
        short: Vec<f32>,
        original: usize,
        /// What queries and keys are multiplied by.
        attention: f64,
    },
}

impl Rope {
    /// Reads the fields of a config, of transformers 4 or 5.
    pub(super) fn parse(
        config: &Value,
        family: Family,
        head_dim: usize,
        context: usize,
    ) -> Result<Self> {
        let parameters = &config["rope_parameters"];
        let (global, local) = match parameters["full_attention"].is_object() {
            true => (&parameters["full_attention"], &parameters["sliding_attention"]),
            false if parameters.is_object() => (parameters, &Value::Null),
            false => (&config["rope_scaling"], &Value::Null),
        };
        let number = |places: &[&Value], default| {
            places.iter().find_map(|value| value.as_f64()).unwrap_or(default)
        };
        let default = if family == Family::Gemma3 { 1e6 } else { 1e4 };
        let base = number(&[&global["rope_theta"], &config["rope_theta"]], default);
        let places = [&local["rope_theta"], &config["rope_local_base_freq"]];
        let window_base = (family == Family::Gemma3).then(|| number(&places, 1e4));
        let share =
            number(&[&global["partial_rotary_factor"], &config["partial_rotary_factor"]], 1.0);
        if share != 1.0 && family != Family::Phi3 {
            return Err(
                "`partial_rotary_factor`: llama.cpp rotates whole heads in this family".to_owned()
            );
        }
        if !matches!(kind(local), None | Some("default")) {
            return Err("llama.cpp does not scale the rotation of layers with a window".to_owned());
        }
        let dims = (head_dim as f64 * share) as usize;
        let scaling = Scaling::parse(global, config, base, dims, context)?;
        let known = match (&scaling, family) {
            (Scaling::None | Scaling::Linear(_), _) => true,
            (Scaling::Llama3(_), family) => matches!(family, Family::Llama | Family::Mistral),
            (Scaling::Yarn { .. }, family) => family != Family::Gemma3,
            (Scaling::Long { .. }, family) => {
                matches!(family, Family::Llama | Family::Mistral | Family::Phi3)
            }
        };
        let kind = kind(global).unwrap_or_default();
        match known {
            true => Ok(Self { base, window_base, dims, scaling }),
            false => Err(format!("llama.cpp has no `{kind}` RoPE for this family")),
        }
    }
}

/// The name of the kind, under either of its keys.
fn kind(scaling: &Value) -> Option<&str> {
    scaling["rope_type"].as_str().or_else(|| scaling["type"].as_str())
}

impl Scaling {
    fn parse(json: &Value, config: &Value, base: f64, dims: usize, context: usize) -> Result<Self> {
        let factor = || positive(json, "factor");
        let original = || {
            let key = "original_max_position_embeddings";
            let value = [&json[key], &config[key]].iter().find_map(|value| value.as_u64());
            value.map_or(context, |value| value.max(1) as usize)
        };
        Ok(match kind(json) {
            None | Some("default") => Self::None,
            Some("linear") => Self::Linear(factor()?),
            Some("llama3") => {
                let low = positive(json, "low_freq_factor")?;
                let high = positive(json, "high_freq_factor")?;
                let factors = llama3(base, dims, factor()?, (low, high), original() as f64);
                Self::Llama3(factors.map(|f| f as f32).collect())
            }
            Some("yarn") => yarn(json, factor()?, original())?,
            Some("longrope" | "su") => {
                let original = original();
                let ratio = context as f64 / original as f64;
                let default = match ratio > 1.0 {
                    true => (1.0 + ratio.ln() / (original as f64).ln()).sqrt(),
                    false => 1.0,
                };
                let attention = json["attention_factor"].as_f64().unwrap_or(default);
                let (long, short) =
                    (factors(json, "long_factor", dims)?, factors(json, "short_factor", dims)?);
                Self::Long { long, short, original, attention }
            }
            Some("dynamic") => {
                return Err(
                    "`dynamic` RoPE: llama.cpp has none that follows the length of the text"
                        .to_owned(),
                );
            }
            Some(other) => return Err(format!("`{other}` RoPE is not known")),
        })
    }
}

fn positive(json: &Value, key: &str) -> Result<f64> {
    let number = json[key].as_f64().filter(|x| *x > 0.0 && x.is_finite());
    number.ok_or_else(|| format!("`{key}` of RoPE is {}, not a positive number", json[key]))
}

fn factors(json: &Value, key: &str, dims: usize) -> Result<Vec<f32>> {
    let all = json[key].as_array().map(|all| all.iter().filter_map(Value::as_f64));
    let all: Vec<_> = all.into_iter().flatten().map(|x| x as f32).collect();
    match all.len() == dims / 2 {
        true => Ok(all),
        false => Err(format!("`{key}` has {} numbers for {} pairs", all.len(), dims / 2)),
    }
}

/// Long waves are divided by `factor`, short ones kept, and those between are mixed.
fn llama3(
    base: f64,
    dims: usize,
    factor: f64,
    (low, high): (f64, f64),
    original: f64,
) -> impl Iterator<Item = f64> {
    (0..dims / 2).map(move |pair| {
        let wave = 2.0 * PI * base.powf(2.0 * pair as f64 / dims as f64);
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor
        } else {
            let smooth = (original / wave - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    })
}

fn yarn(json: &Value, factor: f64, original: usize) -> Result<Scaling> {
    for (key, only) in [("beta_fast", 32.0), ("beta_slow", 1.0)] {
        if json[key].as_f64().is_some_and(|beta| beta != only) {
            return Err(format!("`{key}` of RoPE is {}; llama.cpp takes {only}", json[key]));
        }
    }
    if json["truncate"] == false {
        return Err("`truncate` of RoPE is false; llama.cpp always rounds".to_owned());
    }
    let scale = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
    let wanted = match (
        json["attention_factor"].as_f64(),
        json["mscale"].as_f64(),
        json["mscale_all_dim"].as_f64(),
    ) {
        (Some(attention), ..) => attention,
        (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => scale(m) / scale(all),
        _ => scale(1.0),
    };
    Ok(Scaling::Yarn { factor, original, attention: wanted / scale(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(config: &Value, family: Family) -> Result<Rope> {
        Rope::parse(config, family, 16, 8192)
    }

    #[test]
    fn llama3_keeps_short_waves_and_divides_long_ones() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 512});
        let config = json!({"rope_theta": 1e4, "rope_scaling": scaling});
        let Scaling::Llama3(factors) = parse(&config, Family::Llama).unwrap().scaling else {
            panic!("not llama3")
        };
        // Waves of 2π · 10^(pair / 2): 6, 20, 63, 199, 628, …; the border is at 128 and at 512.
        assert_eq!((&factors[..3], &factors[4..]), (&[1.0; 3][..], &[8.0; 4][..]));
        assert!(factors[3] > 1.0 && factors[3] < 8.0, "{factors:?}");
        assert!(parse(&config, Family::Qwen3).unwrap_err().contains("llama3"));
    }

    #[test]
    fn old_and_new_fields_say_the_same() {
        let old = json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}});
        let new =
            json!({"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 4.0}});
        for config in [old, new] {
            let rope = parse(&config, Family::Llama).unwrap();
            assert_eq!((rope.base, rope.scaling), (5e5, Scaling::Linear(4.0)));
        }
    }

    #[test]
    fn what_llama_cpp_has_not_is_named() {
        let yarn = |more: Value| {
            let mut scaling = json!({"rope_type": "yarn", "factor": 4.0});
            scaling.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "rope_scaling": scaling })
        };
        for (config, word) in [
            (json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}}), "dynamic"),
            (json!({"rope_scaling": {"type": "linear", "factor": -2.0}}), "factor"),
            (json!({"rope_scaling": {"type": "new"}}), "new"),
            (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor"),
            (yarn(json!({"beta_fast": 16})), "beta_fast"),
            (yarn(json!({"truncate": false})), "truncate"),
        ] {
            let error = parse(&config, Family::Qwen3).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let rope = parse(&yarn(json!({"attention_factor": 1.0})), Family::Qwen3).unwrap();
        let Scaling::Yarn { attention, .. } = rope.scaling else { panic!("not yarn") };
        assert!((attention * (0.1 * 4.0_f64.ln() + 1.0) - 1.0).abs() < 1e-12);
    }
}
