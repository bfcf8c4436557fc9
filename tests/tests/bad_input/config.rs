//! `config.json` and `generation_config.json`.

use crate::support::{Breakage, Expected, check_loading};
use serde_json::json;

const FILE: &str = "config.json";

/// The error about a field of `config.json`.
const fn field<'a>(says: &'a [&'a str]) -> Expected<'a> {
    ("InvalidFile", says)
}

#[test]
fn a_config_that_is_none_is_an_error() {
    let cases: &[Breakage<'_>] = &[
        ("missing", |c| c.remove(FILE), ("NotAModel", &["there is no config.json"])),
        ("empty", |c| c.write(FILE, ""), field(&[FILE, "not JSON"])),
        ("not JSON", |c| c.write(FILE, "model_type: qwen3"), field(&[FILE, "not JSON", "line 1"])),
        ("not text", |c| c.write(FILE, [0xff; 99]), field(&[FILE, "not JSON"])),
        ("a list", |c| c.write(FILE, "[1]"), field(&[FILE, "not a JSON object"])),
        (
            "nested endlessly",
            |c| c.write(FILE, "{\"a\":".repeat(100_000)),
            field(&[FILE, "not JSON"]),
        ),
        ("too large", |c| c.write(FILE, vec![b' '; (16 << 20) + 1]), field(&[FILE, "larger than"])),
        ("no model_type", |c| c.without("model_type"), field(&[FILE, "`model_type` is missing"])),
        (
            "model_type is a number",
            |c| c.config(json!({"model_type": 3})),
            field(&[FILE, "`model_type`", "a string"]),
        ),
        (
            "unknown model_type",
            |c| c.config(json!({"model_type": "gpt17"})),
            ("UnknownArchitecture", &["gpt17", "llama", "qwen3", "gemma3", "phi3"]),
        ),
        (
            "text_config is no object",
            |c| c.config(json!({"text_config": "qwen3"})),
            field(&[FILE, "`text_config`", "an object"]),
        ),
    ];
    check_loading("qwen3", cases);
}

#[test]
fn a_wrong_field_is_named() {
    let cases: &[Breakage<'_>] = &[
        (
            "no hidden_size",
            |c| c.without("hidden_size"),
            field(&[FILE, "`hidden_size` is missing"]),
        ),
        ("no vocab_size", |c| c.without("vocab_size"), field(&[FILE, "`vocab_size` is missing"])),
        (
            "no layers",
            |c| c.without("num_hidden_layers"),
            field(&[FILE, "`num_hidden_layers` is missing"]),
        ),
        (
            "no heads",
            |c| c.without("num_attention_heads"),
            field(&[FILE, "`num_attention_heads` is missing"]),
        ),
        (
            "no intermediate_size",
            |c| c.without("intermediate_size"),
            field(&[FILE, "`intermediate_size` is missing"]),
        ),
        (
            "a text for a number",
            |c| c.config(json!({"hidden_size": "64"})),
            field(&[FILE, "`hidden_size`", "\"64\""]),
        ),
        (
            "a fraction",
            |c| c.config(json!({"hidden_size": 64.5})),
            field(&[FILE, "`hidden_size`", "64.5"]),
        ),
        (
            "a list for a number",
            |c| c.config(json!({"num_hidden_layers": vec![1; 5000]})),
            field(&[FILE, "`num_hidden_layers`", "…"]),
        ),
        (
            "negative",
            |c| c.config(json!({"num_hidden_layers": -3})),
            field(&[FILE, "`num_hidden_layers`", "-3"]),
        ),
        (
            "zero layers",
            |c| c.config(json!({"num_hidden_layers": 0})),
            field(&[FILE, "`num_hidden_layers`"]),
        ),
        (
            "zero heads",
            |c| c.config(json!({"num_attention_heads": 0})),
            field(&[FILE, "`num_attention_heads`"]),
        ),
        (
            "zero key heads",
            |c| c.config(json!({"num_key_value_heads": 0})),
            field(&[FILE, "`num_key_value_heads`"]),
        ),
        ("zero vocabulary", |c| c.config(json!({"vocab_size": 0})), field(&[FILE, "`vocab_size`"])),
        ("zero head_dim", |c| c.config(json!({"head_dim": 0})), field(&[FILE, "`head_dim`"])),
        (
            "zero context",
            |c| c.config(json!({"max_position_embeddings": 0})),
            field(&[FILE, "`max_position_embeddings`"]),
        ),
        (
            "odd head_dim",
            |c| c.config(json!({"head_dim": 33})),
            field(&[FILE, "`head_dim`", "even"]),
        ),
        (
            "key heads don't divide heads",
            |c| c.config(json!({"num_key_value_heads": 3})),
            field(&[FILE, "`num_key_value_heads`", "num_attention_heads (4)"]),
        ),
        (
            "more key heads than heads",
            |c| c.config(json!({"num_key_value_heads": 8})),
            field(&[FILE, "`num_key_value_heads`"]),
        ),
        (
            "absurdly many layers",
            |c| c.config(json!({"num_hidden_layers": 4_000_000_000u64})),
            field(&[FILE, "`num_hidden_layers`", "4000000000"]),
        ),
        (
            "absurd width",
            |c| c.config(json!({"hidden_size": u64::MAX})),
            field(&[FILE, "`hidden_size`"]),
        ),
        (
            "absurd vocabulary",
            |c| c.config(json!({"vocab_size": 1u64 << 40})),
            field(&[FILE, "`vocab_size`"]),
        ),
        (
            "absurd context",
            |c| c.config(json!({"max_position_embeddings": 1u64 << 60})),
            field(&[FILE, "`max_position_embeddings`"]),
        ),
        (
            "epsilon below zero",
            |c| c.config(json!({"rms_norm_eps": -1e-6})),
            field(&[FILE, "`rms_norm_eps`"]),
        ),
        (
            "epsilon is a text",
            |c| c.config(json!({"rms_norm_eps": "NaN"})),
            field(&[FILE, "`rms_norm_eps`", "NaN"]),
        ),
        (
            "epsilon beyond f32",
            |c| c.config(json!({"rms_norm_eps": 1e300})),
            field(&[FILE, "`rms_norm_eps`"]),
        ),
        (
            "NaN",
            |c| c.write(FILE, "{\"model_type\": \"qwen3\", \"rms_norm_eps\": NaN}"),
            field(&[FILE, "not JSON"]),
        ),
        (
            "activation",
            |c| c.config(json!({"hidden_act": "relu2"})),
            field(&[FILE, "`hidden_act`", "relu2"]),
        ),
        (
            "flag is a text",
            |c| c.config(json!({"use_sliding_window": "no"})),
            field(&[FILE, "`use_sliding_window`"]),
        ),
        (
            "layer_types too short",
            |c| c.config(json!({"layer_types": ["full_attention"]})),
            field(&[FILE, "`layer_types`", "3 entries"]),
        ),
        (
            "layer_types unknown",
            |c| {
                c.config(json!({"layer_types": ["linear_attention", "full_attention", "full_attention"]}))
            },
            field(&[FILE, "`layer_types`", "linear_attention"]),
        ),
        (
            "layers slide without a window",
            |c| {
                c.config(json!({"layer_types": ["sliding_attention", "full_attention", "full_attention"]}))
            },
            field(&[FILE, "`sliding_window`"]),
        ),
        (
            "eos is a text",
            |c| c.config(json!({"eos_token_id": "</s>"})),
            field(&[FILE, "`eos_token_id`"]),
        ),
    ];
    check_loading("qwen3", cases);
}

#[test]
fn a_wrong_rotation_is_named() {
    let cases: &[Breakage<'_>] = &[
        (
            "unknown type",
            |c| c.config(json!({"rope_scaling": {"rope_type": "spiral"}})),
            field(&[FILE, "`rope_scaling.rope_type`", "spiral", "yarn"]),
        ),
        (
            "no factor",
            |c| c.config(json!({"rope_scaling": {"factor": null}})),
            field(&[FILE, "`rope_scaling.factor`"]),
        ),
        (
            "factor zero",
            |c| c.config(json!({"rope_scaling": {"factor": 0}})),
            field(&[FILE, "`rope_scaling.factor`"]),
        ),
        (
            "factor is a text",
            |c| c.config(json!({"rope_scaling": {"factor": "8"}})),
            field(&[FILE, "`rope_scaling.factor`"]),
        ),
        (
            "frequencies the wrong way round",
            |c| c.config(json!({"rope_scaling": {"low_freq_factor": 9.0}})),
            field(&[FILE, "`rope_scaling.high_freq_factor`"]),
        ),
        (
            "scaling is a list",
            |c| c.config(json!({"rope_scaling": [1]})),
            field(&[FILE, "`rope_scaling`"]),
        ),
        ("negative base", |c| c.config(json!({"rope_theta": -1})), field(&[FILE, "`rope_theta`"])),
        (
            "window in llama",
            |c| c.config(json!({"sliding_window": 16})),
            field(&[FILE, "`sliding_window`"]),
        ),
    ];
    check_loading("llama", cases);
    let lists: &[Breakage<'_>] = &[
        (
            "too few factors",
            |c| c.config(json!({"rope_scaling": {"long_factor": [1.0]}})),
            field(&[FILE, "`rope_scaling.long_factor`", "6 entries"]),
        ),
        (
            "a factor of zero",
            |c| c.config(json!({"rope_scaling": {"short_factor": [0, 1, 1, 1, 1, 1]}})),
            field(&[FILE, "`rope_scaling.short_factor`"]),
        ),
        (
            "part of a head below zero",
            |c| c.config(json!({"partial_rotary_factor": -0.5})),
            field(&[FILE, "`partial_rotary_factor`"]),
        ),
    ];
    check_loading("phi3", lists);
    let nested: &[Breakage<'_>] = &[
        (
            "zero heads in text_config",
            |c| c.config(json!({"text_config": {"num_attention_heads": 0}})),
            field(&[FILE, "`text_config.num_attention_heads`"]),
        ),
        (
            "layer_types too long",
            |c| c.config(json!({"text_config": {"layer_types": vec!["full_attention"; 7]}})),
            field(&[FILE, "`text_config.layer_types`", "6 entries"]),
        ),
        (
            "soft cap below zero",
            |c| c.config(json!({"text_config": {"final_logit_softcapping": -30}})),
            field(&[FILE, "`text_config.final_logit_softcapping`"]),
        ),
    ];
    check_loading("gemma3-nested", nested);
}

#[test]
fn wrong_end_tokens_are_named() {
    const GENERATION: &str = "generation_config.json";
    let cases: &[Breakage<'_>] = &[
        (
            "a text",
            |c| c.write(GENERATION, "{\"eos_token_id\": \"</s>\"}"),
            field(&[GENERATION, "`eos_token_id`"]),
        ),
        (
            "negative",
            |c| c.write(GENERATION, "{\"eos_token_id\": [2, -1]}"),
            field(&[GENERATION, "`eos_token_id`"]),
        ),
        (
            "beyond 32 bits",
            |c| c.write(GENERATION, "{\"eos_token_id\": 4294967296}"),
            field(&[GENERATION, "`eos_token_id`"]),
        ),
        ("a list", |c| c.write(GENERATION, "[]"), field(&[GENERATION, "not a JSON object"])),
        ("not JSON", |c| c.write(GENERATION, "eos"), field(&[GENERATION, "not JSON"])),
    ];
    check_loading("qwen3", cases);
}
