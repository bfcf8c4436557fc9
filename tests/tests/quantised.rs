//! Checkpoints whose weights are quantised give the logits of those who define the format: MLX itself, or the reference
//! implementation on the numbers that the format's own definition gives.

use inference_core::Quantisation;
use inference_cpu::{Cpu, Level};
use inference_engine::check::distance;
use inference_engine::{
    config::Config,
    naive::Naive,
    weights::{Folder, Matrix, Weights},
};
use inference_gpu::cpu::Order;
use inference_metal::{Candle, OnCpu};
use inference_tests::{
    fixtures::{self, Prompt},
    gpu, metal,
    quantised::{CHECKPOINTS, CLOSE, Grid, check},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, path::Path};

/// Of logits on the reference device, which computes in f32.
const EXACT: f64 = 1e-4;

/// Of logits on the CPU with activations of 8 bits: these models have random weights, which even nothing out.
const ROUNDED: f64 = 1e-1;

/// Runs prompts of a checkpoint on all devices, and compares.
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

#[test]
fn every_width_and_group_of_mlx_gives_its_logits() {
    let grid = Grid::open();
    for (file, form) in &grid.files {
        let dir = form.checkpoint(file);
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
        check_everywhere(file, dir.path(), &grid.prompts(form));
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
