//! The metadata of published models against their configurations.

use super::*;
use crate::arch::{Frequencies, Rope};
use inference_text::gguf::{GgmlType, Writer};
use proptest::prelude::*;
use serde_json::Value as Json;
use std::{fs::File, io::BufWriter};

/// A file with the metadata of a model of this architecture, and what else `set` sets.
struct Made {
    writer: Writer,
    /// Vectors of f32.
    vectors: Vec<(&'static str, Vec<f32>)>,
    architecture: &'static str,
}

impl Made {
    fn new(architecture: &'static str, numbers: &[(&str, u32)]) -> Self {
        let mut writer = Writer::new();
        writer.set("general.architecture", architecture);
        for (key, number) in numbers {
            writer.set(format!("{architecture}.{key}"), *number);
        }
        let made = Self { writer, vectors: Vec::new(), architecture };
        made.set("attention.layer_norm_rms_epsilon", 1e-6_f32)
    }

    fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.writer.set(format!("{}.{key}", self.architecture), value);
        self
    }

    fn vector(mut self, name: &'static str, numbers: Vec<f32>) -> Self {
        self.writer.tensor(name, &[numbers.len() as u64], GgmlType::F32);
        self.vectors.push((name, numbers));
        self
    }

    fn describe(&self) -> Result<Architecture> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let mut file = BufWriter::new(File::create(&path).unwrap());
        let data = |index: usize, out: &mut dyn std::io::Write| {
            let bytes: Vec<u8> =
                self.vectors[index].1.iter().flat_map(|x| x.to_le_bytes()).collect();
            out.write_all(&bytes)
        };
        self.writer.write(&mut file, data).unwrap();
        drop(file);
        describe(&Gguf::open(&path).unwrap()).map(|(_, architecture)| architecture)
    }

    fn error(&self) -> String {
        self.describe().unwrap_err().to_string()
    }
}

fn of_config(config: &Json) -> Architecture {
    let Json::Object(fields) = config else { panic!("an object") };
    let config = Config::of(std::path::Path::new("config.json"), fields.clone());
    (families::find(config.model_type().unwrap()).unwrap().describe)(&config).unwrap()
}

/// Equal, but for what 32 bits round of rotations.
fn assert_alike(what: &str, mut found: Architecture, mut expected: Architecture) {
    let ropes =
        std::mem::take(&mut found.ropes).into_iter().zip(std::mem::take(&mut expected.ropes));
    assert_eq!(found, expected, "{what}");
    for (found, expected) in ropes {
        assert!((found.scale - expected.scale).abs() < 1e-6, "{what}: {found:?}, {expected:?}");
        let all = |rope: &Rope| match &rope.frequencies {
            Frequencies::Fixed(all) => vec![all.clone()],
            Frequencies::Long { short, long, original } => {
                vec![short.clone(), long.clone(), vec![*original as f64]]
            }
            other => panic!("{what}: {other:?}"),
        };
        let (found, expected) = (all(&found).concat(), all(&expected).concat());
        assert_eq!(found.len(), expected.len(), "{what}");
        for (f, e) in found.iter().zip(&expected) {
            assert!((f / e - 1.0).abs() < 1e-6, "{what}: {f} for {e}");
        }
    }
}

fn llama() -> Made {
    Made::new(
        "llama",
        &[
            ("context_length", 131_072),
            ("embedding_length", 2048),
            ("block_count", 16),
            ("feed_forward_length", 8192),
            ("vocab_size", 128_256),
            ("attention.head_count", 32),
            ("attention.head_count_kv", 8),
            ("rope.dimension_count", 64),
        ],
    )
    .set("rope.freq_base", 500_000_f32)
}

/// The factors that the converter of Llama 3 makes of `rope_scaling`.
fn llama3_factors() -> Vec<f32> {
    let factor = |pair: usize| {
        let wave = std::f64::consts::TAU * 500_000_f64.powf(pair as f64 / 32.0);
        let smooth = ((8192.0 / wave - 1.0) / 3.0).clamp(0.0, 1.0);
        (1.0 / ((1.0 - smooth) / 32.0 + smooth)) as f32
    };
    (0..32).map(factor).collect()
}

#[test]
fn llama_and_mistral_are_one_architecture() {
    // meta-llama/Llama-3.2-1B
    let config = json!({"model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "intermediate_size": 8192, "vocab_size": 128_256, "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6, "rope_theta": 500_000.0, "rope_scaling": {"rope_type": "llama3",
        "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}});
    let made = llama().vector(FACTORS, llama3_factors());
    assert_alike("llama", made.describe().unwrap(), of_config(&config));

    let mut plain = config.clone();
    plain["rope_scaling"] = Json::Null;
    // A window as long as the context is none.
    for made in [llama(), llama().set("attention.sliding_window", 131_072_u32)] {
        assert_alike("no window", made.describe().unwrap(), of_config(&plain));
    }
    plain["model_type"] = "mistral".into();
    plain["sliding_window"] = 4096.into();
    let made = llama().set("attention.sliding_window", 4096_u32);
    assert_alike("window", made.describe().unwrap(), of_config(&plain));
    plain["sliding_window"] = Json::Null;
    plain["rope_scaling"] = json!({"type": "linear", "factor": 4.0});
    for key in ["rope.scaling.factor", "rope.scale_linear"] {
        assert_alike(key, llama().set(key, 4_f32).describe().unwrap(), of_config(&plain));
    }
}

#[test]
fn qwen_with_yarn() {
    // Qwen/Qwen3-8B, stretched as its page says.
    let config = json!({"model_type": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 12288, "vocab_size": 151_936, "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6, "rope_theta": 1e6, "rope_scaling": {"rope_type": "yarn",
        "factor": 4.0, "original_max_position_embeddings": 32768}});
    let made = Made::new(
        "qwen3",
        &[
            ("context_length", 131_072),
            ("embedding_length", 4096),
            ("block_count", 36),
            ("feed_forward_length", 12288),
            ("vocab_size", 151_936),
            ("attention.head_count", 32),
            ("attention.head_count_kv", 8),
            ("attention.key_length", 128),
            ("attention.value_length", 128),
            ("rope.scaling.original_context_length", 32768),
        ],
    )
    .set("rope.freq_base", 1e6_f32)
    .set("rope.scaling.type", "yarn")
    .set("rope.scaling.factor", 4_f32);
    assert_alike("qwen3", made.describe().unwrap(), of_config(&config));

    let refused = made.set("attention.sliding_window", 4096_u32).error();
    assert!(refused.contains("`qwen3.attention.sliding_window` is 4096"), "{refused}");
}

#[test]
fn gemma_with_windows() {
    // google/gemma-3-27b-it: its queries are divided by the root of another number than the heads' width.
    let config = json!({"model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62,
        "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
        "intermediate_size": 21504, "vocab_size": 262_208, "max_position_embeddings": 131_072,
        "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 168, "sliding_window": 1024,
        "rope_theta": 1e6, "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let gemma3 = || {
        Made::new(
            "gemma3",
            &[
                ("context_length", 131_072),
                ("embedding_length", 5376),
                ("block_count", 62),
                ("feed_forward_length", 21504),
                ("vocab_size", 262_208),
                ("attention.head_count", 32),
                ("attention.head_count_kv", 16),
                ("attention.key_length", 128),
                ("attention.value_length", 128),
                ("attention.sliding_window", 1024),
            ],
        )
        .set("rope.freq_base", 1e6_f32)
        .set("rope.scaling.type", "linear")
        .set("rope.scaling.factor", 8_f32)
    };
    let pattern: Vec<bool> = (0..62).map(|i| i % 6 != 5).collect();
    let key = "attention.sliding_window_pattern";
    for made in [gemma3(), gemma3().set(key, 6_u32), gemma3().set(key, pattern)] {
        assert_alike("gemma3", made.describe().unwrap(), of_config(&config));
    }
    let layers = gemma3().set("attention.sliding_window", 0_u32).describe().unwrap().layers;
    assert!(layers.iter().all(|l| l.attention.window.is_none() && l.rope == Some(0)));
    let other: Vec<u32> = (0..62).map(|i| u32::from(i == 3)).collect();
    let layers = gemma3().set(key, other).describe().unwrap().layers;
    assert_eq!(layers.iter().filter(|l| l.attention.window.is_some()).count(), 1);
    let refused = gemma3().set(key, vec![true]).error();
    assert!(refused.contains("has 1 values for 62 layers"), "{refused}");

    // google/gemma-2-2b-it, whose window and caps a file may leave out.
    let config = json!({"model_type": "gemma2", "hidden_size": 2304, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "intermediate_size": 9216, "vocab_size": 256_000, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256, "sliding_window": 4096,
        "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0});
    let gemma2 = Made::new(
        "gemma2",
        &[
            ("context_length", 8192),
            ("embedding_length", 2304),
            ("block_count", 26),
            ("feed_forward_length", 9216),
            ("vocab_size", 256_000),
            ("attention.head_count", 8),
            ("attention.head_count_kv", 4),
            ("attention.key_length", 256),
            ("attention.value_length", 256),
        ],
    );
    assert_alike("gemma2", gemma2.describe().unwrap(), of_config(&config));
}

#[test]
fn phi_with_partial_rotation_and_long_factors() {
    // microsoft/Phi-4-mini-instruct, with other factors.
    let (short, long): (Vec<f32>, Vec<f32>) = (
        (0..48).map(|i| 1.0 + i as f32 / 64.0).collect(),
        (0..48).map(|i| 1.0 + i as f32).collect(),
    );
    let config = json!({"model_type": "phi3", "hidden_size": 3072, "num_hidden_layers": 32,
        "num_attention_heads": 24, "num_key_value_heads": 8, "intermediate_size": 8192,
        "vocab_size": 200_064, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6,
        "original_max_position_embeddings": 4096, "partial_rotary_factor": 0.75,
        "sliding_window": 262_144, "rope_theta": 10_000.0,
        "rope_scaling": {"type": "longrope", "short_factor": short, "long_factor": long}});
    let phi3 = || {
        Made::new(
            "phi3",
            &[
                ("context_length", 131_072),
                ("embedding_length", 3072),
                ("block_count", 32),
                ("feed_forward_length", 8192),
                ("vocab_size", 200_064),
                ("attention.head_count", 24),
                ("attention.head_count_kv", 8),
                ("attention.sliding_window", 262_144),
                ("rope.dimension_count", 96),
                ("rope.scaling.original_context_length", 4096),
            ],
        )
        .set("rope.scaling.attn_factor", 1.190_238_1_f32)
    };
    let [short_name, long_name] = LONG_FACTORS;
    let made = phi3().vector(short_name, short.clone()).vector(long_name, long);
    let (found, mut expected) = (made.describe().unwrap(), of_config(&config));
    // A window beyond the context is one that is never reached.
    expected.layers.iter_mut().for_each(|l| l.attention.window = None);
    assert_alike("phi3", found, expected);
    let refused = phi3().vector(short_name, short).error();
    assert!(
        refused.contains("rope_factors_short.weight and rope_factors_long.weight"),
        "{refused}"
    );
}

#[test]
fn what_would_change_the_result_is_named() {
    let cases: Vec<(Made, &str)> = vec![
        (Made::new("mamba", &[]), "mamba"),
        (llama().set("expert_count", 8_u32), "`llama.expert_count` is 8"),
        (llama().set("attention.causal", false), "`llama.attention.causal` is false"),
        (llama().set("attention.scale", 0.5_f32), "`llama.attention.scale` is 0.5"),
        (llama().set("logit_scale", 0.5_f32), "`llama.logit_scale` is 0.5"),
        (llama().set("attention.rope_pattern", vec![1_u32, 0]), "attention.rope_pattern` is not"),
        (llama().set("attention.value_length", 128_u32), "`llama.attention.value_length` is 128"),
        (
            llama()
                .set("attention.head_count_kv", (0..16).map(|i| 1 + i % 2).collect::<Vec<u32>>()),
            "`llama.attention.head_count` differs between layers",
        ),
        (
            llama().set("feed_forward_length", (0..16).collect::<Vec<u32>>()),
            "`llama.feed_forward_length` differs between layers",
        ),
        (llama().set("attention.head_count_kv", 5_u32), "`num_key_value_heads` must divide"),
        (llama().set("attention.head_count", 0_u32), "`llama.attention.head_count` is zero"),
        (llama().set("rope.dimension_count", 32_u32), "partial_rotary_factor"),
        (llama().set("rope.dimension_count", 65_u32), "`llama.rope.dimension_count` is 65"),
        (llama().set("rope.freq_base", f32::NAN), "`llama.rope.freq_base` is NaN"),
        (llama().set("rope.freq_base", -1_f32), "rope_theta"),
        (llama().set("rope.freq_base_swa", 1_f32), "`llama.rope.freq_base_swa`"),
        (llama().set("rope.scaling.type", "dynamic"), "`llama.rope.scaling.type` is `dynamic`"),
        (llama().set("rope.scaling.type", 3_u32), "`llama.rope.scaling.type` is not a text"),
        (llama().set("rope.scaling.attn_factor", 2_f32), "`llama.rope.scaling.attn_factor`"),
        (llama().set("rope.scaling.factor", f32::INFINITY), "`llama.rope.scaling.factor` is inf"),
        (llama().set("vocab_size", 0_u32), "`llama.vocab_size` is zero"),
        (llama().set("context_length", u32::MAX), "max_position_embeddings"),
        (
            llama().set("attention.layer_norm_rms_epsilon", "small"),
            "`llama.attention.layer_norm_rms_epsilon` is not a number",
        ),
        (llama().vector(FACTORS, vec![1.0; 31]), "`rope_freqs.weight` has 31 numbers for 32"),
        (llama().vector(FACTORS, vec![0.0; 32]), "`rope_freqs.weight` has numbers"),
    ];
    for (made, expected) in cases {
        let found = made.error();
        assert!(found.contains(expected), "{found}\nis not\n{expected}");
    }
}

proptest! {
    #[test]
    fn any_number_gives_an_architecture_or_an_error(
        changes in prop::collection::vec(
            (
                prop::sample::select(vec!["context_length", "embedding_length", "block_count",
                    "attention.head_count", "attention.head_count_kv", "attention.key_length",
                    "attention.value_length", "attention.sliding_window", "rope.dimension_count",
                    "attention.sliding_window_pattern", "rope.freq_base", "rope.scaling.factor",
                    "rope.scaling.original_context_length", "rope.scaling.yarn_log_multiplier",
                    "attn_logit_softcapping"]),
                prop_oneof![
                    prop::sample::select(vec![0_u32, 1, 2, 7, 1 << 20, u32::MAX]).prop_map(Value::U32),
                    any::<f32>().prop_map(Value::F32),
                    any::<i32>().prop_map(Value::I32),
                ],
            ),
            1..4,
        ),
        kind in prop::sample::select(vec!["none", "linear", "yarn", "longrope"]),
    ) {
        let made = llama().set("rope.scaling.type", kind);
        let made = changes.into_iter().fold(made, |made, (key, value)| made.set(key, value));
        if let Ok(found) = made.describe() {
            for rope in &found.ropes {
                prop_assert!(rope.frequencies.at(100_000).iter().all(|f| f.is_finite()));
            }
        }
    }
}
