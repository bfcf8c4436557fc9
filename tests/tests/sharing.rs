//! What is shared between sequences that begin alike: the laws of `docs/correctness.md` with a cache that remembers, and
//! by counters that it is computed once.

use inference_core::{
    CancelToken, ClassifyOptions, Error, FinishReason, GenerateOptions, Message, ScoreOptions,
    TextModel, TokenStream,
};
use inference_cpu::Cpu;
use inference_engine::{check::Noise, naive::Naive};
use inference_tests::{
    engines::Plan,
    fixtures::{LABELS, held_out, instruction},
    spy::Seen,
};
use inference_text::Served;
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

/// Families whose keys depend on more than the tokens, and one whose don't.
const FAMILIES: [&str; 5] = ["llama", "llama-dynamic", "mistral", "gemma3", "phi3"];

/// Engines that share nothing, on the CPU and on the reference device.
static PLAIN: LazyLock<HashMap<&str, [Served; 2]>> = LazyLock::new(|| {
    let plan = |name| Plan { prefix_cache: Some(0), ..Plan::new(name) };
    let cpu = |name| plan(name).start(|| Cpu::new(2)).expect("loads").0;
    let naive = |name| plan(name).start(|| Ok(Naive::default())).expect("loads").0;
    FAMILIES.map(|name| (name, [cpu(name), naive(name)])).into()
});

/// Numbers of one case.
struct Random(Noise);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0.bits() as usize % n
    }

    fn text(&mut self, most: usize) -> String {
        let letters = ['a', 'e', 'n', 't', ' ', 'o'];
        (0..1 + self.below(most)).map(|_| letters[self.below(letters.len())]).collect()
    }
}

/// One call of a case.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are few, and not for long")]
enum Call {
    /// A prompt to continue; after so many tokens it is dropped, or cancelled.
    Generate {
        prompt: String,
        options: GenerateOptions,
        drop_at: Option<usize>,
        cancel_at: Option<usize>,
    },
    Classify {
        prompts: Vec<String>,
        options: ClassifyOptions,
    },
    Score {
        pairs: Vec<(String, String)>,
    },
}

/// What must be the same however a call is run.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    /// Ids and log-probabilities.
    Tokens(Vec<(u32, Option<f32>)>),
    /// For each prompt, its token and the log-probabilities of its labels.
    Labels(Vec<(u32, Vec<f32>)>),
    /// For each pair, its tokens.
    Scores(Vec<Vec<(u32, Option<f32>)>>),
}

impl Call {
    fn new(random: &mut Random, beginnings: &[String]) -> Self {
        let mut prompt = |own: usize| {
            let beginning = &beginnings[random.below(beginnings.len())];
            let cut =
                if random.below(3) == 0 { random.below(beginning.len()) } else { beginning.len() };
            format!("{}{}", &beginning[..cut], random.text(own))
        };
        let (own, prompts) = (prompt(12), [prompt(12), prompt(12), prompt(12)]);
        match random.below(6) {
            0 => {
                let labels = ["ten", "tea", "an oat", "ten toes"];
                let options = ClassifyOptions::default().labels(labels);
                Self::Classify { prompts: prompts.to_vec(), options }
            }
            1 => {
                let pairs = prompts.into_iter().map(|p| (p, random.text(8))).collect();
                Self::Score { pairs }
            }
            kind => {
                let options =
                    GenerateOptions::default().max_tokens(1 + random.below(12)).logprobs(0);
                let options =
                    options.temperature([0.0, 0.9][random.below(2)]).seed(random.below(99) as u64);
                let at = random.below(6);
                let [drop_at, cancel_at] = [2, 3].map(|k| (k == kind).then_some(at));
                Self::Generate { prompt: own, options, drop_at, cancel_at }
            }
        }
    }

    /// The answer, and whether it is whole; those who leave know only a part of it.
    fn run(&self, model: &dyn TextModel) -> Result<(Answer, bool), Error> {
        match self {
            Self::Generate { prompt, options, drop_at, cancel_at } => {
                let cancel = CancelToken::new();
                let stream = model.generate(prompt, &options.clone().cancel(cancel.clone()))?;
                let most = drop_at.unwrap_or(usize::MAX);
                let tokens = read(stream, most, cancel_at.map(|at| (at, cancel)))?;
                Ok((Answer::Tokens(tokens), drop_at.is_none() && cancel_at.is_none()))
            }
            Self::Classify { prompts, options } => {
                let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
                let all = model.classify(&prompts, options).into_iter().map(|c| {
                    let c = c?;
                    Ok((c.token.id, c.labels.iter().map(|l| l.logprob).collect()))
                });
                Ok((Answer::Labels(all.collect::<Result<_, Error>>()?), true))
            }
            Self::Score { pairs } => {
                let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                let all = model.batch_score(&pairs, &ScoreOptions::default()).into_iter();
                let all = all.map(|s| Ok(s?.tokens.iter().map(|t| (t.id, t.logprob)).collect()));
                Ok((Answer::Scores(all.collect::<Result<_, Error>>()?), true))
            }
        }
    }

    /// The same call by somebody who stays.
    fn patient(&self) -> Self {
        let mut call = self.clone();
        if let Self::Generate { drop_at, cancel_at, .. } = &mut call {
            (*drop_at, *cancel_at) = (None, None);
        }
        call
    }
}

fn read(
    stream: TokenStream,
    most: usize,
    mut cancel: Option<(usize, CancelToken)>,
) -> Result<Vec<(u32, Option<f32>)>, Error> {
    let mut tokens = Vec::new();
    for token in stream.take(most) {
        let token = token?;
        tokens.push((token.id, token.logprob));
        if let Some((_, cancel)) = cancel.take_if(|(at, _)| *at <= tokens.len()) {
            cancel.cancel();
        }
    }
    Ok(tokens)
}

/// Tokens of the longest sequence of a case.
const CONTEXT: usize = 110;

/// An engine with a small cache that remembers.
fn small(random: &mut Random, family: &str, on_cpu: bool) -> (Served, Arc<Seen>) {
    let block_len = if on_cpu { 32 } else { 1 + random.below(20) };
    let blocks = CONTEXT.div_ceil(block_len) + random.below(CONTEXT / block_len + 2);
    let plan = Plan {
        blocks: Some(blocks),
        context: Some(CONTEXT),
        slots: 1 + random.below(8),
        step_tokens: 4 + random.below(60),
        prefix_cache: (random.below(3) == 0).then(|| 1 << (10 + random.below(8))),
        ..Plan::new(family)
    };
    match on_cpu {
        true => plan.start(|| Cpu::new(2)),
        false => plan.start(move || Ok(Naive { block_len })),
    }
    .expect("loads")
}

/// One case: calls that begin alike come, share, leave, and sometimes fail, in a small cache.
fn check_case(seed: u64) {
    let random = &mut Random(Noise::new(seed));
    let (family, on_cpu) = (FAMILIES[random.below(FAMILIES.len())], random.below(2) == 0);
    let beginnings: Vec<_> = (0..1 + random.below(3)).map(|_| random.text(70)).collect();
    let calls: Vec<_> = (0..3 + random.below(10)).map(|_| Call::new(random, &beginnings)).collect();
    let (model, seen) = small(random, family, on_cpu);
    let fails = random.below(4) == 0;
    if fails {
        seen.error_at.store(1 + random.below(20), SeqCst);
    }
    let waits: Vec<_> = calls.iter().map(|_| random.below(4) as u64).collect();
    thread::scope(|scope| {
        for (call, wait) in calls.iter().zip(waits) {
            let model = &model;
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(wait));
                let plain = &PLAIN[family][usize::from(!on_cpu)];
                match (call.run(model), call.patient().run(plain).expect("ends well").0) {
                    (Err(Error::Device { .. }), _) if fails => {}
                    (Ok((answer, true)), want) => assert_eq!(answer, want, "{seed}: {call:?}"),
                    (Ok((Answer::Tokens(part), false)), Answer::Tokens(want)) => {
                        assert!(want.starts_with(&part), "{seed}: {call:?} {part:?} {want:?}");
                    }
                    (other, _) => panic!("{seed}: {call:?} gives {other:?}"),
                }
            });
        }
    });
    // Nobody has kept a block: a sequence that needs all but a few is let in.
    seen.error_at.store(0, SeqCst);
    let mut prompt = "tea ".repeat(CONTEXT);
    while model.tokenise(&prompt).expect("encodes").len() >= CONTEXT {
        prompt.pop();
    }
    let options = GenerateOptions::default().max_tokens(1).timeout(Duration::from_secs(60));
    let last = model.generate(&prompt, &options).expect("starts").finish().expect("ends well");
    assert_ne!(last.finish_reason, FinishReason::TimedOut, "{seed}");
    assert_eq!(last.metrics.preemptions, 0, "{seed}");
}

/// Laws 1, 4, 6 and 9, to the last bit, for some seconds; `SHARING_SECONDS=60` takes a minute, with other cases.
#[test]
fn whatever_is_shared_every_answer_is_its_own() {
    let asked = std::env::var("SHARING_SECONDS").ok().and_then(|s| s.parse().ok());
    let (start, first) = (Instant::now(), asked.map_or(1, |seconds: u64| seconds * 1000));
    let limit = Duration::from_secs(asked.unwrap_or(3));
    let mut seed = first;
    while seed < first + 8 || start.elapsed() < limit {
        check_case(seed);
        seed += 1;
    }
    println!("{} cases", seed - first);
}

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
    let same = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
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

/// Labels of several tokens share the prompt and their own beginnings.
#[test]
fn labels_that_begin_alike_share_their_rows() {
    let (model, seen) = storyteller(Plan { step_tokens: 512, ..Plan::new("storyteller") });
    let prompt = instruction("The dog sang in the garden.");
    let tokens = model.tokenise(&prompt).expect("encodes").len();
    let labels = ["very good", "very bad", "not at all", "casual"];
    let c = model.classify(&[&prompt], &ClassifyOptions::default().labels(labels)).remove(0);
    let c = c.expect("ends well");
    let computed = seen.tokens.load(SeqCst);
    let mut inputs = std::collections::HashSet::new();
    for label in labels {
        let whole = model.tokenise(&format!("{prompt} {label}")).expect("encodes");
        inputs.extend((tokens + 1..whole.len()).map(|n| whole[..n].to_vec()));
        let alone = model.score(&prompt, &format!(" {label}"), &ScoreOptions::default());
        let alone = alone.expect("ends well");
        let scored = c.labels.iter().find(|l| l.label == label).expect("is there").logprob;
        assert!((alone.logprob() - scored).abs() < 1e-4, "{label}: {scored} {alone:?}");
    }
    assert_eq!(computed, tokens + inputs.len());
}

/// Batched, one by one and shuffled, with what is shared and without: the same labels, probabilities within 1e-5, and
/// the accuracy that the fixture promises.
#[test]
fn held_out_sentences_are_classified_alike_in_any_company() {
    let cases = held_out();
    let (sharing, _) = storyteller(Plan::new("storyteller"));
    let (plain, _) = storyteller(Plan { prefix_cache: Some(0), ..Plan::new("storyteller") });
    let options = ClassifyOptions::default().labels(LABELS);
    let of = |model: &Served, prompts: &[&str]| -> Vec<Vec<f32>> {
        let all = model.classify(prompts, &options).into_iter().map(|c| c.expect("ends well"));
        all.map(|c| c.labels.iter().map(|l| l.probability).collect()).collect()
    };
    let prompts: Vec<&str> = cases.iter().map(|(p, _)| p.as_str()).collect();
    let batched = of(&sharing, &prompts);
    let one_by_one: Vec<_> = prompts.iter().map(|p| of(&plain, &[p]).remove(0)).collect();
    let mut order: Vec<usize> = (0..prompts.len()).collect();
    let mut noise = Noise::new(3);
    order.sort_by_cached_key(|_| noise.bits());
    let shuffled: Vec<&str> = order.iter().map(|i| prompts[*i]).collect();
    let mut back = vec![Vec::new(); prompts.len()];
    for (i, row) in order.iter().zip(of(&sharing, &shuffled)) {
        back[*i] = row;
    }
    let best = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b])).expect("is");
    let mut right = 0;
    for (i, (_, label)) in cases.iter().enumerate() {
        for other in [&one_by_one[i], &back[i]] {
            assert_eq!(best(&batched[i]), best(other));
            let off = batched[i].iter().zip(other).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f32::max) <= 1e-5, "{:?} {other:?}", batched[i]);
        }
        right += usize::from(LABELS[best(&batched[i])] == label);
    }
    assert!(right * 100 >= cases.len() * 99, "{right} of {}", cases.len());
}

/// Scores of a continuation are those of the steps that would generate it.
#[test]
fn a_greedy_continuation_is_scored_as_it_was_generated() {
    let (model, _) = storyteller(Plan::new("storyteller"));
    let prompt = "Once upon a time";
    let options = GenerateOptions::default().max_tokens(12).logprobs(0);
    let done = model.generate(prompt, &options).expect("starts").finish().expect("ends well");
    let score = model.score(prompt, &done.text(), &ScoreOptions::default()).expect("ends well");
    let of = |tokens: &[inference_core::Token]| -> Vec<_> {
        tokens.iter().map(|t| (t.id, t.logprob)).collect()
    };
    assert_eq!(of(&score.tokens), of(&done.tokens));
    assert!(score.is_greedy);
    assert_eq!(score.prompt_tokens, done.metrics.prompt_tokens);
    let text: String = score.tokens.iter().map(|t| t.text.as_str()).collect();
    assert_eq!(text, done.text());
    let other = model.score(prompt, " the sky", &ScoreOptions::default()).expect("ends well");
    assert!(!other.is_greedy && other.logprob() < score.logprob() / 2.0);
    let bad = [("", "word"), (prompt, ""), (prompt, " there")];
    let results = model.batch_score(&bad, &ScoreOptions::default());
    let ok: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [false, false, true]);
}

/// Calibration subtracts what a label gets without a text; the mean does not count a label's length.
#[test]
fn labels_compete_by_what_the_options_say() {
    let (model, _) = storyteller(Plan::new("storyteller"));
    let (prompt, empty) = (instruction("The kernel allocates 64 bytes."), instruction("N/A"));
    let labels = ["technical", "a very long label"];
    let classify = |options: ClassifyOptions, prompt: &str| {
        model.classify(&[prompt], &options.labels(labels)).remove(0).expect("ends well").labels
    };
    let plain = classify(ClassifyOptions::default(), &prompt);
    let without = classify(ClassifyOptions::default(), &empty);
    let calibrated = classify(ClassifyOptions::default().calibrate(&empty), &prompt);
    for ((plain, without), calibrated) in plain.iter().zip(&without).zip(&calibrated) {
        assert_eq!(plain.score, plain.logprob);
        assert_eq!(calibrated.logprob, plain.logprob);
        assert_eq!(calibrated.score, plain.logprob - without.logprob);
    }
    let mean = classify(
        ClassifyOptions::default().label_scoring(inference_core::LabelScoring::Mean),
        &prompt,
    );
    let count = |label: &str| {
        let whole = model.tokenise(&format!("{prompt} {label}")).expect("encodes").len();
        whole - model.tokenise(&prompt).expect("encodes").len()
    };
    for (plain, mean) in plain.iter().zip(&mean) {
        assert!((mean.score - plain.logprob / count(&plain.label) as f32).abs() < 1e-5);
    }
    let sum: f32 = mean.iter().map(|l| l.probability).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    // What is wrong with the empty prompt is wrong with the option, for every row.
    let options = ClassifyOptions::default().labels(LABELS).calibrate("");
    let results = model.classify(&[&prompt, "", &prompt], &options);
    let is = |i: usize, option: bool| match &results[i] {
        Err(Error::InvalidOption { option: "calibrate", .. }) => option,
        Err(Error::InvalidPrompt { .. }) => !option,
        _ => false,
    };
    assert!(is(0, true) && is(1, false) && is(2, true), "{results:?}");
}
