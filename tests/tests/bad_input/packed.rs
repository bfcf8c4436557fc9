//! GPTQ, AWQ, FP8 and blocks of small floats, whose parts do not fit together.

use crate::{
    quantised::{CONFIG, FILE, invalid, rename, tensor},
    support::{Breakage, Checkpoint, Expected, check, check_loading, within_limits},
};
use inference_engine::{
    config::Config,
    weights::{Folder, Weights},
};
use serde_json::{Value, json};
use std::fs;

const QWEIGHT: &str = "model.layers.0.self_attn.q_proj.qweight";
const QZEROS: &str = "model.layers.0.self_attn.q_proj.qzeros";
const GROUP_SCALES: &str = "model.layers.0.self_attn.q_proj.scales";
const G_IDX: &str = "model.layers.0.self_attn.q_proj.g_idx";

/// Sets fields of `quantization_config`.
fn settings(checkpoint: &Checkpoint, fields: Value) {
    checkpoint.config(json!({"quantization_config": fields}));
}

#[test]
fn parts_of_gptq_that_do_not_fit_are_an_error() {
    /// Writes the group of each input.
    fn groups(checkpoint: &Checkpoint, of: fn(usize) -> i32) {
        checkpoint.overwrite(
            |name| name == G_IDX,
            |bytes| {
                for (i, bytes) in bytes.chunks_exact_mut(4).enumerate() {
                    bytes.copy_from_slice(&of(i).to_le_bytes());
                }
            },
        );
    }
    let cases: &[Breakage<'_>] = &[
        ("no scales", |c| rename(c, GROUP_SCALES, "lost"), ("MissingTensor", &[GROUP_SCALES])),
        ("no zeros", |c| rename(c, QZEROS, "lost"), ("MissingTensor", &[QZEROS])),
        ("no numbers", |c| rename(c, QWEIGHT, "lost"), ("MissingTensor", &["q_proj.weight"])),
        (
            "other bits than it says",
            |c| settings(c, json!({"bits": 8})),
            invalid(&[FILE, QZEROS, "16 words a row for 128 outputs", "gptq of 8 bits"]),
        ),
        (
            "other groups than it says",
            |c| settings(c, json!({"group_size": 64})),
            invalid(&[FILE, GROUP_SCALES, "groups of 32", "gptq of 4 bits in groups of 64"]),
        ),
        (
            "one group, it says",
            |c| settings(c, json!({"group_size": -1})),
            invalid(&[FILE, GROUP_SCALES, "groups of 32", "in one group a row"]),
        ),
        (
            "other bits, and no word on that",
            |c| {
                settings(c, json!({"dynamic": {"+:.*": {"bits": 5}}}));
                tensor(c, QZEROS, "shape", json!([16, 4]));
            },
            invalid(&[FILE, QZEROS, "4 words a row"]),
        ),
        (
            "numbers of another type",
            |c| tensor(c, QWEIGHT, "dtype", json!("F32")),
            invalid(&[FILE, QWEIGHT, "F32", "gptq of 4 bits in groups of 32 has I32"]),
        ),
        (
            "scales of another type",
            |c| tensor(c, GROUP_SCALES, "dtype", json!("I16")),
            invalid(&[FILE, GROUP_SCALES, "I16", "gptq"]),
        ),
        (
            "numbers transposed",
            |c| tensor(c, QWEIGHT, "shape", json!([128, 16])),
            invalid(&[FILE, QZEROS, "for 16 outputs"]),
        ),
        (
            "numbers in three dimensions",
            |c| tensor(c, QWEIGHT, "shape", json!([16, 2, 64])),
            invalid(&[FILE, QWEIGHT, "3 dimensions"]),
        ),
        (
            "zeros for other groups",
            |c| {
                tensor(c, QZEROS, "shape", json!([2, 32]));
                tensor(c, QWEIGHT, "shape", json!([8, 256]));
            },
            invalid(&[FILE, GROUP_SCALES, "128 columns", "256"]),
        ),
        (
            "scales for other outputs",
            |c| tensor(c, GROUP_SCALES, "shape", json!([2, 256])),
            invalid(&[FILE, GROUP_SCALES, "256 columns", "128"]),
        ),
        (
            "inputs that fill no words",
            |c| {
                tensor(c, QWEIGHT, "shape", json!([2048, 1]));
                tensor(c, QZEROS, "shape", json!([64, 1]));
                settings(c, json!({"dynamic": {"+:.*": {}}}));
            },
            invalid(&[FILE, QZEROS, "1 words a row for 1 outputs"]),
        ),
        (
            "a group that there is not",
            |c| groups(c, |i| if i == 77 { 4 } else { i as i32 / 32 }),
            invalid(&[FILE, G_IDX, "group 4", "there are 4"]),
        ),
        (
            "a group below the first",
            |c| groups(c, |i| if i == 77 { i32::MIN } else { i as i32 / 32 }),
            invalid(&[FILE, G_IDX, "group -2147483648"]),
        ),
        (
            "groups of different sizes",
            |c| groups(c, |i| if i == 77 { 1 } else { i as i32 / 32 }),
            invalid(&[FILE, G_IDX, "a group of 33 inputs"]),
        ),
        (
            "groups of another type",
            |c| tensor(c, G_IDX, "dtype", json!("F32")),
            invalid(&[FILE, G_IDX, "must be I32 of shape [128]"]),
        ),
        (
            "words of another length",
            |c| settings(c, json!({"pack_dtype": "int64"})),
            invalid(&[CONFIG, "`quantization_config.pack_dtype`", "int64", "int32"]),
        ),
        (
            "no bits",
            |c| settings(c, json!({"bits": null})),
            invalid(&[CONFIG, "`quantization_config.bits` is missing"]),
        ),
        (
            "groups of nothing",
            |c| settings(c, json!({"group_size": 0})),
            invalid(&[CONFIG, "`quantization_config.group_size`"]),
        ),
    ];
    check_loading("quantised/gptq-act-order", cases);
}

#[test]
fn parts_of_awq_that_do_not_fit_are_an_error() {
    let cases: &[Breakage<'_>] = &[
        ("no scales", |c| rename(c, GROUP_SCALES, "lost"), ("MissingTensor", &[GROUP_SCALES])),
        ("no zeros", |c| rename(c, QZEROS, "lost"), ("MissingTensor", &[QZEROS])),
        (
            "other groups than it says",
            |c| settings(c, json!({"group_size": 128})),
            invalid(&[FILE, GROUP_SCALES, "groups of 64", "awq of 4 bits in groups of 128"]),
        ),
        (
            "numbers transposed",
            |c| tensor(c, QWEIGHT, "shape", json!([16, 128])),
            invalid(&[FILE, GROUP_SCALES, "128 columns", "1024"]),
        ),
        (
            "numbers of another type",
            |c| tensor(c, QWEIGHT, "dtype", json!("F32")),
            invalid(&[FILE, QWEIGHT, "F32", "awq"]),
        ),
        (
            "zeros for other groups",
            |c| tensor(c, QZEROS, "shape", json!([1, 32])),
            invalid(&[FILE, QZEROS, "[1, 32]", "[2, 16]"]),
        ),
        (
            "scales of another type",
            |c| tensor(c, GROUP_SCALES, "dtype", json!("U16")),
            invalid(&[FILE, GROUP_SCALES, "U16", "awq"]),
        ),
        (
            "eight bits",
            |c| settings(c, json!({"bits": 8})),
            invalid(&[CONFIG, "`quantization_config.bits` is 8"]),
        ),
    ];
    check_loading("quantised/awq", cases);
}

#[test]
fn parts_of_fp8_that_do_not_fit_are_an_error() {
    const WEIGHT: &str = "model.layers.0.self_attn.q_proj.weight";
    const SCALES: &str = "model.layers.0.self_attn.q_proj.weight_scale_inv";
    /// Writes a number in place of every scale.
    fn scale(checkpoint: &Checkpoint, number: f32) {
        checkpoint.overwrite(
            |name| name == SCALES,
            |bytes| {
                bytes.chunks_exact_mut(4).for_each(|b| b.copy_from_slice(&number.to_le_bytes()))
            },
        );
    }
    let cases: &[Breakage<'_>] = &[
        ("no scales", |c| rename(c, SCALES, "lost"), ("MissingTensor", &[SCALES])),
        ("no numbers", |c| rename(c, WEIGHT, "lost"), ("MissingTensor", &[WEIGHT])),
        (
            "the other 8-bit float",
            |c| tensor(c, WEIGHT, "dtype", json!("F8_E5M2")),
            invalid(&[FILE, WEIGHT, "F8_E5M2", "F8_E4M3"]),
        ),
        (
            "whole numbers",
            |c| tensor(c, WEIGHT, "dtype", json!("I8")),
            invalid(&[FILE, WEIGHT, "I8", "F8_E4M3"]),
        ),
        (
            "scales of another type",
            |c| tensor(c, SCALES, "dtype", json!("I32")),
            invalid(&[FILE, SCALES, "I32", "F8_E8M0"]),
        ),
        (
            "scales transposed",
            |c| tensor(c, SCALES, "shape", json!([1, 2])),
            invalid(&[FILE, SCALES, "[1, 2]", "[2, 1]", "blocks of [128, 128]"]),
        ),
        (
            "other blocks than it says",
            |c| settings(c, json!({"weight_block_size": [64, 64]})),
            invalid(&[FILE, SCALES, "[2, 1]", "[4, 2]"]),
        ),
        (
            "three sizes of a block",
            |c| settings(c, json!({"weight_block_size": [64, 64, 1]})),
            invalid(&[CONFIG, "`quantization_config.weight_block_size`", "2 entries"]),
        ),
        (
            "half a block",
            |c| settings(c, json!({"weight_block_size": [0.5, 128]})),
            invalid(&[CONFIG, "`quantization_config.weight_block_size`", "whole"]),
        ),
        ("a scale that is no number", |c| scale(c, f32::NAN), invalid(&[FILE, SCALES, "NaN"])),
        ("an endless scale", |c| scale(c, f32::INFINITY), invalid(&[FILE, SCALES, "inf"])),
    ];
    check_loading("quantised/fp8", cases);
}

#[test]
fn blocks_of_small_floats_that_do_not_fit_are_an_error() {
    const MODULE: &str = "model.layers.0.self_attn.q_proj";
    const SCALES: &str = "model.layers.0.self_attn.q_proj.scales";
    /// Writes a byte in place of every scale.
    fn scale(checkpoint: &Checkpoint, byte: u8) {
        checkpoint.overwrite(|name| name == SCALES, |bytes| bytes.fill(byte));
    }
    /// The mode, the group, a name, what it breaks, and the error.
    type Case<'a> = (&'a str, usize, &'a str, fn(&Checkpoint), Expected<'a>);
    let cases: &[Case<'_>] = &[
        ("mxfp4", 32, "no scales", |c| rename(c, SCALES, "lost"), ("MissingTensor", &[SCALES])),
        (
            "mxfp4",
            32,
            "a scale that is no number",
            |c| scale(c, 255),
            invalid(&[SCALES, "byte 255", "mlx mxfp4"]),
        ),
        (
            "mxfp4",
            32,
            "a scale beyond all numbers",
            |c| scale(c, 253),
            invalid(&[SCALES, "byte 253", "mlx mxfp4"]),
        ),
        (
            "nvfp4",
            16,
            "a scale that is no number",
            |c| scale(c, 0xff),
            invalid(&[SCALES, "byte 255", "mlx nvfp4"]),
        ),
        (
            "mxfp8",
            32,
            "a scale that is no number",
            |c| scale(c, 255),
            invalid(&[SCALES, "byte 255", "mlx mxfp8"]),
        ),
        (
            "nvfp4",
            16,
            "scales of another type",
            |c| tensor(c, SCALES, "dtype", json!("I8")),
            invalid(&[SCALES, "I8", "U8"]),
        ),
        (
            "nvfp4",
            16,
            "a global scale that is no single number",
            |c| {
                rename(
                    c,
                    "model.layers.0.self_attn.q_norm.weight",
                    &format!("{MODULE}.global_scale"),
                )
            },
            invalid(&["q_proj.global_scale", "one number"]),
        ),
        (
            "mxfp4",
            32,
            "other bits than it says",
            |c| c.config(json!({"quantization": {"mode": "mxfp8", "bits": 8}})),
            invalid(&["q_proj.weight", "4 bits", "mlx mxfp8 of 8 bits"]),
        ),
    ];
    for &(mode, group, name, break_it, expected) in cases {
        let checkpoint = Checkpoint::of("quantised/grid");
        let bits = if mode == "mxfp8" { 8 } else { 4 };
        checkpoint
            .config(json!({"quantization": {"mode": mode, "bits": bits, "group_size": group}}));
        let file = checkpoint.path().join(format!("{mode}.safetensors"));
        fs::rename(file, checkpoint.path().join(FILE)).expect("is there");
        break_it(&checkpoint);
        let path = checkpoint.path().to_owned();
        let result = within_limits(name, move || {
            Folder::open(&path, &Config::open(&path)?)?.matrix(MODULE).map(drop)
        });
        check(&format!("{mode}: {name}"), result, expected);
    }
}
