//! Checkpoints whose weights are quantised give the logits of those who define the format: MLX itself, or the reference
//! implementation on the numbers that the format's own definition gives.

use inference_core::{CacheDtype, Quantisation};
use inference_cpu::{Cpu, Level};
use inference_engine::check::distance;
use inference_engine::{
    config::Config,
    decoder::Source,
    device::Device,
    families,
    naive::Naive,
    weights::{Folder, Matrix, Weights},
};
use inference_gpu::cpu::Order;
use inference_metal::{Candle, OnCpu};
use inference_tests::{
    fixtures::{self, Prompt},
    gpu, greedy, metal,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// Of logits on the reference device, which computes in f32.
const EXACT: f64 = 1e-4;

/// Of logits on the CPU with activations as they are; at one level those that meet 16-bit weights are rounded.
const CLOSE: f64 = 2e-2;

/// Of logits on the CPU with activations of 8 bits: these models have random weights, which even nothing out.
const ROUNDED: f64 = 1e-1;

/// Every checkpoint in `quantised/`, and how most of its matrices are.
const CHECKPOINTS: [(&str, u8, Option<usize>); 6] = [
    ("mlx", 4, Some(64)),
    ("mlx-nested", 4, Some(64)),
    ("gptq", 4, Some(128)),
    ("gptq-act-order", 4, Some(32)),
    ("awq", 4, Some(64)),
    ("fp8", 8, None),
];

/// Runs prompts of the checkpoint `path`, all at the same time, and compares.
fn check<D: Device>(device: &D, what: &str, path: &Path, prompts: &[Prompt], tolerance: f64) {
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

/// The same on all devices.
fn check_everywhere(name: &str, path: &Path, prompts: &[Prompt]) {
    check(&Naive { block_len: 7 }, &format!("{name} on naive"), path, prompts, EXACT);
    let candle = Candle::new(OnCpu::default());
    check(&candle, &format!("{name} on candle"), path, prompts, EXACT);
    for level in Level::available() {
        let cpu = Cpu::with_level(2, level).expect("is available");
        check(&cpu, &format!("{name} on cpu {level:?}"), path, prompts, ROUNDED);
        let cpu = cpu.exact_activations(true);
        check(&cpu, &format!("{name} on exact cpu {level:?}"), path, prompts, CLOSE);
    }
    let (arch, order) = gpu::kind_for(name);
    if let Some(gpu) = gpu::playing(arch, order) {
        check(&gpu, &format!("{name} on {arch}"), path, prompts, CLOSE);
    }
}

#[test]
fn quantised_checkpoints_meet_their_golden_values() {
    for (name, ..) in CHECKPOINTS {
        let name = format!("quantised/{name}");
        let (path, prompts) = (fixtures::path(&name), fixtures::golden(&name).prompts);
        check_everywhere(&name, &path, &prompts);
        if let Some(candle) = metal::kernels(Order::Random) {
            check(&candle, &format!("{name} by the Metal kernels"), &path, &prompts, EXACT);
        }
    }
}

#[test]
fn a_checkpoint_says_how_it_is_quantised() {
    for (name, bits, group_size) in CHECKPOINTS {
        let path = fixtures::path(&format!("quantised/{name}"));
        let weights = Folder::open(&path, &Config::open(&path).expect("opens")).expect("opens");
        assert_eq!(weights.quantisation(), Some(Quantisation { bits, group_size }), "{name}");
    }
}

/// `quantised/grid/golden.json`
#[derive(Deserialize)]
struct Grid {
    /// The prompts.
    tokens: Vec<Vec<u32>>,
    /// The matrix whose first row is kept.
    module: String,
    /// By the name of a file.
    files: BTreeMap<String, Form>,
}

/// What MLX makes of a file.
#[derive(Deserialize)]
struct Form {
    mode: String,
    bits: u8,
    group_size: usize,
    /// Of the matrix.
    row: Vec<f32>,
    /// By prompt.
    logits: Vec<Vec<f32>>,
}

/// The checkpoint with the weights of this file.
fn of_grid(file: &str, form: &Form) -> tempfile::TempDir {
    let (dir, from) = (tempfile::tempdir().expect("a folder"), fixtures::path("quantised/grid"));
    let config = fs::read(from.join("config.json")).expect("is readable");
    let mut config: Value = serde_json::from_slice(&config).expect("is JSON");
    config["quantization"] =
        json!({"mode": form.mode, "bits": form.bits, "group_size": form.group_size});
    fs::write(dir.path().join("config.json"), config.to_string()).expect("is written");
    let file = from.join(format!("{file}.safetensors"));
    fs::copy(file, dir.path().join("model.safetensors")).expect("is copied");
    dir
}

#[test]
fn every_width_and_group_of_mlx_gives_its_logits() {
    let text = fs::read(fixtures::path("quantised/grid/golden.json")).expect("is readable");
    let grid: Grid = serde_json::from_slice(&text).expect("has this form");
    assert_eq!(grid.files.len(), 6 * 3 + 3);
    for (file, form) in &grid.files {
        let dir = of_grid(file, form);
        let config = Config::open(dir.path()).expect("opens");
        let weights = Folder::open(dir.path(), &config).expect("opens");
        let found = weights.quantisation();
        let wanted = Quantisation { bits: form.bits, group_size: Some(form.group_size) };
        assert_eq!(found, Some(wanted), "{file}");
        let matrix = weights.matrix(&grid.module).expect("is read");
        let row = &matrix.to_f32()[..form.row.len()];
        match form.mode.as_str() {
            // A product and a sum, rounded once or twice.
            "affine" => assert!(distance(row, &form.row) < 1e-7, "{file}"),
            _ => assert_eq!(row, form.row, "{file}"),
        }
        assert_eq!(form.mode != "mxfp8", matches!(matrix, Matrix::Affine(_)), "{file}");
        let prompt = |(tokens, logits): (&Vec<u32>, &Vec<f32>)| Prompt {
            name: format!("{} tokens", tokens.len()),
            text: None,
            tokens: tokens.clone(),
            logits: logits.clone(),
            greedy: vec![],
            greedy_text: String::new(),
            margins: vec![],
        };
        let prompts: Vec<_> = grid.tokens.iter().zip(&form.logits).map(prompt).collect();
        check_everywhere(file, dir.path(), &prompts);
    }
}

#[test]
fn single_matrices_are_what_is_meant_to_the_last_bit() {
    let from = fixtures::path("quantised/packings");
    let text = fs::read(from.join("golden.json")).expect("is readable");
    let cases: BTreeMap<String, Value> = serde_json::from_slice(&text).expect("is JSON");
    assert_eq!(cases.len(), 11);
    for (name, settings) in cases {
        let dir = tempfile::tempdir().expect("a folder");
        let config = json!({"model_type": "llama", "quantization_config": settings});
        fs::write(dir.path().join("config.json"), config.to_string()).expect("is written");
        let file = dir.path().join("model.safetensors");
        fs::copy(from.join(format!("{name}.safetensors")), file).expect("is copied");
        let config = Config::open(dir.path()).expect("opens");
        let weights = Folder::open(dir.path(), &config).expect("opens");
        assert!(weights.has("module.weight"), "{name}");
        let (meant, matrix) = (weights.get("meant").expect("is there"), weights.matrix("module"));
        let matrix = matrix.expect("is read");
        assert_eq!(matrix.shape(), meant.shape, "{name}");
        assert!(matrix.to_f32() == meant.to_f32(), "{name} is not what is meant");
        // What was counted before it was read.
        let rest = meant.bytes.len() as u64;
        let numbers: usize = meant.shape.iter().product();
        assert_eq!(weights.parameters(), 2 * numbers as u64, "{name}");
        let (priced, taken) = (weights.bytes() - rest, matrix.bytes());
        assert!(priced >= taken && priced < taken + taken / 2, "{name}: {taken} of {priced}");
        // It can be had again after its memory was given back.
        weights.release("module");
        let again = weights.matrix("module").expect("is read").to_f32();
        assert!(again == meant.to_f32(), "{name} is another after it was released");
    }
}
