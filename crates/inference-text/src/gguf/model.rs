//! What a file says of its model: shape, weights, and what its cache takes.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#llm>.

use super::{GgmlType, Gguf};
use inference_core::{Quantisation, Result};
use std::collections::BTreeMap;

/// Most layers that are believed; llama.cpp holds 512.
const MOST_LAYERS: u32 = 4096;

/// Width and heads of a layer's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Numbers of a key, of each head.
    pub key_len: u32,
    /// Numbers of a value, of each head.
    pub value_len: u32,
}

impl AttentionShape {
    /// Numbers that keys and values of one token take in this layer's cache.
    pub fn cached_numbers(&self) -> u64 {
        u64::from(self.kv_heads) * (u64::from(self.key_len) + u64::from(self.value_len))
    }
}

impl Gguf {
    /// What kind of model it is, such as `qwen3`.
    ///
    /// # Errors
    /// [`InvalidFile`](inference_core::Error::InvalidFile) if it is missing or no text; so do all of these, naming the
    /// key.
    pub fn architecture(&self) -> Result<&str> {
        self.require("general.architecture")
    }

    /// The key `name` of the architecture, such as `qwen3.block_count` for `block_count`.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn architecture_key(&self, name: &str) -> Result<String> {
        Ok(format!("{}.{name}", self.architecture()?))
    }

    /// Most tokens that the model was trained for.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn context_len(&self) -> Result<u32> {
        self.positive("context_length")
    }

    /// Layers.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn layers(&self) -> Result<u32> {
        let layers = self.positive("block_count")?;
        match layers > MOST_LAYERS {
            true => Err(self.wrong(
                &self.architecture_key("block_count")?,
                format_args!("is {layers}; at most {MOST_LAYERS} are believed"),
            )),
            false => Ok(layers),
        }
    }

    /// Width of the residual stream.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn hidden_size(&self) -> Result<u32> {
        self.positive("embedding_length")
    }

    /// The attention of each layer. Layers without attention have no heads.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn attention(&self) -> Result<Vec<AttentionShape>> {
        let layers = self.layers()?;
        let heads = self.per_layer("attention.head_count", layers)?;
        let heads = match heads {
            Some(heads) => heads,
            None => {
                return Err(
                    self.wrong(&self.architecture_key("attention.head_count")?, "is missing")
                );
            }
        };
        let kv_heads = self.per_layer("attention.head_count_kv", layers)?;
        let kv_heads = kv_heads.unwrap_or_else(|| heads.clone());
        let width = self.hidden_size()?;
        let optional = |name: &str| self.get::<u32>(&self.architecture_key(name)?);
        let (key, value) = (optional("attention.key_length")?, optional("attention.value_length")?);
        let shape = |(heads, kv_heads): (u32, u32)| {
            let len = width.checked_div(heads).unwrap_or(0);
            AttentionShape {
                heads,
                kv_heads,
                key_len: key.unwrap_or(len),
                value_len: value.unwrap_or(len),
            }
        };
        Ok(heads.into_iter().zip(kv_heads).map(shape).collect())
    }

    /// Width inside the feed-forward part of each layer.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn feed_forward(&self) -> Result<Vec<u32>> {
        let widths = self.per_layer("feed_forward_length", self.layers()?)?;
        match widths {
            Some(widths) => Ok(widths),
            None => Err(self.wrong(&self.architecture_key("feed_forward_length")?, "is missing")),
        }
    }

    /// Numbers that keys and values of one token take in the caches of all layers, if every layer keeps it.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn cached_numbers_per_token(&self) -> Result<u64> {
        Ok(self
            .attention()?
            .iter()
            .map(AttentionShape::cached_numbers)
            .fold(0, u64::saturating_add))
    }

    /// How the weights are quantised: as most numbers of its matrices are. `None` where those are F32, F16 or BF16.
    pub fn quantisation(&self) -> Option<Quantisation> {
        let most = self.dominant_type()?;
        most.quantised_bits().map(|bits| Quantisation { bits, group_size: most.group_len() })
    }

    /// The type of most numbers of its matrices (of its vectors, without any); `None` for a file without tensors.
    pub fn dominant_type(&self) -> Option<GgmlType> {
        let mut numbers = BTreeMap::<_, u64>::new();
        let matrices = self.tensors().iter().any(|t| t.dims.len() > 1);
        for tensor in self.tensors().iter().filter(|t| (t.dims.len() > 1) == matrices) {
            let count = numbers.entry(tensor.ty).or_default();
            *count = count.saturating_add(tensor.numbers());
        }
        numbers.into_iter().max_by_key(|(_, count)| *count).map(|(ty, _)| ty)
    }

    /// Parameters.
    pub fn parameters(&self) -> u64 {
        self.tensors().iter().map(|t| t.numbers()).fold(0, u64::saturating_add)
    }

    /// Bytes of the weights.
    pub fn weight_bytes(&self) -> u64 {
        self.tensors().iter().map(|t| t.bytes).fold(0, u64::saturating_add)
    }

    /// Tokens of the vocabulary, which are rows of the head: as many as the tokenizer has, or else as the metadata says.
    ///
    /// # Errors
    /// As [`architecture`](Self::architecture).
    pub fn vocab_size(&self) -> Result<u32> {
        match self.get::<&[String]>("tokenizer.ggml.tokens")? {
            Some(tokens) => Ok(tokens.len() as u32),
            None => self.positive("vocab_size"),
        }
    }

    /// The architecture's number `name`, which is not zero.
    fn positive(&self, name: &str) -> Result<u32> {
        let key = self.architecture_key(name)?;
        match self.require(&key)? {
            0 => Err(self.wrong(&key, "is zero")),
            number => Ok(number),
        }
    }

    /// The architecture's number `name` of each layer: one for all, or an array.
    fn per_layer(&self, name: &str, layers: u32) -> Result<Option<Vec<u32>>> {
        let key = self.architecture_key(name)?;
        match self.values().get(&key) {
            None => Ok(None),
            Some(super::Value::Array(_)) => {
                let numbers = self.require::<Vec<u32>>(&key)?;
                match numbers.len() == layers as usize {
                    true => Ok(Some(numbers)),
                    false => Err(self.wrong(
                        &key,
                        format_args!("has {} numbers for {layers} layers", numbers.len()),
                    )),
                }
            }
            Some(_) => Ok(Some(vec![self.require(&key)?; layers as usize])),
        }
    }
}
