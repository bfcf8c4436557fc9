//! Files: which tensors have a place, and what is wrong with others.

use super::super::*;
use inference_text::gguf::Writer;
use std::fs;

const ROWS: [&str; 12] = [
    "blk.0.attn_q.weight",
    "blk.0.attn_k.weight",
    "blk.0.attn_v.weight",
    "blk.0.attn_output.weight",
    "blk.0.ffn_gate.weight",
    "blk.0.ffn_up.weight",
    "blk.0.ffn_down.weight",
    "token_embd.weight",
    "blk.0.attn_q.bias",
    "blk.0.attn_norm.weight",
    "blk.0.ffn_norm.weight",
    "output_norm.weight",
];

/// A file of an architecture with one layer, four heads of 8 and 32 columns, whose tensors are all 32 × 32 of `ty` (or
/// 32 of f32, where a name is that of a vector), and which has `more` tensors.
fn file(architecture: &str, ty: GgmlType, more: &[(&str, &[u64], GgmlType)]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.set("general.architecture", architecture);
    for (key, number) in [
        ("context_length", 64_u32),
        ("embedding_length", 32),
        ("block_count", 1),
        ("feed_forward_length", 32),
        ("vocab_size", 32),
        ("attention.head_count", 4),
    ] {
        writer.set(format!("{architecture}.{key}"), number);
    }
    let mut sizes = Vec::new();
    let own = ROWS.iter().map(|name| match name.contains("norm") || name.ends_with("bias") {
        true => (*name, &[32_u64][..], GgmlType::F32),
        false => (*name, &[32, 32][..], ty),
    });
    for (name, dims, ty) in own.chain(more.iter().copied()) {
        writer.tensor(name, dims, ty);
        sizes.push(ty.bytes(dims).unwrap() as usize);
    }
    let mut bytes = Vec::new();
    // Element `i` of a vector of f32 is `i`; of other tensors only the bytes matter.
    let data = |i: usize, out: &mut dyn std::io::Write| {
        let numbers = (0..sizes[i] as u32 / 4).map(|i| (i as f32).to_le_bytes());
        let mut all = numbers.collect::<Vec<_>>().concat();
        all.resize(sizes[i], 0);
        out.write_all(&all)
    };
    writer.write(&mut bytes, data).unwrap();
    bytes
}

fn open(bytes: &[u8]) -> Result<GgufWeights> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::write(&path, bytes).unwrap();
    GgufWeights::open(&Gguf::open(&path)?)
}

fn error(bytes: &[u8]) -> String {
    open(bytes).unwrap_err().to_string()
}

#[test]
fn tensors_have_the_names_and_the_order_of_a_folder() {
    let weights = open(&file("llama", GgmlType::F32, &[])).unwrap();
    let mut names: Vec<_> = weights.names().collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.mlp.down_proj.weight",
            "model.layers.0.mlp.gate_proj.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.0.post_attention_layernorm.weight",
            "model.layers.0.self_attn.k_proj.weight",
            "model.layers.0.self_attn.o_proj.weight",
            "model.layers.0.self_attn.q_proj.bias",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.self_attn.v_proj.weight",
            "model.norm.weight",
        ]
    );
    let bias = weights.get("model.layers.0.self_attn.q_proj.bias").unwrap().to_f32();
    assert_eq!(bias[..9], [0., 2., 4., 6., 1., 3., 5., 7., 8.]);
    let q = weights.get("model.layers.0.self_attn.q_proj.weight").unwrap().to_f32();
    assert_eq!(q[..2], [0., 1.]);
    assert_eq!(q[32..34], [64., 65.]);
    let v = weights.get("model.layers.0.self_attn.v_proj.weight").unwrap().to_f32();
    assert_eq!(v[32], 32.);
    assert_eq!(
        (weights.parameters(), weights.bytes()),
        (8 * 1024 + 4 * 32, 4 * (8 * 1024 + 4 * 32))
    );
    assert_eq!(weights.quantisation(), None);

    // In the other architectures nothing is turned.
    let weights = open(&file("qwen2", GgmlType::F32, &[])).unwrap();
    let q = weights.get("model.layers.0.self_attn.q_proj.weight").unwrap().to_f32();
    assert_eq!(q[32..34], [32., 33.]);
}

#[test]
fn quantised_matrices_are_affine_and_vectors_are_not() {
    let weights = open(&file("qwen2", GgmlType::Q4_0, &[])).unwrap();
    let Matrix::Affine(embedding) = weights.matrix("model.embed_tokens").unwrap() else {
        panic!("it is quantised")
    };
    assert_eq!((embedding.bits(), embedding.group(), embedding.rows()), (4, 32, 32));
    assert_eq!(weights.kind("model.embed_tokens").unwrap().dtype, DType::F16);
    let found = weights.get("model.embed_tokens.weight").unwrap_err().to_string();
    assert!(found.contains("`token_embd.weight` is stored as Q4_0"), "{found}");
    assert_eq!(weights.quantisation().map(|q| (q.bits, q.group_size)), Some((4, Some(32))));
    // Eight matrices of 1024 numbers: half a byte each, and 4 bytes for every 32.
    assert_eq!(weights.bytes(), 8 * (512 + 128) + 4 * 4 * 32);
    assert_eq!(weights.parameters(), 8 * 1024 + 4 * 32);
    let missing = weights.matrix("model.layers.1.mlp.up_proj").unwrap_err().to_string();
    assert!(missing.contains("model.layers.1.mlp.up_proj.weight"), "{missing}");
    assert!(weights.has("model.norm.weight") && !weights.has("lm_head.weight"));
    weights.release("model.embed_tokens");
    assert!(weights.matrix("model.embed_tokens").is_ok());
}

#[test]
fn what_has_no_place_is_named() {
    let f32 = GgmlType::F32;
    for (name, dims) in [
        ("blk.1.attn_q.weight", &[32, 32][..]),
        ("blk.+0.attn_q.weight", &[32, 32]),
        ("blk.00.attn_q.weight", &[32, 32]),
        ("blk.0.attn_q.scale", &[1]),
        ("blk.0.attn_norm.bias", &[32]),
        ("blk.0.attn_q_norm.weight", &[8]),
        ("blk.0.ffn_gate_exps.weight", &[32, 32, 2]),
        ("blk.0.attn_sinks.weight", &[4]),
        ("cls.output.weight", &[32, 2]),
        ("token_embd.bias", &[32]),
        ("weight", &[32]),
    ] {
        let found = error(&file("llama", f32, &[(name, dims, f32)]));
        assert!(found.contains(&format!("tensor `{name}` has no place in this model")), "{found}");
    }
    for (name, dims) in [
        ("output.weight", &[32, 32][..]),
        ("output.bias", &[32]),
        ("rope_freqs.weight", &[4]),
        ("blk.0.attn_rot_embd.weight", &[4]),
        ("blk.0.ffn_down.bias", &[32]),
    ] {
        assert!(open(&file("llama", f32, &[(name, dims, f32)])).is_ok(), "{name}");
    }
}

#[test]
fn a_type_that_is_not_linear_is_named() {
    let more = [("output.weight", &[256, 32][..], GgmlType::IQ2_XXS)];
    let found = error(&file("llama", GgmlType::F32, &more));
    assert!(found.contains("tensor `output.weight` is stored as IQ2_XXS"), "{found}");
    assert!(found.contains("F32, F16, Q4_0") && found.contains("Q6_K"), "{found}");
    let more = [("output.weight", &[32, 32][..], GgmlType::I32)];
    assert!(error(&file("llama", GgmlType::F32, &more)).contains("stored as I32"));
    // Fewer rows than its heads have.
    let more = [("blk.0.attn_qkv.weight", &[32, 32][..], GgmlType::F32)];
    let found = error(&file("llama", GgmlType::F32, &more));
    assert!(found.contains("has shape [32, 32], but 64 rows of heads"), "{found}");
}

#[test]
fn a_file_that_was_cut_is_an_error() {
    let whole = file("llama", GgmlType::Q8_0, &[]);
    for len in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        assert!(open(&whole[..len]).is_err(), "{len} bytes");
    }
}
