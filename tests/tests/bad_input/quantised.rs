//! Quantised weights: formats that can't be read, and parts of MLX's that do not fit together.

use crate::support::{Breakage, Checkpoint, Expected, check_loading};
use serde_json::{Value, json};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const FILE: &str = "model.safetensors";

/// The error about a file.
pub(crate) const fn invalid<'a>(says: &'a [&'a str]) -> Expected<'a> {
    ("InvalidFile", says)
}

/// Sets the fields of a tensor's entry in the header.
pub(crate) fn tensor(checkpoint: &Checkpoint, name: &str, field: &str, value: Value) {
    checkpoint.header(|header| {
        assert!(header[name].is_object(), "there is no {name}");
        header[name][field] = value;
    });
}

/// Gives a tensor another name.
pub(crate) fn rename(checkpoint: &Checkpoint, from: &str, to: &str) {
    checkpoint.header_text(|header| {
        assert!(header.contains(from), "there is no {from}");
        header.replace(&format!("\"{from}\""), &format!("\"{to}\""))
    });
}

#[test]
fn a_format_that_is_not_read_is_named() {
    /// Says that the weights are quantised in a way that has this name.
    fn method(checkpoint: &Checkpoint, name: &str) {
        checkpoint.config(json!({"quantization_config": {"quant_method": name, "bits": 4}}));
    }
    let cases: &[Breakage<'_>] = &[
        (
            "bitsandbytes",
            |c| {
                c.config(json!({"quantization_config": {
                    "_load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}}));
            },
            invalid(&[CONFIG, "`quantization_config`", "bitsandbytes", "gptq"]),
        ),
        ("HQQ", |c| method(c, "hqq"), invalid(&[CONFIG, "hqq", "MLX"])),
        ("BitNet", |c| method(c, "bitnet"), invalid(&[CONFIG, "bitnet", "MLX"])),
        ("QuIP#", |c| method(c, "quip"), invalid(&[CONFIG, "quip", "MLX"])),
        ("gpt-oss", |c| method(c, "mxfp4"), invalid(&[CONFIG, "mxfp4", "MLX"])),
        (
            "a long name",
            |c| method(c, &"x".repeat(1 << 20)),
            invalid(&[CONFIG, "`quantization_config`", "xxx can't be read"]),
        ),
        (
            "compressed whole numbers",
            |c| {
                c.config(json!({"quantization_config": {
                    "quant_method": "compressed-tensors", "format": "pack-quantized"}}));
            },
            invalid(&[CONFIG, "`quantization_config.format`", "pack-quantized"]),
        ),
        (
            "compressed floats of four bits",
            |c| {
                c.config(json!({"quantization_config": {
                    "quant_method": "compressed-tensors", "format": "float-quantized",
                    "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "float"}}}}}));
            },
            invalid(&[CONFIG, "config_groups.group_0.weights.num_bits", "8"]),
        ),
        (
            "Marlin",
            |c| {
                c.config(json!({"quantization_config": {"quant_method": "gptq", "bits": 4,
                    "group_size": 128, "checkpoint_format": "marlin"}}));
            },
            invalid(&[CONFIG, "`quantization_config.checkpoint_format`", "marlin", "gptq_v2"]),
        ),
        (
            "AWQ for another kernel",
            |c| {
                c.config(json!({"quantization_config": {"quant_method": "awq", "bits": 4,
                    "group_size": 128, "version": "gemv"}}));
            },
            invalid(&[CONFIG, "`quantization_config.version`", "gemv", "gemm"]),
        ),
        (
            "GPTQ of five bits",
            |c| {
                c.config(json!({"quantization_config": {"quant_method": "gptq", "bits": 5,
                    "group_size": 128}}));
            },
            invalid(&[CONFIG, "`quantization_config.bits`", "5", "[2, 3, 4, 8]"]),
        ),
        (
            "another 8-bit float",
            |c| {
                c.config(json!({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}}));
            },
            invalid(&[CONFIG, "`quantization_config.fmt`", "e5m2", "e4m3"]),
        ),
        (
            "blocks of nothing",
            |c| {
                c.config(json!({"quantization_config": {"quant_method": "fp8",
                    "weight_block_size": [0, 128]}}));
            },
            invalid(&[CONFIG, "`quantization_config.weight_block_size`"]),
        ),
        (
            "another mode of MLX",
            |c| {
                c.config(json!({"quantization": {"mode": "mxfp2", "bits": 2, "group_size": 32}}));
            },
            invalid(&[CONFIG, "`quantization.mode`", "mxfp2", "nvfp4"]),
        ),
        (
            "MLX's single bits",
            |c| c.config(json!({"quantization": {"bits": 1, "group_size": 32}})),
            invalid(&[CONFIG, "`quantization.bits` is 1", "affine"]),
        ),
        (
            "groups of MLX that there are not",
            |c| c.config(json!({"quantization": {"bits": 4, "group_size": 48}})),
            invalid(&[CONFIG, "`quantization.group_size` is 48", "affine"]),
        ),
        (
            "a module with other bits",
            |c| {
                c.config(json!({"quantization": {"bits": 4, "group_size": 64,
                    "model.layers.0.mlp.up_proj": {"bits": 9}}}));
            },
            invalid(&[CONFIG, "`quantization.model.layers.0.mlp.up_proj.bits` is 9"]),
        ),
        (
            "no groups",
            |c| c.config(json!({"quantization_config": {"bits": 4}})),
            invalid(&[CONFIG, "`quantization_config.group_size` is missing"]),
        ),
        (
            "not an object",
            |c| c.config(json!({"quantization_config": true})),
            invalid(&[CONFIG, "`quantization_config`", "an object"]),
        ),
    ];
    check_loading("qwen3", cases);
}

#[test]
fn parts_of_mlx_that_do_not_fit_are_an_error() {
    const MODULE: &str = "model.layers.0.self_attn.q_proj";
    const WEIGHT: &str = "model.layers.0.self_attn.q_proj.weight";
    const SCALES: &str = "model.layers.0.self_attn.q_proj.scales";
    const BIASES: &str = "model.layers.0.self_attn.q_proj.biases";
    let cases: &[Breakage<'_>] = &[
        ("no scales", |c| rename(c, SCALES, "lost"), ("MissingTensor", &[SCALES])),
        ("no biases", |c| rename(c, BIASES, "lost"), ("MissingTensor", &[BIASES])),
        ("no weight", |c| rename(c, WEIGHT, "lost"), ("MissingTensor", &[WEIGHT])),
        (
            "other bits than it says",
            |c| c.config(json!({"quantization": {MODULE: {"bits": 8, "group_size": 64}}})),
            invalid(&[FILE, WEIGHT, "which would be 4 bits", "mlx affine of 8 bits"]),
        ),
        (
            "other groups than it says",
            |c| c.config(json!({"quantization": {MODULE: {"bits": 4, "group_size": 128}}})),
            invalid(&[FILE, WEIGHT, "which would be 2 bits", "in groups of 128"]),
        ),
        (
            "the same shape as it says, but not the model's",
            |c| c.config(json!({"quantization": {MODULE: {"bits": 8, "group_size": 32}}})),
            invalid(&[WEIGHT, "[128, 64]", "[128, 128]"]),
        ),
        (
            "not quantised, it says",
            |c| c.config(json!({"quantization": {MODULE: false}})),
            invalid(&[FILE, SCALES, "not quantised"]),
        ),
        (
            "another mode than it says",
            |c| {
                c.config(json!({"quantization": {MODULE: {"mode": "mxfp4"}}}));
                tensor(c, SCALES, "shape", json!([128, 4]));
                tensor(c, SCALES, "dtype", json!("I8"));
            },
            invalid(&[FILE, SCALES, "I8", "mlx mxfp4 of 4 bits in groups of 32"]),
        ),
        (
            "numbers of another type",
            |c| tensor(c, WEIGHT, "dtype", json!("I32")),
            invalid(&[FILE, WEIGHT, "I32", "U32"]),
        ),
        (
            "scales of another type",
            |c| tensor(c, SCALES, "dtype", json!("I16")),
            invalid(&[FILE, SCALES, "I16", "mlx affine of 4 bits"]),
        ),
        (
            "biases of another type than scales",
            |c| tensor(c, BIASES, "dtype", json!("BF16")),
            invalid(&[FILE, WEIGHT, "must have the same type"]),
        ),
        (
            "scales transposed",
            |c| tensor(c, SCALES, "shape", json!([2, 128])),
            invalid(&[FILE, SCALES, "has 2 rows", "128"]),
        ),
        (
            "biases transposed",
            |c| tensor(c, BIASES, "shape", json!([2, 128])),
            invalid(&[FILE, WEIGHT, "biases [2, 128]"]),
        ),
        (
            "scales in a row",
            |c| tensor(c, SCALES, "shape", json!([256])),
            invalid(&[FILE, SCALES, "1 dimensions"]),
        ),
        (
            "weights in three dimensions",
            |c| tensor(c, WEIGHT, "shape", json!([1, 128, 16])),
            invalid(&[FILE, WEIGHT, "3 dimensions"]),
        ),
        (
            "sizes beyond all bounds, of nothing",
            |c| {
                // 0 bytes: what follows keeps its place.
                let (end, most) = (offset(c, WEIGHT, 0), u64::MAX >> 4);
                c.header(|header| {
                    header[WEIGHT]["shape"] = json!([0, most]);
                    header["rest"] = json!({"dtype": "U32", "shape": [2048],
                        "data_offsets": header[WEIGHT]["data_offsets"]});
                    header[WEIGHT]["data_offsets"] = json!([end, end]);
                });
                let scales = offset(c, SCALES, 0);
                c.header(|header| {
                    header[SCALES]["shape"] = json!([0, most]);
                    header["more"] = json!({"dtype": "F16", "shape": [256],
                        "data_offsets": header[SCALES]["data_offsets"]});
                    header[SCALES]["data_offsets"] = json!([scales, scales]);
                });
            },
            invalid(&[FILE, WEIGHT, "words a row"]),
        ),
        (
            "an embedding without scales",
            |c| rename(c, "model.embed_tokens.scales", "lost"),
            ("MissingTensor", &["model.embed_tokens.scales"]),
        ),
        (
            "no configuration of it",
            |c| {
                c.without("quantization");
                c.without("quantization_config");
            },
            invalid(&[FILE, "model.embed_tokens.weight", "U32"]),
        ),
    ];
    check_loading("quantised/mlx", cases);
}

/// Where a tensor begins (0) or ends (1).
fn offset(checkpoint: &Checkpoint, name: &str, end: usize) -> u64 {
    let (header, _) = checkpoint.parts();
    let header: Value = serde_json::from_str(&header).expect("is JSON");
    header[name]["data_offsets"][end].as_u64().expect("is a number")
}
