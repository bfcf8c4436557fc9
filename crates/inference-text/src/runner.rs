//! The thread that owns the device: sequences in, tokens out.

use crate::{
    Generation, MemoryUse,
    blocks::BlockPool,
    logits::{Ask, Asked, Logits, Row},
    pace::Pace,
    scheduler::{Advance, Flow, Reuse, Scheduler, Sequence},
    scoring::{Cost, Scoring},
    step::{Lengths, Step},
};
use inference_core::{Error, ModelInfo, Result};
use std::{
    any::Any,
    cell::OnceCell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Instant,
};

/// What a sequence is for.
pub(crate) enum Task {
    /// To be continued.
    Generate(Box<Generation>),
    /// To be scored.
    Score(Box<Scoring>),
}

impl Task {
    fn fail(&mut self, error: Error, memory: &dyn Fn() -> MemoryUse) {
        match self {
            Self::Generate(generation) => generation.fail(error, memory),
            Self::Score(scoring) => scoring.fail(error),
        }
    }

    /// Which logits of its wanted rows it needs.
    fn ask(&self) -> Ask {
        match self {
            Self::Generate(generation) => generation.ask(),
            Self::Score(_) => Ask::All,
        }
    }

    /// Ends it if it was cancelled, is out of time, or nobody waits for it.
    fn end_if_interrupted(&mut self, memory: &dyn Fn() -> MemoryUse) -> Flow {
        match self {
            Self::Generate(generation) => {
                let Some(reason) = generation.interrupted() else { return Flow::Continue };
                generation.end(reason, memory);
            }
            Self::Score(scoring) => {
                let Err(error) = scoring.interrupted() else { return Flow::Continue };
                scoring.fail(error);
            }
        }
        Flow::Done
    }
}

enum Message {
    Run(Vec<Sequence<Task>>),
    Close,
}

/// The arithmetic of a model, with its cache. It stays on the thread that it was made on, so it need not be `Send`.
pub trait Forward: Reuse {
    /// Runs a step, which writes its keys and values into the cache; gives the logits of the wanted rows,
    /// `[wanted, vocab]`.
    ///
    /// # Errors
    /// The device's own. The sequences of the step end with it.
    fn forward(&mut self, step: &Step) -> Result<Vec<f32>>;

    /// The same, of each wanted row no more than is asked for; or all, where that is no less work.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    fn answer(&mut self, step: &Step, asked: &Asked) -> Result<Logits> {
        Ok(Logits::all(self.forward(step)?, asked.rows.len()))
    }

    /// Takes back what [`answer`](Self::answer) gave: its memory may serve again.
    fn recycle(&mut self, _logits: Logits) {}

    /// How much memory it holds.
    fn memory(&self) -> MemoryUse;
}

/// What fits.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    /// Blocks of the cache.
    pub blocks: usize,
    /// Tokens of a block.
    pub block_len: usize,
    /// Most sequences that run at once.
    pub slots: usize,
    /// Most prompt tokens of a step; fewer where sequences decode that would wait for it.
    pub step_tokens: usize,
    /// How the rotary embedding depends on a sequence's length.
    pub lengths: Lengths,
    /// Most blocks that are kept when their sequences have ended, for others that begin alike; 0: none are shared.
    pub kept: usize,
}

/// A model that is ready to run.
#[derive(Debug)]
pub struct Loaded<F> {
    /// What computes.
    pub forward: F,
    /// What fits.
    pub capacity: Capacity,
    /// What it is.
    pub info: ModelInfo,
}

/// The other threads' handle on it.
#[derive(Debug)]
pub(crate) struct Runner {
    inbox: mpsc::Sender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
    over: Over,
}

/// Why nothing can be submitted any more, once that is so. The thread sets it before it ends anybody's stream.
#[derive(Debug, Clone, Default)]
struct Over(Arc<Mutex<Option<Error>>>);

impl Over {
    fn get(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets it, unless it is set already; gives what is.
    fn set(&self, error: Error) -> Error {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error).clone()
    }
}

impl Runner {
    /// Starts the thread, and waits until `load` has run on it. Tokens from `vocab_len` on are never chosen.
    pub(crate) fn start<F: Forward + 'static>(
        vocab_len: usize,
        load: impl FnOnce() -> Result<Loaded<F>> + Send + 'static,
    ) -> Result<(Self, ModelInfo)> {
        let (inbox, messages) = mpsc::channel();
        let (ready, loaded) = mpsc::channel();
        let over = Over::default();
        let thread_over = over.clone();
        let body = move || match catch_unwind(AssertUnwindSafe(load)) {
            Ok(Ok(Loaded { forward, capacity, info })) => {
                // The caller waits for this right below.
                let _ = ready.send(Ok(info));
                serve(forward, capacity, vocab_len, &messages, &thread_over);
            }
            Ok(Err(error)) => {
                let _ = ready.send(Err(error));
            }
            Err(panic) => {
                let reason = format!("while loading: {}", panic_text(&*panic));
                let _ = ready.send(Err(Error::EngineStopped { reason }));
            }
        };
        let thread = std::thread::Builder::new()
            .name("inference-engine".to_owned())
            .spawn(body)
            .map_err(|e| Error::Device { reason: format!("no thread could be started: {e}") })?;
        let died = || Error::EngineStopped { reason: "its thread died while loading".to_owned() };
        let info = loaded.recv().map_err(|_| died())??;
        let thread = Mutex::new(Some(thread));
        Ok((Self { inbox, thread, over }, info))
    }

    /// Whether anything can still be submitted.
    pub(crate) fn check(&self) -> Result<()> {
        self.over.get().map_or(Ok(()), Err)
    }

    /// Puts the sequences of a call to work, together: if nothing else runs, they share their first step.
    pub(crate) fn submit(&self, sequences: Vec<Sequence<Task>>) -> Result<()> {
        self.check()?;
        // A thread that is gone has said why.
        self.inbox.send(Message::Run(sequences)).map_err(|_| self.over.set(Error::Closed))
    }

    /// Waits for the running step, ends everything, and frees the device.
    pub(crate) fn close(&self) {
        // A thread that is gone already has closed.
        let _ = self.inbox.send(Message::Close);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It catches the panics of its work, and has no other.
            let _ = thread.join();
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.close();
    }
}

/// Serves until it is closed; then, or after a panic, ends every stream with an error that says why.
fn serve<F: Forward>(
    mut forward: F,
    capacity: Capacity,
    vocab_len: usize,
    inbox: &mpsc::Receiver<Message>,
    over: &Over,
) {
    let pool = BlockPool::new(capacity.blocks, capacity.block_len).sharing(capacity.kept);
    let mut scheduler = Scheduler::new(pool, capacity.slots).lengths(capacity.lengths);
    let pace = Pace::new(capacity.step_tokens);
    let running = AssertUnwindSafe(|| run(&mut forward, &mut scheduler, pace, vocab_len, inbox));
    let error = match catch_unwind(running) {
        Ok(()) => Error::Closed,
        Err(panic) => Error::EngineStopped { reason: panic_text(&*panic) },
    };
    let error = over.set(error);
    let memory = MemoryUse::default;
    scheduler.sweep(|task| {
        task.fail(error.clone(), &memory);
        Flow::Done
    });
    for message in inbox.try_iter() {
        if let Message::Run(sequences) = message {
            sequences.into_iter().for_each(|mut s| s.task.fail(error.clone(), &memory));
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// Steps until `Close` comes, or everybody who could send it is gone.
fn run<F: Forward>(
    forward: &mut F,
    scheduler: &mut Scheduler<Task>,
    mut pace: Pace,
    vocab_len: usize,
    inbox: &mpsc::Receiver<Message>,
) {
    loop {
        let first = if scheduler.is_idle() { inbox.recv().ok() } else { None };
        if first.is_none() && scheduler.is_idle() {
            return;
        }
        for message in first.into_iter().chain(inbox.try_iter()) {
            match message {
                Message::Run(call) => scheduler.add(call),
                Message::Close => return,
            }
        }
        scheduler.sweep(|task| task.end_if_interrupted(&|| forward.memory()));
        let began = Instant::now();
        let decoding = scheduler.decoding();
        let step = scheduler.next_step(forward, pace.prompt_tokens(decoding));
        if step.is_empty() {
            continue;
        }
        let spans = scheduler.scheduled().zip(&step.spans);
        let rows = spans.flat_map(|(task, span)| std::iter::repeat_n(task.ask(), span.wanted));
        let asked = Asked { columns: vocab_len, rows: rows.collect() };
        let logits = forward.answer(&step, &asked);
        let known = OnceCell::new();
        let memory = || *known.get_or_init(|| forward.memory());
        match logits {
            Ok(mut logits) => {
                scheduler.finish_step(&step, |sequence, advance| {
                    advance_task(sequence, &advance, &mut logits, began, &memory)
                });
                let prompt_tokens = step.tokens.len().saturating_sub(decoding);
                pace.record(decoding, prompt_tokens, began.elapsed().as_secs_f64());
                forward.recycle(logits);
            }
            Err(error) => {
                scheduler.fail_step(|sequence| sequence.task.fail(error.clone(), &memory));
            }
        }
    }
}

fn no_logits() -> Error {
    let reason = "the engine gave fewer logits than it was asked for".to_owned();
    Error::Device { reason }
}

/// Gives a sequence the logits of its wanted rows.
fn advance_task(
    sequence: &mut Sequence<Task>,
    advance: &Advance,
    logits: &mut Logits,
    began: Instant,
    memory: &dyn Fn() -> MemoryUse,
) -> Flow {
    let (preemptions, reused) = (sequence.preemptions(), sequence.reused());
    match &mut sequence.task {
        Task::Generate(generation) => {
            generation.begun(began, preemptions, reused);
            if !advance.complete {
                return Flow::Continue;
            }
            let Some(row) = logits.row(advance.rows.start) else {
                generation.fail(no_logits(), memory);
                return Flow::Done;
            };
            match generation.next(&sequence.tokens, row, memory) {
                Some(token) => sequence.tokens.push(token),
                None => return Flow::Done,
            }
            Flow::Continue
        }
        Task::Score(scoring) => {
            for (i, row) in advance.rows.clone().enumerate() {
                let Some(Row::All(row)) = logits.row(row) else {
                    scoring.fail(no_logits());
                    return Flow::Done;
                };
                scoring.row(advance.wanted_before + i, row);
            }
            if !advance.complete {
                return Flow::Continue;
            }
            scoring.complete(Cost { cached: reused, preemptions, memory: memory() });
            Flow::Done
        }
    }
}
