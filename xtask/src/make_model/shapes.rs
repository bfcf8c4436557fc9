//! Published shapes: `config.json`, tensors, and where the special tokens are.

use clap::ValueEnum;
use serde_json::{Value, json};

/// Which shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// Qwen/Qwen3-0.6B
    #[value(name = "qwen3-0.6b")]
    Qwen3,
    /// Qwen/Qwen3-8B, whose head is a table of its own: 16.4 GB in bf16
    #[value(name = "qwen3-8b")]
    Qwen3Large,
    /// meta-llama/Llama-3.2-1B
    #[value(name = "llama-3.2-1b")]
    Llama,
    /// google/gemma-3-1b-it
    #[value(name = "gemma3-1b")]
    Gemma3,
    /// Qwen 3 in small, for tests
    Tiny,
}

/// Ids of the special tokens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Special {
    /// Begins every prompt, where the tokenizer adds one.
    pub(super) bos: Option<(u32, &'static str)>,
    /// Ends a text.
    pub(super) end: (u32, &'static str),
    /// Opens a turn.
    pub(super) start: (u32, &'static str),
    /// Closes a turn.
    pub(super) stop: (u32, &'static str),
}

/// A tensor of the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tensor {
    /// Its name.
    pub(super) name: String,
    /// `[out, in]`, or `[width]` of a norm.
    pub(super) shape: Vec<usize>,
}

/// The numbers that the tensors follow from.
struct Sizes {
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn: usize,
    vocab: usize,
}

impl Shape {
    /// The name of the shape, as it is given on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Qwen3 => "qwen3-0.6b",
            Self::Qwen3Large => "qwen3-8b",
            Self::Llama => "llama-3.2-1b",
            Self::Gemma3 => "gemma3-1b",
            Self::Tiny => "tiny",
        }
    }

    fn sizes(self, layers: Option<usize>) -> Sizes {
        let (hidden, default, heads, kv_heads, head_dim, ffn, vocab) = match self {
            Self::Qwen3 => (1024, 28, 16, 8, 128, 3072, 151_936),
            Self::Qwen3Large => (4096, 36, 32, 8, 128, 12_288, 151_936),
            Self::Llama => (2048, 16, 32, 8, 64, 8192, 128_256),
            Self::Gemma3 => (1152, 26, 4, 1, 256, 6912, 262_144),
            Self::Tiny => (64, 2, 4, 2, 16, 128, 1024),
        };
        Sizes { hidden, layers: layers.unwrap_or(default), heads, kv_heads, head_dim, ffn, vocab }
    }

    /// Entries of the vocabulary.
    pub(super) fn vocab(self) -> usize {
        self.sizes(None).vocab
    }

    /// The special tokens; ids as published, with the names of ChatML for turns.
    pub(super) fn special(self) -> Special {
        let (start, stop) = ("<|im_start|>", "<|im_end|>");
        match self {
            Self::Qwen3 | Self::Qwen3Large => Special {
                bos: None,
                end: (151_643, "<|endoftext|>"),
                start: (151_644, start),
                stop: (151_645, stop),
            },
            Self::Llama => Special {
                bos: Some((128_000, "<|begin_of_text|>")),
                end: (128_001, "<|end_of_text|>"),
                start: (128_006, start),
                stop: (128_009, stop),
            },
            Self::Gemma3 => Special {
                bos: Some((2, "<bos>")),
                end: (1, "<eos>"),
                start: (105, start),
                stop: (106, stop),
            },
            Self::Tiny => Special {
                bos: None,
                end: (1021, "<|endoftext|>"),
                start: (1022, start),
                stop: (1023, stop),
            },
        }
    }

    /// Whether the head is the table of the embedding.
    fn is_tied(self) -> bool {
        self != Self::Qwen3Large
    }

    /// What an untrained norm holds: Gemma stores `w` and means `1 + w`.
    pub(super) fn norm(self) -> f32 {
        if self == Self::Gemma3 { 0.0 } else { 1.0 }
    }

    /// `config.json`, as published but for the number of layers, the dtype and the end tokens.
    pub(super) fn config(self, layers: Option<usize>, dtype: &str) -> Value {
        let s = self.sizes(layers);
        let special = self.special();
        let mut config = json!({
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": special.bos.unwrap_or(special.end).0,
            "eos_token_id": [special.stop.0, special.end.0],
            "head_dim": s.head_dim,
            "hidden_size": s.hidden,
            "initializer_range": 0.02,
            "intermediate_size": s.ffn,
            "num_attention_heads": s.heads,
            "num_hidden_layers": s.layers,
            "num_key_value_heads": s.kv_heads,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": self.is_tied(),
            "torch_dtype": dtype,
            "use_cache": true,
            "vocab_size": s.vocab,
        });
        let own = match self {
            Self::Qwen3 | Self::Qwen3Large | Self::Tiny => json!({
                "architectures": ["Qwen3ForCausalLM"],
                "model_type": "qwen3",
                "hidden_act": "silu",
                "max_position_embeddings": 40_960,
                "max_window_layers": s.layers,
                "rope_scaling": null,
                "rope_theta": 1_000_000,
                "sliding_window": null,
                "use_sliding_window": false,
                "transformers_version": "4.51.0",
            }),
            Self::Llama => json!({
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "hidden_act": "silu",
                "max_position_embeddings": 131_072,
                "mlp_bias": false,
                "pretraining_tp": 1,
                "rms_norm_eps": 1e-5,
                "rope_scaling": {
                    "factor": 32.0,
                    "high_freq_factor": 4.0,
                    "low_freq_factor": 1.0,
                    "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                },
                "rope_theta": 500_000.0,
                "transformers_version": "4.45.0",
            }),
            Self::Gemma3 => json!({
                "architectures": ["Gemma3ForCausalLM"],
                "model_type": "gemma3_text",
                "attn_logit_softcapping": null,
                "cache_implementation": "hybrid",
                "final_logit_softcapping": null,
                "hidden_activation": "gelu_pytorch_tanh",
                "max_position_embeddings": 32_768,
                "pad_token_id": 0,
                "query_pre_attn_scalar": 256,
                "rope_local_base_freq": 10_000,
                "rope_scaling": null,
                "rope_theta": 1_000_000,
                "sliding_window": 512,
                "sliding_window_pattern": 6,
                "transformers_version": "4.50.0",
            }),
        };
        let all = config.as_object_mut().expect("it was written as an object");
        all.extend(own.as_object().expect("it was written as an object").clone());
        config
    }

    /// How many weights it has.
    pub(crate) fn parameters(self, layers: Option<usize>) -> u64 {
        self.tensors(layers).iter().map(|t| t.shape.iter().product::<usize>() as u64).sum()
    }

    /// Every tensor, in the order of the file.
    pub(super) fn tensors(self, layers: Option<usize>) -> Vec<Tensor> {
        let s = self.sizes(layers);
        let (queries, keys) = (s.heads * s.head_dim, s.kv_heads * s.head_dim);
        let head_norms = self != Self::Llama;
        let mut all = vec![tensor("model.embed_tokens.weight", &[s.vocab, s.hidden])];
        for layer in 0..s.layers {
            let mut add = |name: &str, shape: &[usize]| {
                all.push(tensor(&format!("model.layers.{layer}.{name}.weight"), shape));
            };
            add("input_layernorm", &[s.hidden]);
            add("self_attn.q_proj", &[queries, s.hidden]);
            add("self_attn.k_proj", &[keys, s.hidden]);
            add("self_attn.v_proj", &[keys, s.hidden]);
            add("self_attn.o_proj", &[s.hidden, queries]);
            if head_norms {
                add("self_attn.q_norm", &[s.head_dim]);
                add("self_attn.k_norm", &[s.head_dim]);
            }
            add("post_attention_layernorm", &[s.hidden]);
            if self == Self::Gemma3 {
                add("pre_feedforward_layernorm", &[s.hidden]);
                add("post_feedforward_layernorm", &[s.hidden]);
            }
            add("mlp.gate_proj", &[s.ffn, s.hidden]);
            add("mlp.up_proj", &[s.ffn, s.hidden]);
            add("mlp.down_proj", &[s.hidden, s.ffn]);
        }
        all.push(tensor("model.norm.weight", &[s.hidden]));
        if !self.is_tied() {
            all.push(tensor("lm_head.weight", &[s.vocab, s.hidden]));
        }
        all
    }
}

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    Tensor { name: name.to_owned(), shape: shape.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_numbers_of_parameters() {
        for (shape, millions) in [
            (Shape::Qwen3, 596),
            (Shape::Qwen3Large, 8_191),
            (Shape::Llama, 1_236),
            (Shape::Gemma3, 1_000),
        ] {
            let parameters = shape.parameters(None);
            assert_eq!((parameters + 500_000) / 1_000_000, millions, "{}", shape.name());
        }
    }

    #[test]
    fn a_head_of_its_own_is_in_the_file_and_the_configuration_says_so() {
        for shape in [Shape::Qwen3, Shape::Qwen3Large] {
            let is_there = shape.tensors(Some(1)).iter().any(|t| t.name == "lm_head.weight");
            let tied = shape.config(Some(1), "bfloat16")["tie_word_embeddings"].as_bool();
            assert_eq!(tied, Some(!is_there), "{}", shape.name());
        }
    }
}
