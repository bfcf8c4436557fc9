//! A prompt through a decoder, greedily, and its golden values.

use crate::fixtures::Prompt;
use inference_core::CacheDtype;
use inference_engine::check::distance;
use inference_engine::{
    arch::Architecture,
    decoder::{Decoder, Source},
    device::Device,
};
use inference_text::{
    blocks::BlockPool,
    scheduler::{Flow, NoReuse, Scheduler, Sequence, Wanted},
};

/// Runs one prompt greedily in chunks of `chunk`; gives the logits of the prompt's last position and as many tokens as
/// the golden values have.
///
/// # Panics
/// Where the checkpoint can't be loaded, or the device fails.
pub fn run<D: Device>(
    device: &D,
    architecture: Architecture,
    source: Source<'_>,
    prompt: &Prompt,
    cache: CacheDtype,
    chunk: usize,
) -> (Vec<f32>, Vec<u32>) {
    let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
    let blocks = (prompt.tokens.len() + prompt.greedy.len()).div_ceil(device.block_len());
    let decoder = Decoder::load(device, architecture, source).expect("loads");
    let mut cache = device.cache(&layers, blocks, cache).expect("fits");
    let pool = BlockPool::new(blocks, device.block_len());
    let lengths = decoder.architecture().lengths();
    let mut scheduler = Scheduler::new(pool, 1).lengths(lengths);
    scheduler.add([Sequence::new(prompt.tokens.clone(), Wanted::Last, ())]);
    let (mut first, mut tokens) = (Vec::new(), Vec::new());
    while !scheduler.is_idle() {
        let step = scheduler.next_step(&mut NoReuse, chunk);
        let logits = decoder.forward(device, &mut cache, &step).expect("runs");
        let logits = device.read(logits).expect("reads");
        scheduler.finish_step(&step, |sequence, advance| {
            if !advance.complete {
                return Flow::Continue;
            }
            if first.is_empty() {
                first = logits.clone();
            }
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            let token = best.expect("there are logits") as u32;
            sequence.tokens.push(token);
            tokens.push(token);
            if tokens.len() >= prompt.greedy.len() { Flow::Done } else { Flow::Continue }
        });
    }
    (first, tokens)
}

/// Compares what [`run`] gave with the golden values.
///
/// # Panics
/// Where the logits are further off than `tolerance`, or a token differs that this can't explain.
pub fn compare(at: &str, prompt: &Prompt, logits: &[f32], tokens: &[u32], tolerance: f64) {
    let distance = distance(logits, &prompt.logits);
    assert!(distance <= tolerance, "{at}: logits are {distance:.1e} off");
    // A logit may be off by the tolerance times the typical logit, in either direction.
    let typical = prompt.logits.iter().map(|l| f64::from(l * l)).sum::<f64>();
    let typical = (typical / prompt.logits.len() as f64).sqrt();
    for (i, margin) in prompt.margins.iter().enumerate() {
        if f64::from(*margin) < 4.0 * tolerance * typical {
            break;
        }
        assert_eq!(tokens[i], prompt.greedy[i], "{at}: token {i} of {tokens:?}");
    }
}
