//! What those who read streams notice when a long prompt comes.

use crate::{
    Result,
    bench::{candidate::Candidate, prompt, spread::Spread},
};
use inference::{GenerateOptions, TextModel};
use serde::Serialize;
use std::{
    sync::{
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Instant,
};

/// Streams that decode.
pub(super) const STREAMS: usize = 8;

/// Tokens of a stream before the prompt comes, and after its first token: both together are about as many as while it is
/// computed, so that what else has the machine now and then is seen with and without the prompt, and their median is of
/// streams as long as those beside it.
const AROUND: usize = 128;

/// Of these, tokens of every stream until what is usual is measured.
const FIRST: usize = 3;

/// Tokens of a stream's prompt.
const SHORT: usize = 16;

/// Tokens of the context beside the long prompt.
pub(super) const ROOM: usize = 64;

/// What was measured, in all rounds.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    pub(super) backend: String,
    pub(super) weights: String,
    pub(super) streams: usize,
    pub(super) prompt_tokens: usize,
    /// Seconds between two tokens of a stream without the prompt: each round's median.
    pub(super) usual: Spread,
    /// Before the prompt came and after its first token, which tells what the machine does by itself.
    pub(super) without: Late,
    /// While the prompt was computed.
    pub(super) beside: Late,
    /// Seconds until the prompt had its first token.
    pub(super) first_token: Spread,
}

/// How late tokens came, in usual intervals of their round.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Late {
    /// The latest of each round.
    pub(super) most: Spread,
    /// Tokens that came more than [`ALLOWED`] late.
    pub(super) too_late: usize,
    /// Tokens of all streams and rounds.
    pub(super) tokens: usize,
}

/// Usual intervals that no token should be late.
pub(super) const ALLOWED: f64 = 2.0;

/// One prompt.
struct Round {
    prompt_tokens: usize,
    /// Intervals before the prompt came and after its first token, in seconds.
    without: Vec<f64>,
    /// Intervals while it was computed.
    beside: Vec<f64>,
    first_token: f64,
}

impl Round {
    fn usual(&self) -> Option<f64> {
        Spread::of(self.without.iter().copied()).map(|all| all.median)
    }
}

impl Late {
    /// Of `intervals` of each round.
    fn of(rounds: &[Round], intervals: impl Fn(&Round) -> &[f64]) -> Option<Self> {
        let late = |round: &Round| -> Option<Vec<f64>> {
            let usual = round.usual()?;
            Some(intervals(round).iter().map(|i| (i - usual) / usual).collect())
        };
        let late: Vec<_> = rounds.iter().map(late).collect::<Option<_>>()?;
        let most = late.iter().map(|all| all.iter().copied().fold(0.0, f64::max));
        let all = late.iter().flatten();
        Some(Self {
            most: Spread::of(most)?,
            too_late: all.clone().filter(|late| **late > ALLOWED).count(),
            tokens: all.count(),
        })
    }
}

/// Has streams decode and sends a prompt of `arriving` tokens, in some rounds.
pub(super) fn measure(candidate: &Candidate, arriving: usize, rounds: usize) -> Result<Latency> {
    let model = candidate.model().ok_or("a peer has no streams")?;
    let rounds: Vec<_> =
        (0..rounds as u64).map(|n| round(model, arriving, n)).collect::<Result<_>>()?;
    let facts = [&candidate.facts.backend, &candidate.facts.weights];
    latency(facts, &rounds).ok_or_else(|| "no stream decodes beside the others".to_owned())
}

/// `None` without a round, or without an interval in one.
fn latency([backend, weights]: [&String; 2], rounds: &[Round]) -> Option<Latency> {
    Some(Latency {
        backend: backend.clone(),
        weights: weights.clone(),
        streams: STREAMS,
        prompt_tokens: rounds.first()?.prompt_tokens,
        usual: Spread::of(rounds.iter().filter_map(Round::usual))?,
        without: Late::of(rounds, |round| &round.without)?,
        beside: Late::of(rounds, |round| &round.beside)?,
        first_token: Spread::of(rounds.iter().map(|round| round.first_token))?,
    })
}

/// Has streams decode, sends a prompt of `arriving` tokens, and looks at the intervals. The texts of round `n` are new.
fn round(model: &dyn TextModel, arriving: usize, n: u64) -> Result<Round> {
    let seed = (1 << 50) + (n << 16);
    // All streams say the same: a token whose text is not a whole character would be held back for the next one.
    let whole = model.tokenise(" a").map_err(|e| e.to_string())?;
    let only = whole.last().map(|id| (*id, 1e6));
    let options = GenerateOptions::default().max_tokens(arriving).logit_bias(only);
    let long = prompt::common(&[model], arriving, seed)?;
    let shorts: Vec<_> = (0..STREAMS as u64)
        .map(|i| prompt::common(&[model], SHORT, seed + 1 + i))
        .collect::<Result<_>>()?;
    let (ready, readers) = mpsc::channel();
    let done = AtomicBool::new(false);
    let (streams, came, first): (Vec<Vec<Instant>>, _, _) = thread::scope(|scope| {
        let stream = |text| {
            let (options, ready, done) = (&options, ready.clone(), &done);
            scope.spawn(move || arrivals(model, text, options, &ready, done))
        };
        let streams: Vec<_> = shorts.iter().map(|p| stream(p.text.as_str())).collect();
        // A stream that fails says so when it is joined.
        (0..STREAMS).for_each(|_| readers.recv().unwrap_or_default());
        let came = Instant::now();
        let first = model
            .generate(&long.text, &options.clone().max_tokens(1))
            .and_then(|stream| stream.finish());
        let first = first.map(|_| Instant::now()).map_err(|e| e.to_string());
        done.store(true, SeqCst);
        let streams: Vec<_> = streams
            .into_iter()
            .map(|t| t.join().map_err(|_| "a thread of the bench panicked".to_owned())?)
            .collect::<Result<_>>()?;
        Ok::<_, String>((streams, came, first?))
    })?;
    let intervals = |within: &dyn Fn(Instant, Instant) -> bool| -> Vec<f64> {
        let pairs = streams.iter().flat_map(|s| s.windows(2));
        let within = pairs.filter(|pair| within(pair[0], pair[1]));
        within.map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect()
    };
    let all_decode = streams.iter().filter_map(|s| s.get(FIRST - 1)).max().copied();
    let all_decode = all_decode.ok_or("no stream has tokens")?;
    Ok(Round {
        prompt_tokens: long.ids.len(),
        without: intervals(&|from, to| from >= all_decode && (to <= came || from >= first)),
        beside: intervals(&|from, to| to > came && from < first),
        first_token: first.duration_since(came).as_secs_f64(),
    })
}

/// When the tokens of a stream arrive, until it is `done` and a while longer. It tells `ready` when it has decoded for a
/// while, in any case once.
fn arrivals(
    model: &dyn TextModel,
    prompt: &str,
    options: &GenerateOptions,
    ready: &mpsc::Sender<()>,
    done: &AtomicBool,
) -> Result<Vec<Instant>> {
    let mut stream = model.generate(prompt, options).map_err(|e| e.to_string());
    let mut all = Vec::new();
    let mut failed = None;
    let mut to_tell = Some(ready);
    let mut end = usize::MAX;
    while let Ok(stream) = &mut stream {
        match stream.next() {
            Some(Ok(_)) => all.push(Instant::now()),
            Some(Err(error)) => failed = Some(error.to_string()),
            None => break,
        }
        if all.len() == AROUND
            && let Some(ready) = to_tell.take()
        {
            // Who asked for it has failed, and waits for this thread.
            let _ = ready.send(());
        }
        if done.load(SeqCst) {
            end = end.min(all.len() + AROUND);
        }
        if all.len() >= end {
            break;
        }
    }
    if let Some(ready) = to_tell {
        let _ = ready.send(());
    }
    match (stream, failed) {
        (Err(error), _) | (_, Some(error)) => Err(error),
        _ => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_late_by_what_is_usual_in_their_round() {
        let round = |usual: f64, longest: f64| Round {
            prompt_tokens: 9,
            without: vec![usual, usual, 1.5 * usual],
            beside: vec![usual, longest],
            first_token: 1.0,
        };
        let rounds = [round(0.02, 0.05), round(0.04, 0.16), round(0.04, 0.08)];
        let (backend, weights) = ("cpu".to_owned(), "8 bit".to_owned());
        let all = latency([&backend, &weights], &rounds).unwrap();
        assert_eq!(all.usual, Spread { median: 0.04, min: 0.02, max: 0.04 });
        let most = |late: Late| [late.most.min, late.most.median, late.most.max];
        for (late, want) in most(all.beside).into_iter().zip([1.0, 1.5, 3.0]) {
            assert!((late - want).abs() < 1e-9, "{late} for {want}");
        }
        assert_eq!((all.beside.too_late, all.beside.tokens), (1, 6));
        assert_eq!((all.without.too_late, all.without.tokens), (0, 9));
        assert!(latency([&backend, &weights], &[]).is_none());
        let silent = Round { without: Vec::new(), ..round(1.0, 1.0) };
        assert!(latency([&backend, &weights], &[silent]).is_none());
    }
}
