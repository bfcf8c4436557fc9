//! The architectures of GGUF files, as data: which family each is, and what its tensors are called in Hugging Face's
//! layout.
//!
//! Names: `LLM_TENSOR_NAMES` of <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-arch.cpp>; which of them an
//! architecture has: `load_arch_tensors` in `src/models/*.cpp`.

use inference_core::{Error, Result};
use inference_text::gguf::Gguf;

/// One architecture.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// `general.architecture`.
    pub(crate) architecture: &'static str,
    /// `model_type` of the family.
    pub(super) model_type: &'static str,
    /// Which layers have a window.
    pub(super) windows: Windows,
    /// The window of a file that has none.
    pub(super) window: Option<u32>,
    /// Gemma's queries are divided by the root of the head's width; in the model of so many layers by that of the row's
    /// share.
    pub(super) large: Option<u32>,
    /// Whether numbers of a query's or key's head that rotate together are neighbours, and not half a head apart.
    pub(crate) interleaved: bool,
    /// A layer's tensors.
    layer: &'static [&'static [Part]],
}

/// Which layers have a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Windows {
    /// None, and a file can't ask for one.
    Refused,
    /// All, if a file has one; it is then of this `model_type`.
    Everywhere(&'static str),
    /// All but every so manieth.
    Every(u32),
}

/// A tensor of a layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Part {
    /// Its name in the file, behind `blk.<i>.`.
    pub(crate) file: &'static str,
    /// Its name in a checkpoint, behind `model.layers.<i>.`.
    pub(crate) name: &'static str,
    /// Whether it is a matrix, which may have a bias.
    pub(crate) matrix: bool,
}

const fn norm(file: &'static str, name: &'static str) -> Part {
    Part { file, name, matrix: false }
}

const fn matrix(file: &'static str, name: &'static str) -> Part {
    Part { file, name, matrix: true }
}

const ATTENTION: &[Part] = &[
    norm("attn_norm", "input_layernorm"),
    matrix("attn_q", "self_attn.q_proj"),
    matrix("attn_k", "self_attn.k_proj"),
    matrix("attn_v", "self_attn.v_proj"),
    matrix("attn_qkv", "self_attn.qkv_proj"),
    matrix("attn_output", "self_attn.o_proj"),
];

const HEAD_NORMS: &[Part] =
    &[norm("attn_q_norm", "self_attn.q_norm"), norm("attn_k_norm", "self_attn.k_norm")];

const FFN: &[Part] = &[
    matrix("ffn_gate", "mlp.gate_proj"),
    matrix("ffn_up", "mlp.up_proj"),
    matrix("ffn_down", "mlp.down_proj"),
];

const FUSED_FFN: &[Part] =
    &[matrix("ffn_up", "mlp.gate_up_proj"), matrix("ffn_down", "mlp.down_proj")];

const FFN_NORM: &[Part] = &[norm("ffn_norm", "post_attention_layernorm")];

const GEMMA_NORMS: &[Part] = &[
    norm("post_attention_norm", "post_attention_layernorm"),
    norm("ffn_norm", "pre_feedforward_layernorm"),
    norm("post_ffw_norm", "post_feedforward_layernorm"),
];

const LLAMA: Dialect = Dialect {
    architecture: "llama",
    model_type: "llama",
    windows: Windows::Everywhere("mistral"),
    window: None,
    large: None,
    interleaved: true,
    layer: &[ATTENTION, FFN_NORM, FFN],
};

/// All of them.
static ALL: [Dialect; 7] = [
    LLAMA,
    // Llama with windows, and with scales and sinks that must do nothing.
    Dialect { architecture: "granite_swa", ..LLAMA },
    Dialect {
        architecture: "qwen2",
        model_type: "qwen2",
        windows: Windows::Refused,
        interleaved: false,
        ..LLAMA
    },
    Dialect {
        architecture: "qwen3",
        model_type: "qwen3",
        windows: Windows::Refused,
        interleaved: false,
        layer: &[ATTENTION, HEAD_NORMS, FFN_NORM, FFN],
        ..LLAMA
    },
    Dialect {
        architecture: "gemma2",
        model_type: "gemma2",
        windows: Windows::Every(2),
        window: Some(4096),
        large: Some(46),
        interleaved: false,
        layer: &[ATTENTION, GEMMA_NORMS, FFN],
    },
    Dialect {
        architecture: "gemma3",
        model_type: "gemma3_text",
        windows: Windows::Every(6),
        window: None,
        large: Some(62),
        interleaved: false,
        layer: &[ATTENTION, HEAD_NORMS, GEMMA_NORMS, FFN],
    },
    Dialect {
        architecture: "phi3",
        model_type: "phi3",
        windows: Windows::Everywhere("phi3"),
        interleaved: false,
        layer: &[ATTENTION, FFN_NORM, FUSED_FFN],
        ..LLAMA
    },
];

impl Dialect {
    /// That of a file.
    ///
    /// # Errors
    /// [`Error::UnknownArchitecture`] with all that are known.
    pub(crate) fn of(gguf: &Gguf) -> Result<&'static Self> {
        let architecture = gguf.architecture()?;
        ALL.iter().find(|d| d.architecture == architecture).ok_or_else(|| {
            let known = ALL.iter().map(|d| d.architecture.to_owned()).collect();
            Error::UnknownArchitecture { model_type: architecture.to_owned(), known }
        })
    }

    /// The tensor of a layer that the file calls `name`, behind `blk.<i>.`.
    pub(crate) fn part(&self, name: &str) -> Option<Part> {
        self.layer.iter().copied().flatten().copied().find(|part| part.file == name)
    }
}
