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

/// Tokens of a stream before the prompt comes.
const BEFORE: usize = 24;

/// Of these, tokens of every stream until what is usual is measured.
const FIRST: usize = 3;

/// Tokens of a stream's prompt.
const SHORT: usize = 16;

/// Tokens of the context beside the long prompt.
pub(super) const ROOM: usize = 64;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Latency {
    pub(super) backend: String,
    pub(super) weights: String,
    pub(super) streams: usize,
    pub(super) prompt_tokens: usize,
    /// Seconds between two tokens of a stream before the prompt came.
    pub(super) usual: Spread,
    /// Most seconds between two tokens of any stream while the prompt was computed.
    pub(super) longest: f64,
    /// Seconds until the prompt had its first token.
    pub(super) first_token: f64,
}

impl Latency {
    /// By how many usual intervals the worst token came late.
    pub(super) fn delay(&self) -> f64 {
        (self.longest - self.usual.median) / self.usual.median
    }
}

/// Has streams decode, sends a prompt of `arriving` tokens, and looks at the intervals.
pub(super) fn measure(candidate: &Candidate, arriving: usize) -> Result<Latency> {
    let model = candidate.model().ok_or("a peer has no streams")?;
    // All streams say the same: a token whose text is not a whole character would be held back for the next one.
    let whole = model.tokenise(" a").map_err(|e| e.to_string())?;
    let only = whole.last().map(|id| (*id, 1e6));
    let options = GenerateOptions::default().max_tokens(arriving).logit_bias(only);
    let long = prompt::common(&[model], arriving, 1 << 50)?;
    let shorts: Vec<_> = (0..STREAMS as u64)
        .map(|i| prompt::common(&[model], SHORT, (1 << 50) + 1 + i))
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
    let usual = intervals(&|from, to| from >= all_decode && to <= came);
    let usual = Spread::of(usual).ok_or("no stream decodes beside the others")?;
    let during = intervals(&|from, to| to > came && from < first);
    Ok(Latency {
        backend: candidate.facts.backend.clone(),
        weights: candidate.facts.weights.clone(),
        streams: STREAMS,
        prompt_tokens: long.ids.len(),
        usual,
        longest: during.into_iter().fold(0.0, f64::max),
        first_token: first.duration_since(came).as_secs_f64(),
    })
}

/// When the tokens of a stream arrive, until `done`. It tells `ready` when it has decoded for a while, in any case once.
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
    while let Ok(stream) = &mut stream {
        match stream.next() {
            Some(Ok(_)) => all.push(Instant::now()),
            Some(Err(error)) => failed = Some(error.to_string()),
            None => break,
        }
        if all.len() == BEFORE
            && let Some(ready) = to_tell.take()
        {
            // Who asked for it has failed, and waits for this thread.
            let _ = ready.send(());
        }
        if done.load(SeqCst) {
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
