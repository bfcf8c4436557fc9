//! `cargo xtask soak`: many callers of one model for a long time, who must not notice each other.

mod caller;
mod cases;

use crate::{Result, root};
use caller::Counts;
use cases::Random;
use inference::{GenerateOptions, LoadOptions, TextModel, load_model};
use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Tokens of a sequence.
const CONTEXT: usize = 256;

/// Sequences of that length that the cache holds: fewer than there are slots, so that some are preempted.
const WHOLE: usize = 4;

const SLOTS: usize = 16;

/// Calls that may wait, fewer than there are callers, so that some find no place.
const QUEUE: usize = 16;

/// Seconds without an ended call that mean that nothing goes on any more.
const STUCK: u64 = 60;

/// Seconds of an epoch, after which all callers are gone and memory is looked at.
const EPOCH: u64 = 60;

/// Bytes that the process may have grown by at the end, since the end of its first epoch: what an allocator keeps for
/// threads that come and go.
const GROWTH: u64 = 32 << 20;

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Callers on threads of their own generate, chat, classify and score at random: whole, or left midway by dropping,
cancelling or a time limit; or wrong, and refused. The cache is too small for all who run, and the queue for all who
call. Every whole answer is compared with what the call gives alone, every other one with its beginning.
After each minute all callers leave. Then sequences that fill the cache to its last block must run without preemption,
as at the start, and at the end the process must not hold more than 32 MiB more than after the first minute.
If no call ends for a minute, that is a deadlock, and the end.")]
pub(crate) struct Args {
    /// Seconds
    #[arg(long, default_value_t = 1200)]
    seconds: u64,
    /// Callers at once
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// Another seed is another run
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The model; default: the fixture that speaks
    #[arg(long)]
    model: Option<PathBuf>,
}

/// Runs until the time is over or something is wrong.
pub(crate) fn run(args: &Args) -> Result {
    let path = args.model.clone().unwrap_or_else(|| root().join("models-fixtures/storyteller"));
    let load = |options: LoadOptions| {
        load_model(&path, &options.backend("cpu").context_len(CONTEXT).threads(2))
            .map_err(|e| e.to_string())
    };
    let alone = load(LoadOptions::default().parallel_slots(1).prefix_cache(0))?;
    let info = alone.info();
    let cache = info.cache_bytes_per_token * (WHOLE * CONTEXT) as u64;
    let options = LoadOptions::default().parallel_slots(SLOTS).queue_len(QUEUE);
    let model = load(options.memory_limit(info.weight_bytes + cache))?;
    fill(&*model, &Counts::default()).map_err(|e| format!("at the start: {e}"))?;
    let soak =
        Soak { args, model: &*model, counts: Counts::default(), over: AtomicBool::new(false) };
    thread::scope(|scope| {
        scope.spawn(|| soak.watch());
        let done = soak.epochs(&*alone);
        soak.over.store(true, Relaxed);
        done
    })
}

/// Sequences that together fill the cache to its last block: a block that somebody has kept makes one give way. They
/// differ from the first token on, so that none takes over another's blocks.
fn fill(model: &dyn TextModel, counts: &Counts) -> Result {
    let text = |e: inference::Error| e.to_string();
    let ends = model.tokenise("<|im_end|><|endoftext|>").map_err(text)?;
    let endless =
        GenerateOptions::default().logit_bias(ends.into_iter().map(|id| (id, f32::NEG_INFINITY)));
    let stream = |prompt: &str| {
        let left = CONTEXT - model.tokenise(prompt)?.len();
        model.generate(prompt, &endless.clone().max_tokens(left))
    };
    let streams: [_; WHOLE] = ["one fox", "two foxes", "six foxes", "ten foxes"].map(stream);
    for stream in streams {
        let done = stream.and_then(inference::TokenStream::finish).map_err(text)?;
        counts.others.fetch_add(1, Relaxed);
        if done.metrics.preemptions > 0 {
            return Err(
                "sequences that fill the cache do not fit: somebody keeps blocks".to_owned()
            );
        }
    }
    Ok(())
}

struct Soak<'a> {
    args: &'a Args,
    model: &'a dyn TextModel,
    counts: Counts,
    over: AtomicBool,
}

impl Soak<'_> {
    /// Ends the process if no call has ended for too long.
    fn watch(&self) {
        let (mut calls, mut since) = (0, Instant::now());
        while !self.over.load(Relaxed) {
            thread::sleep(Duration::from_millis(100));
            let now = self.counts.calls.load(Relaxed) + self.counts.others.load(Relaxed);
            if now != calls {
                (calls, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(STUCK) {
                eprintln!("error: no call has ended for {STUCK} seconds, after {calls} calls");
                std::process::exit(1);
            }
        }
    }

    /// One epoch after the other; memory is looked at between them.
    fn epochs(&self, alone: &dyn TextModel) -> Result {
        let started = Instant::now();
        let whole = Duration::from_secs(self.args.seconds);
        let mut first = None;
        let mut last = 0;
        for epoch in 0.. {
            let left = whole.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            // Even a short run has memory to compare.
            let length = Duration::from_secs(EPOCH).min(whole / 3);
            let mut random = Random::new(self.args.seed ^ (epoch << 32));
            let count = length.as_secs().clamp(8, 60) as usize * 4;
            let cases = cases::all(alone, count, &mut random, &self.counts)?;
            self.epoch(&cases, epoch, length.min(left))?;
            fill(self.model, &self.counts).map_err(|e| format!("after epoch {epoch}: {e}"))?;
            last = resident()?;
            first.get_or_insert(last);
            let c = &self.counts;
            eprintln!(
                "{:>5} s  {} calls: {} compared, {} left midway, {} refused, {} busy; {:.1} MiB",
                started.elapsed().as_secs(),
                c.calls.load(Relaxed),
                c.compared.load(Relaxed),
                c.left.load(Relaxed),
                c.refused.load(Relaxed),
                c.busy.load(Relaxed),
                last as f64 / f64::from(1 << 20),
            );
        }
        let grown = last.saturating_sub(first.unwrap_or(last));
        if grown > GROWTH {
            return Err(format!("the process has grown by {grown} bytes, of {GROWTH} that it may"));
        }
        println!(
            "{} calls of {} callers in {} s: every answer as alone, no block kept, {:.1} MiB grown",
            self.counts.calls.load(Relaxed),
            self.args.callers,
            started.elapsed().as_secs(),
            grown as f64 / f64::from(1 << 20),
        );
        Ok(())
    }

    /// All callers call until the time is over, or one finds something wrong.
    fn epoch(&self, cases: &[cases::Case], epoch: u64, length: Duration) -> Result {
        let end = Instant::now() + length;
        let wrong = Mutex::new(None);
        let is_wrong = AtomicBool::new(false);
        thread::scope(|scope| {
            for caller in 0..self.args.callers as u64 {
                let (wrong, is_wrong) = (&wrong, &is_wrong);
                let mut random = Random::new(self.args.seed ^ (epoch << 32) ^ ((caller + 1) << 16));
                scope.spawn(move || {
                    while Instant::now() < end && !is_wrong.load(Relaxed) {
                        let done = caller::call(self.model, cases, &mut random, &self.counts);
                        if let Err(text) = done {
                            is_wrong.store(true, Relaxed);
                            wrong
                                .lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(text);
                        }
                    }
                });
            }
        });
        wrong.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Bytes of memory that this process holds.
///
/// # Errors
/// Where the system does not tell.
fn resident() -> Result<u64> {
    let unknown = |error| format!("this process's memory can't be known: {error}");
    let mut system = sysinfo::System::new().map_err(|e| unknown(e.to_string()))?;
    let pid = sysinfo::get_current_pid().map_err(|e| unknown(e.to_string()))?;
    let only = sysinfo::ProcessesToUpdate::Some(&[pid]);
    let what = sysinfo::ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(only, true, what);
    let memory = system.process(pid).map(sysinfo::Process::memory).filter(|bytes| *bytes > 0);
    memory.ok_or_else(|| unknown("it is not among the processes".to_owned()))
}
