//! Keys that change the result and aren't implemented: a file may have them as long as they say nothing.

use super::{attention, number};
use inference_core::Result;
use inference_text::gguf::Gguf;

/// Numbers of an architecture, each with the values that change nothing.
const NUMBERS: [(&str, &[f64]); 19] = [
    ("attention.clamp_kqv", &[0.0]),
    ("attention.max_alibi_bias", &[0.0]),
    ("attention.output_scale", &[0.0, 1.0]),
    ("attention.shared_kv_layers", &[0.0]),
    ("attention.temperature_scale", &[0.0]),
    ("attention.value_scale", &[0.0, 1.0]),
    ("embedding_length_per_layer_input", &[0.0]),
    ("embedding_scale", &[0.0, 1.0]),
    ("expert_count", &[0.0, 1.0]),
    ("leading_dense_block_count", &[0.0]),
    ("logit_scale", &[0.0, 1.0]),
    ("n_deepstack_layers", &[0.0]),
    ("nextn_predict_layers", &[0.0]),
    ("num_loops", &[0.0, 1.0]),
    ("residual_scale", &[0.0, 1.0]),
    ("rope.scaling.alpha", &[0.0, 1.0]),
    ("rope.scaling.yarn_attn_factor", &[1.0]),
    ("rope.scaling.yarn_ext_factor", &[-1.0, 1.0]),
    ("router_logit_softcapping", &[0.0]),
];

/// Flags of an architecture, each with the value that changes nothing.
const FLAGS: [(&str, bool); 2] = [("attention.causal", true), ("use_parallel_residual", false)];

/// Refuses a file that says more with them.
///
/// # Errors
/// [`InvalidFile`](inference_core::Error::InvalidFile) with the key.
pub(super) fn check(gguf: &Gguf) -> Result<()> {
    let refuse = |name: &str, value: &dyn std::fmt::Display| {
        Err(gguf.wrong(
            &gguf.architecture_key(name)?,
            format_args!("is {value}; that is not supported"),
        ))
    };
    for (name, neutral) in NUMBERS {
        match number(gguf, name)? {
            Some(value) if !neutral.contains(&value) => return refuse(name, &value),
            _ => {}
        }
    }
    for (name, neutral) in FLAGS {
        match gguf.get::<bool>(&gguf.architecture_key(name)?)? {
            Some(value) if value != neutral => return refuse(name, &value),
            _ => {}
        }
    }
    let name = "attention.rope_pattern";
    let pattern = gguf.get::<Vec<u32>>(&gguf.architecture_key(name)?)?;
    if pattern.is_some_and(|layers| layers.contains(&0)) {
        return refuse(name, &"not the same in all layers");
    }
    let head = f64::from(attention(gguf)?.key_len);
    let name = "attention.scale";
    if let Some(scale) = number(gguf, name)? {
        let usual = head.powf(-0.5);
        if scale != 0.0 && (scale - usual).abs() > 1e-6 * usual {
            return refuse(name, &scale);
        }
    }
    for name in ["attention.key_length_swa", "attention.value_length_swa"] {
        match number(gguf, name)? {
            Some(value) if value != head => return refuse(name, &value),
            _ => {}
        }
    }
    Ok(())
}
