//! What `config.json` says of a model, as far as a GGUF file tells it.

use super::rope::Rope;
use crate::Result;
use serde_json::Value;
use std::{fs, path::Path};

/// A family of models that both formats know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Llama 2 and 3.
    Llama,
    /// Mistral, whose layers may have a window.
    Mistral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// Gemma 2.
    Gemma2,
    /// The language model of Gemma 3.
    Gemma3,
    /// Phi 3 and 4.
    Phi3,
}

impl Family {
    fn of(model_type: &str) -> Result<Self> {
        Ok(match model_type {
            "llama" => Self::Llama,
            "mistral" => Self::Mistral,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "gemma2" => Self::Gemma2,
            "gemma3" | "gemma3_text" => Self::Gemma3,
            "phi3" => Self::Phi3,
            other => {
                return Err(format!(
                    "model type `{other}` can't be converted; llama, mistral, qwen2, qwen3, gemma2, gemma3 and phi3 can"
                ));
            }
        })
    }

    /// Whether a norm multiplies by `1 + w`.
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}

/// The numbers of a model.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) family: Family,
    /// Width of a row.
    pub(super) hidden: usize,
    pub(super) layers: usize,
    /// Query heads.
    pub(super) heads: usize,
    /// Key and value heads.
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Width inside the feed-forward layer.
    pub(super) ffn: usize,
    /// Tokens.
    pub(super) context: usize,
    pub(super) norm_eps: f64,
    /// Tokens that a layer with a window sees.
    pub(super) window: Option<usize>,
    /// Which layers have the window; all false without one.
    pub(super) windowed: Vec<bool>,
    /// Whether embedding and head are one table; `None` if the config does not say.
    pub(super) tied: Option<bool>,
    /// Soft cap of the attention's scores.
    pub(super) attention_cap: Option<f64>,
    /// Soft cap of the logits.
    pub(super) logit_cap: Option<f64>,
    /// What queries are multiplied by is `query_scale.powf(-0.5)`.
    pub(super) query_scale: f64,
    pub(super) rope: Rope,
    /// The end tokens.
    pub(super) eos: Vec<u32>,
    pub(super) bos: Option<u32>,
}

impl Config {
    /// Reads `config.json`, and the end tokens of `generation_config.json` as well.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let json = json(&path)?.ok_or_else(|| format!("{}: no such file", path.display()))?;
        let generation = self::json(&folder.join("generation_config.json"))?.unwrap_or_default();
        let mut config = Self::parse(&json).map_err(|e| format!("{}: {e}", path.display()))?;
        for id in ids(&generation["eos_token_id"]) {
            if !config.eos.contains(&id) {
                config.eos.push(id);
            }
        }
        Ok(config)
    }

    fn parse(json: &Value) -> Result<Self> {
        let model_type = json["model_type"].as_str().ok_or("no `model_type`")?;
        let family = Family::of(model_type)?;
        if let Some(key) =
            ["quantization", "quantization_config"].iter().find(|key| !json[**key].is_null())
        {
            return Err(format!("`{key}`: only weights that are not quantised can be converted"));
        }
        let text = if json["text_config"].is_object() { &json["text_config"] } else { json };
        let fields = Fields { json: text, family };
        let hidden = fields.size("hidden_size", None)?;
        let layers = fields.size("num_hidden_layers", None)?;
        let heads = fields.size("num_attention_heads", Some(8))?;
        let kv_heads = fields.size("num_key_value_heads", Some(4)).or_else(|_| {
            // As the reference: without it every query head has its own.
            if text["num_key_value_heads"].is_null() {
                Ok(heads)
            } else {
                Err("`num_key_value_heads` is not a size".to_owned())
            }
        })?;
        let head_dim = match text["head_dim"].as_u64() {
            Some(dim) => dim as usize,
            None if family.is_gemma() => 256,
            None if family == Family::Qwen3 => 128,
            None => hidden / heads,
        };
        if heads % kv_heads != 0 || head_dim == 0 || head_dim % 2 != 0 {
            return Err(format!("{heads} heads of {head_dim} for {kv_heads} key heads"));
        }
        let context = fields.size("max_position_embeddings", Some(131_072))?;
        let (window, windowed) = fields.window(layers, context)?;
        let config = Self {
            family,
            hidden,
            layers,
            heads,
            kv_heads,
            head_dim,
            ffn: fields.size("intermediate_size", None)?,
            context,
            norm_eps: text["rms_norm_eps"].as_f64().unwrap_or(1e-6),
            window,
            windowed,
            tied: tied(json, text, family),
            attention_cap: text["attn_logit_softcapping"].as_f64(),
            logit_cap: text["final_logit_softcapping"].as_f64(),
            query_scale: match family.is_gemma() {
                true => text["query_pre_attn_scalar"].as_f64().unwrap_or(256.0),
                false => head_dim as f64,
            },
            rope: Rope::parse(text, family, head_dim, context)?,
            eos: [text, json].iter().flat_map(|c| ids(&c["eos_token_id"])).fold(
                vec![],
                |mut all, id| {
                    if !all.contains(&id) {
                        all.push(id);
                    }
                    all
                },
            ),
            bos: [text, json].iter().find_map(|c| ids(&c["bos_token_id"]).first().copied()),
        };
        config.expressible()?;
        Ok(config)
    }

    /// What the family's graph in llama.cpp has no place for.
    fn expressible(&self) -> Result {
        match self.family {
            Family::Gemma2 if self.attention_cap.is_none() || self.logit_cap.is_none() => {
                Err("llama.cpp always caps the scores and the logits of Gemma 2".to_owned())
            }
            Family::Gemma3 if self.attention_cap.is_some() => {
                Err("`attn_logit_softcapping`: llama.cpp has no such cap for Gemma 3".to_owned())
            }
            Family::Qwen2 | Family::Phi3 if self.head_dim * self.heads != self.hidden => {
                Err(format!("llama.cpp takes {} / {} for `head_dim`", self.hidden, self.heads))
            }
            _ => Ok(()),
        }
    }

    /// The size of all queries.
    pub(super) fn queries(&self) -> usize {
        self.heads * self.head_dim
    }

    /// The size of all keys.
    pub(super) fn keys(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// What the queries' weights are multiplied by: llama.cpp scales Gemma's queries by the head's size (and those of
    /// the two models of 27 billion parameters by the row's share), not by what the config says.
    pub(super) fn query_factor(&self) -> f64 {
        let large =
            matches!((self.family, self.layers), (Family::Gemma2, 46) | (Family::Gemma3, 62));
        let theirs = if large { self.hidden / self.heads } else { self.head_dim };
        (theirs as f64 / self.query_scale).sqrt()
    }
}

/// One object of the config, with the defaults of the family.
struct Fields<'a> {
    json: &'a Value,
    family: Family,
}

impl Fields<'_> {
    /// A size; `gemma` is what the reference takes when Gemma 3 leaves it out.
    fn size(&self, key: &str, gemma: Option<usize>) -> Result<usize> {
        match (&self.json[key], gemma) {
            (Value::Null, Some(size)) if self.family == Family::Gemma3 => Ok(size),
            (value, _) => value
                .as_u64()
                .filter(|size| (1..1 << 32).contains(size))
                .map(|size| size as usize)
                .ok_or_else(|| format!("`{key}` is {value}, not a size")),
        }
    }

    /// The window, and which layers have it; none if it is no shorter than the context.
    fn window(&self, layers: usize, context: usize) -> Result<(Option<usize>, Vec<bool>)> {
        let gemma = self.family.is_gemma();
        let on = match self.family {
            Family::Llama => false,
            Family::Qwen2 | Family::Qwen3 => self.json["use_sliding_window"] == true,
            _ => gemma || !self.json["sliding_window"].is_null(),
        };
        let window = match (on, self.json["sliding_window"].is_null()) {
            (false, _) => None,
            (true, true) => Some(4096),
            (true, false) => Some(self.size("sliding_window", None)?),
        };
        let Some(window) = window.filter(|window| gemma || *window < context) else {
            return Ok((None, vec![false; layers]));
        };
        if let Some(types) = self.json["layer_types"].as_array() {
            let windowed: Vec<_> = types.iter().map(|t| t == "sliding_attention").collect();
            return match windowed.len() == layers {
                true => Ok((Some(window), windowed)),
                false => Err(format!("{} `layer_types` for {layers} layers", windowed.len())),
            };
        }
        let pattern = self.json["sliding_window_pattern"].as_u64().map_or(6, |p| p.max(1) as usize);
        let from = self.json["max_window_layers"].as_u64().unwrap_or(0) as usize;
        let has = |layer: usize| match self.family {
            Family::Gemma2 => layer.is_multiple_of(2),
            Family::Gemma3 => !(layer + 1).is_multiple_of(pattern),
            Family::Qwen2 | Family::Qwen3 => layer >= from,
            _ => true,
        };
        let windowed: Vec<_> = (0..layers).map(has).collect();
        Ok((windowed.contains(&true).then_some(window), windowed))
    }
}

/// Gemma's head is the embedding unless the config says otherwise.
fn tied(json: &Value, text: &Value, family: Family) -> Option<bool> {
    let said = [text, json].iter().find_map(|c| c["tie_word_embeddings"].as_bool());
    said.or(family.is_gemma().then_some(true))
}

/// One id or a list of them.
pub(super) fn ids(value: &Value) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value.as_array() {
        Some(all) => all.iter().filter_map(one).collect(),
        None => one(value).into_iter().collect(),
    }
}

/// The file's JSON; `None` if there is no such file.
pub(super) fn json(path: &Path) -> Result<Option<Value>> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|e| format!("{}: {e}", path.display()))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}
