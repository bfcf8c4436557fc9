//! What the GPU device promises of its steps: few launches, and no allocation after the model is there.

use inference_core::CacheDtype;
use inference_engine::{checkpoint::Checkpoint, decoder::Decoder, device::Device, step::Step};
use inference_gpu::cpu::Order;
use inference_tests::{fixtures, gpu};

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
    for past in [680, 681] {
        // Attention is over several splits of the keys here.
        let launches = run(1, past);
        assert!(
            launches <= OF_LAYER * layers.len() + BESIDE,
            "{launches} launches for {} layers",
            layers.len()
        );
    }
    assert_eq!(driver.allocations(), allocated, "steps allocate");
}
