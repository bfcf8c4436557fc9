//! Recorded steps of the GPU device: a replay gives the bits that launches one by one give, whoever joins or leaves, and what
//! goes wrong with it goes unnoticed by those who wait for tokens.

use inference_core::{CacheDtype, GenerateOptions, TextModel};
use inference_engine::{checkpoint::Checkpoint, decoder::Decoder, device::Device, step::Step};
use inference_gpu::{
    Gpu,
    cpu::{CpuDriver, Fault, Order},
};
use inference_tests::{engines::Plan, fixtures, gpu};
use inference_text::Served;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

fn driver(fault: Option<Fault>, replays: &Arc<AtomicUsize>) -> Option<CpuDriver> {
    let driver = CpuDriver::new("gfx1100", Order::Forward);
    if driver.is_none() {
        println!("skipped: no C++ compiler to compile the GPU kernels with");
    }
    driver.map(|driver| driver.with_replays(replays.clone(), fault))
}

fn device(fault: Option<Fault>) -> Option<Gpu<CpuDriver>> {
    driver(fault, &Arc::default()).map(|driver| Gpu::new(driver, 256).expect("compiles"))
}

/// Sequences of these lengths that are prefilled and then get tokens, as many as each step says: the logits' bits of each.
struct Run {
    device: Gpu<CpuDriver>,
    decoder: Decoder<Gpu<CpuDriver>>,
    cache: <Gpu<CpuDriver> as Device>::Cache,
    lengths: Vec<usize>,
}

/// Tokens of a sequence of these tests, at most.
const LONGEST: usize = 640;

impl Run {
    fn new(device: Gpu<CpuDriver>, family: &str, lengths: &[usize]) -> Self {
        let checkpoint = Checkpoint::open(&fixtures::path(family)).expect("is described");
        let weights = checkpoint.weights().expect("opens");
        let architecture = checkpoint.architecture().clone();
        let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
        let source = checkpoint.source(&*weights, &|_| {});
        let decoder = Decoder::load(&device, architecture, source).expect("loads");
        let blocks = lengths.len() * LONGEST / device.block_len();
        let cache = device.cache(&layers, blocks, CacheDtype::Bf16).expect("fits");
        let mut run = Self { device, decoder, cache, lengths: vec![0; lengths.len()] };
        for (i, &length) in lengths.iter().enumerate() {
            while run.lengths[i] < length {
                run.step(&[(i, 200.min(length - run.lengths[i]))]);
            }
        }
        run
    }

    /// Runs a step in which each of these sequences gets so many tokens.
    fn step(&mut self, sequences: &[(usize, usize)]) -> Vec<u32> {
        let blocks_of = LONGEST / self.device.block_len();
        let mut step = Step::default();
        for &(i, new) in sequences {
            let past = self.lengths[i];
            let tokens: Vec<u32> = (past..past + new).map(|p| ((p * 7 + i) % 50) as u32).collect();
            let needed = (past + new).div_ceil(self.device.block_len());
            let blocks: Vec<u32> = (0..needed).map(|b| (i * blocks_of + b) as u32).collect();
            step.push(&tokens, past, past + new, &blocks, 1);
            self.lengths[i] += new;
        }
        let logits = self.decoder.forward(&self.device, &mut self.cache, &step).expect("runs");
        self.device.read(logits).expect("reads").iter().map(|x| x.to_bits()).collect()
    }
}

/// Sequences that decode: one whose context grows over a bound, others that join and leave, one with a prompt on the way.
const STEPS: [&[(usize, usize)]; 20] = [
    &[(0, 1)],
    &[(0, 1)],
    &[(0, 1)],
    &[(0, 1), (1, 1)],
    &[(0, 1), (1, 1)],
    &[(1, 1), (0, 1)],
    &[(0, 1), (1, 1), (2, 1)],
    &[(2, 1), (1, 1), (0, 1)],
    &[(0, 1), (1, 1), (2, 1)],
    &[(1, 1)],
    &[(1, 1), (2, 9)],
    &[(1, 1)],
    &[(2, 1), (1, 1)],
    &[(2, 1), (1, 1)],
    &[(0, 1)],
    &[(0, 1)],
    &[(0, 1)],
    &[(2, 1)],
    &[(2, 1)],
    &[(2, 1)],
];

const LENGTHS: [usize; 3] = [251, 20, 509];

#[test]
fn a_replay_gives_the_bits_of_launches_one_by_one() {
    for family in ["gemma3", "llama"] {
        let Some(device) = device(None) else { return };
        let mut recorded = Run::new(device, family, &LENGTHS);
        let plain = self::device(Some(Fault::CantRecord)).expect("it was there");
        let mut plain = Run::new(plain, family, &LENGTHS);
        let allocated = recorded.device.driver().allocations();
        for (i, step) in STEPS.iter().enumerate() {
            assert!(recorded.step(step) == plain.step(step), "{family}, step {i}");
        }
        assert_eq!(recorded.device.driver().allocations(), allocated);
        // Keys are met first, then once for the comparison.
        assert!(recorded.device.replays() >= 8, "{} replays", recorded.device.replays());
        assert_eq!(plain.device.replays(), 0);
    }
}

#[test]
fn what_goes_wrong_in_recording_and_replaying_changes_no_number_and_ends_it() {
    let Some(device) = device(Some(Fault::CantRecord)) else { return };
    let steps: [&[(usize, usize)]; 6] = [&[(0, 1)]; 6];
    let mut plain = Run::new(device, "llama", &[9]);
    let right = steps.map(|step| plain.step(step));
    for (fault, replays) in
        [(Fault::Record, 0), (Fault::Replay(1), 0), (Fault::Replay(3), 2), (Fault::LeaveOut, 1)]
    {
        let mut run = Run::new(self::device(Some(fault)).expect("it was there"), "llama", &[9]);
        assert!(steps.map(|step| run.step(step)) == right, "{fault:?}");
        assert_eq!(run.device.replays(), replays, "{fault:?}");
    }
}

#[test]
fn a_cache_that_is_gone_is_not_written_to() {
    let Some(device) = device(None) else { return };
    let mut run = Run::new(device, "llama", &[9]);
    (0..4).for_each(|_| drop(run.step(&[(0, 1)])));
    let before = run.device.replays();
    let architecture = run.decoder.architecture();
    let layers: Vec<_> = architecture.layers.iter().map(|l| l.attention.clone()).collect();
    let blocks = LONGEST / run.device.block_len();
    run.cache = run.device.cache(&layers, blocks, CacheDtype::Bf16).expect("fits");
    run.lengths[0] = 0;
    run.step(&[(0, 13)]);
    run.step(&[(0, 1)]);
    assert_eq!(run.device.replays(), before, "a recording is of a cache that is gone");
    run.step(&[(0, 1)]);
    run.step(&[(0, 1)]);
    assert_eq!(run.device.replays(), before + 2);
}

/// Behind the scheduler: in a cache that is too small for all, sequences join, leave, and start over.
#[test]
fn a_served_model_gives_the_same_whether_its_steps_are_replayed_or_not() {
    let outputs = |fault: Option<Fault>| {
        let replays = Arc::new(AtomicUsize::new(0));
        driver(fault, &replays)?;
        let theirs = replays.clone();
        let open = move || Gpu::new(driver(fault, &theirs).expect("it was there"), 256);
        let plan = Plan { blocks: Some(4), slots: 4, ..Plan::new("mistral") };
        let (model, _): (Served, _) = plan.start(open).expect("loads");
        let options = GenerateOptions::default().max_tokens(30).logprobs(0);
        let prompts =
            ["a", "one and two and three", "a b c d e f", "once upon a time there was", "x"];
        let rows = model.batch_generate(&prompts, &options).into_iter();
        let done: Vec<_> = rows.map(|row| row.expect("ends well")).collect();
        let preempted: usize = done.iter().map(|c| c.metrics.preemptions).sum();
        let tokens: Vec<Vec<_>> = done
            .iter()
            .map(|c| c.tokens.iter().map(|t| (t.id, t.logprob.map(f32::to_bits))).collect())
            .collect();
        Some((tokens, preempted, replays.load(SeqCst)))
    };
    let Some((recorded, preempted, replays)) = outputs(None) else { return };
    let (plain, _, none) = outputs(Some(Fault::CantRecord)).expect("it was there");
    assert!(recorded == plain, "other tokens");
    assert!(preempted > 0 && replays > 20 && none == 0, "{preempted} {replays} {none}");
}

#[test]
fn few_steps_are_recorded_for_a_long_text() {
    let Some(device) = gpu::playing("gfx1100", Order::Forward) else { return };
    let mut run = Run::new(device, "llama", &[2]);
    for _ in 0..60 {
        run.step(&[(0, 1)]);
    }
    assert_eq!(run.device.replays(), 59);
}
