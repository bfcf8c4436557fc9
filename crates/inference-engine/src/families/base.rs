//! What the configurations of all families have in common.

use super::rope;
use crate::arch::{Activation, Architecture, Attention, Layer, Rope};
use crate::config::{Config, Section};
use inference_core::Result;

/// Most of everything: beyond these a configuration is damaged, and the products of two still fit a `usize`.
const MOST_LAYERS: usize = 10_000;
const MOST_HIDDEN: usize = 1 << 20;
const MOST_FFN: usize = 1 << 24;
const MOST_VOCAB: usize = 1 << 24;
const MOST_HEADS: usize = 1 << 16;
const MOST_HEAD_DIM: usize = 4096;
const MOST_POSITIONS: usize = 1 << 31;

/// Flags that change the result, with the only value that is implemented. (`pretraining_tp` is not among them: it cuts
/// products into pieces without changing them. Biases are in no configuration: the checkpoint has them or has not.)
const FLAGS: [(&str, bool); 4] = [
    ("alibi", false),
    ("is_causal", true),
    ("use_bidirectional_attention", false),
    ("use_mrope", false),
];

/// What a family assumes of fields that are missing: the defaults of its configuration class in `transformers` 5.23
/// (`models/<family>/configuration_<family>.py`), as far as published checkpoints rely on them. `None`: it must be there.
#[derive(Debug)]
pub(super) struct Defaults {
    pub(super) vocab: Option<usize>,
    pub(super) heads: Option<usize>,
    /// `None`: as many as heads; `null` in the file always means that.
    pub(super) kv_heads: Option<usize>,
    /// `None`: `hidden / heads`.
    pub(super) head_dim: Option<usize>,
    pub(super) context: usize,
    pub(super) norm_eps: f64,
    /// The field with the activation's name.
    pub(super) activation_field: &'static str,
    pub(super) activation: Activation,
    pub(super) rope: rope::Defaults,
}

impl Defaults {
    /// What most families assume.
    pub(super) const COMMON: Self = Self {
        vocab: None,
        heads: None,
        kv_heads: None,
        head_dim: None,
        context: 2048,
        norm_eps: 1e-6,
        activation_field: "hidden_act",
        activation: Activation::Silu,
        rope: rope::Defaults::COMMON,
    };
}

/// What a layer's attention reaches: `layer_types` of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// `full_attention`
    Full,
    /// `sliding_attention`
    Sliding,
}

/// The fields that every family has.
#[derive(Debug)]
pub(super) struct Base<'a> {
    /// The part of the file that is about text.
    pub(super) text: Section<'a>,
    pub(super) defaults: &'static Defaults,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) head_dim: usize,
    /// Most positions that the model was made for.
    pub(super) context: usize,
    vocab: usize,
    ffn: usize,
    heads: usize,
    kv_heads: usize,
    norm_eps: f64,
    activation: Activation,
    own_head: bool,
}

impl<'a> Base<'a> {
    /// Reads them; refuses what would change the result and isn't implemented.
    pub(super) fn read(config: &'a Config, defaults: &'static Defaults) -> Result<Self> {
        config.quantisation()?;
        let text = config.text()?;
        for (field, only) in FLAGS {
            for part in [&text, &config.root()] {
                if part.flag(field)?.is_some_and(|value| value != only) {
                    return Err(part.error(field, format!("can only be {only}")));
                }
            }
        }
        if text.get("per_layer_config").is_some() {
            return Err(text.error("per_layer_config", "is not supported"));
        }

        let hidden = text.count_or("hidden_size", MOST_HIDDEN, None)?;
        let heads = text.count_or("num_attention_heads", MOST_HEADS, defaults.heads)?;
        let kv_heads = match text.count("num_key_value_heads", MOST_HEADS)? {
            Some(given) => given,
            None if text.is_null("num_key_value_heads") => heads,
            None => defaults.kv_heads.unwrap_or(heads),
        };
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("must divide num_attention_heads ({heads}), is {kv_heads}");
            return Err(text.error("num_key_value_heads", reason));
        }
        let head_dim = match text.count("head_dim", MOST_HEAD_DIM)?.or(defaults.head_dim) {
            Some(given) => given,
            None if hidden.is_multiple_of(heads) && hidden / heads <= MOST_HEAD_DIM => {
                hidden / heads
            }
            None => {
                let reason = format!(
                    "is missing, and hidden_size ({hidden}) in num_attention_heads ({heads}) parts \
                     gives no whole number up to {MOST_HEAD_DIM}"
                );
                return Err(text.error("head_dim", reason));
            }
        };
        Ok(Self {
            hidden,
            heads,
            kv_heads,
            head_dim,
            layers: text.count_or("num_hidden_layers", MOST_LAYERS, None)?,
            ffn: text.count_or("intermediate_size", MOST_FFN, None)?,
            vocab: text.count_or("vocab_size", MOST_VOCAB, defaults.vocab)?,
            context: text
                .count("max_position_embeddings", MOST_POSITIONS)?
                .unwrap_or(defaults.context),
            norm_eps: text.number("rms_norm_eps")?.unwrap_or(defaults.norm_eps),
            activation: activation(&text, defaults)?,
            own_head: own_head(&text, &config.root())?,
            text,
            defaults,
        })
    }

    /// `sliding_window`, in positions; `missing` where the file has no such field, `None` where it is `null`.
    pub(super) fn window(&self, missing: Option<usize>) -> Result<Option<usize>> {
        let given = self.text.count("sliding_window", MOST_POSITIONS)?;
        Ok(if self.text.is_null("sliding_window") { None } else { given.or(missing) })
    }

    /// A softcap; `missing` where the file has no such field, `None` where it is `null`.
    pub(super) fn softcap(&self, field: &str, missing: Option<f64>) -> Result<Option<f32>> {
        let given = self.text.positive(field)?;
        let cap = if self.text.is_null(field) { None } else { given.or(missing) };
        Ok(cap.map(|c| c as f32))
    }

    /// `layer_types`; `rule` where the file has none.
    pub(super) fn reaches(&self, rule: impl Fn(usize) -> Reach) -> Result<Vec<Reach>> {
        let Some(names) = self.text.strings("layer_types", self.layers)? else {
            return Ok((0..self.layers).map(rule).collect());
        };
        let reach = |name: &&str| match *name {
            "full_attention" | "attention" => Ok(Reach::Full),
            "sliding_attention" => Ok(Reach::Sliding),
            other => Err(self.text.error("layer_types", format!("has unknown entry {other:.40?}"))),
        };
        names.iter().map(reach).collect()
    }

    /// The reach of layers that are all alike; an error if `layer_types` says otherwise.
    pub(super) fn all(&self, reach: Reach) -> Result<Vec<Reach>> {
        let reaches = self.reaches(|_| reach)?;
        if reaches.iter().all(|&r| r == reach) {
            return Ok(reaches);
        }
        let reason =
            "differs between layers, or from sliding_window, which this family does not know";
        Err(self.text.error("layer_types", reason))
    }

    /// `window` in the layers that slide.
    ///
    /// # Errors
    /// Layers slide, but there is no window.
    pub(super) fn attentions(
        &self,
        reaches: &[Reach],
        window: Option<usize>,
    ) -> Result<Vec<Attention>> {
        if window.is_none() && reaches.contains(&Reach::Sliding) {
            let reason = "is missing or switched off, but `layer_types` has sliding_attention";
            return Err(self.text.error("sliding_window", reason));
        }
        let of = |reach: &Reach| Attention {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            scale: (self.head_dim as f64).powf(-0.5) as f32,
            window: window.filter(|_| *reach == Reach::Sliding),
            softcap: None,
        };
        Ok(reaches.iter().map(of).collect())
    }

    /// The whole, where all layers rotate alike.
    pub(super) fn architecture(&self, attentions: Vec<Attention>, rope: Rope) -> Architecture {
        let layer = |attention| Layer { attention, rope: Some(0), ffn: self.ffn };
        Architecture {
            vocab: self.vocab,
            hidden: self.hidden,
            norm_eps: self.norm_eps as f32,
            embed_scale: 1.0,
            activation: self.activation,
            logit_softcap: None,
            own_head: self.own_head,
            context: rope.frequencies.context(self.context),
            ropes: vec![rope],
            layers: attentions.into_iter().map(layer).collect(),
        }
    }
}

/// Whether the file says that embedding and head are two tensors. One that says nothing leaves it to the weights.
fn own_head(text: &Section<'_>, root: &Section<'_>) -> Result<bool> {
    const FIELD: &str = "tie_word_embeddings";
    let (inner, outer) = (text.flag(FIELD)?, root.flag(FIELD)?);
    Ok(inner.or(outer) == Some(false))
}

/// By the names of `transformers.activations.ACT2FN`.
fn activation(text: &Section<'_>, defaults: &Defaults) -> Result<Activation> {
    let field = defaults.activation_field;
    match text.string(field)? {
        None => Ok(defaults.activation),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some(other) => {
            let reason = format!("{other:.40?} is not supported; silu and gelu_pytorch_tanh are");
            Err(text.error(field, reason))
        }
    }
}
