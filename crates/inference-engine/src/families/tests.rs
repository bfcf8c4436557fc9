use super::*;
use crate::arch::{Activation, Attention};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// What `config.json` with this content describes.
pub(super) fn describe(config: &Value) -> Result<Architecture> {
    describe_text(config.to_string().as_bytes())
}

fn describe_text(config: &[u8]) -> Result<Architecture> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    let config = Config::open(dir.path())?;
    (find(config.model_type()?)?.describe)(&config)
}

pub(super) fn error(config: &Value) -> String {
    match describe(config) {
        Ok(_) => panic!("{config} describes a model"),
        Err(e) => e.to_string(),
    }
}

/// A small Llama: 4 heads of 16 columns.
pub(super) fn llama() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 3, "intermediate_size": 96, "vocab_size": 100, "max_position_embeddings": 8192,
    })
}

/// `base` with the fields of `more`, and objects within merged alike.
pub(super) fn merged(mut base: Value, more: Value) -> Value {
    let Value::Object(fields) = more else { return more };
    for (name, value) in fields {
        let old = base.as_object_mut().unwrap().remove(&name);
        let value = match old {
            Some(old @ Value::Object(_)) if value.is_object() => merged(old, value),
            _ => value,
        };
        base.as_object_mut().unwrap().insert(name, value);
    }
    base
}

/// The same model under another type, with more fields.
fn of(model_type: &str, more: Value) -> Value {
    merged(merged(llama(), json!({"model_type": model_type})), more)
}

fn windows(a: &Architecture) -> Vec<Option<usize>> {
    a.layers.iter().map(|l| l.attention.window).collect()
}

#[test]
fn a_type_means_one_family() {
    for family in &ALL {
        for model_type in family.model_types {
            assert!(std::ptr::eq(find(model_type).unwrap(), family));
        }
    }
    let unknown = find("gpt2").unwrap_err().to_string();
    let known = "llama, mistral, qwen2, qwen3, gemma2, gemma3, gemma3_text, phi3";
    assert_eq!(unknown, format!("unknown model_type \"gpt2\"; known are {known}"));
}

#[test]
fn a_plain_llama() {
    let found = describe(&of("llama", json!({"rms_norm_eps": 1e-5}))).unwrap();
    let attention =
        Attention { heads: 4, kv_heads: 2, head_dim: 16, scale: 0.25, window: None, softcap: None };
    assert_eq!((found.vocab, found.hidden, found.context), (100, 64, 8192));
    assert_eq!((found.norm_eps, found.embed_scale), (1e-5, 1.0));
    assert_eq!((found.activation, found.logit_softcap), (Activation::Silu, None));
    assert_eq!(found.layers.len(), 3);
    for layer in found.layers {
        assert_eq!((layer.attention, layer.rope, layer.ffn), (attention.clone(), Some(0), 96));
    }
}

#[test]
fn missing_fields_mean_what_transformers_assumes() {
    let kv_heads = |config: Value| describe(&config).map(|a| a.layers[0].attention.kv_heads);
    let without = |model_type, heads: usize, null: bool| {
        let mut config = of(model_type, json!({"num_attention_heads": heads, "head_dim": 4}));
        config.as_object_mut().unwrap().remove("num_key_value_heads");
        if null { merged(config, json!({"num_key_value_heads": null})) } else { config }
    };
    for (model_type, heads, missing) in [
        ("llama", 32, 32),
        ("phi3", 32, 32),
        ("mistral", 32, 8),
        ("qwen2", 64, 32),
        ("qwen3", 64, 32),
        ("gemma2", 8, 4),
    ] {
        assert_eq!(kv_heads(without(model_type, heads, false)).unwrap(), missing, "{model_type}");
        assert_eq!(kv_heads(without(model_type, heads, true)).unwrap(), heads, "{model_type}");
    }
    assert_eq!(describe(&of("qwen3", json!({}))).unwrap().layers[0].attention.head_dim, 128);
    assert_eq!(describe(&of("qwen2", json!({}))).unwrap().layers[0].attention.head_dim, 16);
    assert_eq!(
        describe(&of("mistral", json!({"head_dim": 32}))).unwrap().layers[0].attention.head_dim,
        32
    );
    assert_eq!(describe(&of("phi3", json!({}))).unwrap().norm_eps, 1e-5);
}

#[test]
fn windows_are_where_each_family_puts_them() {
    const FULL: Option<usize> = None;
    let sliding = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    let cases = [
        (of("llama", json!({"sliding_window": 9000})), vec![FULL; 3]),
        (of("mistral", json!({})), vec![Some(4096); 3]),
        (of("mistral", json!({"sliding_window": null})), vec![FULL; 3]),
        (of("mistral", json!({"sliding_window": 7})), vec![Some(7); 3]),
        (of("phi3", json!({})), vec![FULL; 3]),
        (of("phi3", json!({"sliding_window": 2047})), vec![Some(2047); 3]),
        (of("qwen2", json!({"sliding_window": 7})), vec![FULL; 3]),
        (of("qwen2", json!({"sliding_window": 7, "use_sliding_window": true})), vec![FULL; 3]),
        (
            of("qwen2", json!({"use_sliding_window": true, "max_window_layers": 1})),
            vec![FULL, Some(4096), Some(4096)],
        ),
        (
            of(
                "qwen3",
                json!({"sliding_window": 7, "use_sliding_window": true, "max_window_layers": 0}),
            ),
            vec![Some(7); 3],
        ),
        (
            of(
                "qwen3",
                json!({"sliding_window": 7, "use_sliding_window": true, "layer_types": sliding}),
            ),
            vec![Some(7), FULL, Some(7)],
        ),
        (of("gemma2", json!({})), vec![Some(4096), FULL, Some(4096)]),
        (
            of("gemma3_text", json!({"sliding_window": 7, "sliding_window_pattern": 2})),
            vec![Some(7), FULL, Some(7)],
        ),
        (of("gemma3_text", json!({})), vec![Some(4096); 3]),
    ];
    for (config, expected) in cases {
        assert_eq!(windows(&describe(&config).unwrap()), expected, "{config}");
    }
}

#[test]
fn gemma2_of_27_b() {
    // As published, apart from fields that say nothing of the architecture.
    let found = describe(&json!({
        "model_type": "gemma2", "hidden_size": 4608, "intermediate_size": 36864, "num_hidden_layers": 46,
        "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128, "vocab_size": 256000,
        "max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "sliding_window": 4096,
        "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "attention_bias": false,
        "query_pre_attn_scalar": 144, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
    }))
    .unwrap();
    let attention = &found.layers[1].attention;
    assert_eq!((attention.scale, attention.softcap), (1.0 / 12.0, Some(50.0)));
    assert_eq!((found.embed_scale, found.logit_softcap), (4608f32.sqrt(), Some(30.0)));
    assert_eq!(found.activation, Activation::GeluTanh);
}

#[test]
fn gemma3_of_4_b() {
    // As published: the text part leaves most to the class's defaults.
    let found = describe(&json!({
        "model_type": "gemma3", "eos_token_id": [1, 106],
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
        },
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152},
    }))
    .unwrap();
    assert_eq!((found.vocab, found.context), (262_208, 131_072));
    assert_eq!((found.embed_scale, found.logit_softcap), (2560f32.sqrt(), None));
    let attention = &found.layers[5].attention;
    assert_eq!((attention.heads, attention.kv_heads, attention.head_dim), (8, 4, 256));
    assert_eq!((attention.scale, attention.softcap), (0.0625, None));
    for (i, layer) in found.layers.iter().enumerate() {
        let full = i % 6 == 5;
        assert_eq!(layer.rope, Some(usize::from(!full)));
        assert_eq!(layer.attention.window, (!full).then_some(1024));
    }
}

#[test]
fn impossible_configurations_are_errors() {
    let l = |more| of("llama", more);
    let cases = [
        (json!({"model_type": "llama"}), "`hidden_size` is missing"),
        (l(json!({"num_hidden_layers": null})), "`num_hidden_layers` is missing"),
        (
            l(json!({"num_hidden_layers": 0})),
            "`num_hidden_layers` must be a whole number from 1 to 10000, is 0",
        ),
        (l(json!({"num_hidden_layers": 10_001})), "`num_hidden_layers` must be a whole number"),
        (l(json!({"hidden_size": -64})), "`hidden_size` must be a whole number"),
        (l(json!({"hidden_size": 64.5})), "`hidden_size` must be a whole number"),
        (
            l(json!({"hidden_size": "64"})),
            "`hidden_size` must be a whole number from 1 to 1048576, is \"64\"",
        ),
        (l(json!({"hidden_size": 1u64 << 21})), "`hidden_size` must be a whole number"),
        (l(json!({"hidden_size": u64::MAX})), "`hidden_size` must be a whole number"),
        (l(json!({"vocab_size": (1 << 24) + 1})), "`vocab_size` must be a whole number"),
        (l(json!({"vocab_size": []})), "`vocab_size` must be a whole number"),
        (l(json!({"intermediate_size": true})), "`intermediate_size` must be a whole number"),
        (l(json!({"head_dim": 4097})), "`head_dim` must be a whole number from 1 to 4096, is 4097"),
        (l(json!({"num_attention_heads": 0})), "`num_attention_heads` must be a whole number"),
        (
            l(json!({"num_key_value_heads": 3})),
            "`num_key_value_heads` must divide num_attention_heads (4), is 3",
        ),
        (
            l(json!({"num_key_value_heads": 8})),
            "`num_key_value_heads` must divide num_attention_heads (4), is 8",
        ),
        (l(json!({"hidden_size": 66})), "`head_dim` is missing, and hidden_size (66)"),
        (l(json!({"hidden_size": 1 << 20})), "`head_dim` is missing, and hidden_size (1048576)"),
        (
            l(json!({"max_position_embeddings": 0})),
            "`max_position_embeddings` must be a whole number",
        ),
        (l(json!({"rms_norm_eps": -1e-6})), "`rms_norm_eps` must be a number, 0 or above"),
        (l(json!({"rms_norm_eps": 1e39})), "`rms_norm_eps` must be a number, 0 or above"),
        (
            l(json!({"rms_norm_eps": "1e-6"})),
            "`rms_norm_eps` must be a number, 0 or above, is \"1e-6\"",
        ),
        (
            l(json!({"hidden_act": "gelu"})),
            "`hidden_act` \"gelu\" is not supported; silu and gelu_pytorch_tanh are",
        ),
        (l(json!({"hidden_act": 1})), "`hidden_act` must be a string"),
        (l(json!({"tie_word_embeddings": "no"})), "`tie_word_embeddings` must be true or false"),
        (l(json!({"sliding_window": 4096})), "`sliding_window` is below the context"),
        (l(json!({"alibi": true})), "`alibi` can only be false"),
        (l(json!({"is_causal": false})), "`is_causal` can only be true"),
        (l(json!({"per_layer_config": {}})), "`per_layer_config` is not supported"),
        (l(json!({"layer_types": ["full_attention"]})), "`layer_types` must have 3 entries, has 1"),
        (l(json!({"layer_types": [1, 2, 3]})), "`layer_types` must be a list of strings"),
        (
            l(json!({"layer_types": ["conv", "conv", "conv"]})),
            "`layer_types` has unknown entry \"conv\"",
        ),
        (
            of(
                "mistral",
                json!({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
            ),
            "`layer_types` differs between layers",
        ),
        (
            of(
                "qwen3",
                json!({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
            ),
            "`sliding_window` is missing or switched off",
        ),
        (of("qwen2", json!({"use_mrope": true})), "`use_mrope` can only be false"),
        (
            of("gemma2", json!({"sliding_window": null})),
            "`sliding_window` is missing or switched off",
        ),
        (
            of("gemma2", json!({"use_bidirectional_attention": true})),
            "`use_bidirectional_attention` can only be false",
        ),
        (
            of("gemma2", json!({"final_logit_softcapping": 0.0})),
            "`final_logit_softcapping` must be a number above 0",
        ),
        (
            of("gemma2", json!({"hidden_activation": "gelu"})),
            "`hidden_activation` \"gelu\" is not supported",
        ),
        (
            of("gemma3_text", json!({"attn_logit_softcapping": 50.0})),
            "`attn_logit_softcapping` is not supported in gemma3",
        ),
        (
            of("gemma3_text", json!({"sliding_window_pattern": 0})),
            "`sliding_window_pattern` must be a whole number",
        ),
        (
            json!({"model_type": "gemma3", "text_config": {"hidden_size": 64, "num_hidden_layers": "34"}}),
            "config.json: `text_config.num_hidden_layers` must be a whole number from 1 to 10000, is \"34\"",
        ),
        (
            json!({"model_type": "gemma3", "text_config": merged(llama(), json!({"final_logit_softcapping": 30}))}),
            "`text_config.final_logit_softcapping` is not supported here",
        ),
        (
            l(json!({"quantization": {"group_size": 64, "bits": 7}})),
            "`quantization.bits` is 7, which affine doesn't have",
        ),
        (
            l(
                json!({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}),
            ),
            "`quantization_config` weights quantised with bitsandbytes can't be read; MLX",
        ),
        (
            json!({"model_type": "gemma3", "text_config": {"quantization_config": {"quant_method": "hqq"}}}),
            "`text_config.quantization_config` weights quantised with hqq can't be read",
        ),
    ];
    for (config, expected) in cases {
        let found = error(&config);
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn softcaps_may_be_switched_off() {
    let off = json!({"attn_logit_softcapping": null, "final_logit_softcapping": null});
    let found = describe(&of("gemma2", off)).unwrap();
    assert_eq!((found.layers[0].attention.softcap, found.logit_softcap), (None, None));
    let found = describe(&of("gemma3_text", json!({"final_logit_softcapping": 30}))).unwrap();
    assert_eq!(found.logit_softcap, Some(30.0));
}

proptest! {
    /// Digits and signs above all: what makes another number of a number.
    #[test]
    fn any_damage_gives_an_architecture_or_an_error(
        model_type in prop::sample::select(vec!["llama", "qwen2", "gemma2", "gemma3", "phi3"]),
        kind in prop::sample::select(vec!["linear", "dynamic", "llama3", "yarn", "longrope"]),
        changes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::sample::select(b"0123456789e.-,[]{}:\"nt".to_vec())),
            0..4,
        ),
    ) {
        let factors = [1.5; 8];
        let rope = json!({"rope_type": kind, "factor": 4.0, "low_freq_factor": 1, "high_freq_factor": 4,
            "original_max_position_embeddings": 32, "short_factor": factors, "long_factor": factors});
        let mut text = of(model_type, json!({"rope_scaling": rope})).to_string().into_bytes();
        for (place, byte) in changes {
            let place = place.index(text.len());
            text[place] = byte;
        }
        if let Ok(found) = describe_text(&text) {
            for rope in &found.ropes {
                prop_assert!(rope.frequencies.at(1).iter().all(|f| f.is_finite()));
                prop_assert!(rope.frequencies.at(100_000).iter().all(|f| f.is_finite()));
            }
        }
    }
}

#[test]
fn every_fixture_is_described_and_has_its_tensors() {
    use crate::weights::{SafeTensors, Weights};
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models-fixtures");
    let Ok(entries) = fs::read_dir(fixtures) else { return };
    for dir in entries.map(|e| e.unwrap().path()).filter(|p| p.join("golden.json").exists()) {
        let config = Config::open(&dir).unwrap();
        let family = find(config.model_type().unwrap()).unwrap();
        let found = (family.describe)(&config).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        assert!(!crate::config::end_tokens(&dir).unwrap().is_empty(), "{}", dir.display());

        let weights = SafeTensors::open(&dir).unwrap();
        let Names { prefixes, embed, qkv, gate_up, down, out, norm, .. } = family.names;
        let embedding = |p: &&&str| weights.has(&format!("{p}{embed}.weight"));
        let prefix = prefixes.iter().find(embedding).unwrap();
        let table = weights.get(&format!("{prefix}{embed}.weight")).unwrap();
        assert_eq!(table.shape, [found.vocab, found.hidden], "{}", dir.display());
        assert!(weights.has(&format!("{prefix}{norm}.weight")));
        let last = found.layers.len() - 1;
        for name in qkv.iter().chain(gate_up).chain([&down, &out]) {
            assert!(weights.has(&format!("{prefix}layers.{last}.{name}.weight")), "{name}");
            assert!(!weights.has(&format!("{prefix}layers.{}.{name}.weight", last + 1)));
        }
    }
}
