//! What every driver has to do on a card, by [`card_tests`](crate::card_tests): the device suite, the golden values of every
//! family, type and format, batches, recorded steps, and the limits of memory. All of it panics where the card is wrong.

use crate::{
    decoding::{LENGTHS, Run, STEPS},
    engines::Plan,
    fixtures, gguf,
    golden::{self, LONG, SHORT},
    quantised::{self, CHECKPOINTS, CLOSE, Grid},
};
use inference_core::{ClassifyOptions, Error, Format, GenerateOptions, TextModel};
use inference_engine::{
    check::{
        Tolerance, check_answers, check_attention, check_each_way_of_attention_is_independent,
        check_operations, check_products, distance,
    },
    naive::Naive,
    weights::DType,
};
use inference_gpu::{Driver, Gpu, Launch, args};
use std::sync::atomic::Ordering::SeqCst;

/// Most rows of a step.
const STEP_ROWS: usize = 320;

/// Adds `a` × `x` to `y`.
const ADD: &str = concat!(
    include_str!("../../crates/inference-gpu/kernels/portable.h"),
    "
KERNEL(64) add(float *y, const float *x, float a, u32 n) {
    u32 i = BID_X * 64 + TID;
    if (i < n) y[i] += a * x[i];
}
"
);

/// Opens a driver on the card; `None`, and a line that says why, where there is none.
pub type Open<D> = fn() -> Option<D>;

/// A test of each function of [`card`](crate::card), on the driver that this function of [type](Open) gives.
#[macro_export]
macro_rules! card_tests {
    ($open:path) => {
        $crate::card_tests! {
            $open;
            every_operation_agrees_with_the_reference,
            every_family_in_every_type_meets_its_golden_values,
            long_prompts_meet_the_golden_values,
            gguf_files_meet_the_golden_values,
            every_type_of_gguf_agrees_with_the_reference,
            quantised_checkpoints_meet_their_golden_values,
            every_width_and_group_of_mlx_gives_its_logits,
            the_largest_logits_alone_give_the_same_tokens,
            sequences_that_join_and_leave_get_the_logits_of_the_reference,
            a_batch_is_classified_as_its_texts_one_by_one,
            launches_are_recorded_and_replayed_and_nothing_else_is,
            copies_of_any_size_arrive_and_none_leaves_its_buffer,
            what_does_not_fit_is_an_error_and_the_device_goes_on,
        }
    };
    ($open:path; $($test:ident,)*) => {
        $(
            #[test]
            fn $test() {
                $crate::card::$test($open);
            }
        )*
    };
}

fn gpu<D: Driver>(open: Open<D>) -> Option<Gpu<D>> {
    open().map(|driver| Gpu::new(driver, STEP_ROWS).expect("its kernels compile"))
}

/// The device suite.
pub fn every_operation_agrees_with_the_reference<D: Driver>(open: Open<D>) {
    let Some(gpu) = gpu(open) else { return };
    for (what, worst) in [
        ("operations", check_operations(&gpu, Tolerance::default())),
        ("attention", check_attention(&gpu, Tolerance::default())),
        ("products", check_products(&gpu, Tolerance::default())),
    ] {
        println!("{what}: at most {:.1e} off", worst.expect("is right"));
    }
    check_each_way_of_attention_is_independent(&gpu).expect("is right");
    assert!(check_answers(&gpu).expect("is right") > 50, "all logits were brought");
}

/// All families in f32, f16 and bf16: logits, and greedy tokens.
pub fn every_family_in_every_type_meets_its_golden_values<D: Driver>(open: Open<D>) {
    meet_the_golden_values(open, SHORT);
}

/// The same with prompts past windows and original lengths.
pub fn long_prompts_meet_the_golden_values<D: Driver>(open: Open<D>) {
    meet_the_golden_values(open, LONG);
}

fn meet_the_golden_values<D: Driver>(open: Open<D>, lengths: std::ops::Range<usize>) {
    let Some(gpu) = gpu(open) else { return };
    for name in fixtures::families() {
        for dtype in [DType::F32, DType::F16, DType::Bf16] {
            // Few rows, and many, take different kernels.
            for chunk in if lengths == SHORT { &[7, 29][..] } else { &[256] } {
                golden::check(&gpu, "the card", &name, dtype, *chunk, lengths.clone());
            }
        }
    }
}

/// All families that GGUF can express, from such files.
pub fn gguf_files_meet_the_golden_values<D: Driver>(open: Open<D>) {
    let Some(gpu) = gpu(open) else { return };
    for name in fixtures::families() {
        let Some(path) = fixtures::model(&name, Format::Gguf) else { continue };
        golden::check_model(&gpu, "the card, GGUF", &name, &path, DType::Bf16, 29, SHORT);
    }
}

/// Every type of a GGUF file's weights.
pub fn every_type_of_gguf_agrees_with_the_reference<D: Driver>(open: Open<D>) {
    let Some(gpu) = gpu(open) else { return };
    let dir = tempfile::tempdir().expect("a folder");
    for ty in gguf::TYPES {
        let path = dir.path().join("model.gguf");
        gguf::write("llama", ty, 2, &path);
        let reference = gguf::logits(&Naive::default(), &path, false);
        let far = distance(&gguf::logits(&gpu, &path, false), &reference);
        println!("{ty}: {far:.1e} from the reference device");
        assert!(far <= gguf::ROUNDED, "{ty}: {far:.1e}");
    }
}

/// MLX, GPTQ, AWQ and FP8.
pub fn quantised_checkpoints_meet_their_golden_values<D: Driver>(open: Open<D>) {
    let Some(gpu) = gpu(open) else { return };
    for (name, ..) in CHECKPOINTS {
        let name = format!("quantised/{name}");
        let (path, prompts) = (fixtures::path(&name), fixtures::golden(&name).prompts);
        quantised::check(&gpu, &name, &path, &prompts, CLOSE);
    }
}

/// All widths and groups of MLX.
pub fn every_width_and_group_of_mlx_gives_its_logits<D: Driver>(open: Open<D>) {
    let Some(gpu) = gpu(open) else { return };
    let grid = Grid::open();
    for (file, form) in &grid.files {
        let dir = form.checkpoint(file);
        quantised::check(&gpu, file, dir.path(), &grid.prompts(form), CLOSE);
    }
}

/// Greedy tokens, and sampled ones, of which the card brings the largest logits alone.
pub fn the_largest_logits_alone_give_the_same_tokens<D: Driver>(open: Open<D>) {
    if open().is_none() {
        return;
    }
    let (model, seen) = served("gemma3", open);
    let options = |i: usize| {
        let all = GenerateOptions::default().max_tokens(16).seed(i as u64);
        if i.is_multiple_of(2) { all } else { all.temperature(1.5).top_k(3).top_p(0.9) }
    };
    for (i, prompt) in ["a", "one and two", "a b c d e f", "once upon a time"].iter().enumerate() {
        let tokens = |options: &GenerateOptions| -> Vec<u32> {
            let stream = model.generate(prompt, options).expect("starts");
            stream.finish().expect("ends well").tokens.iter().map(|t| t.id).collect()
        };
        let whole = tokens(&options(i).logprobs(0));
        let before = seen.short_rows.load(SeqCst);
        assert_eq!(tokens(&options(i)), whole, "{prompt:?}");
        assert!(seen.short_rows.load(SeqCst) > before, "all logits were brought");
    }
}

/// Steps of batches that change, most of them recorded and replayed where the driver does so.
pub fn sequences_that_join_and_leave_get_the_logits_of_the_reference<D: Driver>(open: Open<D>) {
    for family in ["gemma3", "llama"] {
        let Some(gpu) = gpu(open) else { return };
        let mut run = Run::new(gpu, family, &LENGTHS);
        let mut reference = Run::new(Naive { block_len: 64 }, family, &LENGTHS);
        let numbers =
            |bits: Vec<u32>| -> Vec<f32> { bits.into_iter().map(f32::from_bits).collect() };
        for (i, step) in STEPS.iter().enumerate() {
            let (got, wanted) = (numbers(run.step(step)), numbers(reference.step(step)));
            let far = distance(&got, &wanted);
            assert!(far <= CLOSE, "{family}, step {i}: {far:.1e}");
        }
        match run.device.replays() {
            0 => println!("skipped: replays, since this driver or device does not record launches"),
            replays => assert!(replays >= 8, "{replays} replays"),
        }
    }
}

/// A trained model behind its scheduler: many texts at once, which begin alike.
pub fn a_batch_is_classified_as_its_texts_one_by_one<D: Driver>(open: Open<D>) {
    if open().is_none() {
        return;
    }
    let (model, seen) = served("storyteller", open);
    let cases = fixtures::held_out();
    let prompts: Vec<&str> = cases.iter().take(16).map(|(prompt, _)| prompt.as_str()).collect();
    let options = ClassifyOptions::default().labels(fixtures::LABELS);
    let together = model.classify(&prompts, &options);
    assert!(seen.most_spans.load(SeqCst) > 1, "they came one by one");
    for (together, prompt) in together.into_iter().zip(&prompts) {
        let alone = model.classify(&[prompt], &options).remove(0).expect("ends well");
        let together = together.expect("ends well");
        for (a, b) in together.labels.iter().zip(&alone.labels) {
            let far = (a.probability - b.probability).abs();
            assert!(far < 2e-2, "{prompt:?}: {a:?}, alone {b:?}");
        }
    }
}

fn served<D: Driver>(
    name: &str,
    open: Open<D>,
) -> (inference_text::Served, std::sync::Arc<crate::spy::Seen>) {
    let open = move || Gpu::new(open().expect("it was there"), STEP_ROWS);
    Plan::new(name).start(open).expect("loads")
}

/// Recording.
pub fn launches_are_recorded_and_replayed_and_nothing_else_is<D: Driver>(open: Open<D>) {
    let Some(driver) = open() else { return };
    let add = driver.compile(ADD, &[], &["add"]).expect("it compiles");
    let (x, y) = (driver.alloc(4).expect("it fits"), driver.alloc(4).expect("it fits"));
    driver.upload(&x, 0, &2f32.to_le_bytes()).expect("it runs");
    driver.upload(&y, 0, &1f32.to_le_bytes()).expect("it runs");
    let mut f = || {
        let (to, from) = (driver.address(&y), driver.address(&x));
        // SAFETY: the kernel's parameters; both buffers live until the end.
        unsafe { driver.launch(&add[0], Launch::new(1, 64), args![to, from, 3f32, 1u32]) }
    };
    let Some(graph) = driver.capture(&mut f).expect("it runs") else {
        println!("skipped: this driver or device does not record launches");
        return;
    };
    for _ in 0..2 {
        // SAFETY: both buffers live.
        unsafe { driver.replay(&graph) }.expect("it runs");
    }
    let mut sum = [0; 4];
    driver.download(&y, 0, &mut sum).expect("it runs");
    assert_eq!(f32::from_le_bytes(sum), 13.0);

    let error = driver.capture(&mut || driver.upload(&x, 0, &[0; 4])).map(drop);
    assert!(error.is_err(), "a copy was recorded");
    driver.upload(&x, 0, &[0; 4]).expect("the recording has ended");
    driver.synchronize().expect("it runs");
}

/// Copies.
pub fn copies_of_any_size_arrive_and_none_leaves_its_buffer<D: Driver>(open: Open<D>) {
    let Some(driver) = open() else { return };
    // More than goes through pinned memory at once, and an odd rest.
    let bytes: Vec<u8> = (0..40_000_003_u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let buffer = driver.alloc(bytes.len() + 1).expect("it fits");
    assert_eq!(driver.address(&buffer) % 256, 0);
    driver.upload(&buffer, 1, &bytes).expect("it fits");
    let mut back = vec![0; bytes.len()];
    driver.download(&buffer, 1, &mut back).expect("it fits");
    assert!(back == bytes);
    for (at, len) in [(2, bytes.len()), (usize::MAX, 2), (bytes.len() + 2, 0)] {
        assert!(driver.upload(&buffer, at, &bytes[..len]).is_err(), "{len} at {at}");
        assert!(driver.download(&buffer, at, &mut back[..len]).is_err(), "{len} at {at}");
    }
}

/// Too much, and nonsense.
pub fn what_does_not_fit_is_an_error_and_the_device_goes_on<D: Driver>(open: Open<D>) {
    let Some(driver) = open() else { return };
    let memory = driver.memory().expect("it runs");
    assert!(memory.free > 0 && memory.free <= memory.total, "{memory:?}");
    let error = driver.alloc(memory.total as usize * 2).map(drop).expect_err("it is too much");
    assert!(matches!(error, Error::OutOfMemory { available, .. } if available > 0), "{error}");
    assert!(driver.compile(ADD, &[], &["sub"]).is_err());
    assert!(driver.compile("nonsense", &[], &[]).is_err());
    let buffer = driver.alloc(1).expect("one byte fits");
    driver.upload(&buffer, 0, &[]).expect("nothing fits");
    driver.synchronize().expect("it runs");
}
