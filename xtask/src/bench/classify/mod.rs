//! `cargo xtask bench classify`: short texts behind one long instruction, and streams that decode while a long prompt
//! comes.

mod latency;
pub(super) mod report;
mod texts;
mod ways;

use super::{
    candidate::{Candidate, Loading},
    checkpoint::Checkpoint,
    progress::Progress,
    report::Machine,
    session::backends,
    source::Asked,
};
use crate::Result;
use report::Report;
use std::path::PathBuf;
use texts::Texts;
use ways::{Kind, Measured, Way};

/// Sequences at once while sentences are classified.
const SLOTS: usize = 32;

/// Tokens of a sequence: a prefill of 512, and room.
const CONTEXT: usize = 640;

/// Arguments of `bench classify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Made-up sentences of 12 to 20 tokens are classified behind an instruction of 60 tokens, with four labels of one token
each, by as many ways as there are, which take turns:
  shared      the library's one call with all sentences: what stands before them is computed once
  one by one  a call for each sentence; the instruction is in the cache
  unshared    the one call, by a model that is loaded so that nothing is taken from the cache (our own backends)
Suffix tokens are those behind what all prompts have in common. The share compares their rate with that of a prefill of
512 tokens, which is measured between the turns.

Then, in as many turns, 8 streams decode for a while, a prompt of 2,000 tokens comes, and the streams go on for a while. A
stream's usual interval is the median before and after the prompt. How late tokens come is told in usual intervals, without
the prompt too: that is what the machine does by itself.

Beside llama.cpp, on all of the machine's instructions:
  RUSTFLAGS=\"-C target-cpu=native\" cargo run --release -p xtask --features llama-cpp -- \\
    bench classify FOLDER --quantise 8 --gguf-type q8_0 --backends cpu,llama_cpp")]
pub(crate) struct Args {
    /// A folder of a model, with safetensors, GGUF files or both; or a single GGUF file
    model: PathBuf,
    /// Sentences
    #[arg(long, default_value_t = 2000, value_parser = super::at_least_one)]
    sentences: usize,
    /// Turns in which they are classified
    #[arg(long, default_value_t = 5, value_parser = super::at_least_one)]
    rounds: usize,
    /// A tenth of the sentences, in three turns
    #[arg(long, conflicts_with_all = ["sentences", "rounds"])]
    short: bool,
    /// Backends, by name; default: all that can run here and read the model
    #[arg(long, value_delimiter = ',')]
    backends: Vec<String>,
    /// Types of the GGUF files in a folder; default: as the safetensors are
    #[arg(long, value_delimiter = ',')]
    gguf_type: Vec<String>,
    /// Quantise the weights of safetensors while loading, to so many bits
    #[arg(long, value_delimiter = ',')]
    quantise: Vec<u8>,
    /// Threads of everything on the CPU; default: one per core
    #[arg(long, value_parser = super::at_least_one)]
    threads: Option<usize>,
    /// Prompt tokens that come while 8 streams decode; 0: leave that out
    #[arg(long, default_value_t = 2000)]
    arriving: usize,
    /// Write one JSON object, to a file or else to stdout in place of the table
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result {
    let machine = Machine::here();
    let json = args.json.as_ref().and_then(Option::as_ref);
    let threads = super::check(json, args.threads, machine.cores)?;
    let (sentences, rounds) = if args.short { (200, 3) } else { (args.sentences, args.rounds) };
    let rounds = rounds.min(sentences);
    let checkpoint = Checkpoint::read(&args.model)?;
    let bench = Bench { args, checkpoint, machine: &machine, threads };
    let (texts, measured) = bench.classify(sentences, rounds)?;
    let latencies = if args.arriving == 0 { Vec::new() } else { bench.latency(rounds)? };
    let report = Report::new(machine, threads, &texts, rounds, &measured, latencies);
    super::print(&args.json, || report.json(), || report.table())
}

struct Bench<'a> {
    args: &'a Args,
    checkpoint: Checkpoint,
    machine: &'a Machine,
    threads: usize,
}

impl Bench<'_> {
    /// Loads what is asked for on each backend, once for each of its ways: what one way leaves in the cache must not help
    /// another.
    fn load(
        &self,
        context_len: usize,
        batch: usize,
        ways: impl Fn(&str) -> &'static [Kind],
    ) -> Result<Vec<(Candidate, Kind)>> {
        let args = self.args;
        let asked = Asked {
            bits: &args.quantise,
            gguf_types: &args.gguf_type,
            dtype: &self.checkpoint.dtype,
        };
        let mut all = Vec::new();
        for (backend, forms) in backends(&args.backends, &args.model, asked)? {
            for form in forms {
                for &kind in ways(&backend) {
                    eprintln!("{}: loading on {backend}, {}", form.source.display(), kind.name());
                    let loading = Loading {
                        checkpoint: &self.checkpoint,
                        chip: &self.machine.cpu,
                        cores: self.machine.cores,
                        gpu: None,
                        threads: self.threads,
                        context_len,
                        batch,
                        prefix_cache: (kind == Kind::Unshared).then_some(0),
                        cache_dtype: None,
                    };
                    all.push((Candidate::of_backend(&backend, &form, loading)?, kind));
                }
            }
        }
        Ok(all)
    }

    fn classify(&self, sentences: usize, rounds: usize) -> Result<(Texts, Vec<Measured>)> {
        let loaded = self.load(CONTEXT, SLOTS, |backend| match backend {
            "llama_cpp" => &[Kind::Shared, Kind::OneByOne],
            _ => &[Kind::Shared, Kind::OneByOne, Kind::Unshared],
        })?;
        let models: Vec<_> = loaded.iter().filter_map(|(c, _)| c.model()).collect();
        eprintln!("making {sentences} sentences");
        let texts = Texts::new(&models, sentences)?;
        let mut ways: Vec<_> = loaded.iter().map(|(c, kind)| Way::new(c, *kind)).collect();
        for way in &mut ways {
            eprintln!("warming up {}", way.name());
            way.warm_up(&texts)?;
        }
        let seconds: f64 = ways.iter().map(|w| w.seconds(sentences, rounds)).sum();
        let progress = Progress::new(seconds);
        for round in 0..rounds {
            let part = round * sentences / rounds..(round + 1) * sentences / rounds;
            for way in &mut ways {
                way.round(&texts, part.clone(), round as u64, &progress)?;
            }
        }
        drop(progress);
        Ok((texts, ways.into_iter().map(Way::end).collect()))
    }

    fn latency(&self, rounds: usize) -> Result<Vec<latency::Latency>> {
        let loaded = self
            .load(self.args.arriving + latency::ROOM, latency::STREAMS + 1, |_| &[Kind::Shared])?;
        let measure = |(candidate, _): &(Candidate, Kind)| {
            eprintln!("streams beside a long prompt on {}", candidate.facts.name());
            latency::measure(candidate, self.args.arriving, rounds)
        };
        loaded.iter().map(measure).collect()
    }
}
