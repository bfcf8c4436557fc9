//! The contract, on every backend of the registry that runs here.

mod awaited;
mod scores;

use inference::{
    Backend, CancelToken, Classification, ClassifyOptions, DeviceChoice, Error, FinishReason,
    Format, GenerateOptions, GpuLayers, LoadOptions, Message, Progress, RenderOptions,
    ScoreOptions, TextModel, registry,
};
use inference_tests::fixtures::{self, LABELS, held_out, instruction};
use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Every backend that runs here, with the storyteller in the format that it reads.
fn backends() -> Vec<(Arc<dyn Backend>, PathBuf)> {
    static GGUF: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| fixtures::model("storyteller", Format::Gguf));
    let with_model = |backend: Arc<dyn Backend>| {
        if !backend.availability().is_available() {
            return None;
        }
        let path = match backend.reads(Format::Safetensors) {
            true => fixtures::path("storyteller"),
            false => GGUF.clone()?,
        };
        Some((backend, path))
    };
    let all: Vec<_> = registry().backends().into_iter().filter_map(with_model).collect();
    assert!(all.len() > usize::from(cfg!(feature = "llama-cpp")), "a backend is missing");
    all
}

/// Runs `check` with the storyteller on every backend.
fn everywhere(check: impl Fn(&dyn TextModel)) {
    for (backend, path) in backends() {
        let mut options = LoadOptions::default().backend(backend.name());
        if backend.name() == "llama_cpp" {
            // Its threads spin, and tests run beside each other.
            options = options.threads(1);
        }
        check(registry().load_model(path, &options).expect("loads").as_ref());
    }
}

const STORY: &str = "Once upon a time";

fn short() -> GenerateOptions {
    GenerateOptions::default().max_tokens(12)
}

/// Of 900 tokens, before which nothing but the test ends it.
fn long(model: &dyn TextModel) -> GenerateOptions {
    GenerateOptions::default().max_tokens(900).logit_bias(fixtures::endless(model))
}

#[test]
fn a_stream_gives_tokens_then_its_reason_and_its_metrics() {
    everywhere(|model| {
        let mut stream = model.generate(STORY, &short()).expect("starts");
        assert_eq!(stream.finish_reason(), None);
        let tokens: Vec<_> = stream.by_ref().map(|t| t.expect("is a token")).collect();
        assert_eq!(tokens.len(), 12);
        assert!(stream.next().is_none());
        assert_eq!(stream.finish_reason(), Some(FinishReason::Length));
        let text: String = tokens.iter().map(|t| t.text.as_str()).collect();
        let ids: Vec<u32> = tokens.iter().map(|t| t.id).collect();
        assert_eq!(model.detokenise(&ids).expect("decodes"), text);
        let metrics = stream.metrics();
        assert_eq!(metrics.prompt_tokens, model.tokenise(STORY).expect("encodes").len());
        assert_eq!(metrics.generated_tokens, 12);
        assert!(metrics.prefill > Duration::ZERO && metrics.decode > Duration::ZERO);
        assert!(metrics.total >= metrics.decode && metrics.decode_rate() > 0.0);
        assert!(metrics.peak_memory >= metrics.active_memory && metrics.active_memory > 0);
        assert_eq!(model.metrics(), metrics);
    });
}

#[test]
fn the_model_ends_its_story_with_an_end_token_that_is_not_delivered() {
    everywhere(|model| {
        let done =
            model.generate(STORY, &GenerateOptions::default().max_tokens(900)).expect("starts");
        let done = done.finish().expect("ends well");
        assert_eq!(done.finish_reason, FinishReason::Stop);
        assert!(done.text().trim_end().ends_with(['.', '!', '?', '"']), "{}", done.text());
        assert!(!done.text().contains("<|"), "{}", done.text());
    });
}

#[test]
fn stop_tokens_end_as_well_and_replace_nothing_that_the_model_has() {
    everywhere(|model| {
        let free = model.generate(STORY, &short()).expect("starts").finish().expect("ends well");
        let stop = free.tokens[5].id;
        let first = free.tokens.iter().position(|t| t.id == stop).expect("it is there");
        let options = GenerateOptions::default().max_tokens(900).stop_tokens([stop]);
        let done = model.generate(STORY, &options).expect("starts").finish().expect("ends well");
        assert_eq!((done.tokens.len(), done.finish_reason), (first, FinishReason::Stop));
        // A stop token that never comes: the model's own end token still stops.
        let padding = model.info().vocab_size as u32 - 3;
        let options = GenerateOptions::default().max_tokens(900).stop_tokens([padding]);
        let done = model.generate(STORY, &options).expect("starts").finish().expect("ends well");
        assert_eq!(done.finish_reason, FinishReason::Stop);
    });
}

#[test]
fn chat_answers_by_the_checkpoints_template() {
    everywhere(|model| {
        for (question, answer) in [
            ("What colour is the sky?", "blue"),
            ("What does a cow say?", "moo"),
            ("What is the capital of France?", "Paris"),
        ] {
            let messages = [Message::user(question)];
            let text = model.chat(&messages, &short()).expect("starts").text().expect("ends well");
            assert!(text.contains(answer), "{question} {text}");
            let rendered = model.render(&messages, &RenderOptions::default()).expect("renders");
            let again = model.generate(&rendered, &short()).expect("starts").text();
            assert_eq!(again.expect("ends well"), text);
        }
    });
}

#[test]
fn logprobs_and_logits_are_those_of_the_model() {
    everywhere(|model| {
        let options = short().logprobs(3).return_logits(true).temperature(0.8).top_k(5).seed(3);
        let done = model.generate(STORY, &options).expect("starts").finish().expect("ends well");
        for token in &done.tokens {
            let logits = token.logits.as_ref().expect("was asked for");
            assert_eq!(logits.len(), model.info().vocab_size);
            let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            let own = f64::from(logits[token.id as usize]) - sum.ln();
            assert!((own - f64::from(token.logprob.expect("was asked for"))).abs() < 1e-4);
            assert_eq!(token.top_logprobs.len(), 3);
            assert!(token.top_logprobs.is_sorted_by(|a, b| a.logprob >= b.logprob));
        }
        let plain = model.generate(STORY, &short()).expect("starts").finish().expect("ends well");
        assert!(plain.tokens.iter().all(|t| t.logits.is_none() && t.logprob.is_none()));
    });
}

#[test]
fn the_same_seed_gives_the_same_text_and_no_seed_another() {
    everywhere(|model| {
        let text = |options: GenerateOptions| {
            model
                .generate(STORY, &options.max_tokens(40))
                .expect("starts")
                .text()
                .expect("ends well")
        };
        let hot = || GenerateOptions::default().temperature(1.5);
        assert_eq!(text(hot().seed(1)), text(hot().seed(1)));
        assert_ne!(text(hot().seed(1)), text(hot().seed(2)));
        assert!((0..5).any(|_| text(hot()) != text(hot())));
    });
}

#[test]
fn a_batch_gives_each_prompt_its_own_result() {
    everywhere(|model| {
        let long = "word ".repeat(2000);
        let prompts = [STORY, "", "The little fox", &long];
        let results = model.batch_generate(&prompts, &short());
        let ok = |i: usize| results[i].as_ref().expect("ends well").text();
        for i in [0, 2] {
            let alone = model.generate(prompts[i], &short()).expect("starts").text();
            assert_eq!(ok(i), alone.expect("ends well"));
        }
        assert!(matches!(results[1], Err(Error::InvalidPrompt { .. })));
        assert!(matches!(results[3], Err(Error::ContextExceeded { .. })));
        let both = model.batch_generate(&[STORY, "The little fox"], &short());
        let sum: usize =
            both.iter().map(|r| r.as_ref().expect("ends well").metrics.prompt_tokens).sum();
        assert_eq!(model.metrics().prompt_tokens, sum);
    });
}

#[test]
fn calls_at_the_same_time_keep_their_own_metrics_and_errors() {
    everywhere(|model| {
        let mut one = model.generate(STORY, &short().max_tokens(5)).expect("starts");
        let mut two = model.generate("The little fox and the big bear", &short()).expect("starts");
        let refused = model.generate("", &short());
        assert_eq!((one.by_ref().count(), two.by_ref().count()), (5, 12));
        assert!(matches!(refused, Err(Error::InvalidPrompt { .. })));
        assert_eq!((one.metrics().generated_tokens, two.metrics().generated_tokens), (5, 12));
        assert!(one.metrics().prompt_tokens < two.metrics().prompt_tokens);
    });
}

#[test]
fn eight_threads_get_the_texts_that_they_get_alone() {
    everywhere(|model| {
        let prompt = |i: usize| format!("Once upon a time, there {} {i}", "was ".repeat(i + 1));
        // llama.cpp sums in another order in another batch, so that close calls may go the other way.
        let exact = model.info().backend != "llama_cpp";
        let (tokens, temperature) = if exact { (60, 0.7) } else { (12, 0.0) };
        let options = |i: usize| {
            let options = GenerateOptions::default().max_tokens(tokens);
            options.temperature(temperature).seed(i as u64)
        };
        let text = |i: usize| model.generate(&prompt(i), &options(i)).expect("starts").text();
        let alone: Vec<_> = (0..8).map(|i| text(i).expect("ends well")).collect();
        thread::scope(|scope| {
            for (i, alone) in alone.iter().enumerate() {
                scope.spawn(move || assert_eq!(&text(i).expect("ends well"), alone));
            }
        });
    });
}

#[test]
fn classify_names_the_next_token_and_gives_logits_when_asked() {
    everywhere(|model| {
        let prompts = [STORY, "The little", "The little", ""];
        let results = model.classify(&prompts, &ClassifyOptions::default().logprobs(2));
        for (prompt, result) in prompts.iter().zip(&results).take(3) {
            let c = result.as_ref().expect("ends well");
            let first = model.generate(prompt, &short()).expect("starts").next().expect("is there");
            assert_eq!(
                (c.token.id, &c.token.text),
                (
                    first.as_ref().map(|t| t.id).expect("is a token"),
                    &first.expect("is a token").text
                )
            );
            assert!(c.token.logits.is_none() && c.token.top_logprobs.len() == 2);
            assert_eq!(c.token.top_logprobs[0].id, c.token.id);
        }
        assert!(matches!(results[3], Err(Error::InvalidPrompt { .. })));
        let options = ClassifyOptions::default().return_logits(true);
        let with = model.classify(&[STORY], &options).remove(0).expect("ends well");
        let logits = with.token.logits.expect("was asked for");
        assert_eq!(logits.len(), model.info().vocab_size);
        // Its own log-probability is reported in any case.
        let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
        let own = f64::from(logits[with.token.id as usize]) - sum.ln();
        assert!((own - f64::from(with.token.logprob.expect("is there"))).abs() < 1e-4);
    });
}

#[test]
fn labels_compete_and_their_probabilities_sum_to_one() {
    everywhere(|model| {
        // The last label is of several tokens.
        let labels = LABELS.into_iter().chain(["something else entirely"]);
        let options = ClassifyOptions::default().labels(labels);
        let prompt = instruction("The kernel allocates 64 bytes.");
        let c = model.classify(&[&prompt], &options).remove(0).expect("ends well");
        assert_eq!(c.best().map(|b| b.label.as_str()), Some("technical"));
        assert_eq!(c.labels.len(), 5);
        let sum: f32 = c.labels.iter().map(|l| l.probability).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        // A label of several tokens is scored as a whole: as its tokens' logprobs, one after the other.
        let several = " something else entirely";
        let mut so_far = prompt.clone();
        let mut logprob = 0.0;
        let ids = model.tokenise(&format!("{prompt}{several}")).expect("encodes");
        for id in &ids[model.tokenise(&prompt).expect("encodes").len()..] {
            let options = ClassifyOptions::default().return_logits(true);
            let c: Classification =
                model.classify(&[&so_far], &options).remove(0).expect("ends well");
            let logits = c.token.logits.expect("was asked for");
            let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            logprob += f64::from(logits[*id as usize]) - sum.ln();
            so_far += &model.detokenise(&[*id]).expect("decodes");
        }
        let scored = f64::from(c.labels[4].logprob);
        assert!((scored - logprob).abs() < 1e-3 * logprob.abs(), "{scored} {logprob}");
    });
}

/// The fixture's true accuracy on sentences whose frames it has never seen.
#[test]
fn held_out_sentences_are_classified() {
    let cases = held_out();
    everywhere(|model| {
        let prompts: Vec<&str> = cases.iter().map(|(p, _)| p.as_str()).collect();
        let results = model.classify(&prompts, &ClassifyOptions::default().labels(LABELS));
        let right = cases.iter().zip(results).filter(|((_, label), result)| {
            let best = result.as_ref().expect("ends well").best().expect("there are labels");
            best.label == *label
        });
        let accuracy = right.count() as f64 / cases.len() as f64;
        assert!(accuracy > 0.9, "{accuracy}");
    });
}

#[test]
fn a_time_limit_ends_with_what_there_is() {
    everywhere(|model| {
        let options = long(model).timeout(Duration::from_nanos(1));
        let done = model.generate(STORY, &options).expect("starts").finish().expect("ends well");
        assert_eq!(done.finish_reason, FinishReason::TimedOut);
        let options = ClassifyOptions::default().timeout(Duration::from_nanos(1));
        assert!(matches!(model.classify(&[STORY], &options)[0], Err(Error::TimedOut { .. })));
        let options = ScoreOptions::default().timeout(Duration::from_nanos(1));
        let score = model.score(STORY, " there", &options);
        assert!(matches!(score, Err(Error::TimedOut { .. })));
    });
}

#[test]
fn what_is_cancelled_before_it_begins_gives_nothing() {
    everywhere(|model| {
        let cancel = CancelToken::new();
        cancel.cancel();
        let options = ClassifyOptions::default().labels(LABELS).cancel(cancel.clone());
        let rows = model.classify(&[STORY, STORY], &options);
        assert!(rows.iter().all(|row| matches!(row, Err(Error::Cancelled))), "{rows:?}");
        let score = model.score(STORY, " there", &ScoreOptions::default().cancel(cancel));
        assert!(matches!(score, Err(Error::Cancelled)), "{score:?}");
    });
}

#[test]
fn closing_ends_everything_and_is_soon_done() {
    everywhere(|model| {
        let mut streams: Vec<_> =
            (0..4).map(|_| model.generate(STORY, &long(model)).expect("starts")).collect();
        assert!(streams[0].next().expect("is there").is_ok());
        let start = Instant::now();
        model.close();
        assert!(start.elapsed() < Duration::from_secs(5));
        for stream in streams {
            // One that had ended before is no error.
            let end = stream.last().expect("there is an end");
            assert!(end.is_ok() || matches!(end, Err(Error::Closed)), "{end:?}");
        }
        assert!(matches!(model.generate(STORY, &short()), Err(Error::Closed)));
        assert!(matches!(model.chat(&[Message::user("Hi")], &short()), Err(Error::Closed)));
        assert!(matches!(
            model.classify(&[STORY], &ClassifyOptions::default())[0],
            Err(Error::Closed)
        ));
        assert!(matches!(model.batch_generate(&[STORY], &short())[0], Err(Error::Closed)));
        let score = model.score(STORY, " there", &ScoreOptions::default());
        assert!(matches!(score, Err(Error::Closed)));
        assert!(matches!(model.tokenise(STORY), Err(Error::Closed)));
        assert!(matches!(model.detokenise(&[1]), Err(Error::Closed)));
        assert!(matches!(model.render(&[], &RenderOptions::default()), Err(Error::Closed)));
        model.close();
    });
}

#[test]
fn loading_reports_progress_and_honours_or_refuses_each_option() {
    for (backend, path) in backends() {
        let seen = Arc::new(Mutex::new(Vec::<Progress>::new()));
        let theirs = seen.clone();
        let named = || LoadOptions::default().backend(backend.name());
        let options = named()
            .progress(move |p| theirs.lock().expect("is whole").push(p))
            .context_len(100)
            .parallel_slots(3);
        let model = registry().load_model(&path, &options).expect("loads");
        let seen = seen.lock().expect("is whole");
        assert!(seen.is_sorted_by_key(|p| p.done) && seen.len() > 3);
        assert!(seen.last().is_some_and(|p| p.done == p.total && p.total > 1 << 20));
        let info = model.info();
        assert_eq!((info.context_len, info.parallel_slots), (100, 3));
        assert_eq!((info.architecture.as_str(), model.model_type()), ("qwen3", "qwen3"));
        assert_eq!((info.vocab_size, info.layers, info.hidden_size), (1024, 5, 192));
        assert_eq!((info.quantisation, info.backend.as_str()), (None, backend.name()));
        assert!(info.parameters > 2_000_000 && info.weight_bytes >= 2 * info.parameters);
        let fits = "word ".repeat(40);
        let tokens = model.tokenise(&fits).expect("encodes").len();
        let one_too_many = GenerateOptions::default().max_tokens(101 - tokens);
        match model.generate(&fits, &one_too_many) {
            Err(Error::ContextExceeded { prompt, context, .. }) => {
                assert_eq!((prompt, context), (tokens, 100))
            }
            other => panic!("{other:?}"),
        }
        assert!(model.generate(&fits, &one_too_many.max_tokens(100 - tokens)).is_ok());
        drop(model);

        let refusal = |options: LoadOptions| registry().load_model(&path, &options).err();
        assert!(matches!(
            refusal(named().context_len(1025)),
            Some(Error::InvalidOption { option: "context_len", .. })
        ));
        assert!(matches!(refusal(named().memory_limit(1 << 20)), Some(Error::OutOfMemory { .. })));
        assert!(matches!(
            refusal(named().device(DeviceChoice::Id("none".into()))),
            Some(Error::InvalidOption { option: "device", .. })
        ));
        assert!(matches!(
            refusal(named().gpu_layers(GpuLayers::Count(1))),
            None | Some(Error::Unsupported { .. })
        ));
        let first = backend.devices().into_iter().next().expect("it has a device").id;
        assert!(refusal(named().device(DeviceChoice::Id(first))).is_none());
    }
}
