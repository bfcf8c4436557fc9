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
    run_together(device, architecture, source, &[prompt], cache, chunk).remove(0)
}

/// The same for several prompts in company of each other: a step has a token of each that decodes, and up to `chunk` of those
/// that do not yet.
///
/// # Panics
/// As [`run`].
pub fn run_together<D: Device>(
    device: &D,
    architecture: Architecture,
    source: Source<'_>,
    prompts: &[&Prompt],
    cache: CacheDtype,
    chunk: usize,
) -> Vec<(Vec<f32>, Vec<u32>)> {
    let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
    let of = |p: &&Prompt| (p.tokens.len() + p.greedy.len()).div_ceil(device.block_len());
    let (blocks, vocab) = (prompts.iter().map(of).sum(), architecture.vocab);
    let decoder = Decoder::load(device, architecture, source).expect("loads");
    let mut cache = device.cache(&layers, blocks, cache).expect("fits");
    let pool = BlockPool::new(blocks, device.block_len());
    let lengths = decoder.architecture().lengths();
    let mut scheduler = Scheduler::new(pool, prompts.len()).lengths(lengths);
    let sequence = |(i, p): (usize, &&Prompt)| Sequence::new(p.tokens.clone(), Wanted::Last, i);
    scheduler.add(prompts.iter().enumerate().map(sequence));
    let mut found = vec![(Vec::new(), Vec::new()); prompts.len()];
    while !scheduler.is_idle() {
        let step = scheduler.next_step(&mut NoReuse, chunk);
        let logits = decoder.forward(device, &mut cache, &step).expect("runs");
        let logits = device.read(logits).expect("reads");
        scheduler.finish_step(&step, |sequence, advance| {
            if !advance.complete {
                return Flow::Continue;
            }
            let logits = &logits[advance.rows.start * vocab..][..vocab];
            let (first, tokens) = &mut found[sequence.task];
            if first.is_empty() {
                first.extend_from_slice(logits);
            }
            let best = (0..vocab).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            let token = best.expect("there are logits") as u32;
            sequence.tokens.push(token);
            tokens.push(token);
            let wanted = prompts[sequence.task].greedy.len();
            if tokens.len() >= wanted { Flow::Done } else { Flow::Continue }
        });
    }
    found
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
