//! Calls at random that begin alike, against engines that share nothing.

use inference_core::{
    CancelToken, ClassifyOptions, Error, FinishReason, GenerateOptions, Message, Priority,
    ScoreOptions, TextModel, TokenStream,
};
use inference_cpu::Cpu;
use inference_engine::{check::Noise, naive::Naive};
use inference_tests::{engines::Plan, spy::Seen};
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
        options: ScoreOptions,
    },
    Chat {
        messages: Vec<Message>,
        options: GenerateOptions,
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
        let priority = [Priority::Low, Priority::Normal, Priority::High][random.below(3)];
        let generate = |random: &mut Random, most: usize| {
            let options = GenerateOptions::default().max_tokens(1 + random.below(most));
            let options = options.temperature([0.0, 0.9][random.below(2)]).logprobs(0);
            options.seed(random.below(99) as u64).priority(priority)
        };
        match random.below(7) {
            0 => {
                let labels = ["ten", "tea", "an oat", "ten toes"];
                let options = ClassifyOptions::default().labels(labels).priority(priority);
                Self::Classify { prompts: prompts.to_vec(), options }
            }
            1 => {
                let pairs = prompts.into_iter().map(|p| (p, random.text(8))).collect();
                Self::Score { pairs, options: ScoreOptions::default().priority(priority) }
            }
            2 => {
                let messages = vec![Message::user(["to a ten", "to a tea"][random.below(2)])];
                Self::Chat { messages, options: generate(random, 6) }
            }
            kind => {
                let options = generate(random, 12);
                let at = random.below(6);
                let [drop_at, cancel_at] = [3, 4].map(|k| (k == kind).then_some(at));
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
            Self::Score { pairs, options } => {
                let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
                let all = model.batch_score(&pairs, options).into_iter();
                let all = all.map(|s| Ok(s?.tokens.iter().map(|t| (t.id, t.logprob)).collect()));
                Ok((Answer::Scores(all.collect::<Result<_, Error>>()?), true))
            }
            Self::Chat { messages, options } => {
                let tokens = read(model.chat(messages, options)?, usize::MAX, None)?;
                Ok((Answer::Tokens(tokens), true))
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

/// An engine with a small cache that remembers; in every other case without a block more than the longest sequence needs.
fn small(random: &mut Random, family: &str, on_cpu: bool) -> (Served, Arc<Seen>) {
    let block_len = if on_cpu { 32 } else { 2 + random.below(19) };
    let spare = random.below(2) * random.below(CONTEXT / block_len + 2);
    let blocks = CONTEXT.div_ceil(block_len) + spare;
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
    // Nobody has kept a block: a sequence that needs all but those to spare is let in, and never gives way.
    seen.error_at.store(0, SeqCst);
    let tokens = |text: &str| model.tokenise(text).expect("encodes").len();
    let mut prompt = "tea ".repeat(CONTEXT);
    while tokens(&prompt) >= CONTEXT {
        prompt.pop();
    }
    assert!(tokens(&prompt) > CONTEXT - 3, "{}", tokens(&prompt));
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
