//! What distinguishes one decoder from another, as data.

use inference_text::step::Lengths;
use std::{borrow::Cow, f64};

/// A decoder-only transformer, fully described.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Rows of the embedding and of the head, padding included.
    pub vocab: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_eps: f32,
    /// Multiplies token embeddings; √hidden in Gemma, 1 elsewhere.
    pub embed_scale: f32,
    /// Of the feed-forward gate.
    pub activation: Activation,
    /// `cap · tanh(logits / cap)` on the final logits (Gemma 2).
    pub logit_softcap: Option<f32>,
    /// The head is a tensor of its own, so a checkpoint without one is incomplete; else it may be the embedding.
    pub own_head: bool,
    /// Most positions that the model was made for.
    pub context: usize,
    /// The rotary embeddings in use; layers refer to them by index.
    pub ropes: Vec<Rope>,
    /// From the first to the last.
    pub layers: Vec<Layer>,
}

impl Architecture {
    /// How a token's rotary embedding depends on the length of its sequence: LongRoPE has another one above its original
    /// length, for all tokens (as `transformers` does for Phi-3); dynamic scaling one for each length above it.
    pub fn lengths(&self) -> Lengths {
        let least = |original: fn(&Frequencies) -> Option<usize>| {
            self.ropes.iter().filter_map(|rope| original(&rope.frequencies)).min()
        };
        Lengths {
            restart_above: least(|f| match f {
                Frequencies::Long { original, .. } => Some(*original),
                _ => None,
            }),
            each_above: least(|f| match f {
                Frequencies::Dynamic { original, .. } => Some(*original),
                _ => None,
            }),
        }
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its attention.
    pub attention: Attention,
    /// Index into [`Architecture::ropes`]; `None`: no positions.
    pub rope: Option<usize>,
    /// Width of the feed-forward part.
    pub ffn: usize,
}

/// One layer's attention: `heads` queries, of which each `heads / kv_heads` share a key and a value (GQA).
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Multiplies `q·k`; usually 1/√head_dim.
    pub scale: f32,
    /// A query sees this many most recent positions, itself included; `None`: all.
    pub window: Option<usize>,
    /// `cap · tanh(score / cap)` before the softmax (Gemma 2).
    pub softcap: Option<f32>,
}

impl Attention {
    /// Columns of all queries of a token.
    pub fn q_cols(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all keys of a token, and of all values.
    pub fn kv_cols(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The non-linearity of the feed-forward gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + e⁻ˣ)`
    Silu,
    /// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))`, the approximation that Gemma was trained with.
    GeluTanh,
}

/// Rotary position embedding (<https://arxiv.org/abs/2104.09864>), half-split: column `i` of a head is paired with
/// column `i + n`, where `n` is the number of frequencies; columns from `2n` on stay as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Radians per position, one for each pair.
    pub frequencies: Frequencies,
    /// Multiplies cosine and sine; 1 but for YaRN and LongRoPE.
    pub scale: f32,
}

/// Angular frequencies, in radians per position; some depend on how long the sequence is.
#[derive(Debug, Clone, PartialEq)]
pub enum Frequencies {
    /// The same for every length (default, linear, llama3, yarn).
    Fixed(Vec<f64>),
    /// NTK-aware, dynamic: the base grows with the length once that is above `original`. `transformers` rotates a prompt
    /// by the prompt's length and each later token by the length up to it; keys in the cache stay as they are.
    Dynamic {
        /// The base up to `original`.
        theta: f64,
        /// Columns that are rotated: twice the number of frequencies.
        dims: usize,
        /// The scaling factor of the configuration.
        factor: f64,
        /// Positions the model was trained on.
        original: usize,
    },
    /// LongRoPE (<https://arxiv.org/abs/2402.13753>): one set up to `original`, another above. When a sequence grows
    /// beyond it, Phi-3 in `transformers` computes all of its keys anew, so that every token has the second set.
    Long {
        /// For sequences of at most `original` tokens.
        short: Vec<f64>,
        /// For longer ones.
        long: Vec<f64>,
        /// Positions the model was trained on at first.
        original: usize,
    },
}

impl Frequencies {
    /// `theta^(-2i/dims)` for each pair `i`.
    pub fn plain(theta: f64, dims: usize) -> Vec<f64> {
        (0..dims / 2).map(|i| theta.powf(-2.0 * i as f64 / dims as f64)).collect()
    }

    /// The frequencies for a token whose sequence is `length` tokens long.
    pub fn at(&self, length: usize) -> Cow<'_, [f64]> {
        match self {
            Self::Fixed(all) => Cow::Borrowed(all),
            Self::Long { short, original, .. } if length <= *original => Cow::Borrowed(short),
            Self::Long { long, .. } => Cow::Borrowed(long),
            &Self::Dynamic { theta, dims, factor, original } => {
                let length = length.max(original) as f64;
                let stretch = factor * length / original as f64 - (factor - 1.0);
                let exponent = dims as f64 / (dims as f64 - 2.0);
                Cow::Owned(Self::plain(theta * stretch.powf(exponent), dims))
            }
        }
    }

    /// How long a sequence may be, where the configuration says `own`: dynamic scaling is there to go beyond that.
    pub fn context(&self, own: usize) -> usize {
        match self {
            Self::Dynamic { factor, .. } if *factor > 1.0 => (own as f64 * factor) as usize,
            _ => own,
        }
    }

    /// How many there are: half of the columns that are rotated.
    pub fn pairs(&self) -> usize {
        match self {
            Self::Fixed(all) => all.len(),
            Self::Dynamic { dims, .. } => dims / 2,
            Self::Long { short, .. } => short.len(),
        }
    }
}
