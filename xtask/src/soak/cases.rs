//! Calls at random, with what each gives alone.

use super::caller::Counts;
use crate::{Result, make_model::hash};
use inference::{
    Classification, ClassifyOptions, Completion, FinishReason, GenerateOptions, Message,
    ScoreOptions, TextModel,
};
use std::sync::atomic::Ordering::Relaxed;

/// Numbers at random, the same for each seed.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(hash(seed))
    }

    /// Below `n`, which is at least 1.
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (hash(self.0) % n as u64) as usize
    }

    pub(super) fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What texts are made of; some of it takes several tokens, some several tokens for one character.
const WORDS: [&str; 24] = [
    "once",
    "upon",
    "a",
    "time",
    "the",
    "fox",
    "kernel",
    "allocates",
    "64",
    "bytes",
    "moon",
    "sky",
    "is",
    "blue",
    ",",
    ".",
    "\n",
    "you",
    "mate",
    "é",
    "你好",
    "🎉",
    "secrets",
    "right",
];

/// Beginnings that prompts share.
const BEGINNINGS: [&str; 4] = [
    "",
    "Once upon a time there was a little fox who",
    "Classify this text into exactly one category: technical, creative, ethical, casual.\n\nText:",
    "One long instruction that stands before a text, so that all who have it may share what is computed of it. Text:",
];

pub(super) const LABELS: [&str; 5] =
    ["technical", "creative", "ethical", "casual", "something else entirely"];

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Question {
    Generate(String),
    Chat(Vec<Message>),
    Batch(Vec<String>),
    Classify(Vec<String>),
    Score(Vec<(String, String)>),
}

impl Question {
    /// A question for each row of the answer.
    fn rows(&self) -> Vec<Self> {
        match self {
            Self::Generate(_) | Self::Chat(_) => vec![self.clone()],
            Self::Batch(prompts) => prompts.iter().cloned().map(Self::Generate).collect(),
            Self::Classify(texts) => {
                texts.iter().map(|t| Self::Classify(vec![t.clone()])).collect()
            }
            Self::Score(pairs) => pairs.iter().map(|p| Self::Score(vec![p.clone()])).collect(),
        }
    }
}

/// What a row of it gives.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    Text {
        ids: Vec<u32>,
        text: String,
        reason: FinishReason,
    },
    /// Probabilities or log-probabilities.
    Numbers(Vec<f32>),
}

/// A call, and what each of its rows gives alone.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) question: Question,
    /// How texts are made; it has a seed.
    pub(super) options: GenerateOptions,
    pub(super) alone: Vec<Answer>,
}

impl Answer {
    pub(super) fn of(completion: &Completion) -> Self {
        Self::Text {
            ids: completion.tokens.iter().map(|t| t.id).collect(),
            text: completion.text(),
            reason: completion.finish_reason,
        }
    }

    pub(super) fn of_labels(classification: &Classification) -> Self {
        Self::Numbers(classification.labels.iter().map(|l| l.probability).collect())
    }

    /// Whether it is the same: texts to the last token, numbers within the sums' last bits.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Text { ids, text, reason },
                Self::Text { ids: ids2, text: text2, reason: reason2 },
            ) => ids == ids2 && text == text2 && reason == reason2,
            (Self::Numbers(a), Self::Numbers(b)) => {
                a.len() == b.len()
                    && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * a.abs().max(1.0))
            }
            _ => false,
        }
    }
}

/// A text of a few words, which may begin as others do.
fn text(random: &mut Random, words: usize) -> String {
    let mut text = random.pick::<&str>(&BEGINNINGS).to_string();
    for _ in 0..=random.below(words) {
        text.push(' ');
        text.push_str(random.pick::<&str>(&WORDS));
    }
    text
}

/// So many cases, with what the model gives when nobody else calls it.
pub(super) fn all(
    model: &dyn TextModel,
    count: usize,
    random: &mut Random,
    counts: &Counts,
) -> Result<Vec<Case>> {
    let case = |_| {
        let question = match random.below(9) {
            0..4 => Question::Generate(text(random, 60)),
            4 => {
                let question = Message::user(text(random, 12));
                let system = (random.below(2) == 0).then(|| Message::system("Be brief."));
                Question::Chat(system.into_iter().chain([question]).collect())
            }
            5 => Question::Batch((0..=random.below(4)).map(|_| text(random, 30)).collect()),
            6 | 7 => Question::Classify((0..=random.below(6)).map(|_| text(random, 20)).collect()),
            _ => {
                let pair = |_| (text(random, 20), format!(" {}", random.pick::<&str>(&WORDS[..8])));
                Question::Score((0..3).map(pair).collect())
            }
        };
        let mut options = GenerateOptions::default()
            .max_tokens(1 + random.below(60))
            .temperature(*random.pick(&[0.0, 0.8, 2.0]))
            .seed(random.below(1 << 30) as u64);
        if random.below(4) == 0 {
            options = options.stop([".", " the"]).repeat_penalty(1.2).top_k(20);
        }
        let mut alone = Vec::new();
        for row in question.rows() {
            alone.extend(ask(model, &row, &options)?);
            counts.others.fetch_add(1, Relaxed);
        }
        Ok(Case { question, options, alone })
    };
    (0..count).map(case).collect::<inference::Result<_>>().map_err(|e| e.to_string())
}

/// Asks, and waits for the whole answer, row by row.
pub(super) fn ask(
    model: &dyn TextModel,
    question: &Question,
    options: &GenerateOptions,
) -> inference::Result<Vec<Answer>> {
    match question {
        Question::Generate(prompt) => {
            Ok(vec![Answer::of(&model.generate(prompt, options)?.finish()?)])
        }
        Question::Chat(messages) => Ok(vec![Answer::of(&model.chat(messages, options)?.finish()?)]),
        Question::Batch(prompts) => {
            let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
            let rows = model.batch_generate(&prompts, options).into_iter();
            rows.map(|row| Ok(Answer::of(&row?))).collect()
        }
        Question::Classify(prompts) => {
            let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
            let mut asked = ClassifyOptions::default().labels(LABELS).priority(options.priority);
            asked.wait = options.wait;
            let rows = model.classify(&prompts, &asked).into_iter();
            rows.map(|row| Ok(Answer::of_labels(&row?))).collect()
        }
        Question::Score(pairs) => {
            let pairs: Vec<(&str, &str)> =
                pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            let mut asked = ScoreOptions::default().priority(options.priority);
            asked.wait = options.wait;
            let rows = model.batch_score(&pairs, &asked).into_iter();
            rows.map(|row| Ok(Answer::Numbers(vec![row?.logprob()]))).collect()
        }
    }
}
