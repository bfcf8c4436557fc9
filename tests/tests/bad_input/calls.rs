//! Prompts, options and labels; weights that give no numbers. After each failure the same model answers the next call.

use crate::support::{
    Checkpoint, Expected, PROMPT, answer, check, check_alive, complete, within_limits,
};
use inference::{ClassifyOptions, Error, GenerateOptions, Message, TextModel};
use std::time::Duration;

/// The error about an option.
const fn option<'a>(says: &'a [&'a str]) -> Expected<'a> {
    ("InvalidOption", says)
}

#[test]
fn an_option_that_means_nothing_is_an_error_in_every_call() {
    let new = GenerateOptions::default;
    let banned = (0..1000).map(|id| (id, f32::NEG_INFINITY));
    let cases: Vec<(&str, GenerateOptions, Expected<'_>)> = vec![
        ("max_tokens 0", new().max_tokens(0), option(&["max_tokens", "at least 1"])),
        ("temperature NaN", new().temperature(f32::NAN), option(&["temperature", "NaN"])),
        ("temperature -1", new().temperature(-1.0), option(&["temperature", "-1"])),
        ("temperature inf", new().temperature(f32::INFINITY), option(&["temperature", "inf"])),
        ("top_k 0", new().top_k(0), option(&["top_k", "at least 1"])),
        ("top_p 0", new().top_p(0.0), option(&["top_p", "above 0"])),
        ("top_p 2", new().top_p(2.0), option(&["top_p", "2", "at most 1"])),
        ("top_p NaN", new().top_p(f32::NAN), option(&["top_p", "NaN"])),
        ("min_p -0.1", new().min_p(-0.1), option(&["min_p", "-0.1"])),
        ("min_p NaN", new().min_p(f32::NAN), option(&["min_p", "NaN"])),
        ("repeat_penalty 0", new().repeat_penalty(0.0), option(&["repeat_penalty", "above 0"])),
        ("repeat_penalty -1", new().repeat_penalty(-1.0), option(&["repeat_penalty", "-1"])),
        ("repeat_penalty NaN", new().repeat_penalty(f32::NAN), option(&["repeat_penalty", "NaN"])),
        ("presence_penalty NaN", new().presence_penalty(f32::NAN), option(&["presence_penalty"])),
        (
            "frequency_penalty inf",
            new().frequency_penalty(f32::INFINITY),
            option(&["frequency_penalty"]),
        ),
        ("logit_bias NaN", new().logit_bias([(7, f32::NAN)]), option(&["logit_bias", "token 7"])),
        (
            "logit_bias inf",
            new().logit_bias([(7, f32::INFINITY)]),
            option(&["logit_bias", "token 7"]),
        ),
        (
            "logit_bias bans all",
            new().logit_bias(banned.clone()),
            option(&["logit_bias", "bans every token"]),
        ),
        (
            "logit_bias bans all, sampled",
            new().logit_bias(banned).temperature(1.0).top_k(5).top_p(0.5).min_p(0.1),
            option(&["logit_bias", "bans every token"]),
        ),
        ("empty stop", new().stop(["end", ""]), option(&["stop", "empty"])),
        ("logprobs 1001", new().logprobs(1001), option(&["logprobs", "1001", "1000"])),
        (
            "max_tokens beyond the context",
            new().max_tokens(4096),
            ("ContextExceeded", &["max_tokens 4096", "context of 4096", "context_len"]),
        ),
        (
            "max_tokens without end",
            new().max_tokens(usize::MAX),
            ("ContextExceeded", &["max_tokens", "context of 4096"]),
        ),
    ];
    within_limits("options", move || {
        let model = Checkpoint::of("qwen3").load();
        let before = answer(&*model);
        for (name, options, expected) in cases {
            check(name, complete(&*model, PROMPT, &options), expected);
            let messages = [Message::user("Hello")];
            check(name, model.chat(&messages, &options).and_then(|s| s.text()), expected);
            let batch = model.batch_generate(&[PROMPT, "Once"], &options);
            assert_eq!(batch.len(), 2);
            batch.into_iter().for_each(|result| check(name, result, expected));
            check_alive(name, &*model, &before);
        }
    });
}

/// Extreme, but each means something.
#[test]
fn an_extreme_option_gives_tokens() {
    let hot = || GenerateOptions::default().max_tokens(3).temperature(1.0);
    let cases = [
        ("temperature tiny", hot().temperature(f32::MIN_POSITIVE)),
        ("temperature huge", hot().temperature(f32::MAX)),
        ("top_k huge", hot().top_k(usize::MAX)),
        ("top_p tiny", hot().top_p(f32::MIN_POSITIVE)),
        ("min_p 1", hot().min_p(1.0)),
        ("repeat_penalty tiny", hot().repeat_penalty(f32::MIN_POSITIVE)),
        ("repeat_penalty huge", hot().repeat_penalty(f32::MAX)),
        ("penalties huge", hot().presence_penalty(f32::MAX).frequency_penalty(f32::MAX)),
        ("penalties hugely negative", hot().presence_penalty(f32::MIN).frequency_penalty(f32::MIN)),
        ("logit_bias huge", hot().logit_bias([(1, f32::MAX), (2, f32::MIN), (u32::MAX, 1.0)])),
        ("logprobs beyond the vocabulary", hot().logprobs(1000)),
        ("stop token that is none", hot().stop_tokens([u32::MAX])),
        ("long stop text", hot().stop(["x".repeat(1 << 20)])),
        ("timeout without end", hot().timeout(Duration::MAX)),
    ];
    within_limits("extremes", move || {
        let model = Checkpoint::of("qwen3").load();
        for (name, options) in cases {
            let completion = complete(&*model, PROMPT, &options.seed(1));
            let completion = completion.unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(completion.tokens.len() <= 3, "{name}");
        }
    });
}

#[test]
fn a_prompt_that_can_not_run_is_an_error() {
    let long = "word ".repeat(20_000);
    within_limits("prompts", move || {
        let model = Checkpoint::of("qwen3").load();
        let before = answer(&*model);
        let cases: [(&str, &str, Expected<'_>); 2] = [
            ("empty", "", ("InvalidPrompt", &["empty"])),
            ("long", &long, ("ContextExceeded", &["prompt tokens", "context of 4096"])),
        ];
        let options = GenerateOptions::default().max_tokens(4);
        for (name, prompt, expected) in cases {
            check(name, complete(&*model, prompt, &options), expected);
            let batch = model.batch_generate(&[prompt, PROMPT], &options);
            let [bad, good] = <[_; 2]>::try_from(batch).expect("one for each");
            check(name, bad, expected);
            assert_eq!(good.expect("the other prompt is sound").text(), before, "{name}");
            let labels = ClassifyOptions::default().labels(["yes", "no"]);
            for options in [ClassifyOptions::default(), labels] {
                let results = model.classify(&[PROMPT, prompt], &options);
                let [good, bad] = <[_; 2]>::try_from(results).expect("one for each");
                assert!(good.is_ok(), "{name}: {good:?}");
                assert!(bad.is_err(), "{name}");
                if options.labels.is_empty() {
                    check(name, bad, expected);
                }
            }
            check_alive(name, &*model, &before);
        }
        let none: &[&str] = &[];
        assert!(model.batch_generate(none, &options).is_empty());
        assert!(model.classify(none, &ClassifyOptions::default()).is_empty());
        let unknown: Expected<'_> = ("InvalidPrompt", &["token 4294967295"]);
        check("detokenise", model.detokenise(&[u32::MAX]), unknown);
        check_alive("detokenise", &*model, &before);
    });
}

#[test]
fn bad_labels_are_an_error_of_every_prompt() {
    let new = ClassifyOptions::default;
    let cases: [(&str, ClassifyOptions, Expected<'_>); 5] = [
        ("empty label", new().labels(["a", ""]), option(&["labels", "empty"])),
        ("blank label", new().labels(["a", " \n"]), option(&["labels", "empty"])),
        ("label twice", new().labels(["a", "b", "a"]), option(&["labels", "\"a\"", "twice"])),
        ("label twice but for space", new().labels(["a", " a"]), option(&["labels", "twice"])),
        ("logprobs", new().logprobs(usize::MAX), option(&["logprobs"])),
    ];
    within_limits("labels", move || {
        let model = Checkpoint::of("qwen3").load();
        let before = answer(&*model);
        for (name, options, expected) in cases {
            let results = model.classify(&[PROMPT, "Once"], &options);
            assert_eq!(results.len(), 2);
            results.into_iter().for_each(|result| check(name, result, expected));
            check_alive(name, &*model, &before);
        }
        let long = "yes ".repeat(10_000);
        let results = model.classify(&[PROMPT], &new().labels(["no", long.as_str()]));
        let too_long: Expected<'_> = ("ContextExceeded", &["context of 4096"]);
        results.into_iter().for_each(|result| check("long label", result, too_long));
        check_alive("long label", &*model, &before);
    });
}

/// Checks that every way to ask gives the error about the logits, twice, and that the engine lives.
fn check_logits(name: &str, model: &dyn TextModel) {
    let expected: Expected<'_> = ("Device", &["logits", "weights"]);
    let greedy = GenerateOptions::default().max_tokens(4);
    let hot = greedy.clone().temperature(1.0).top_p(0.9).seed(1);
    for options in [&greedy, &hot, &greedy.clone().logprobs(3), &greedy] {
        check(name, complete(model, PROMPT, options), expected);
        let batch = model.batch_generate(&[PROMPT, "Once"], options);
        batch.into_iter().for_each(|result| check(name, result, expected));
    }
    for options in [ClassifyOptions::default(), ClassifyOptions::default().labels(["yes", "no"])] {
        let results = model.classify(&[PROMPT, "Once"], &options);
        results.into_iter().for_each(|result| check(name, result, expected));
    }
    assert!(model.tokenise(PROMPT).is_ok(), "{name}");
}

#[test]
fn weights_that_are_no_numbers_are_an_error_of_the_call() {
    within_limits("NaN", || {
        let checkpoint = Checkpoint::of("qwen3");
        checkpoint.overwrite(|_| true, |bytes| bytes.fill(0xff));
        check_logits("NaN", &*checkpoint.load());
    });
}

#[test]
fn weights_that_overflow_are_an_error_of_the_call() {
    within_limits("infinite", || {
        let checkpoint = Checkpoint::of("llama-linear");
        // The head reads one column, which the norm before has made large: half of the logits are ∞, the others −∞.
        checkpoint.overwrite(
            |name| name == "model.norm.weight",
            |bytes| {
                bytes[..4].copy_from_slice(&1e6f32.to_le_bytes());
            },
        );
        checkpoint.overwrite(
            |name| name == "lm_head.weight",
            |bytes| {
                bytes.fill(0);
                for (i, row) in bytes.chunks_exact_mut(64 * 4).enumerate() {
                    let number = if i % 2 == 0 { f32::MAX } else { f32::MIN };
                    row[..4].copy_from_slice(&number.to_le_bytes());
                }
            },
        );
        check_logits("infinite", &*checkpoint.load());
    });
}

/// One prompt's damage is never another's: not in its batch, and not in whoever gets its place in the cache next.
#[test]
fn a_token_without_numbers_spoils_only_its_own_prompt() {
    within_limits("one token", || {
        let sound = Checkpoint::of("qwen3").load();
        let before = answer(&*sound);
        let id = sound.tokenise("#").expect("is a token")[0] as usize;
        let checkpoint = Checkpoint::of("qwen3");
        checkpoint.overwrite(
            |name| name == "model.embed_tokens.weight",
            |bytes| {
                bytes[id * 128..(id + 1) * 128].fill(0xff);
            },
        );
        let model = checkpoint.load();
        let options = GenerateOptions::default().max_tokens(4);
        for _ in 0..3 {
            let long = "#".repeat(100);
            let prompts = [PROMPT, "#", PROMPT, &long, PROMPT];
            for (prompt, result) in prompts.iter().zip(model.batch_generate(&prompts, &options)) {
                match result {
                    Ok(completion) => {
                        assert_eq!((completion.text(), *prompt), (before.clone(), PROMPT))
                    }
                    Err(error) => {
                        assert!(*prompt != PROMPT, "{error}");
                        assert!(matches!(error, Error::Device { .. }), "{error}");
                    }
                }
            }
            check_alive("one token", &*model, &before);
        }
    });
}

#[test]
fn a_closed_model_says_so() {
    within_limits("closed", || {
        let model = Checkpoint::of("qwen3").load();
        model.close();
        let closed: Expected<'_> = ("Closed", &["closed"]);
        let options = GenerateOptions::default();
        check("generate", complete(&*model, PROMPT, &options), closed);
        check("chat", model.chat(&[Message::user("Hello")], &options), closed);
        model
            .batch_generate(&[PROMPT], &options)
            .into_iter()
            .for_each(|r| check("batch", r, closed));
        let results = model.classify(&[PROMPT], &ClassifyOptions::default());
        results.into_iter().for_each(|r| check("classify", r, closed));
        check("tokenise", model.tokenise(PROMPT), closed);
        check("detokenise", model.detokenise(&[1]), closed);
        model.close();
    });
}
