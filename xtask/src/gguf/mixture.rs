//! Which matrices of a file have more bits than the others.

use super::names::Target;
use inference_text::gguf::GgmlType;

/// The type of a matrix where most are `ty`: in a file of `Q4_K`, the mixture that llama.cpp calls `Q4_K_M`
/// (`llama_tensor_get_type` of its `src/llama-quant.cpp`).
///
/// There a matrix that holds queries, keys and values would have five bits; here it has six.
pub(super) fn ty(name: &str, ty: GgmlType, targets: &[Target]) -> GgmlType {
    let is_head = match name {
        "output.weight" => true,
        "token_embd.weight" => !targets.iter().any(|t| t.name == "output.weight"),
        _ => false,
    };
    let layers = targets.iter().filter_map(|t| place(&t.name)).map(|(layer, _)| layer + 1).max();
    let has_more = match place(name) {
        Some((_, "attn_qkv.weight")) => true,
        Some((layer, "attn_v.weight" | "ffn_down.weight")) => {
            uses_more_bits(layer, layers.unwrap_or_default())
        }
        _ => false,
    };
    if ty == GgmlType::Q4_K && (is_head || has_more) { GgmlType::Q6_K } else { ty }
}

/// The layer of a tensor, and its name in it.
fn place(name: &str) -> Option<(usize, &str)> {
    let (layer, part) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, part))
}

/// `use_more_bits`: the first and the last eighth of the layers, and every third one between.
fn uses_more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_layers_have_more_bits() {
        let more: Vec<_> = (0..28).filter(|layer| uses_more_bits(*layer, 28)).collect();
        assert_eq!(more, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]);
        let more: Vec<_> = (0..3).filter(|layer| uses_more_bits(*layer, 3)).collect();
        assert_eq!(more, [2]);
    }
}
