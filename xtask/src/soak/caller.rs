//! One of many callers: calls at random, reads to the end or leaves midway, and compares.

use super::cases::{Answer, Case, Question, Random, ask};
use crate::Result;
use inference::{
    CancelToken, ClassifyOptions, Error, FinishReason, GenerateOptions, Priority, TextModel,
    TokenStream,
};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// What all callers did.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Calls that have ended, in whatever way.
    pub(super) calls: AtomicU64,
    /// Calls of no caller: those that tell what is right, and those that fill the cache.
    pub(super) others: AtomicU64,
    /// Whole answers that were compared.
    pub(super) compared: AtomicU64,
    /// Streams that were left midway: dropped, cancelled, timed out.
    pub(super) left: AtomicU64,
    /// Calls that were refused, as they were to be.
    pub(super) refused: AtomicU64,
    /// Calls for which there was no place.
    pub(super) busy: AtomicU64,
}

/// Longer than anybody waits for a place.
const WAIT: Duration = Duration::from_secs(300);

/// Makes one call.
///
/// # Errors
/// What is not as it should be.
pub(super) fn call(
    model: &dyn TextModel,
    cases: &[Case],
    random: &mut Random,
    counts: &Counts,
) -> Result {
    let done = match random.below(10) {
        0 => refused(model, random).map(|()| &counts.refused),
        1..5 => left(model, random.pick(cases), random).map(|()| &counts.left),
        _ => whole(model, random.pick(cases), random).map(|()| &counts.compared),
    };
    counts.calls.fetch_add(1, Relaxed);
    match done {
        Ok(count) => count.fetch_add(1, Relaxed),
        Err(Fault::Busy) => counts.busy.fetch_add(1, Relaxed),
        Err(Fault::Wrong(text)) => return Err(text),
    };
    Ok(())
}

/// Why a call was not as any other.
enum Fault {
    /// There was no place for it.
    Busy,
    Wrong(String),
}

/// An error that nobody has asked for.
fn fault(error: &Error) -> Fault {
    match error {
        Error::Busy { .. } => Fault::Busy,
        error => Fault::Wrong(format!("unexpected: {error}")),
    }
}

/// The case's options with another priority and, mostly, a wait.
fn options(case: &Case, random: &mut Random) -> GenerateOptions {
    let priorities = [Priority::Low, Priority::Normal, Priority::Normal, Priority::High];
    let mut options = case.options.clone().priority(*random.pick(&priorities));
    options.wait = (random.below(8) > 0).then_some(WAIT);
    options
}

/// Reads the whole answer.
fn whole(
    model: &dyn TextModel,
    case: &Case,
    random: &mut Random,
) -> std::result::Result<(), Fault> {
    let answer = ask(model, &case.question, &options(case, random)).map_err(|e| fault(&e))?;
    let Case { question, options, alone } = case;
    if answer.len() == alone.len() && answer.iter().zip(alone).all(|(row, alone)| row.is(alone)) {
        return Ok(());
    }
    Err(Fault::Wrong(format!(
        "{question:?} with {options:?}\n  gave  {answer:?}\n  alone {alone:?}"
    )))
}

/// Begins to read, and leaves in one way or another.
fn left(model: &dyn TextModel, case: &Case, random: &mut Random) -> std::result::Result<(), Fault> {
    let cancel = CancelToken::new();
    let mut options = options(case, random).cancel(cancel.clone());
    let way = random.below(3);
    if way == 0 {
        options = options.timeout(Duration::from_micros(1 << random.below(18)));
    }
    let stream = match &case.question {
        Question::Generate(prompt) => model.generate(prompt, &options),
        Question::Chat(messages) => model.chat(messages, &options),
        _ => return timed_out(model, case, random),
    };
    let mut stream = match stream {
        // It was still waiting for a place.
        Err(Error::TimedOut { .. }) if way == 0 => return Ok(()),
        stream => stream.map_err(|e| fault(&e))?,
    };
    let stays = random.below(20);
    let mut ids = Vec::new();
    read(&mut stream, if way == 0 { usize::MAX } else { stays }, &mut ids)?;
    if way == 1 {
        drop(stream);
        return begins(case, &ids, None);
    }
    cancel.cancel();
    read(&mut stream, usize::MAX, &mut ids)?;
    begins(case, &ids, stream.finish_reason())
}

fn read(
    stream: &mut TokenStream,
    most: usize,
    ids: &mut Vec<u32>,
) -> std::result::Result<(), Fault> {
    for token in stream.by_ref().take(most) {
        ids.push(token.map_err(|e| fault(&e))?.id);
    }
    Ok(())
}

/// What was read is the beginning of the whole.
fn begins(
    case: &Case,
    read: &[u32],
    reason: Option<FinishReason>,
) -> std::result::Result<(), Fault> {
    let [Answer::Text { ids, reason: whole, .. }] = &case.alone[..] else { return Ok(()) };
    let as_alone = match reason {
        None | Some(FinishReason::Cancelled | FinishReason::TimedOut) => true,
        Some(reason) => reason == *whole && ids.len() == read.len(),
    };
    // A token that only a stop text would have taken away is delivered when the stream ends before.
    let common = ids.iter().zip(read).take_while(|(a, b)| a == b).count();
    if as_alone && (common == read.len() || common == ids.len()) {
        return Ok(());
    }
    let Case { question, options, alone } = case;
    Err(Fault::Wrong(format!(
        "{question:?} with {options:?}\n  began {read:?}, {reason:?}\n  alone {alone:?}"
    )))
}

/// A classification whose time ends before or while it runs: each row is right or has no more time. What else has rows
/// stays to the end.
fn timed_out(
    model: &dyn TextModel,
    case: &Case,
    random: &mut Random,
) -> std::result::Result<(), Fault> {
    let Question::Classify(prompts) = &case.question else { return whole(model, case, random) };
    let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
    let asked = ClassifyOptions::default()
        .labels(super::cases::LABELS)
        .timeout(Duration::from_micros(1 << random.below(18)))
        .wait(WAIT);
    for (row, alone) in model.classify(&prompts, &asked).into_iter().zip(&case.alone) {
        match row {
            Ok(row) if Answer::of_labels(&row).is(alone) => {}
            Ok(row) => return Err(Fault::Wrong(format!("{row:?}\n  alone {alone:?}"))),
            Err(Error::TimedOut { .. }) => {}
            Err(error) => return Err(fault(&error)),
        }
    }
    Ok(())
}

/// A call that can't be.
fn refused(model: &dyn TextModel, random: &mut Random) -> std::result::Result<(), Fault> {
    let plain = GenerateOptions::default().wait(WAIT);
    let context = model.info().context_len;
    let error = match random.below(5) {
        0 => model.generate("", &plain).err(),
        1 => model.generate("a fox", &plain.max_tokens(0)).err(),
        2 => model.generate("a fox", &plain.temperature(f32::NAN)).err(),
        3 => model.generate(&"fox ".repeat(context), &plain).err(),
        _ => {
            let options = ClassifyOptions::default().labels(["a", "a"]).wait(WAIT);
            model.classify(&["a fox"], &options).remove(0).err()
        }
    };
    match error {
        Some(
            Error::InvalidPrompt { .. }
            | Error::InvalidOption { .. }
            | Error::ContextExceeded { .. },
        ) => Ok(()),
        Some(error) => Err(fault(&error)),
        None => Err(Fault::Wrong("a bad call was not refused".to_owned())),
    }
}
