//! `cargo xtask bench`: prefill and decode through the public contract, beside the machine's own limits.

mod checkpoint;
mod measure;
mod prompt;
mod report;

use crate::{Result, limits};
use checkpoint::Checkpoint;
use inference::{Format, GenerateOptions, LoadOptions, TextModel, registry};
use measure::Sample;
use report::{Machine, Report, Row};
use std::path::{Path, PathBuf};

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each backend gets a warm-up, then the backends take turns. A run's prompt is new, so nothing comes from the cache.
Prefill is prompt tokens over the time from the first work on the prompt to the first token.
Decode is generated tokens after the first over the time that they took; of a batch, while all of it decodes.
A checkpoint whose warm-up ends early has its end tokens banned in the runs.

The machine's limits are measured before and after, with as many threads, and the best pass of both counts:
  share of bandwidth   bytes of weights and cache that a step must read, x steps/s / bytes read/s
  share of arithmetic  2 x parameters outside the embedding x prompt tokens/s / peak operations/s
Attention's own arithmetic and the windows of sliding attention are left out. Shares are of this CPU, so only the
backend cpu has them.")]
pub(crate) struct Args {
    /// Folders of models
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Backends, by name; default: all that can run here and read the model
    #[arg(long, value_delimiter = ',')]
    backends: Vec<String>,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 512, value_parser = at_least_one)]
    prompt: usize,
    /// Tokens that are decoded, after the one that prefill gives
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    generate: usize,
    /// Prompts at once
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    batch: usize,
    /// Runs that are measured
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    runs: usize,
    /// Threads of the backend cpu, and of the limits; default: one per physical core
    #[arg(long, value_parser = at_least_one)]
    threads: Option<usize>,
    /// Quantise the weights while loading, to this many bits
    #[arg(long)]
    quantise: Option<u8>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

fn at_least_one(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a number of at least 1".to_owned()),
        Ok(n) => Ok(n),
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result {
    let machine = Machine::here();
    let threads = args.threads.unwrap_or(machine.physical_cores);
    eprintln!("measuring this machine with {threads} threads");
    let before = limits::measure(threads);
    let mut rows = Vec::new();
    for path in &args.models {
        rows.extend(bench(args, path, threads)?);
    }
    eprintln!("measuring this machine again");
    let after = limits::measure(threads);
    let report = Report::new(machine, before, after, rows);
    if args.json {
        println!("{}", report.json())
    } else {
        print!("{}", report.table())
    }
    Ok(())
}

/// A loaded model that takes its turns.
struct Candidate {
    backend: String,
    model: Box<dyn TextModel>,
    options: GenerateOptions,
    samples: Vec<Sample>,
}

/// All backends on one model, one row each.
fn bench(args: &Args, path: &Path, threads: usize) -> Result<Vec<Row>> {
    let checkpoint = Checkpoint::read(path)?;
    let mut candidates = Vec::new();
    for backend in backends(args, path)? {
        eprintln!("{}: loading on {backend}", path.display());
        let model = load(args, path, &backend, threads)?;
        let options = GenerateOptions::default().max_tokens(args.generate + 1);
        let mut candidate = Candidate { backend, model, options, samples: Vec::new() };
        eprintln!("{}: warming up {}", path.display(), candidate.backend);
        let sample = candidate.run(args, 0)?;
        if sample.ended_early {
            let banned = checkpoint.end_tokens.iter().map(|id| (*id, f32::NEG_INFINITY));
            candidate.options = candidate.options.logit_bias(banned);
        }
        candidates.push(candidate);
    }
    for run in 1..=args.runs {
        for candidate in &mut candidates {
            let sample = candidate.run(args, run)?;
            eprintln!(
                "{}: {} run {run} of {}: prefill {:.1}, decode {:.1} tokens/s",
                path.display(),
                candidate.backend,
                args.runs,
                sample.prefill,
                sample.decode
            );
            candidate.samples.push(sample);
        }
    }
    let row = |c: Candidate| {
        Row::new(&checkpoint, c.model.info(), &c.samples, args.prompt, args.generate, args.batch)
    };
    Ok(candidates.into_iter().map(row).collect())
}

impl Candidate {
    fn run(&self, args: &Args, run: usize) -> Result<Sample> {
        let prompts: Vec<String> = (0..args.batch)
            .map(|row| {
                prompt::of_tokens(self.model.as_ref(), args.prompt, (run * args.batch + row) as u64)
            })
            .collect::<Result<_>>()?;
        measure::run(self.model.as_ref(), &prompts, &self.options)
    }
}

fn backends(args: &Args, path: &Path) -> Result<Vec<String>> {
    if !args.backends.is_empty() {
        return Ok(args.backends.clone());
    }
    let format = Format::of(path);
    let all = registry().backends();
    let able: Vec<_> = all
        .iter()
        .filter(|b| b.reads(format) && b.availability().is_available())
        .map(|b| b.name().to_owned())
        .collect();
    if able.is_empty() {
        Err(format!("no backend of this build can run {format} here"))
    } else {
        Ok(able)
    }
}

fn load(args: &Args, path: &Path, backend: &str, threads: usize) -> Result<Box<dyn TextModel>> {
    let mut options =
        LoadOptions::default().backend(backend).context_len(args.prompt + args.generate + 1);
    options.quantise = args.quantise;
    if backend == "cpu" {
        options = options.threads(threads);
    }
    if args.batch > 1 {
        options = options.parallel_slots(args.batch);
    }
    registry().load_model(path, &options).map_err(|e| e.to_string())
}
