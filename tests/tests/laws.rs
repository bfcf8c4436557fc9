//! The laws of `docs/correctness.md`, on the real path: an engine with its thread, its scheduler and its cache.
//! (Law 10, that every device agrees with the reference, is in `devices.rs`.)

use inference_core::{
    CancelToken, ClassifyOptions, Completion, FinishReason, GenerateOptions, Metrics, TextModel,
    TokenStream,
};
use inference_cpu::Cpu;
use inference_engine::check::{Noise, distance};
use inference_engine::naive::Naive;
use inference_tests::{engines::Plan, fixtures};
use inference_text::Served;
use proptest::prelude::*;
use std::{
    collections::HashMap, sync::LazyLock, sync::atomic::Ordering::SeqCst, thread, time::Duration,
};

/// Families that differ in what a batch could mix up: windows, ropes that depend on the length, two bases.
const FAMILIES: [&str; 5] = ["llama", "llama-dynamic", "mistral", "gemma3", "phi3"];

fn cpu(plan: &Plan) -> Served {
    plan.start(|| Cpu::new(2)).expect("loads").0
}

fn naive(plan: &Plan, block_len: usize) -> Served {
    plan.start(move || Ok(Naive { block_len })).expect("loads").0
}

/// One engine for each family, on the CPU with two threads; made once.
static ENGINES: LazyLock<HashMap<&str, Served>> =
    LazyLock::new(|| FAMILIES.map(|name| (name, cpu(&Plan::new(name)))).into());

/// The same, whose sequences share nothing: what each gives alone.
static PLAIN: LazyLock<HashMap<&str, Served>> = LazyLock::new(|| {
    let plan = |name| Plan { prefix_cache: Some(0), ..Plan::new(name) };
    FAMILIES.map(|name| (name, cpu(&plan(name)))).into()
});

/// What one call asks for.
#[derive(Debug, Clone)]
struct Call {
    prompt: String,
    max_tokens: usize,
    temperature: f32,
    seed: u64,
}

impl Call {
    fn options(&self) -> GenerateOptions {
        let options = GenerateOptions::default().max_tokens(self.max_tokens).logprobs(0);
        options.temperature(self.temperature).seed(self.seed)
    }

    fn run(&self, model: &dyn TextModel) -> Output {
        Output::of(model.generate(&self.prompt, &self.options()).expect("starts"))
    }
}

/// What must be the same however a call is run.
#[derive(Debug, Clone, PartialEq)]
struct Output {
    ids: Vec<u32>,
    text: String,
    logprobs: Vec<Option<f32>>,
    finish_reason: FinishReason,
}

impl Output {
    fn of(stream: TokenStream) -> Self {
        Self::from(&stream.finish().expect("ends well"))
    }

    fn from(completion: &Completion) -> Self {
        Self {
            ids: completion.tokens.iter().map(|t| t.id).collect(),
            text: completion.text(),
            logprobs: completion.tokens.iter().map(|t| t.logprob).collect(),
            finish_reason: completion.finish_reason,
        }
    }
}

fn call() -> impl Strategy<Value = Call> {
    let words = proptest::collection::vec("[a-z]{1,6}|é|你好|🎉| |\n", 1..10);
    (words, 1usize..24, prop_oneof![Just(0.0f32), Just(0.9), Just(3.0)], any::<u64>()).prop_map(
        |(words, max_tokens, temperature, seed)| {
            let prompt = format!("a {}", words.join(" "));
            Call { prompt, max_tokens, temperature, seed }
        },
    )
}

fn family() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&FAMILIES[..])
}

fn few(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(few(24))]

    /// Laws 1, 4 and 6: to the last bit of the log-probabilities, whatever else runs, joins or leaves.
    #[test]
    fn a_row_of_a_batch_is_what_the_prompt_gives_alone(
        family in family(),
        calls in proptest::collection::vec(call(), 2..8),
        shared in any::<bool>(),
    ) {
        let model = &ENGINES[family];
        let calls: Vec<_> = calls.into_iter().map(|mut call| {
            if shared { call.prompt.insert_str(0, "One instruction. "); }
            call
        }).collect();
        let alone: Vec<_> = calls.iter().map(|c| c.run(&PLAIN[family])).collect();
        let streams: Vec<_> = calls.iter().map(|c| model.generate(&c.prompt, &c.options())).collect();
        let left = model.generate("somebody who leaves", &GenerateOptions::default());
        drop(left);
        for (stream, alone) in streams.into_iter().zip(&alone) {
            prop_assert_eq!(&Output::of(stream.expect("starts")), alone);
        }
        let greedy = GenerateOptions::default().max_tokens(5).logprobs(0);
        let prompts: Vec<&str> = calls.iter().map(|c| c.prompt.as_str()).collect();
        for (prompt, row) in prompts.iter().zip(model.batch_generate(&prompts, &greedy)) {
            let alone = PLAIN[family].generate(prompt, &greedy).expect("starts");
            prop_assert_eq!(Output::from(&row.expect("ends well")), Output::of(alone));
        }
    }

    /// Law 5, and that a text is what its ids decode to.
    #[test]
    fn the_texts_of_a_stream_join_to_the_decoding_of_its_ids(family in family(), call in call()) {
        let model = &ENGINES[family];
        let call = Call { temperature: 5.0, max_tokens: 60, ..call };
        let output = call.run(model);
        prop_assert_eq!(&model.detokenise(&output.ids).expect("decodes"), &output.text);
    }

    /// Law 7.
    #[test]
    fn temperature_zero_is_greedy_whatever_else_is_set(
        family in family(), call in call(), k in 1usize..50, p in 0.01f32..1.0, m in 0f32..1.0,
    ) {
        let model = &ENGINES[family];
        let call = Call { temperature: 0.0, ..call };
        let options = call.options().top_k(k).top_p(p).min_p(m);
        let set = Output::of(model.generate(&call.prompt, &options).expect("starts"));
        prop_assert_eq!(set, call.run(model));
    }

    /// Law 8.
    #[test]
    fn a_stop_text_ends_the_output_right_before_it(
        family in family(), call in call(), from in 0usize..1000, len in 1usize..8,
    ) {
        let model = &ENGINES[family];
        let call = Call { max_tokens: 40, temperature: 2.0, ..call };
        let free = call.run(model);
        let chars: Vec<char> = free.text.chars().collect();
        prop_assume!(!chars.is_empty());
        let from = from % chars.len();
        let stop: String = chars[from..(from + len).min(chars.len())].iter().collect();
        let options = call.options().stop([stop.clone(), "never to be found".to_owned()]);
        let stopped = Output::of(model.generate(&call.prompt, &options).expect("starts"));
        prop_assert_eq!(Some(stopped.text.as_str()), free.text.split(&stop).next());
        prop_assert_eq!(stopped.finish_reason, FinishReason::Stop);
        prop_assert!(free.ids.starts_with(&stopped.ids));
    }
}

proptest! {
    #![proptest_config(few(10))]

    /// Law 2: in one go, in chunks, or token by token. On the CPU to the last bit.
    #[test]
    fn chunks_of_a_prompt_change_nothing(family in family(), call in call(), chunk in 1usize..20) {
        let logits = |model: &Served| {
            let options = GenerateOptions::default().max_tokens(1).return_logits(true);
            let done = model.generate(&call.prompt, &options).expect("starts").finish().expect("ends well");
            // An end token is not delivered, so its logits are not.
            done.tokens.first().and_then(|t| t.logits.clone()).map(Vec::from)
        };
        let chunked = cpu(&Plan { step_tokens: chunk, ..Plan::new(family) });
        prop_assert!(logits(&ENGINES[family]) == logits(&chunked));
        let (one, many) = (Plan::new(family), Plan { step_tokens: chunk, ..Plan::new(family) });
        if let (Some(one), Some(many)) = (logits(&naive(&one, 16)), logits(&naive(&many, 16))) {
            prop_assert!(distance(&many, &one) <= 1e-5);
        }
    }

    /// Law 3: the block length, the pool's size and preemption.
    #[test]
    fn blocks_and_preemption_change_no_token(
        family in family(),
        calls in proptest::collection::vec(call(), 2..6),
        block_len in 1usize..20,
        spare in 0usize..4,
    ) {
        let calls: Vec<_> = calls.into_iter().map(|c| Call { temperature: 0.0, ..c }).collect();
        let model = &ENGINES[family];
        let longest = calls.iter().map(|c| model.tokenise(&c.prompt).expect("encodes").len() + c.max_tokens).max();
        let context = longest.expect("there are calls");
        let blocks = Some(context.div_ceil(block_len) + spare);
        let small = Plan { blocks, context: Some(context), ..Plan::new(family) };
        let plain = naive(&Plan { prefix_cache: Some(0), ..small.clone() }, block_len);
        let small = naive(&small, block_len);
        let streams: Vec<_> = calls.iter().map(|c| small.generate(&c.prompt, &c.options())).collect();
        for (stream, call) in streams.into_iter().zip(&calls) {
            // Between devices log-probabilities differ in the last bits, and with them close decisions.
            let (paged, plain) = (Output::of(stream.expect("starts")), call.run(&plain));
            prop_assert_eq!(paged, plain);
        }
    }
}

#[test]
fn a_pool_that_is_too_small_for_all_preempts_and_says_so() {
    let context = 96;
    let plan = Plan { blocks: Some(6), context: Some(context), ..Plan::new("llama") };
    let small = naive(&plan, 16);
    let options = GenerateOptions::default().max_tokens(60);
    let prompts = ["one two three", "four five six", "seven eight nine", "ten eleven twelve"];
    let alone: Vec<_> =
        prompts.map(|p| Output::of(small.generate(p, &options).expect("starts"))).into();
    assert_eq!(small.metrics().preemptions, 0);
    let batch = small.batch_generate(&prompts, &options);
    for (row, alone) in batch.iter().zip(alone) {
        assert_eq!(Output::from(row.as_ref().expect("ends well")), alone);
    }
    assert!(small.metrics().preemptions > 0, "{:?}", small.metrics());
}

/// Law 9: eight threads stream at once; half of them leave midway, in different ways.
#[test]
fn those_who_leave_disturb_nobody_and_give_their_memory_back() {
    for family in FAMILIES {
        let call = |i: usize| Call {
            prompt: format!("thread {i} asks for {}", "more words ".repeat(i)),
            max_tokens: 40,
            temperature: if i.is_multiple_of(3) { 0.0 } else { 1.0 },
            seed: i as u64,
        };
        let model = &ENGINES[family];
        let alone: Vec<_> = (0..8).map(|i| call(i).run(&PLAIN[family])).collect();
        thread::scope(|scope| {
            for (i, alone) in alone.iter().enumerate() {
                scope.spawn(move || {
                    let cancel = CancelToken::new();
                    let options = call(i).options().cancel(cancel.clone());
                    let mut stream = model.generate(&call(i).prompt, &options).expect("starts");
                    match i % 4 {
                        // Two leave without a word, two cancel; of each one before the first token.
                        0 => stream.by_ref().take(i).for_each(drop),
                        2 => {
                            stream.by_ref().take(i / 4 * 3).for_each(drop);
                            cancel.cancel();
                            let rest: Vec<_> = stream.by_ref().collect();
                            assert!(rest.iter().all(Result::is_ok));
                            let reason = stream.finish_reason().expect("it has ended");
                            assert!(
                                reason == FinishReason::Cancelled || reason == alone.finish_reason
                            );
                        }
                        _ => assert_eq!(Output::of(stream), *alone, "{family}, thread {i}"),
                    }
                });
            }
        });
    }
}

/// The other half of law 9: the cache has room for one sequence, so whoever kept a block would make the last one wait.
#[test]
fn blocks_come_back_however_a_sequence_ends() {
    let (context, block_len) = (64, 8);
    let plan =
        Plan { blocks: Some(context / block_len), context: Some(context), ..Plan::new("qwen3") };
    let (small, seen) = plan.start(move || Ok(Naive { block_len })).expect("loads");
    let long = "word ".repeat(20);
    let tokens = small.tokenise(&long).expect("encodes").len();
    let all = GenerateOptions::default().max_tokens(context - tokens);
    for round in 0..40 {
        match round % 5 {
            0 => drop(small.generate(&long, &all).expect("starts")),
            1 => small.generate(&long, &all).expect("starts").take(3).for_each(drop),
            2 => {
                let cancel = CancelToken::new();
                cancel.cancel();
                let options = all.clone().cancel(cancel);
                let stream = small.generate(&long, &options).expect("starts");
                assert_eq!(
                    stream.finish().expect("ends well").finish_reason,
                    FinishReason::Cancelled
                );
            }
            3 => {
                let options = all.clone().timeout(Duration::from_nanos(1));
                let stream = small.generate(&long, &options).expect("starts");
                assert_eq!(
                    stream.finish().expect("ends well").finish_reason,
                    FinishReason::TimedOut
                );
            }
            _ => {
                seen.error_at.store(seen.steps.load(SeqCst) + 2, SeqCst);
                let failed = small.generate(&long, &all).expect("starts").finish();
                // The round before may still have a step under way, which then gets the error.
                drop(failed);
            }
        }
    }
    seen.error_at.store(0, SeqCst);
    let last =
        small.generate(&long, &all.clone().logit_bias(fixtures::endless(&small))).expect("starts");
    let last = last.finish().expect("ends well");
    assert_eq!((last.tokens.len(), last.finish_reason), (context - tokens, FinishReason::Length));
    assert_eq!(last.metrics.preemptions, 0);
}

/// What nobody waits for is not computed: a prompt is left in the middle.
#[test]
fn cancelling_stops_a_prompt_between_its_chunks() {
    let plan = Plan { step_tokens: 4, ..Plan::new("llama") };
    let (model, seen) = plan.start(|| Ok(Naive::default())).expect("loads");
    seen.delay.store(5, SeqCst);
    let cancel = CancelToken::new();
    let options = GenerateOptions::default().cancel(cancel.clone());
    let prompt = "word ".repeat(300);
    let stream = model.generate(&prompt, &options).expect("starts");
    while seen.steps.load(SeqCst) < 3 {
        thread::sleep(Duration::from_millis(1));
    }
    cancel.cancel();
    let done = stream.finish().expect("ends well");
    assert_eq!((done.tokens.len(), done.finish_reason), (0, FinishReason::Cancelled));
    let tokens = model.tokenise(&prompt).expect("encodes").len();
    assert!(seen.tokens.load(SeqCst) < tokens / 2, "{} of {tokens}", seen.tokens.load(SeqCst));
}

/// A batch is a batch: its sequences share forward passes, and only wanted rows reach the head.
#[test]
fn classify_and_batch_generate_share_their_steps() {
    let plan = Plan { step_tokens: 4096, ..Plan::new("qwen3") };
    let (model, seen) = plan.start(|| Ok(Naive::default())).expect("loads");
    let prompts: Vec<_> = (0..8).map(|i| format!("prompt {i} {}", "word ".repeat(i))).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let results = model.classify(&prompts, &ClassifyOptions::default());
    assert!(results.iter().all(Result::is_ok));
    assert_eq!((seen.steps.load(SeqCst), seen.most_spans.load(SeqCst)), (1, 8));
    assert_eq!(seen.head_rows.load(SeqCst), 8);

    seen.steps.store(0, SeqCst);
    seen.head_rows.store(0, SeqCst);
    let options = GenerateOptions::default().max_tokens(10).logit_bias(fixtures::endless(&model));
    let results = model.batch_generate(&prompts, &options);
    let done: Vec<_> = results.into_iter().map(|r| r.expect("ends well")).collect();
    assert!(done.iter().all(|c| c.tokens.len() == 10));
    assert_eq!((seen.steps.load(SeqCst), seen.head_rows.load(SeqCst)), (10, 80));
    let sum = Metrics::of_batch(done.iter().map(|c| &c.metrics));
    assert_eq!(model.metrics().generated_tokens, 80);
    assert_eq!(model.metrics().prompt_tokens, sum.prompt_tokens);
}

/// A panic on the engine's thread ends every stream with an error that says so, and the process lives.
#[test]
fn a_panic_ends_the_streams_with_an_error() {
    let (model, seen) = Plan::new("qwen3").start(|| Ok(Naive::default())).expect("loads");
    seen.delay.store(5, SeqCst);
    seen.panic_at.store(4, SeqCst);
    let options = GenerateOptions::default().max_tokens(50).logit_bias(fixtures::endless(&model));
    let streams: Vec<_> =
        (0..3).map(|i| model.generate(&format!("prompt {i}"), &options).expect("starts")).collect();
    for stream in streams {
        let end = stream.last().expect("there is an end").expect_err("it panicked").to_string();
        assert!(end.contains("the spy panics"), "{end}");
    }
    let after = model.generate("after", &options).expect_err("the engine is gone").to_string();
    assert!(
        after.starts_with("the engine stopped: ") && after.contains("the spy panics"),
        "{after}"
    );
    assert!(model.classify(&["after"], &ClassifyOptions::default())[0].is_err());
    model.close();
}

/// An error of the device ends the sequences of that step, and nobody else's.
#[test]
fn an_error_of_the_device_ends_its_step_alone() {
    let (model, seen) = Plan::new("qwen3").start(|| Ok(Naive::default())).expect("loads");
    let options = GenerateOptions::default().max_tokens(8).logit_bias(fixtures::endless(&model));
    seen.error_at.store(3, SeqCst);
    let failed = model.generate("prompt", &options).expect("starts");
    let tokens: Vec<_> = failed.collect();
    assert_eq!(tokens.len(), 3, "two tokens and the error");
    assert!(matches!(&tokens[2], Err(inference_core::Error::Device { .. })), "{tokens:?}");
    let after = model.generate("prompt", &options).expect("starts").finish().expect("ends well");
    assert_eq!(after.tokens.len(), 8);
}

/// Numbers that no `f32` sum can tell apart would make the laws above hold for a broken engine: these prompts differ.
#[test]
fn the_laws_are_not_held_by_prompts_that_are_all_alike() {
    let mut noise = Noise::new(5);
    for family in FAMILIES {
        let prompts: Vec<_> = (0..6).map(|_| format!("number {}", noise.bits())).collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let options = GenerateOptions::default().max_tokens(8);
        let texts: Vec<_> = ENGINES[family]
            .batch_generate(&prompts, &options)
            .into_iter()
            .map(|c| c.expect("ends well").text())
            .collect();
        let distinct: std::collections::HashSet<_> = texts.iter().collect();
        assert!(distinct.len() >= 4, "{family}: {texts:?}");
    }
}
