//! The fixtures, converted and read back.

use super::*;
use inference_engine::weights::{GgufWeights, Weights};
use inference_text::gguf::{Gguf, Tensor};
use safetensors::tensor::TensorView;
use serde_json::Value as Json;
use std::collections::BTreeMap;

fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the repository");
    root.join("models-fixtures").join(name)
}

/// The fixture as a file of that type; the folder keeps it.
fn converted(name: &str, ty: GgmlType) -> (tempfile::TempDir, Gguf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let said = convert(&fixture(name), &out, ty).unwrap_or_else(|e| panic!("{name}: {e}"));
    let gguf = Gguf::open(&out).unwrap();
    assert_eq!(said.tensors, gguf.tensors().len(), "{name}");
    (dir, gguf)
}

fn number(gguf: &Gguf, key: &str) -> f64 {
    gguf.require(key).unwrap()
}

fn text<'a>(gguf: &'a Gguf, key: &str) -> &'a str {
    gguf.require(key).unwrap()
}

fn tensor<'a>(gguf: &'a Gguf, name: &str) -> &'a Tensor {
    gguf.tensors().iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn every_fixture_converts_or_is_refused_by_name() {
    let tables = [
        ("llama", "llama", "gpt2", "llama-bpe"),
        ("llama-linear", "llama", "gpt2", "llama-bpe"),
        ("mistral", "granite_swa", "llama", "default"),
        ("qwen2", "qwen2", "gpt2", "qwen2"),
        ("qwen3", "qwen3", "gpt2", "qwen2"),
        ("qwen3-yarn", "qwen3", "gpt2", "qwen2"),
        ("gemma2", "gemma2", "llama", "default"),
        ("gemma3", "gemma3", "llama", "default"),
        ("gemma3-nested", "gemma3", "llama", "default"),
        ("phi3", "phi3", "llama", "default"),
        ("storyteller", "qwen3", "gpt2", "qwen2"),
    ];
    for (name, architecture, model, pre) in tables {
        let (_dir, gguf) = converted(name, GgmlType::BF16);
        assert_eq!(text(&gguf, "general.architecture"), architecture, "{name}");
        assert_eq!(text(&gguf, "tokenizer.ggml.model"), model, "{name}");
        assert_eq!(text(&gguf, "tokenizer.ggml.pre"), pre, "{name}");
        let tokens: &[String] = gguf.require("tokenizer.ggml.tokens").unwrap();
        let embedding = tensor(&gguf, "token_embd.weight");
        assert_eq!(tokens.len() as u64, embedding.dims[1], "{name}");
        assert_eq!(number(&gguf, &format!("{architecture}.vocab_size")), tokens.len() as f64);
        assert!(gguf.get::<&str>("tokenizer.chat_template").unwrap().is_some(), "{name}");
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model.gguf");
    let error = convert(&fixture("llama-dynamic"), &out, GgmlType::F32).unwrap_err();
    assert!(error.contains("config.json") && error.contains("`dynamic` RoPE"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_hyper_parameters_are_those_of_the_config() {
    let (_dir, llama) = converted("llama", GgmlType::F32);
    assert_eq!(number(&llama, "llama.context_length"), 8192.0);
    assert_eq!(number(&llama, "llama.rope.freq_base"), 500_000.0);
    assert_eq!(number(&llama, "llama.attention.head_count_kv"), 2.0);
    assert_eq!(tensor(&llama, "rope_freqs.weight").dims, [8]);
    assert!(llama.tensors().iter().all(|t| t.name != "output.weight"), "the head is tied");

    let (_dir, yarn) = converted("qwen3-yarn", GgmlType::F32);
    assert_eq!(text(&yarn, "qwen3.rope.scaling.type"), "yarn");
    assert_eq!(number(&yarn, "qwen3.rope.scaling.factor"), 4.0);
    assert_eq!(number(&yarn, "qwen3.rope.scaling.original_context_length"), 256.0);

    for name in ["gemma3", "gemma3-nested"] {
        let (_dir, gemma) = converted(name, GgmlType::F32);
        assert_eq!(number(&gemma, "gemma3.attention.sliding_window"), 8.0);
        assert_eq!(number(&gemma, "gemma3.rope.freq_base"), 1e6);
        assert_eq!(number(&gemma, "gemma3.rope.freq_base_swa"), 1e4);
        assert_eq!(text(&gemma, "gemma3.rope.scaling.type"), "linear");
    }
    let (_dir, gemma) = converted("gemma2", GgmlType::F32);
    assert_eq!(number(&gemma, "gemma2.attn_logit_softcapping"), 3.0);
    assert_eq!(number(&gemma, "gemma2.final_logit_softcapping"), 8.0);

    let (_dir, phi) = converted("phi3", GgmlType::F32);
    assert_eq!(number(&phi, "phi3.rope.dimension_count"), 12.0);
    assert_eq!(tensor(&phi, "rope_factors_long.weight").dims, [6]);
    let attention = (1.0 + 128.0_f64.ln() / 64.0_f64.ln()).sqrt();
    assert!((number(&phi, "phi3.rope.scaling.attn_factor") - attention).abs() < 1e-6);
}

#[test]
fn the_tokenizer_s_tokens_are_those_of_the_config() {
    let id = |gguf: &Gguf, key: &str| gguf.get::<u32>(&format!("tokenizer.ggml.{key}")).unwrap();
    let (_dir, llama) = converted("llama", GgmlType::Q8_0);
    assert_eq!(id(&llama, "bos_token_id"), Some(505));
    assert_eq!(id(&llama, "eos_token_id"), Some(511));
    assert_eq!((id(&llama, "eot_token_id"), id(&llama, "eom_token_id")), (Some(506), Some(510)));
    assert!(llama.require::<bool>("tokenizer.ggml.add_bos_token").unwrap());

    let (_dir, mistral) = converted("mistral", GgmlType::Q8_0);
    assert!(mistral.require::<bool>("tokenizer.ggml.add_space_prefix").unwrap());
    assert_eq!(id(&mistral, "unknown_token_id"), Some(0));
    let (_dir, gemma) = converted("gemma2", GgmlType::Q8_0);
    assert!(!gemma.require::<bool>("tokenizer.ggml.add_space_prefix").unwrap());

    let (_dir, qwen) = converted("qwen3", GgmlType::Q8_0);
    let kinds: Vec<u32> = qwen.require("tokenizer.ggml.token_type").unwrap();
    let tokens: &[String] = qwen.require("tokenizer.ggml.tokens").unwrap();
    // Special, then what is only looked for in text, then rows without a token.
    assert_eq!((kinds[0], kinds[505], kinds[511], kinds[512]), (1, 3, 4, 5));
    assert_eq!(tokens[512], "[PAD512]");
}

#[test]
fn named_templates_have_their_own_keys() {
    let (_dir, gguf) = converted("llama-linear", GgmlType::F16);
    let settings = fs::read(fixture("llama-linear").join("tokenizer_config.json")).unwrap();
    let settings: Json = serde_json::from_slice(&settings).unwrap();
    let names: &[String] = gguf.require("tokenizer.chat_templates").unwrap();
    for template in settings["chat_template"].as_array().unwrap() {
        let name = template["name"].as_str().unwrap();
        let key = match name {
            "default" => "tokenizer.chat_template".to_owned(),
            _ => format!("tokenizer.chat_template.{name}"),
        };
        assert_eq!(text(&gguf, &key), template["template"].as_str().unwrap());
        assert_eq!(names.iter().any(|n| n == name), name != "default");
    }
}

#[test]
fn matrices_have_the_type_and_the_rest_is_f32() {
    for (ty, down) in [
        (GgmlType::F32, GgmlType::F32),
        (GgmlType::BF16, GgmlType::BF16),
        (GgmlType::F16, GgmlType::F16),
        (GgmlType::Q8_0, GgmlType::Q8_0),
        (GgmlType::Q4_0, GgmlType::Q4_0),
        // Its rows are no multiple of 256.
        (GgmlType::Q4_K, GgmlType::Q8_0),
    ] {
        let (_dir, gguf) = converted("qwen2", ty);
        for tensor in gguf.tensors() {
            let expected = if tensor.dims.len() == 1 { GgmlType::F32 } else { down };
            assert_eq!(tensor.ty, expected, "{}", tensor.name);
        }
        assert!(gguf.tensors().iter().any(|t| t.name == "blk.2.attn_k.bias"));
    }
}

/// Numbers between −1 and 1 that look random, and are the same in every run.
fn numbers(seed: usize, len: usize) -> Vec<f32> {
    let hash = |i: usize| ((i + seed) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len).map(|i| (hash(i).rotate_left(23) >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// The fixture `qwen3` with eight layers whose rows are 256 long, and its numbers, by name.
fn wide() -> (tempfile::TempDir, BTreeMap<String, Vec<f32>>) {
    let dir = changed("qwen3", |c| {
        (c["hidden_size"], c["intermediate_size"]) = (256.into(), 256.into());
        (c["num_hidden_layers"], c["head_dim"]) = (8.into(), 64.into());
        c["tie_word_embeddings"] = true.into();
    });
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![520, 256]),
        ("model.norm.weight".to_owned(), vec![256]),
    ];
    for layer in 0..8 {
        for (name, shape) in [
            ("input_layernorm", vec![256]),
            ("post_attention_layernorm", vec![256]),
            ("self_attn.q_norm", vec![64]),
            ("self_attn.k_norm", vec![64]),
            ("self_attn.q_proj", vec![256, 256]),
            ("self_attn.k_proj", vec![128, 256]),
            ("self_attn.v_proj", vec![128, 256]),
            ("self_attn.o_proj", vec![256, 256]),
            ("mlp.gate_proj", vec![256, 256]),
            ("mlp.up_proj", vec![256, 256]),
            ("mlp.down_proj", vec![256, 256]),
        ] {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let all: BTreeMap<String, Vec<f32>> = shapes
        .iter()
        .enumerate()
        .map(|(i, (name, shape))| (name.clone(), numbers(i << 20, shape.iter().product())))
        .collect();
    let bytes: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(name, _)| all[name].iter().flat_map(|x| x.to_le_bytes()).collect())
        .collect();
    let views = shapes.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    let path = dir.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    (dir, all)
}

#[test]
fn a_mixture_is_read_back_within_its_bits() {
    let (dir, all) = wide();
    let out = dir.path().join("out.gguf");
    convert(dir.path(), &out, Type::Q4KM.ggml()).unwrap();
    let gguf = Gguf::open(&out).unwrap();
    // The head, and the layers of the first and last eighth and every third one between.
    let more: Vec<_> =
        gguf.tensors().iter().filter(|t| t.ty == GgmlType::Q6_K).map(|t| t.name.as_str()).collect();
    let of_layers = [0, 3, 6, 7]
        .map(|layer| ["attn_v", "ffn_down"].map(|name| format!("blk.{layer}.{name}.weight")));
    assert_eq!(more[0], "token_embd.weight");
    assert_eq!(more[1..].to_vec(), of_layers.as_flattened());
    let weights = GgufWeights::open(&gguf).unwrap().exact();
    for (name, numbers) in &all {
        let Some(module) = name.strip_suffix(".weight").filter(|_| numbers.len() > 256) else {
            continue;
        };
        let matrix = weights.matrix(module).unwrap();
        let bits = matrix.kind().quantisation.unwrap().bits;
        // Half a step of the numbers, and as much again for the step's own rounding.
        let most = 2.0 / ((1 << bits) - 1) as f32 * 1.1;
        let far =
            matrix.to_f32().iter().zip(numbers).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(far <= most && far >= most / 8.0, "{name}: {far} of {most}");
    }
}

/// A copy of a fixture whose config has other fields.
fn changed(name: &str, change: impl FnOnce(&mut Json)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let path = dir.path().join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    dir
}

#[test]
fn what_does_not_fit_is_named() {
    type Change = fn(&mut Json);
    let cases: [(&str, Change, &str); 9] = [
        ("llama", |c| c["model_type"] = "mamba".into(), "`mamba`"),
        ("llama", |c| c["hidden_size"] = 63.into(), "embed_tokens"),
        ("llama", |c| c["num_hidden_layers"] = 4.into(), "layers.3.input_layernorm.weight"),
        ("llama", |c| c["num_hidden_layers"] = 2.into(), "model.layers.2."),
        ("llama", |c| c["num_attention_heads"] = 0.into(), "`num_attention_heads`"),
        ("llama", |c| c["num_key_value_heads"] = 3.into(), "4 heads"),
        ("llama", |c| c["quantization"] = 4.into(), "`quantization`"),
        ("qwen2", |c| c["head_dim"] = 32.into(), "`head_dim`"),
        ("gemma2", |c| c["attn_logit_softcapping"] = Json::Null, "caps"),
    ];
    for (name, change, word) in cases {
        let dir = changed(name, change);
        let error = convert(dir.path(), &dir.path().join("out.gguf"), GgmlType::F32).unwrap_err();
        assert!(error.contains(word), "{word}: {error}");
        assert!(!dir.path().join("out.gguf").exists());
    }
    let empty = tempfile::tempdir().unwrap();
    let error = convert(empty.path(), &empty.path().join("x"), GgmlType::F32).unwrap_err();
    assert!(error.contains("config.json: no such file"), "{error}");
}

#[test]
fn a_window_that_llama_cpp_ignores_cuts_the_context() {
    let dir = changed("qwen3", |c| {
        c["use_sliding_window"] = true.into();
        c["sliding_window"] = 16.into();
    });
    let out = dir.path().join("out.gguf");
    let converted = convert(dir.path(), &out, GgmlType::F32).unwrap();
    assert!(converted.notes[0].contains("16 tokens"), "{:?}", converted.notes);
    assert_eq!(number(&Gguf::open(&out).unwrap(), "qwen3.context_length"), 16.0);
    let dir = changed("mistral", |c| c["sliding_window"] = Json::Null);
    let out = dir.path().join("out.gguf");
    assert_eq!(convert(dir.path(), &out, GgmlType::F32).unwrap().architecture, "llama");
}
