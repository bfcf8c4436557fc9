//! Many callers of one model: who goes first, who waits, who is refused. The device is a spy that takes its time.

use inference_core::{
    CancelToken, Classification, ClassifyOptions, Error, FinishReason, GenerateOptions, Priority,
    Result, ScoreOptions, TextModel, TokenStream,
};
use inference_cpu::Cpu;
use inference_tests::{engines::Plan, fixtures, spy::Seen};
use inference_text::Served;
use std::{
    sync::{Arc, atomic::Ordering::SeqCst, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// A model that runs `slots` sequences at once while `queue` calls may wait, and takes `delay` milliseconds a step.
fn model(slots: usize, queue: usize, delay: usize) -> (Served, Arc<Seen>) {
    let plan = Plan { slots, step_tokens: 256, ..Plan::new("llama") };
    let (model, seen) = plan.start(|| Cpu::new(1)).expect("loads");
    seen.delay.store(delay, SeqCst);
    (model.queue_len(Some(queue)), seen)
}

/// So many tokens, and not one less.
fn options(model: &Served, tokens: usize) -> GenerateOptions {
    GenerateOptions::default().max_tokens(tokens).logit_bias(fixtures::endless(model))
}

/// A prompt of about so many tokens.
fn prompt(tokens: usize) -> String {
    "a ".repeat(tokens)
}

fn is_busy<T>(result: &Result<T>) -> bool {
    matches!(result, Err(Error::Busy { .. }))
}

/// 8 streams decode, a prompt of 8,000 tokens comes.
#[test]
fn a_long_prompt_goes_beside_streams_in_small_steps() {
    let (model, seen) = model(16, 64, 2);
    seen.delay_of_token.store(160, SeqCst);
    let text = prompt(8000);
    let long = model.tokenise(&text).expect("encodes").len();
    assert!((7500..8192).contains(&long), "{long}");
    // Always the same token, so that none ends.
    let token = model.tokenise("a").expect("encodes").last().map(|id| (*id, 1e6));
    let one = GenerateOptions::default().max_tokens(4000).logit_bias(token);
    let mut streams: Vec<_> =
        (0..8).map(|i| model.generate(&format!("stream {i}"), &one).expect("starts")).collect();
    for stream in &mut streams {
        stream.by_ref().take(5).for_each(drop);
    }
    *seen.spans.lock().expect("is whole") = Some(Vec::new());
    let done = model.generate(&text, &options(&model, 1)).expect("starts").finish();
    assert_eq!(done.expect("ends well").tokens.len(), 1);
    let spans = seen.spans.lock().expect("is whole").take().expect("was asked for");
    assert!(spans.iter().all(|s| s.len() >= 8), "a stream was left out");
    // What a step takes, in microseconds, by what the spy was told: the test measures no time.
    let takes = |tokens: usize| 2000 + 160 * tokens;
    let usual = takes(8);
    let most = spans.iter().map(|s| takes(s.iter().sum())).max().expect("there are steps");
    assert!(most <= 3 * usual, "{most} of {usual}");
    // And the prompt gets on, by more than the 4 tokens that a step has at least.
    let with_prompt = spans.iter().filter(|s| s.len() > 8).count();
    assert!(with_prompt * 4 < long, "{with_prompt} steps for {long} tokens");
}

#[test]
fn a_short_prompt_does_not_wait_for_all_of_a_long_one() {
    let (model, seen) = model(4, 64, 1);
    seen.delay_of_token.store(100, SeqCst);
    let (long, short) = (prompt(6000), prompt(20));
    let tokens = model.tokenise(&long).expect("encodes").len();
    let mut first = model.generate(&long, &options(&model, 1)).expect("starts");
    while seen.steps.load(SeqCst) == 0 {
        thread::yield_now();
    }
    let second = model.generate(&short, &options(&model, 3)).expect("starts").finish();
    assert_eq!(second.expect("ends well").tokens.len(), 3);
    assert!(seen.tokens.load(SeqCst) < tokens / 2, "{} of {tokens}", seen.tokens.load(SeqCst));
    assert!(first.next().expect("is there").is_ok());
}

#[test]
fn one_call_too_many_is_busy_and_a_batch_is_one_call() {
    let (model, _) = model(1, 1, 2);
    let endless = options(&model, 4000);
    let running = model.generate("one", &endless).expect("starts");
    let waiting = model.generate("two", &endless).expect("waits");
    let short = options(&model, 1);
    assert!(matches!(model.generate("three", &short), Err(Error::Busy { calls: 2 })));
    assert!(is_busy(&model.generate("three", &short.clone().wait(Duration::from_millis(20)))));
    let all = ClassifyOptions::default();
    assert!(model.classify(&["a", "b", "c"], &all).iter().all(is_busy));
    assert!(model.batch_generate(&["a", "b", "c"], &short).iter().all(is_busy));
    // What can't be run is told first.
    let bad = short.clone().top_k(0);
    assert!(matches!(model.generate("x", &bad), Err(Error::InvalidOption { .. })));
    let bad = all.clone().labels(["a", "a"]);
    assert!(matches!(model.classify(&["x"], &bad)[0], Err(Error::InvalidOption { .. })));
    drop((running, waiting));
    // Both places come back; a batch of many rows takes one.
    let wait = short.clone().wait(LONG);
    let rows = model.batch_generate(&["a"; 20], &wait);
    assert!(rows.iter().all(Result::is_ok), "{rows:?}");
    let rows = model.classify(&["a"; 20], &all.wait(LONG));
    assert!(rows.iter().all(Result::is_ok), "{rows:?}");
}

/// A call of 2,000 rows has one after the other of those that come in between go beside it.
#[test]
fn nobody_waits_for_all_rows_of_another_call() {
    let (model, seen) = model(4, 64, 0);
    let texts: Vec<_> = (0..2000).map(|i| format!("text {i}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    thread::scope(|scope| {
        let rows = scope.spawn(|| model.classify(&texts, &ClassifyOptions::default()));
        while seen.steps.load(SeqCst) < 3 {
            thread::yield_now();
        }
        let computed = seen.head_rows.load(SeqCst);
        let late = model.generate("late", &options(&model, 2)).expect("starts").finish();
        let computed = seen.head_rows.load(SeqCst) - computed;
        assert_eq!(late.expect("ends well").tokens.len(), 2);
        assert!(computed < 1000, "{computed} rows came before");
        assert!(rows.join().expect("ends").iter().all(Result::is_ok));
    });
}

/// Who has read the end of a stream may call again at once: its place is free.
#[test]
fn a_place_is_free_before_its_caller_learns_of_the_end() {
    let (model, _) = model(1, 0, 0);
    let short = options(&model, 2);
    for i in 0..200 {
        let done = match i % 3 {
            0 => model.generate("again", &short).and_then(TokenStream::finish).map(drop),
            1 => model.classify(&["again"], &ClassifyOptions::default()).remove(0).map(drop),
            _ => model
                .batch_generate(&["again"; 3], &short)
                .into_iter()
                .try_for_each(|r| r.map(drop)),
        };
        assert!(done.is_ok(), "{i}: {done:?}");
        // Refused before any work, it must not keep a place either.
        assert!(matches!(model.generate("", &short), Err(Error::InvalidPrompt { .. })));
    }
}

#[test]
fn who_waits_before_the_door_is_cancelled_timed_out_and_let_in() {
    let (model, _) = model(1, 0, 2);
    let running = model.generate("one", &options(&model, 4000)).expect("starts");
    let short = || options(&model, 1).wait(LONG);
    let cancel = CancelToken::new();
    thread::scope(|scope| {
        let cancelled = scope.spawn(|| model.generate("two", &short().cancel(cancel.clone())));
        let timed_out =
            scope.spawn(|| model.generate("two", &short().timeout(Duration::from_millis(50))));
        let let_in = scope.spawn(|| model.generate("three", &short())?.finish());
        assert!(matches!(timed_out.join(), Ok(Err(Error::TimedOut { .. }))));
        cancel.cancel();
        assert!(matches!(cancelled.join(), Ok(Err(Error::Cancelled))));
        assert!(!let_in.is_finished());
        drop(running);
        let done = let_in.join().expect("ends").expect("ends well");
        assert_eq!(done.finish_reason, FinishReason::Length);
    });
}

#[test]
fn closing_and_a_panic_end_the_waiting_before_the_door() {
    for panics in [false, true] {
        let (model, seen) = model(1, 0, 2);
        let running = model.generate("one", &options(&model, 4000)).expect("starts");
        let waits = options(&model, 1).wait(LONG);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| model.generate("two", &waits));
            thread::sleep(Duration::from_millis(20));
            match panics {
                true => seen.panic_at.store(seen.steps.load(SeqCst) + 5, SeqCst),
                false => model.close(),
            }
            let error = waiting.join().expect("ends").expect_err("nobody lets it in");
            let end = running.last().expect("there is an end").expect_err("it did not end well");
            for error in [error, end] {
                match panics {
                    true => assert!(error.to_string().contains("the spy panics"), "{error}"),
                    false => assert!(matches!(error, Error::Closed), "{error}"),
                }
            }
        });
    }
}

#[test]
fn a_higher_priority_starts_before_those_that_came_first() {
    let (model, seen) = model(1, 8, 0);
    let mut running = model.generate("one", &options(&model, 4000)).expect("starts");
    assert!(running.next().expect("is there").is_ok());
    seen.delay.store(20, SeqCst);
    let (ended, ends) = mpsc::channel();
    let one = options(&model, 1);
    let streams = [Priority::Low, Priority::Normal, Priority::High]
        .map(|p| (p, model.generate("next", &one.clone().priority(p)).expect("waits")));
    drop(running);
    thread::scope(|scope| {
        for (priority, stream) in streams {
            let ended = ended.clone();
            scope.spawn(move || {
                stream.finish().expect("ends well");
                ended.send(priority).expect("is read");
            });
        }
    });
    let order: Vec<_> = ends.try_iter().collect();
    assert_eq!(order, [Priority::High, Priority::Normal, Priority::Low]);
}

/// Who cancels a classification in the middle gets the rows that are done, in their places, and soon.
#[test]
fn a_cancelled_classification_keeps_the_rows_that_are_done() {
    let (model, seen) = model(2, 4, 2);
    let texts: Vec<_> = (0..400).map(|i| format!("text {i}")).collect();
    let texts: Vec<_> = texts.iter().map(String::as_str).collect();
    let alone = model.classify(&texts[..8], &ClassifyOptions::default());
    let (cancel, before) = (CancelToken::new(), seen.head_rows.load(SeqCst));
    let options = ClassifyOptions::default().cancel(cancel.clone());
    let rows = thread::scope(|scope| {
        let rows = scope.spawn(|| model.classify(&texts, &options));
        while seen.head_rows.load(SeqCst) < before + 10 {
            thread::yield_now();
        }
        cancel.cancel();
        rows.join().expect("ends")
    });
    let done = rows.iter().take_while(|row| row.is_ok()).count();
    assert!((8..200).contains(&done), "{done}");
    assert!(rows[done..].iter().all(|row| matches!(row, Err(Error::Cancelled))));
    for (row, alone) in rows.iter().zip(&alone) {
        let token = |row: &Result<Classification>| row.as_ref().expect("ends well").token.clone();
        assert_eq!(token(row), token(alone));
    }
    // Nothing of it is left: the next call has the model to itself.
    let computed = seen.head_rows.load(SeqCst);
    assert!(model.classify(&["one"], &ClassifyOptions::default())[0].is_ok());
    assert_eq!(seen.head_rows.load(SeqCst), computed + 1);
    assert!(computed - before <= done + 4, "{computed} rows, {done} of use");
}

/// A time limit ends scores in the middle as well.
#[test]
fn scores_end_with_their_time() {
    let (model, _) = model(2, 4, 2);
    let pairs = [("a prompt", " and a continuation"); 400];
    let started = Instant::now();
    let options = ScoreOptions::default().timeout(Duration::from_millis(100));
    let rows = model.batch_score(&pairs, &options);
    assert!(started.elapsed() < Duration::from_secs(20));
    let (done, late): (Vec<_>, Vec<_>) = rows.into_iter().partition(Result::is_ok);
    assert!(!done.is_empty() && !late.is_empty());
    assert!(late.iter().all(|row| matches!(row, Err(Error::TimedOut { .. }))));
}

/// A time limit counts from the call on, so it ends a call that never got its turn.
#[test]
fn a_deadline_passes_while_a_call_waits_for_its_turn() {
    let (model, _) = model(1, 4, 2);
    let _running = model.generate("one", &options(&model, 4000)).expect("starts");
    let started = Instant::now();
    let late = options(&model, 1).timeout(Duration::from_millis(30));
    let done = model.generate("two", &late).expect("waits").finish().expect("ends");
    assert_eq!((done.tokens.len(), done.finish_reason), (0, FinishReason::TimedOut));
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// A stream grows while rows run, in a cache that is too small for all.
#[test]
fn the_metrics_of_a_call_that_scores_tell_of_memory_and_of_starting_over() {
    let plan = Plan { blocks: Some(4), context: Some(120), step_tokens: 8, ..Plan::new("llama") };
    let (model, _) = Plan { prefix_cache: Some(0), ..plan }.start(|| Cpu::new(1)).expect("loads");
    let prompt = prompt(40);
    let tokens = model.tokenise(&prompt).expect("encodes").len();
    assert!((33..60).contains(&tokens), "{tokens}");
    let rows = vec![(prompt.as_str(), " and more"); 40];
    let run = |scores: bool| {
        // It ends before the rows do, so theirs are the last metrics.
        let stream = model.generate("a", &options(&model, 100)).expect("starts");
        let ok = match scores {
            true => model.batch_score(&rows, &Default::default()).iter().all(Result::is_ok),
            false => {
                let prompts: Vec<_> = rows.iter().map(|(prompt, _)| *prompt).collect();
                model.classify(&prompts, &Default::default()).iter().all(Result::is_ok)
            }
        };
        let metrics = model.metrics();
        assert!(ok && metrics.prompt_tokens >= 40 * tokens, "{metrics:?}");
        assert!(metrics.active_memory > 0 && metrics.peak_memory >= metrics.active_memory);
        assert_eq!(stream.finish().expect("ends well").tokens.len(), 100);
        metrics.preemptions
    };
    for scores in [false, true] {
        // Between two rows the stream finds a block that is free.
        assert!((0..50).any(|_| run(scores) > 0), "{scores}");
    }
}
