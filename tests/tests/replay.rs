//! Recorded steps of the GPU device: a replay gives the bits that launches one by one give, whoever joins or leaves, and what
//! goes wrong with it goes unnoticed by those who wait for tokens.

use inference_core::{CacheDtype, GenerateOptions, TextModel};
use inference_engine::device::Device;
use inference_gpu::{
    Gpu,
    cpu::{CpuDriver, Fault, NEEDS, Order},
};
use inference_tests::{
    decoding::{LENGTHS, LONGEST, Run, STEPS},
    engines::Plan,
    gpu,
};
use inference_text::Served;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

fn driver(fault: Option<Fault>, replays: &Arc<AtomicUsize>) -> Option<CpuDriver> {
    let driver = CpuDriver::new("gfx1100", Order::Forward);
    if driver.is_none() {
        println!("skipped: {NEEDS}");
    }
    driver.map(|driver| driver.with_replays(replays.clone(), fault))
}

fn device(fault: Option<Fault>) -> Option<Gpu<CpuDriver>> {
    driver(fault, &Arc::default()).map(|driver| Gpu::new(driver, 256).expect("compiles"))
}

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

/// More rows are multiplied by other kernels.
#[test]
fn steps_of_as_many_sequences_as_are_served_are_replayed_and_no_more() {
    for (rows, replays) in [(9, 3), (32, 3), (33, 0)] {
        let lengths = vec![2; rows];
        let Some(device) = device(None) else { return };
        let mut recorded = Run::new(device, "llama", &lengths);
        let plain = self::device(Some(Fault::CantRecord)).expect("it was there");
        let mut plain = Run::new(plain, "llama", &lengths);
        let step: Vec<_> = (0..rows).map(|i| (i, 1)).collect();
        for _ in 0..4 {
            assert!(recorded.step(&step) == plain.step(&step), "{rows} rows");
        }
        assert_eq!(recorded.device.replays(), replays, "{rows} rows");
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
