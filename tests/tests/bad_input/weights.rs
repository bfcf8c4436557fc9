//! Safetensors files and their index.

use crate::support::{Breakage, Checkpoint, Expected, check, check_loading, within_limits};
use inference::{LoadOptions, load_model};
use serde_json::{Value, json};

const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// The error about the file with the weights.
const fn invalid<'a>(says: &'a [&'a str]) -> Expected<'a> {
    ("InvalidFile", says)
}

/// Sets the fields of the head's entry in the header.
fn head(checkpoint: &Checkpoint, field: &str, value: Value) {
    checkpoint.header(|header| header[HEAD][field] = value);
}

#[test]
fn a_damaged_header_is_an_error() {
    let cases: &[Breakage<'_>] = &[
        ("empty file", |c| c.write(FILE, ""), invalid(&[FILE, "shorter than the 8 bytes"])),
        (
            "half a length",
            |c| c.write(FILE, [1, 0, 0]),
            invalid(&[FILE, "shorter than the 8 bytes"]),
        ),
        ("garbage", |c| c.write(FILE, [0xa5; 4096]), invalid(&[FILE, "header claims"])),
        (
            "git-lfs pointer",
            |c| c.write(FILE, "version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
            invalid(&[FILE, "git lfs pull"]),
        ),
        (
            "header longer than the file",
            |c| c.write(FILE, [&5000u64.to_le_bytes()[..], b"{}"].concat()),
            invalid(&[FILE, "claims 5000 bytes, but only 2 follow"]),
        ),
        (
            "header of 2^64 - 1 bytes",
            |c| c.write(FILE, [0xff; 64]),
            invalid(&[FILE, "header claims 18446744073709551615"]),
        ),
        (
            "header is not JSON",
            |c| c.header_text(|h| h.replacen('{', "(", 1)),
            invalid(&[FILE, "header is invalid"]),
        ),
        (
            "header is not text",
            |c| c.write(FILE, [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()),
            invalid(&[FILE, "header is invalid"]),
        ),
        (
            "header is a list",
            |c| c.header_text(|_| "[]".to_owned()),
            invalid(&[FILE, "an object of tensors"]),
        ),
        (
            "header nests endlessly",
            |c| c.header_text(|_| format!("{{\"a\":{}", "[".repeat(100_000))),
            invalid(&[FILE, "header is invalid"]),
        ),
        ("tensor is no object", |c| c.header(|h| h[HEAD] = json!(1)), invalid(&[FILE, HEAD])),
        (
            "no dtype",
            |c| {
                c.header(|h| {
                    h[HEAD].as_object_mut().expect("is").shift_remove("dtype");
                })
            },
            invalid(&[FILE, HEAD, "dtype"]),
        ),
        (
            "unknown dtype",
            |c| head(c, "dtype", json!("Q17")),
            invalid(&[FILE, HEAD, "Q17", "BF16"]),
        ),
        (
            "dtype we can't compute with",
            |c| head(c, "dtype", json!("I16")),
            invalid(&[FILE, HEAD, "I16", "BF16"]),
        ),
        (
            "dtype of another width",
            |c| head(c, "dtype", json!("F32")),
            invalid(&[FILE, HEAD, "[520, 64]", "F32"]),
        ),
        (
            "negative range",
            |c| head(c, "data_offsets", json!([-4, 66_556])),
            invalid(&[FILE, HEAD]),
        ),
        (
            "range backwards",
            |c| head(c, "data_offsets", json!([66_560, 0])),
            invalid(&[FILE, HEAD, "before its begin"]),
        ),
        (
            "range beyond the file",
            |c| head(c, "data_offsets", json!([0, u64::MAX])),
            invalid(&[FILE, HEAD]),
        ),
        (
            "ranges overlap",
            |c| c.header(|h| h["model.norm.weight"]["data_offsets"] = json!([0, 128])),
            invalid(&[FILE, "within another"]),
        ),
        (
            "hole before a tensor",
            |c| {
                c.header(|h| {
                    h.as_object_mut().expect("is").shift_remove("model.embed_tokens.weight");
                })
            },
            invalid(&[FILE, "hole"]),
        ),
        (
            "shape overflows",
            |c| head(c, "shape", json!([u32::MAX, u32::MAX, 2])),
            invalid(&[FILE, HEAD, "overflows"]),
        ),
        ("size beyond 64 bits", |c| head(c, "shape", json!([1e30])), invalid(&[FILE, HEAD])),
        ("negative size", |c| head(c, "shape", json!([-520, -64])), invalid(&[FILE, HEAD])),
        (
            "million sizes",
            |c| head(c, "shape", json!(vec![1; 1_000_000])),
            invalid(&[FILE, HEAD, "…"]),
        ),
        (
            "two tensors of a name",
            |c| c.header_text(|h| h.replace("model.norm.weight", HEAD)),
            invalid(&[FILE, "two tensors", HEAD]),
        ),
        (
            "cut off in the data",
            |c| c.truncate(FILE, 200_000),
            invalid(&[FILE, "the file is cut off"]),
        ),
        ("cut off in the header", |c| c.truncate(FILE, 100), invalid(&[FILE, "header claims"])),
        (
            "bytes after the last tensor",
            |c| {
                let (h, d) = c.parts();
                c.write(
                    FILE,
                    [&(h.len() as u64).to_le_bytes()[..], h.as_bytes(), &d, &[0; 7]].concat(),
                );
            },
            invalid(&[FILE, "7 bytes after the last tensor"]),
        ),
        (
            "a folder",
            |c| {
                c.remove(FILE);
                std::fs::create_dir(c.path().join(FILE)).expect("is new");
            },
            invalid(&[FILE, "not a regular file"]),
        ),
        ("no file", |c| c.remove(FILE), ("NotAModel", &["there is no *.safetensors"])),
    ];
    check_loading("qwen3", cases);
}

#[test]
fn tensors_that_the_configuration_does_not_fit_are_an_error() {
    let cases: &[Breakage<'_>] = &[
        (
            "no embedding",
            |c| c.header_text(|h| h.replace("embed_tokens", "embed_nothing")),
            ("MissingTensor", &["model.embed_tokens.weight"]),
        ),
        (
            "no head",
            |c| c.header_text(|h| h.replace(HEAD, "lm_tail.weight")),
            ("MissingTensor", &[HEAD]),
        ),
        (
            "no final norm",
            |c| c.header_text(|h| h.replace("model.norm.", "model.mron.")),
            ("MissingTensor", &["model.norm.weight"]),
        ),
        (
            "no projection",
            |c| {
                c.header_text(|h| {
                    h.replace("layers.1.self_attn.k_proj", "layers.1.self_attn.x_proj")
                })
            },
            ("MissingTensor", &["model.layers.1.self_attn.k_proj.weight"]),
        ),
        (
            "more layers than there are",
            |c| c.config(json!({"num_hidden_layers": 4})),
            ("MissingTensor", &["model.layers.3."]),
        ),
        (
            "ten thousand layers",
            |c| c.config(json!({"num_hidden_layers": 10_000})),
            ("MissingTensor", &["model.layers.3."]),
        ),
        (
            "transposed",
            |c| head(c, "shape", json!([64, 520])),
            invalid(&[HEAD, "[64, 520]", "[520, 64]"]),
        ),
        (
            "three dimensions",
            |c| head(c, "shape", json!([520, 8, 8])),
            invalid(&[HEAD, "[520, 8, 8]"]),
        ),
        (
            "another vocabulary",
            |c| c.config(json!({"vocab_size": 519})),
            invalid(&["model.embed_tokens.weight", "[519, 64]"]),
        ),
        (
            "another width",
            |c| c.config(json!({"hidden_size": 128})),
            invalid(&["model.embed_tokens.weight", "[520, 128]"]),
        ),
        (
            "another feed-forward part",
            |c| c.config(json!({"intermediate_size": 16_777_216})),
            invalid(&["mlp.gate_proj.weight", "16777216"]),
        ),
        (
            "another number of heads",
            |c| c.config(json!({"num_attention_heads": 8})),
            invalid(&["self_attn.q_proj.weight", "[256, 64]"]),
        ),
        (
            "another width of heads",
            |c| c.config(json!({"head_dim": 64})),
            invalid(&["self_attn.q_proj.weight"]),
        ),
        (
            "heads of great width",
            |c| c.config(json!({"head_dim": 4096})),
            invalid(&["self_attn.q_proj.weight", "[16384, 64]"]),
        ),
    ];
    check_loading("qwen3", cases);
}

#[test]
fn a_damaged_index_is_an_error() {
    /// Says that the embedding is in another file.
    fn embedding_in(checkpoint: &Checkpoint, file: Value) {
        checkpoint.edit(INDEX, |i| i["weight_map"][EMBEDDING] = file);
    }
    const SECOND: &str = "model-00002-of-00002.safetensors";
    let cases: &[Breakage<'_>] = &[
        ("not JSON", |c| c.write(INDEX, "weight_map"), invalid(&[INDEX, "not JSON"])),
        ("empty", |c| c.write(INDEX, ""), invalid(&[INDEX, "not JSON"])),
        ("a list", |c| c.write(INDEX, "[]"), invalid(&[INDEX, "weight_map"])),
        ("no weight_map", |c| c.write(INDEX, "{}"), invalid(&[INDEX, "weight_map"])),
        ("missing shard", |c| c.remove(SECOND), invalid(&[INDEX, SECOND])),
        (
            "above the folder",
            |c| embedding_in(c, json!("../model.safetensors")),
            invalid(&[INDEX, EMBEDDING, "../model.safetensors"]),
        ),
        (
            "above the folder, on a way round",
            |c| embedding_in(c, json!("x/../../y")),
            invalid(&[INDEX, EMBEDDING, "x/../../y"]),
        ),
        (
            "absolute",
            |c| embedding_in(c, json!("/dev/zero")),
            invalid(&[INDEX, EMBEDDING, "/dev/zero"]),
        ),
        ("no name", |c| embedding_in(c, json!("")), invalid(&[INDEX, EMBEDDING])),
        ("a number", |c| embedding_in(c, json!(7)), invalid(&[INDEX, EMBEDDING])),
        (
            "tensor in another shard",
            |c| embedding_in(c, json!(SECOND)),
            invalid(&[INDEX, EMBEDDING, SECOND]),
        ),
        (
            "no such tensor",
            |c| c.edit(INDEX, |i| i["weight_map"]["model.more.weight"] = json!(SECOND)),
            invalid(&[INDEX, "model.more.weight"]),
        ),
        ("shard is no safetensors", |c| c.write(SECOND, "{}"), invalid(&[SECOND, "shorter than"])),
        (
            "tensor in two shards",
            |c| {
                std::fs::copy(c.path().join(SECOND), c.path().join("third.safetensors"))
                    .expect("is copied");
                c.remove(INDEX);
            },
            invalid(&["third.safetensors", "is also in", SECOND]),
        ),
    ];
    check_loading("llama", cases);
}

#[cfg(unix)]
#[test]
fn a_pipe_is_not_waited_for() {
    let files = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        FILE,
        INDEX,
    ];
    for file in files {
        let checkpoint = Checkpoint::of("qwen3");
        let path = checkpoint.path().join(file);
        if file == INDEX {
            checkpoint.remove(FILE);
        } else {
            checkpoint.remove(file);
        }
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.is_ok_and(|status| status.success()), "a pipe can be made");
        let folder = checkpoint.path().to_owned();
        let result =
            within_limits(file, move || load_model(folder, &LoadOptions::default()).map(drop));
        check(file, result, invalid(&[file, "not a regular file"]));
    }
}
