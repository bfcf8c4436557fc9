//! What is shared between sequences that begin alike: the laws of `docs/correctness.md` with a cache that remembers, and
//! by counters that it is computed once.

mod labels;
mod random;

use inference_core::{
    ClassifyOptions, Completion, FinishReason, GenerateOptions, Message, TextModel,
};
use inference_cpu::Cpu;
use inference_tests::{
    engines::Plan,
    fixtures::{LABELS, instruction},
    spy::Seen,
};
use inference_text::Served;
use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
};

fn storyteller(plan: Plan) -> (Served, Arc<Seen>) {
    plan.start(|| Cpu::new(2)).expect("loads")
}

/// Ten turns: each computes what is new in it, and nothing twice.
#[test]
fn a_chat_of_ten_turns_computes_every_token_once() {
    let (model, seen) = storyteller(Plan::new("storyteller"));
    let mut messages = Vec::new();
    let mut so_far = 0;
    for turn in 0..10 {
        let question = ["What colour is the sky?", "What does a cow say?"][turn % 2];
        messages.push(Message::user(question));
        let options = GenerateOptions::default().max_tokens(20);
        let stream = model.chat(&messages, &options).expect("starts");
        let done = stream.finish().expect("ends well");
        assert_eq!(done.finish_reason, FinishReason::Stop);
        assert_eq!(done.metrics.cached_tokens, so_far, "turn {turn}");
        so_far = done.metrics.prompt_tokens + done.tokens.len();
        assert_eq!(seen.tokens.load(SeqCst), so_far, "turn {turn}");
        messages.push(Message::assistant(done.text()));
    }
    assert!(so_far > 200, "{so_far}");
}

/// The beginning of a call's rows is computed once, the rows then share their steps, and only wanted rows reach the head.
#[test]
fn rows_of_one_call_share_their_beginning() {
    let (model, seen) =
        storyteller(Plan { step_tokens: 512, slots: 32, ..Plan::new("storyteller") });
    let prompts: Vec<_> =
        (0..20).map(|i| instruction(&format!("{} sheep are in the {i} garden.", i * 7))).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let tokens: Vec<_> = prompts.iter().map(|p| model.tokenise(p).expect("encodes")).collect();
    let shared = tokens.iter().map(|t| same(t, &tokens[0])).min().expect("there are some");
    assert!(shared > 16 && !shared.is_multiple_of(32), "{shared}");
    let results = model.classify(&prompts, &ClassifyOptions::default().labels(LABELS));
    assert!(results.iter().all(Result::is_ok));
    let all: usize = tokens.iter().map(Vec::len).sum();
    let computed = seen.tokens.load(SeqCst);
    assert!(computed <= all - 19 * shared, "{computed} of {all}, {shared} shared");
    assert_eq!((seen.steps.load(SeqCst), seen.head_rows.load(SeqCst)), (2, 20));
    let metrics = model.metrics();
    assert_eq!(metrics.prompt_tokens, all);
    assert_eq!(metrics.cached_tokens, all - computed);
    assert!(metrics.active_memory > 0 && metrics.peak_memory >= metrics.active_memory);
    // The next call finds it, and its own rows; the last token of each gives the answer.
    let again = model.classify(&prompts, &ClassifyOptions::default().labels(LABELS));
    assert_eq!(seen.tokens.load(SeqCst) - computed, 20);
    for (a, b) in results.iter().zip(&again) {
        assert_eq!(a.as_ref().expect("is").labels, b.as_ref().expect("is").labels);
    }
}

/// How many tokens two prompts have in common at their beginning.
fn same(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Tokens that were computed to generate this: all but the last, unless an end token came after it.
fn computed(done: &Completion) -> usize {
    done.tokens.len() - usize::from(done.finish_reason == FinishReason::Length)
}

/// The beginning of a batch's prompts is computed once.
#[test]
fn prompts_of_a_batch_share_their_beginning() {
    let (model, seen) = storyteller(Plan { step_tokens: 512, ..Plan::new("storyteller") });
    let prompts: Vec<_> = (0..12).map(|i| instruction(&format!("{} red foxes", i * 7))).collect();
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let tokens: Vec<_> = prompts.iter().map(|p| model.tokenise(p).expect("encodes")).collect();
    let shared = tokens.iter().map(|t| same(t, &tokens[0])).min().expect("there are some");
    assert!(shared > 16 && !shared.is_multiple_of(32), "{shared}");
    let done = model.batch_generate(&prompts, &GenerateOptions::default().max_tokens(5));
    let done: Vec<_> = done.into_iter().map(|d| d.expect("ends well")).collect();
    let all: usize = tokens.iter().map(Vec::len).sum();
    let of_prompts = seen.tokens.load(SeqCst) - done.iter().map(computed).sum::<usize>();
    assert!(of_prompts <= all - 11 * shared, "{of_prompts} of {all}, {shared} shared");
    assert_eq!(model.metrics().cached_tokens, all - of_prompts);
}

/// Two callers at once whose prompts begin alike: whoever comes second waits for the first or finds it done.
#[test]
fn two_callers_at_once_compute_their_common_beginning_once() {
    for round in 0..10 {
        let (model, seen) = storyteller(Plan { step_tokens: 512, ..Plan::new("storyteller") });
        let text = |end| {
            format!("The brave old dog sang to the little red fox in the green garden, {end}")
        };
        let prompts =
            ["and it was day.", "but nobody was there."].map(|end| instruction(&text(end)));
        let tokens = [0, 1].map(|i: usize| model.tokenise(&prompts[i]).expect("encodes"));
        let shared = same(&tokens[0], &tokens[1]);
        assert!(shared > 32, "{shared}");
        let done = thread::scope(|scope| {
            let call = |prompt: &str| {
                let options = GenerateOptions::default().max_tokens(4);
                model.generate(prompt, &options).expect("starts").finish().expect("ends well")
            };
            let callers = [&prompts[0], &prompts[1]].map(|p| scope.spawn(move || call(p)));
            callers.map(|caller| caller.join().expect("ends"))
        });
        let all = tokens[0].len() + tokens[1].len() + computed(&done[0]) + computed(&done[1]);
        assert_eq!(seen.tokens.load(SeqCst), all - shared, "round {round}");
        let cached = done[0].metrics.cached_tokens + done[1].metrics.cached_tokens;
        assert_eq!(cached, shared, "round {round}");
    }
}

/// Of a text of many blocks as many are kept as the bound has bytes for, from the first on.
#[test]
fn no_more_is_kept_than_the_bound_allows() {
    let block = storyteller(Plan::new("storyteller")).0.info().cache_bytes_per_token * 32;
    let prompt = "once upon a time ".repeat(60);
    for (bytes, kept) in [(0, 0), (block - 1, 0), (block, 1), (4 * block - 1, 3), (4 * block, 4)] {
        let plan = Plan { prefix_cache: Some(bytes), ..Plan::new("storyteller") };
        let (model, _) = storyteller(plan);
        let run = || {
            let options = GenerateOptions::default().max_tokens(1);
            model.generate(&prompt, &options).expect("starts").finish().expect("ends well").metrics
        };
        let first = run();
        assert!(first.cached_tokens == 0 && first.prompt_tokens > 5 * 32, "{first:?}");
        assert_eq!(run().cached_tokens, kept * 32, "{bytes} bytes");
    }
}
