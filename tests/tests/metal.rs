//! The backend `metal` on machines without Apple's GPU, and the faults that candle's own Metal kernels have had: each must
//! be absent from ours, in Rust on candle's CPU device and as kernels that run lane by lane.

use candle_core::{DType, Result, Tensor};
use inference::{Availability, Error, LoadOptions, registry};
use inference_core::{CacheDtype, Completion, GenerateOptions, TextModel};
use inference_engine::{
    Setup,
    arch::{Activation, Attention},
    check::{self, Noise, distance},
    device::{Device, Heads},
    naive::{Mat, Naive},
    step::Step,
    weights::{DType as Stored, Matrix},
};
use inference_gpu::cpu::Order;
use inference_metal::{
    Candle, Kernels, OnCpu,
    operations::{Gather, Norm, Operations},
};
use inference_tests::{
    engines::Plan,
    fixtures, golden,
    metal::{self, Lanes},
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// Of what is computed in f32: sums in another order.
const SAME: f64 = 2e-6;

/// Calls a function with the device in both of its forms.
macro_rules! in_both_forms {
    ($check:ident) => {
        $check(&Candle::new(OnCpu::default()));
        if let Some(candle) = metal::kernels(Order::Random) {
            $check(&candle);
        }
    };
}

#[test]
fn elsewhere_it_says_why_it_is_not_available() {
    let metal = registry().get("metal").expect("the feature is on");
    let Availability::Unavailable(reason) = metal.availability() else {
        assert_eq!(std::env::consts::OS, "macos", "there is no such GPU elsewhere");
        return;
    };
    assert!(reason.contains("macOS") || reason.contains("Apple"), "{reason}");
    assert!(metal.devices().is_empty());
    let options = LoadOptions::default().backend("metal");
    let error = registry().load_model(fixtures::path("llama"), &options).err().expect("can't run");
    let Error::BackendNotAvailable { name, reason: said } = &error else { panic!("{error}") };
    assert_eq!((name.as_str(), said), ("metal", &reason));
    let error = metal.self_test(None, &mut |_| {}).expect_err("can't run");
    assert!(error.to_string().contains(&reason), "{error}");
}

/// On a Mac this is the test of the kernels.
#[test]
fn apples_gpu_agrees_with_the_reference() {
    let metal = registry().get("metal").expect("the feature is on");
    if let Availability::Unavailable(reason) = metal.availability() {
        println!("skipped: {reason}");
        return;
    }
    let test = |check: inference_core::Check| {
        check.outcome.unwrap_or_else(|e| panic!("{}: {e}", check.name));
    };
    metal.self_test(None, &mut { test }).expect("runs");
}

/// A layer whose groups of heads, width and window are none of the round ones.
fn layer(window: Option<usize>) -> Attention {
    Attention { heads: 6, kv_heads: 2, head_dim: 20, scale: 0.25, window, softcap: None }
}

/// Queries, keys and values of the token at each position.
fn heads(a: &Attention, positions: std::ops::Range<usize>) -> (usize, Vec<f32>) {
    let cols = a.q_cols() + 2 * a.kv_cols();
    (cols, positions.flat_map(|p| Noise::new(p as u64).numbers(cols)).collect())
}

/// What attention gives for a sequence that comes in chunks of so many tokens.
fn attention<D: Device>(
    device: &D,
    tensor: impl Fn(&[f32], usize) -> D::Tensor,
    a: &Attention,
    chunks: &[usize],
) -> Vec<f32> {
    let many = chunks.iter().sum::<usize>().div_ceil(device.block_len());
    // Blocks from the last to the first.
    let blocks: Vec<u32> = (0..many as u32).rev().collect();
    let mut cache = device.cache(std::slice::from_ref(a), many, CacheDtype::F32).expect("fits");
    let (mut past, mut all) = (0, Vec::new());
    for &new in chunks {
        let mut step = Step::default();
        step.push(&vec![0; new], past, past + new, &blocks, 1);
        let step = device.begin(&step, &[]).expect("begins");
        let (cols, numbers) = heads(a, past..past + new);
        let told = Heads { attention: a, q_norm: None, k_norm: None, eps: 1e-6, rope: None };
        let q = device.append(&tensor(&numbers, cols), &told, &mut cache, 0, &step);
        let y = device.attend(&q.expect("appends"), &cache, 0, a, &step).expect("attends");
        all.extend(device.read(y).expect("reads"));
        past += new;
    }
    all
}

fn attention_is_right<O: Operations>(candle: &Candle<O>, chunks: &[usize]) {
    for window in [None, Some(25)] {
        let a = layer(window);
        let ours = attention(candle, |x, cols| matrix(candle, x, cols), &a, chunks);
        let mat = |x: &[f32], cols: usize| Mat { cols, data: x.to_vec() };
        let reference = attention(&Naive::default(), mat, &a, chunks);
        let far = distance(&ours, &reference);
        assert!(far < SAME, "chunks of {chunks:?}, window {window:?}: {far:.1e}");
    }
}

fn matrix<O: Operations>(candle: &Candle<O>, numbers: &[f32], cols: usize) -> Tensor {
    let flat = candle.vector(numbers).expect("fits");
    flat.reshape((numbers.len() / cols, cols)).expect("has rows")
}

/// candle's `sdpa` masked a window and causality one after the other, and at some lengths nothing was left to a query
/// (<https://github.com/huggingface/candle/pull/3625>); its last tile reads keys that are not there
/// (<https://github.com/huggingface/candle/pull/3852>), which here are NaN.
#[test]
fn a_chunk_of_any_length_sees_all_of_its_past_and_nothing_after_it() {
    fn check<O: Operations>(candle: &Candle<O>) {
        for length in 16..=50 {
            attention_is_right(candle, &[length, 16 + length % 7]);
        }
        for chunks in [[70, 40, 33], [1, 16, 31], [64, 32, 17]] {
            attention_is_right(candle, &chunks);
        }
    }
    in_both_forms!(check);
}

/// candle's vector kernel of `sdpa` is for one query, and got several: the others' results were never written
/// (<https://github.com/huggingface/candle/pull/3479>). Here they would be NaN.
#[test]
fn several_queries_of_a_sequence_see_each_its_own_past() {
    fn check<O: Operations>(candle: &Candle<O>) {
        attention_is_right(candle, &[3, 2, 5, 8, 15, 1, 4]);
        // Beyond one split of the keys.
        attention_is_right(candle, &[250, 3, 9]);
    }
    in_both_forms!(check);
}

/// candle's `rms_norm` gave NaN for large activations (<https://github.com/huggingface/candle/pull/3477>).
#[test]
fn norms_of_any_width_and_size_are_numbers() {
    fn check<O: Operations>(candle: &Candle<O>) {
        for cols in [1, 3, 33, 127, 1030, 2049] {
            for size in [0.0, 1e-30, 1.0, 7e4, 1e9, 1e17] {
                let x: Vec<f32> =
                    Noise::new(7).numbers(3 * cols).iter().map(|x| x * size).collect();
                let weight = Noise::new(8).numbers(cols);
                let w = candle.vector(&weight).expect("fits");
                let y = candle.rms_norm(&matrix(candle, &x, cols), &w, 1e-6).expect("norms");
                let y = candle.read(y).expect("reads");
                assert!(y.iter().all(|y| y.is_finite()), "{cols} columns of size {size:e}");
                let (x, w) = (Mat { cols, data: x }, Mat { cols, data: weight });
                let reference = Naive::default().rms_norm(&x, &w, 1e-6).expect("norms").data;
                let far = distance(&y, &reference);
                assert!(far < SAME, "{cols} columns of size {size:e}: {far:.1e}");
            }
        }
    }
    in_both_forms!(check);
}

/// candle's `sdpa` took the offset of a view for one in bytes (<https://github.com/huggingface/candle/pull/3599>).
#[test]
fn operands_may_begin_anywhere_in_a_tensor() {
    fn check<O: Operations>(on: &O) -> Result<()> {
        let (rows, cols) = (5, 24);
        let place = |x: &[f32], cols: usize| {
            on.place(bytemuck::cast_slice(x), DType::F32, &[x.len() / cols, cols])
        };
        let whole = Noise::new(1).numbers((rows + 3) * cols);
        // The same numbers within others, and alone.
        let within = |first: usize, rows: usize| place(&whole, cols)?.narrow(0, first, rows);
        let alone = |first: usize, rows: usize| place(&whole[first * cols..][..rows * cols], cols);
        let row = |x: Tensor| x.flatten_all();
        let index: Vec<u32> = vec![9, 9, 4, 0, 3, 1, 2];
        let index = on.place(bytemuck::cast_slice(&index), DType::U32, &[index.len()])?;
        let numbers = |x: &Tensor| x.flatten_all()?.to_vec1::<f32>();

        let mut results = Vec::new();
        for views in [true, false] {
            let part = |first, rows| if views { within(first, rows) } else { alone(first, rows) };
            let h = on.room(rows, cols)?;
            let norm = Norm {
                x: &part(2, rows)?,
                add: None,
                weight: &row(part(7, 1)?)?,
                h: &h,
                eps: 1e-6,
            };
            on.rms_norm(&norm)?;
            let (sum, added) = (part(1, rows)?, on.room(rows, cols)?);
            let add = Norm { x: &sum, add: Some(&part(3, rows)?), h: &added, ..norm };
            on.rms_norm(&add)?;
            let gated = on.room(rows, cols / 2)?;
            on.gate(&gated, &part(3, rows)?, Activation::Silu)?;
            let twice = part(2, rows)?;
            on.add(&twice, &part(3, rows)?)?;
            on.softcap(&twice, 2.0)?;
            let gathered = on.room(rows, cols)?;
            on.gather(&gathered, &part(1, rows)?, &index.narrow(0, 2, rows)?, Gather::Rows)?;
            results.push(
                [&h, &sum, &added, &gated, &twice, &gathered]
                    .into_iter()
                    .map(numbers)
                    .collect::<Result<Vec<_>>>()?,
            );
        }
        assert_eq!(results[0], results[1]);
        Ok(())
    }
    check(&OnCpu::default()).expect("runs");
    if let Some(lanes) = Lanes::new(Order::Random) {
        check(&Kernels::new(lanes)).expect("runs");
    }
}

/// Residuals in f16 overflow in Gemma 3, and so do activations rounded to f16 for weights in f16.
#[test]
fn activations_beyond_f16_are_kept() {
    fn check<O: Operations>(candle: &Candle<O>) {
        for rows in [1, 9, 40] {
            let (cols, out) = (64, 35);
            let x: Vec<f32> = Noise::new(3).numbers(rows * cols).iter().map(|x| x * 1e6).collect();
            let map: Matrix =
                check::raw(Stored::F16, &[out, cols], &Noise::new(4).numbers(out * cols)).into();
            let product = |x: &Tensor| -> inference_core::Result<_> {
                candle.linear(x, &candle.load_linear(std::slice::from_ref(&map), None)?)
            };
            let y = product(&matrix(candle, &x, cols)).expect("multiplies");
            let naive = Naive::default();
            let loaded = naive.load_linear(std::slice::from_ref(&map), None).expect("loads");
            let reference = naive.linear(&Mat { cols, data: x }, &loaded).expect("multiplies").data;
            let far = distance(&candle.read(y).expect("reads"), &reference);
            assert!(far < SAME, "{rows} rows: {far:.1e}");
        }
    }
    in_both_forms!(check);
}

/// Law 1, with rows that come and go: to the last bit, as no operation sees who else is in a step.
#[test]
fn a_row_of_a_batch_is_what_the_prompt_gives_alone() {
    for family in ["llama", "gemma3", "phi3"] {
        let (model, _) =
            Plan::new(family).start(|| Ok(Candle::new(OnCpu::default()))).expect("loads");
        let prompts =
            ["a", "a longer prompt, of which there is more than one block of tokens", "an é"];
        let options = GenerateOptions::default().max_tokens(40).logprobs(0);
        let of = |done: &Completion| -> Vec<_> {
            done.tokens.iter().map(|t| (t.id, t.logprob.map(f32::to_bits))).collect()
        };
        let alone = |prompt: &&str| {
            of(&model.generate(prompt, &options).expect("starts").finish().expect("ends well"))
        };
        let alone: Vec<_> = prompts.iter().map(alone).collect();
        let batch = model.batch_generate(&prompts, &options);
        let batch: Vec<_> = batch.into_iter().map(|row| of(&row.expect("ends well"))).collect();
        assert_eq!(batch, alone, "{family}");
        let info = model.info();
        assert!(info.weight_bytes > 0 && info.cache_bytes_per_token > 0);
    }
}

/// Packed weights stay packed: what a model holds is little more than its file.
#[test]
fn quantised_weights_are_held_as_they_are_stored() {
    let path = fixtures::path("quantised/mlx");
    let checkpoint = inference_engine::checkpoint::Checkpoint::open(&path).expect("is described");
    let weights = checkpoint.weights().expect("opens");
    let candle = Candle::new(OnCpu::default());
    let architecture = checkpoint.architecture().clone();
    let source = checkpoint.source(&*weights, &|_| {});
    let _decoder =
        inference_engine::decoder::Decoder::load(&candle, architecture, source).expect("loads");
    let memory = candle.memory();
    let (held, stored) = (memory.active, weights.bytes());
    // Norms are widened, and rows are filled up to 32 columns.
    assert!(held >= stored && held < stored + stored / 5, "{held} bytes for {stored}");
    assert_eq!(memory.peak, held);
}

/// The device is asked for its types of cache first: weights may take minutes, and all of the memory.
#[test]
fn a_cache_it_cannot_store_is_refused_before_anything_is_loaded() {
    let loaded = Arc::new(AtomicU64::new(0));
    let seen = loaded.clone();
    let options = LoadOptions::default()
        .cache_dtype(CacheDtype::Int8)
        .progress(move |progress| seen.store(progress.done, SeqCst));
    let setup = Setup {
        backend: "metal",
        device: "candle's CPU".to_owned(),
        slots: 2,
        step_tokens: 64,
        reserve: 0,
    };
    let open = || Ok(Candle::new(OnCpu::default()));
    let error = inference_engine::load(&fixtures::path("llama"), &options, setup, open);
    let error = error.expect_err("there are no such kernels");
    assert!(matches!(&error, Error::Unsupported { backend, .. } if backend == "metal"), "{error}");
    assert!(error.to_string().contains("Int8"), "{error}");
    assert_eq!(loaded.load(SeqCst), 0, "bytes were placed before");
}

/// Whole models by the kernels, lane by lane: every family, in one of the types.
#[test]
fn the_kernels_meet_the_golden_values() {
    let types = [Stored::Bf16, Stored::F16, Stored::F32].into_iter().cycle();
    for (name, dtype) in fixtures::families().iter().zip(types) {
        let Some(candle) = metal::kernels(Order::Random) else { return };
        golden::check(&candle, "the Metal kernels", name, dtype, 29, golden::SHORT);
    }
}
