//! What the GPU device promises of its steps: few launches, and no allocation after the model is there.

use inference_core::{CacheDtype, Error, FinishReason, GenerateOptions, LoadOptions, TextModel};
use inference_engine::{
    Setup, arch::Architecture, checkpoint::Checkpoint, decoder::Decoder, device::Device, step::Step,
};
use inference_gpu::cpu::Order;
use inference_tests::{engines::Plan, fixtures, gpu};
use std::{fs, sync::atomic::Ordering::SeqCst};

/// Launches of a layer of a dense Llama.
const OF_LAYER: usize = 8;

/// Launches of a step beside its layers: the embedding and its norm, the rows that reach the head, twice, and the head.
const BESIDE: usize = 5;

#[test]
fn a_decoding_step_has_few_launches_and_allocates_nothing() {
    let Some(gpu) = gpu::playing("gfx1100", Order::Forward) else { return };
    let path = fixtures::path("llama");
    let checkpoint = Checkpoint::open(&path).expect("is described");
    let weights = checkpoint.weights().expect("opens");
    let source = checkpoint.source(&*weights, &|_| {});
    let architecture = checkpoint.architecture().clone();
    let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
    let decoder = Decoder::load(&gpu, architecture, source).expect("loads");
    let many = 700usize.div_ceil(gpu.block_len());
    let mut cache = gpu.cache(&layers, many, CacheDtype::Bf16).expect("fits");
    let blocks: Vec<u32> = (0..many as u32).collect();
    let driver = gpu.driver();
    let allocated = driver.allocations();
    let mut run = |new: usize, past: usize| {
        let before = driver.launches();
        let mut step = Step::default();
        let tokens: Vec<u32> = (0..new as u32).map(|i| i % 50).collect();
        step.push(&tokens, past, past + new, &blocks, 1);
        let logits = decoder.forward(&gpu, &mut cache, &step).expect("runs");
        assert!(gpu.read(logits).expect("reads").iter().all(|x| x.is_finite()));
        driver.launches() - before
    };
    for past in [0, 250, 500] {
        run(if past == 500 { 180 } else { 250 }, past);
    }
    for past in [680, 681, 682] {
        // Attention is over several splits of the keys here. The second step runs twice: as the first was recorded, and
        // launch by launch.
        let launches = run(1, past) / if past == 681 { 2 } else { 1 };
        assert!(
            launches <= OF_LAYER * layers.len() + BESIDE,
            "{launches} launches for {} layers",
            layers.len()
        );
    }
    assert_eq!(driver.allocations(), allocated, "steps allocate");
}

/// Sequences of which the device brings the largest logits alone get the tokens that all logits give them, in company of
/// others that need all.
#[test]
fn the_largest_logits_alone_give_the_same_tokens() {
    if gpu::playing("gfx1100", Order::Forward).is_none() {
        return;
    }
    let open = || Ok(gpu::playing("gfx1100", Order::Forward).expect("it was there"));
    let (model, seen) = Plan::new("gemma3").start(open).expect("loads");
    let options = |i: usize| {
        let all = GenerateOptions::default().max_tokens(6).seed(i as u64);
        match i % 3 {
            0 => all,
            1 => all.temperature(1.5).top_k(3).top_p(0.9),
            _ => all.temperature(0.7),
        }
    };
    let prompts = ["a", "one and two", "a b c d e f", "once upon a time", "x y"];
    let run =
        |change: &dyn Fn(GenerateOptions) -> GenerateOptions| -> Vec<(Vec<u32>, FinishReason)> {
            let streams: Vec<_> = prompts
                .iter()
                .enumerate()
                .map(|(i, prompt)| model.generate(prompt, &change(options(i))).expect("starts"))
                .collect();
            let done = streams.into_iter().map(|s| s.finish().expect("ends well"));
            done.map(|c| (c.tokens.iter().map(|t| t.id).collect(), c.finish_reason)).collect()
        };
    let whole = run(&|options| options.logprobs(0));
    assert_eq!(seen.short_rows.load(SeqCst), 0);
    assert_eq!(run(&|options| options), whole);
    let tokens: usize = [0, 1, 3, 4].iter().map(|i| whole[*i].0.len()).sum();
    assert!(seen.short_rows.load(SeqCst) >= tokens, "{seen:?}");
}

#[test]
fn what_is_too_large_for_the_kernels_is_refused_before_it_is_loaded() {
    let Some(gpu) = gpu::playing("gfx1100", Order::Forward) else { return };
    let allocated = gpu.driver().allocations();
    let checkpoint = Checkpoint::open(&fixtures::path("gemma3")).expect("is described");
    let fits = checkpoint.architecture();
    assert_eq!(gpu.unsupported(fits), None);
    let changed = |change: &dyn Fn(&mut Architecture)| {
        let mut architecture = fits.clone();
        change(&mut architecture);
        gpu.unsupported(&architecture).expect("it does not fit")
    };
    let wide = changed(&|a| a.layers[1].attention.head_dim = 257);
    assert!(wide.contains("heads of 257 columns (at most 256)"), "{wide}");
    let many = changed(&|a| a.layers[0].attention.heads = 65_536);
    assert!(many.contains("65536 heads"), "{many}");
    let huge = changed(&|a| a.vocab = 1 << 24);
    assert!(huge.contains("16777216 activations"), "{huge}");
    assert_eq!(gpu.driver().allocations(), allocated);

    // The whole way: the weights, which do not have these shapes, are not even looked at.
    let dir = tempfile::tempdir().expect("a folder");
    for file in fs::read_dir(fixtures::path("llama")).expect("is there").flatten() {
        fs::copy(file.path(), dir.path().join(file.file_name())).expect("can be copied");
    }
    let config = dir.path().join("config.json");
    let text = fs::read(&config).expect("is there");
    let mut json: serde_json::Value = serde_json::from_slice(&text).expect("is JSON");
    json["head_dim"] = 320.into();
    fs::write(&config, json.to_string()).expect("can be written");
    let device = "the CPU".to_owned();
    let setup = Setup { backend: "gpu", device, slots: 2, step_tokens: 64, reserve: 0 };
    let open = || Ok(gpu::playing("gfx1100", Order::Forward).expect("it was there"));
    let error = inference_engine::load(dir.path(), &LoadOptions::default(), setup, open);
    let error = error.expect_err("heads are too wide");
    assert!(matches!(&error, Error::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("heads of 320 columns (at most 256)"), "{error}");
}
