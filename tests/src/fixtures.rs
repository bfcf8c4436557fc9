//! The fixtures of `models-fixtures` and what the reference implementation says of them.

use inference_core::{Format, TextModel};
use inference_engine::check::raw;
use inference_engine::weights::{DType, RawTensor, SafeTensors, Weights};
use inference_text::gguf::GgmlType;
use safetensors::{Dtype, tensor::TensorView};
use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Where the fixtures are.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models-fixtures")
}

/// A fixture's folder.
pub fn path(name: &str) -> PathBuf {
    root().join(name)
}

/// The fixture `name` in a format: its folder, or a GGUF file that is made from it with its numbers as they are.
/// `None`: GGUF has no word for something in it.
///
/// # Panics
/// Where it can't be written.
pub fn model(name: &str, format: Format) -> Option<PathBuf> {
    if format != Format::Gguf {
        return Some(path(name));
    }
    let dir = root().join("../target/gguf");
    fs::create_dir_all(&dir).expect("can be made");
    // Tests write the same file at the same time: whole, or not at all.
    static WRITERS: AtomicUsize = AtomicUsize::new(0);
    let writer = WRITERS.fetch_add(1, Relaxed);
    let part = dir.join(format!("{name}-{}-{writer}.part", std::process::id()));
    let file = dir.join(format!("{name}.gguf"));
    match xtask::gguf::convert(&path(name), &part, GgmlType::BF16) {
        Ok(_) => fs::rename(&part, &file).expect("can be moved"),
        Err(reason) => {
            assert!(reason.contains("dynamic"), "{name}: {reason}");
            return None;
        }
    }
    Some(file)
}

/// Biases with which a model never ends by itself, however its tokens are drawn.
///
/// # Panics
/// Where the model can't encode its end tokens.
pub fn endless(model: &dyn TextModel) -> Vec<(u32, f32)> {
    let ends = model.tokenise("<|im_end|><|endoftext|>").expect("encodes");
    ends.into_iter().map(|id| (id, f32::NEG_INFINITY)).collect()
}

/// The labels of what the storyteller classifies.
pub const LABELS: [&str; 4] = ["technical", "creative", "ethical", "casual"];

/// The prompt with which the storyteller classifies a text.
pub fn instruction(text: &str) -> String {
    let labels = LABELS.join(", ");
    format!("Classify this text into exactly one category: {labels}.\n\nText: {text}\n\nCategory:")
}

/// Prompts of sentences whose frames the storyteller has never seen, with their labels.
///
/// # Panics
/// Where they can't be read, or are few.
pub fn held_out() -> Vec<(String, String)> {
    let file = path("storyteller").join("classify.jsonl");
    let lines = fs::read_to_string(file).expect("is readable");
    let cases: Vec<_> = lines
        .lines()
        .map(|line| {
            let case: serde_json::Value = serde_json::from_str(line).expect("is JSON");
            let text = |name: &str| case[name].as_str().expect("is a text").to_owned();
            (instruction(&text("text")), text("label"))
        })
        .collect();
    assert!(cases.len() >= 200);
    cases
}

/// The fixtures of all families, which is to say those with random weights.
///
/// # Panics
/// Where there are fewer than there should be.
pub fn families() -> Vec<String> {
    let entries = fs::read_dir(root()).expect("there are fixtures");
    let mut names: Vec<_> = entries
        .map(|e| e.expect("is readable").file_name().to_string_lossy().into_owned())
        .filter(|n| n != "storyteller" && path(n).join("golden.json").exists())
        .collect();
    names.sort();
    assert!(names.len() >= 11, "only {names:?}");
    names
}

/// What the reference implementation says of a checkpoint.
#[derive(Debug, Deserialize)]
pub struct Golden {
    /// Prompts and what they give.
    pub prompts: Vec<Prompt>,
    /// Chats and how they are rendered.
    pub chats: Vec<Chat>,
    /// The share of held-out sentences that the reference classifies right, of a fixture that can.
    pub classify_accuracy: Option<f64>,
}

/// A prompt and what it gives.
#[derive(Debug, Clone, Deserialize)]
pub struct Prompt {
    /// What it is for.
    pub name: String,
    /// `None`: it is made-up tokens.
    pub text: Option<String>,
    /// As the tokenizer makes them, BOS included.
    pub tokens: Vec<u32>,
    /// Of the last position, one per vocabulary entry.
    pub logits: Vec<f32>,
    /// The greedy continuation, end tokens disregarded.
    pub greedy: Vec<u32>,
    /// Its text.
    pub greedy_text: String,
    /// How far the best logit is above the second, at each of its tokens.
    pub margins: Vec<f32>,
}

/// A chat and how it is rendered.
#[derive(Debug, Deserialize)]
pub struct Chat {
    /// What it is for.
    pub name: String,
    /// Role and content; some have more fields than the contract's messages.
    pub messages: Vec<serde_json::Value>,
    /// The prompt; `None` where the template refuses.
    pub rendered: Option<String>,
}

/// A fixture's golden values.
///
/// # Panics
/// Where they can't be read.
pub fn golden(name: &str) -> Golden {
    let text = fs::read_to_string(path(name).join("golden.json")).expect("is readable");
    serde_json::from_str(&text).expect("has the form of a golden file")
}

/// A copy of the fixture `name` in `dir` whose weights have another type. They lose nothing: all fixtures hold numbers
/// that fit in bf16 and in f16.
///
/// # Panics
/// Where it can't be written, or where a number does change.
pub fn convert(name: &str, dtype: DType, dir: &Path) {
    rewrite(name, dtype, dir, |name, from| {
        let numbers = from.to_f32();
        let to = raw(dtype, &from.shape, &numbers);
        assert!(dtype != DType::Bf16 || to.to_f32() == numbers, "{name} is not bf16");
        to
    });
}

/// A copy of the fixture `name` in `dir` whose tensors are what `change` makes of them, by their names, all of `dtype`.
///
/// # Panics
/// Where it can't be written.
pub fn rewrite(
    name: &str,
    dtype: DType,
    dir: &Path,
    change: impl Fn(&str, RawTensor) -> RawTensor,
) {
    for entry in fs::read_dir(path(name)).expect("is readable") {
        let file = entry.expect("is readable").path();
        let keep = file.is_file()
            && file.extension().is_none_or(|e| e != "safetensors")
            && file.file_name().is_none_or(|n| n != "model.safetensors.index.json");
        if keep {
            fs::copy(&file, dir.join(file.file_name().expect("is a file"))).expect("can be copied");
        }
    }
    let weights = SafeTensors::open(&path(name)).expect("opens");
    let tensors: Vec<_> = weights
        .names()
        .map(|n| (n.to_owned(), change(n, weights.get(n).expect("is there"))))
        .collect();
    let as_dtype = match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        _ => Dtype::BF16,
    };
    let views: Vec<_> = tensors
        .iter()
        .map(|(n, t)| {
            let view = TensorView::new(as_dtype, t.shape.clone(), &t.bytes).expect("has this size");
            (n.as_str(), view)
        })
        .collect();
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors"))
        .expect("is written");
}
