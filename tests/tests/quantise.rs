//! Weights that are quantised while they are loaded, and checkpoints that were quantised.

use inference_core::{
    CacheDtype, ClassifyOptions, Error, GenerateOptions, LoadOptions, Message, Quantisation,
    QuantiseOptions, TextModel,
};
use inference_cpu::Cpu;
use inference_engine::check::{distance, raw};
use inference_engine::{
    Setup,
    naive::Naive,
    quantise as quantise_into,
    weights::{Affine, DType, quantise},
};
use inference_metal::{Candle, OnCpu};
use inference_tests::fixtures;
use inference_text::Served;
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

/// Of what is computed in f32: sums in another order.
const SAME: f64 = 1e-5;

const PROMPT: &str = "Once upon a time";

fn setup() -> Setup {
    let (backend, device) = ("test", "test".to_owned());
    Setup { backend, device, slots: 2, step_tokens: 64, reserve: 0 }
}

fn naive(path: &Path, options: &LoadOptions) -> Served {
    inference_engine::load(path, options, setup(), || Ok(Naive::default())).expect("loads")
}

/// Weights stay packed here, as on Apple's GPU.
fn candle(path: &Path, options: &LoadOptions) -> Served {
    let open = || Ok(Candle::new(OnCpu::default()));
    inference_engine::load(path, options, setup(), open).expect("loads")
}

fn cpu(path: &Path, options: &LoadOptions) -> inference_core::Result<Served> {
    inference_engine::load(path, options, setup(), || Cpu::new(2))
}

fn logits(model: &Served) -> Vec<f32> {
    let options = ClassifyOptions::default().return_logits(true);
    let found = model.classify(&[PROMPT], &options).remove(0).expect("ends well");
    found.token.logits.expect("were asked for").to_vec()
}

/// What is left of a matrix after it was quantised; of anything else, all of it.
fn there_and_back(name: &str, from: inference_engine::weights::RawTensor, bits: u32) -> Vec<f32> {
    let is_matrix = from.shape.len() == 2 && !name.contains("vision");
    let group = [64, 32].into_iter().find(|g| is_matrix && from.shape[1].is_multiple_of(*g));
    match group {
        Some(group) => quantise(&from, bits, group, 1).expect("can be").to_f32(),
        None => from.to_f32(),
    }
}

#[test]
fn weights_quantised_while_loading_are_those_of_the_format() {
    let exact = LoadOptions::default().cache_dtype(CacheDtype::F32).context_len(64);
    for name in fixtures::families() {
        for bits in Affine::BITS {
            let dir = tempfile::tempdir().expect("a folder");
            fixtures::rewrite(&name, DType::F32, dir.path(), |name, from| {
                let shape = from.shape.clone();
                raw(DType::F32, &shape, &there_and_back(name, from, bits))
            });
            let quantised = exact.clone().quantise(bits as u8);
            let found = logits(&naive(&fixtures::path(&name), &quantised));
            let want = logits(&naive(dir.path(), &exact));
            assert!(found == want, "{name}, {bits} bits");
            let packed = logits(&candle(&fixtures::path(&name), &quantised));
            let far = distance(&packed, &want);
            assert!(far < SAME, "{name}, {bits} bits on candle: {far:.1e}");
        }
    }
}

/// Whoever quantises once and for all gets what those get who do so each time, to the last bit.
#[test]
fn a_folder_that_was_quantised_is_the_model_that_is_quantised_while_it_is_loaded() {
    let mut names = fixtures::families();
    names.push("storyteller".to_owned());
    for name in names {
        for bits in [8, 4, 3] {
            let dir = tempfile::tempdir().expect("a folder");
            let options = QuantiseOptions::default().bits(bits);
            quantise_into(&fixtures::path(&name), dir.path(), &options).expect("is written");
            let short = LoadOptions::default().context_len(64);
            let stored = cpu(dir.path(), &short).expect("loads");
            let fresh = cpu(&fixtures::path(&name), &short.quantise(bits)).expect("loads");
            assert_eq!(stored.info(), fresh.info(), "{name}, {bits} bits");
            assert!(logits(&stored) == logits(&fresh), "{name}, {bits} bits");
        }
    }
}

#[test]
fn a_checkpoint_that_is_quantised_already_stays_as_it_is_or_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = fixtures::path("storyteller");
    quantise_into(&path, dir.path(), &QuantiseOptions::default()).expect("is written");
    let plain = cpu(dir.path(), &LoadOptions::default()).expect("loads");
    let same = cpu(dir.path(), &LoadOptions::default().quantise(4)).expect("loads");
    assert_eq!(plain.info(), same.info());
    let other = cpu(dir.path(), &LoadOptions::default().quantise(8)).expect_err("an error");
    let message = other.to_string();
    assert!(matches!(other, Error::InvalidOption { option: "quantise", .. }), "{message}");
    assert!(message.contains("8 bits") && message.contains("4 already"), "{message}");
}

#[test]
fn the_size_is_told_planned_and_counted_as_it_becomes() {
    let path = fixtures::path("storyteller");
    let dense = cpu(&path, &LoadOptions::default()).expect("loads");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let theirs = seen.clone();
    let options = LoadOptions::default().quantise(4);
    let watched = options.clone().progress(move |p| theirs.lock().expect("whole").push(p));
    let model = cpu(&path, &watched).expect("loads");

    let (was, is) = (dense.info(), model.info());
    assert_eq!(is.quantisation, Some(Quantisation { bits: 4, group_size: Some(64) }));
    assert_eq!((was.quantisation, was.parameters), (None, is.parameters));
    // All but the norms goes from 16 bits to 4 and a scale and a bias of 16 for 64 numbers.
    let norms: u64 = 5 * (2 * 192 + 2 * 64) + 192;
    let matrices = is.parameters - norms;
    assert_eq!(was.weight_bytes, 2 * is.parameters);
    assert_eq!(is.weight_bytes, 2 * norms + matrices * 9 / 16);

    let seen = seen.lock().expect("whole");
    assert!(seen.iter().all(|p| p.total == is.weight_bytes));
    assert!(seen.is_sorted_by_key(|p| p.done) && seen.len() > 10);
    // The last but one is the last tensor: all bytes were counted, and none twice.
    assert!(
        seen[seen.len() - 2..].iter().all(|p| p.done == p.total),
        "{:?}",
        &seen[seen.len() - 3..]
    );

    // Room for the quantised weights, not for the dense ones.
    let limit = is.weight_bytes + (1 << 20);
    assert!(cpu(&path, &options.memory_limit(limit).context_len(64)).is_ok());
    let too_much = cpu(&path, &LoadOptions::default().memory_limit(limit).context_len(64));
    assert!(matches!(too_much, Err(Error::OutOfMemory { .. })));
}

#[test]
fn the_storyteller_still_speaks_at_eight_and_four_bits() {
    for bits in [8, 4] {
        let load = |threads| {
            let options = LoadOptions::default().quantise(bits).threads(threads);
            cpu(&fixtures::path("storyteller"), &options).expect("loads")
        };
        let (model, again) = (load(1), load(2));
        assert!(logits(&model) == logits(&again), "{bits} bits");
        for (question, answer) in [
            ("What colour is the sky?", "The sky is blue."),
            ("What is the capital of Japan?", "The capital of Japan is Tokyo."),
        ] {
            let stream = model.chat(&[Message::user(question)], &GenerateOptions::default());
            let text = stream.expect("starts").finish().expect("ends well").text();
            assert_eq!(text, answer, "{bits} bits");
        }
    }
}

#[test]
fn what_can_not_be_quantised_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let broken = "model.layers.1.mlp.down_proj.weight";
    fixtures::rewrite("qwen3", DType::F32, dir.path(), |name, from| {
        let mut numbers = from.to_f32();
        if name == broken {
            numbers[5] = f32::NAN;
        }
        raw(DType::F32, &from.shape, &numbers)
    });
    let error = cpu(dir.path(), &LoadOptions::default().quantise(4)).expect_err("an error");
    let message = error.to_string();
    assert!(matches!(error, Error::InvalidFile { .. }), "{message}");
    assert!(message.contains(broken) && message.contains("not finite"), "{message}");
}
