//! Checkpoints whose weights are quantised, on any device, against their golden values.

use crate::{
    fixtures::{self, Prompt},
    greedy,
};
use inference_core::CacheDtype;
use inference_engine::{
    config::Config, decoder::Source, device::Device, families, weights::Folder,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// Every checkpoint in `quantised/`, and how most of its matrices are: bits, and their group.
pub const CHECKPOINTS: [(&str, u8, Option<usize>); 6] = [
    ("mlx", 4, Some(64)),
    ("mlx-nested", 4, Some(64)),
    ("gptq", 4, Some(128)),
    ("gptq-act-order", 4, Some(32)),
    ("awq", 4, Some(64)),
    ("fp8", 8, None),
];

/// Of logits of a device that rounds no activations to 8 bits; those that meet 16-bit weights may be rounded to 16.
pub const CLOSE: f64 = 2e-2;

/// Runs prompts of the checkpoint `path`, all at the same time, and compares.
///
/// # Panics
/// Where they differ by more than the tolerance, or the device fails.
pub fn check<D: Device>(device: &D, what: &str, path: &Path, prompts: &[Prompt], tolerance: f64) {
    let config = Config::open(path).expect("opens");
    let family = families::find(config.model_type().expect("says")).expect("is known");
    let architecture = (family.describe)(&config).expect("is described");
    let weights = Folder::open(path, &config).expect("opens");
    let source = Source {
        weights: &weights,
        names: &family.names,
        norm_offset: family.norm_offset,
        path,
        progress: &|_| {},
    };
    let all: Vec<_> = prompts.iter().collect();
    let found = greedy::run_together(device, architecture, source, &all, CacheDtype::F32, 16);
    for (prompt, (logits, tokens)) in prompts.iter().zip(found) {
        let at = format!("{what}, prompt {:?}", prompt.name);
        greedy::compare(&at, prompt, &logits, &tokens, tolerance);
    }
}

/// `quantised/grid/golden.json`
#[derive(Debug, Deserialize)]
pub struct Grid {
    /// The prompts.
    pub tokens: Vec<Vec<u32>>,
    /// The matrix whose first row is kept.
    pub module: String,
    /// By the name of a file.
    pub files: BTreeMap<String, Form>,
}

/// What MLX makes of a file.
#[derive(Debug, Deserialize)]
pub struct Form {
    /// `affine`, or another of MLX's.
    pub mode: String,
    /// Of a weight.
    pub bits: u8,
    /// Weights that have a scale in common.
    pub group_size: usize,
    /// Of the matrix.
    pub row: Vec<f32>,
    /// By prompt.
    pub logits: Vec<Vec<f32>>,
}

impl Grid {
    /// Reads it.
    ///
    /// # Panics
    /// Where it can't be read.
    pub fn open() -> Self {
        let text = fs::read(fixtures::path("quantised/grid/golden.json")).expect("is readable");
        let grid: Self = serde_json::from_slice(&text).expect("has this form");
        assert_eq!(grid.files.len(), 6 * 3 + 3);
        grid
    }

    /// The prompts, and what a file gives for them.
    pub fn prompts(&self, form: &Form) -> Vec<Prompt> {
        let prompt = |(tokens, logits): (&Vec<u32>, &Vec<f32>)| Prompt {
            name: format!("{} tokens", tokens.len()),
            text: None,
            tokens: tokens.clone(),
            logits: logits.clone(),
            greedy: vec![],
            greedy_text: String::new(),
            margins: vec![],
        };
        self.tokens.iter().zip(&form.logits).map(prompt).collect()
    }
}

impl Form {
    /// The checkpoint with the weights of this file.
    ///
    /// # Panics
    /// Where it can't be written.
    pub fn checkpoint(&self, file: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let from = fixtures::path("quantised/grid");
        let config = fs::read(from.join("config.json")).expect("is readable");
        let mut config: Value = serde_json::from_slice(&config).expect("is JSON");
        config["quantization"] =
            json!({"mode": self.mode, "bits": self.bits, "group_size": self.group_size});
        fs::write(dir.path().join("config.json"), config.to_string()).expect("is written");
        let file = from.join(format!("{file}.safetensors"));
        fs::copy(file, dir.path().join("model.safetensors")).expect("is copied");
        dir
    }
}
