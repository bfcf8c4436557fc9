//! All candidates on one model, taking turns.

use super::{
    Args, bound,
    candidate::{Candidate, Loading},
    checkpoint::Checkpoint,
    grid::{Cell, rounds},
    measure::Sample,
    progress::Progress,
    prompt::{self, Prompt},
    report::{Comparison, Machine, Measured, Work},
    source::{Asked, Form},
};
use crate::Result;
use inference::{Format, registry};
use std::{path::Path, time::Instant};

/// Most tokens of the warm-up's prompt, and how many it decodes.
const WARM_UP: (usize, usize) = (128, 8);

/// Loads all candidates and measures every cell.
pub(super) fn compare(
    args: &Args,
    path: &Path,
    cells: &[Cell],
    machine: &Machine,
    threads: usize,
) -> Result<Comparison> {
    let checkpoint = Checkpoint::read(path)?;
    let warm_up = warm_up(cells);
    let lengths = cells.iter().chain([&warm_up]).map(|c| c.prompt + c.generate + 1);
    let loading = Loading {
        checkpoint: &checkpoint,
        chip: &machine.cpu,
        cores: machine.cores,
        gpu: None,
        threads,
        context_len: lengths.max().unwrap_or(1),
        batch: cells.iter().map(|c| c.batch).max().unwrap_or(1),
        // Every prompt is computed, whatever ran before.
        prefix_cache: Some(0),
        cache_dtype: args.cache_dtype,
    };
    let asked = args.asked(&checkpoint.dtype);
    let mut candidates = Vec::new();
    for (backend, forms) in backends(&args.backends, path, asked)? {
        let loading = Loading { gpu: bound::measure(&backend)?, ..loading };
        for form in forms {
            eprintln!("{}: loading on {backend}", form.source.display());
            candidates.push(Candidate::of_backend(&backend, &form, loading)?);
        }
    }
    for peer in &args.peers {
        // What a peer makes of the folder, or else what is there: it does not quantise while loading.
        let forms = match &peer.form {
            Some(_) => vec![Form { source: path.to_owned(), quantise: None }],
            None => Asked { bits: &[], ..asked }.forms(path, |_| true)?,
        };
        for form in forms {
            eprintln!("{}: loading on {}", form.source.display(), peer.engine);
            candidates.push(Candidate::of_peer(peer, &form.source, loading)?);
        }
    }
    let first = candidates.first().and_then(Candidate::model);
    let info = first.ok_or("no backend was named; peers run beside one")?.info();
    let work = Work::of(info, checkpoint.tied);
    let mut session = Session { args, checkpoint: &checkpoint, candidates, prompts: 0 };
    let measured = session.measure(cells)?;
    let facts = session.candidates.into_iter().map(|c| c.facts).collect();
    Ok(Comparison { facts, work, measured })
}

/// The backends that are named, or else all that can, and the forms that each loads.
pub(super) fn backends(
    named: &[String],
    path: &Path,
    asked: Asked<'_>,
) -> Result<Vec<(String, Vec<Form>)>> {
    let forms = |name: &str| match registry().get(name) {
        Some(b) => asked.forms(path, |f| b.reads(f)),
        // The registry knows best what to say of a name that it does not have.
        None => Ok(vec![Form { source: path.to_owned(), quantise: None }]),
    };
    if !named.is_empty() {
        return named.iter().map(|name| Ok((name.clone(), forms(name)?))).collect();
    }
    let mut able = Vec::new();
    let mut unable = Vec::new();
    for backend in registry().backends() {
        let name = backend.name();
        if !backend.availability().is_available() {
            continue;
        }
        match forms(name) {
            Ok(forms) if forms.iter().all(|f| backend.reads(Format::of(&f.source))) => {
                able.push((name.to_owned(), forms));
            }
            Ok(_) => unable.push(format!("{name}: it does not read this format")),
            Err(reason) => unable.push(format!("{name}: {reason}")),
        }
    }
    for reason in &unable {
        eprintln!("without {reason}");
    }
    if able.is_empty() {
        Err("no backend of this build can run it here".to_owned())
    } else {
        Ok(able)
    }
}

/// A run that tells how fast a candidate is, and is no longer than the cells are.
fn warm_up(cells: &[Cell]) -> Cell {
    let longest = cells.iter().map(|c| c.prompt).max().unwrap_or(1);
    Cell { prompt: longest.min(WARM_UP.0), generate: WARM_UP.1, batch: 1, prefill: true }
}

struct Session<'a> {
    args: &'a Args,
    checkpoint: &'a Checkpoint,
    candidates: Vec<Candidate>,
    /// Prompts that were made: each is another one.
    prompts: u64,
}

impl Session<'_> {
    fn measure(&mut self, cells: &[Cell]) -> Result<Vec<Measured>> {
        let warm_ups = self.warm_up(warm_up(cells))?;
        let plans: Vec<Plan> = cells.iter().map(|&cell| self.plan(cell, &warm_ups)).collect();
        let progress = Progress::new(plans.iter().map(Plan::seconds).sum());
        plans.iter().map(|plan| self.cell(plan, &progress)).collect()
    }

    /// One run of each candidate, whose speed tells about how long the cells will take.
    fn warm_up(&mut self, cell: Cell) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        for at in 0..self.candidates.len() {
            eprintln!("{}: warming up {}", self.checkpoint.name, self.candidates[at].facts.name());
            let prompts = self.prompts(cell)?;
            samples.push(self.run(at, cell, &prompts)?);
        }
        Ok(samples)
    }

    fn plan(&self, cell: Cell, warm_ups: &[Sample]) -> Plan {
        let able: Vec<bool> = self.candidates.iter().map(|c| c.can_batch(cell.batch)).collect();
        let seconds: Vec<f64> = warm_ups.iter().map(|w| cell.seconds(w)).collect();
        let of_able: Vec<f64> =
            seconds.iter().zip(&able).filter(|(_, able)| **able).map(|(s, _)| *s).collect();
        let repeats = Cell::repeats(&of_able);
        let seconds: Vec<f64> = seconds.iter().map(|s| s * repeats as f64).collect();
        let round = of_able.iter().sum::<f64>() * repeats as f64;
        let rounds = rounds(round, self.args.seconds as f64, self.args.runs);
        Plan { cell, able, repeats, seconds, round, rounds }
    }

    /// Rounds of one run each, until there are enough or the cell's time is over.
    fn cell(&mut self, plan: &Plan, progress: &Progress) -> Result<Measured> {
        let mut samples = vec![Vec::new(); self.candidates.len()];
        let start = Instant::now();
        let mut done = 0;
        loop {
            for (all, sample) in samples.iter_mut().zip(self.round(plan, progress)?) {
                all.extend(sample);
            }
            done += 1;
            let round = start.elapsed().as_secs_f64() / f64::from(done);
            if done as usize >= rounds(round, self.args.seconds as f64, self.args.runs) {
                break;
            }
        }
        let left = plan.rounds.saturating_sub(done as usize);
        progress.shorten(left as f64 * plan.round);
        Ok(Measured { cell: plan.cell, samples })
    }

    /// One run of each candidate that can, with the same prompts; once more if a text ended early.
    fn round(&mut self, plan: &Plan, progress: &Progress) -> Result<Vec<Option<Sample>>> {
        let cell = plan.cell;
        let prompts: Vec<Vec<Prompt>> =
            (0..plan.repeats).map(|_| self.prompts(cell)).collect::<Result<_>>()?;
        let mut samples = Vec::new();
        for at in 0..self.candidates.len() {
            if !plan.able[at] {
                samples.push(None);
                continue;
            }
            let what: Vec<_> = cell.kinds().map(|kind| cell.label(kind)).collect();
            let what = format!("{} on {}", what.join(", "), self.candidates[at].facts.name());
            progress.now(what.clone());
            let runs: Vec<Sample> =
                prompts.iter().map(|prompts| self.run(at, cell, prompts)).collect::<Result<_>>()?;
            progress.advance(plan.seconds[at]);
            let Some(sample) = Sample::joined(&runs) else { continue };
            if sample.ended_early && self.candidates[at].ban_end_tokens(&self.checkpoint.end_tokens)
            {
                progress.line(format!("{what}: a text ended early; once more without end tokens"));
                return self.round(plan, progress);
            }
            let speeds: Vec<_> =
                cell.kinds().map(|kind| format!("{:.1}", sample.rate(kind))).collect();
            progress.line(format!("{what}: {} tokens/s", speeds.join(", ")));
            samples.push(Some(sample));
        }
        Ok(samples)
    }

    fn run(&mut self, at: usize, cell: Cell, prompts: &[Prompt]) -> Result<Sample> {
        self.candidates[at].run(prompts, cell.generate)
    }

    /// New prompts, the same for all candidates.
    fn prompts(&mut self, cell: Cell) -> Result<Vec<Prompt>> {
        let models: Vec<_> = self.candidates.iter().filter_map(Candidate::model).collect();
        let mut prompts = Vec::new();
        for _ in 0..cell.batch {
            prompts.push(prompt::common(&models, cell.prompt, self.prompts)?);
            self.prompts += 1;
        }
        Ok(prompts)
    }
}

/// How a cell will be run, as far as the warm-up tells.
struct Plan {
    cell: Cell,
    /// Which candidates can run it.
    able: Vec<bool>,
    /// Prompts (or batches of them) one after the other in each run.
    repeats: usize,
    /// Of a run, for each candidate.
    seconds: Vec<f64>,
    /// Seconds of a round of all that can.
    round: f64,
    rounds: usize,
}

impl Plan {
    fn seconds(&self) -> f64 {
        self.round * self.rounds as f64
    }
}
