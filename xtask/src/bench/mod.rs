//! `cargo xtask bench`: prefill and decode through the public contract, side by side and beside the machine's own limits.

mod apple;
mod bound;
mod candidate;
mod checkpoint;
mod classify;
mod grid;
mod measure;
mod peer;
mod plot;
mod profile;
mod profiled;
mod progress;
mod prompt;
mod python;
mod report;
mod session;
mod source;
mod spread;
mod table;

use crate::{Result, limits};
use grid::Cell;
use inference::CacheDtype;
use report::Report;
use source::Asked;
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) use report::Machine;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
All candidates (backends, then peers) load the same model: those that read safetensors the folder, llama_cpp the file
model-TYPE.gguf in it. Several forms of the model are as many candidates: a backend that reads safetensors has one for
each number of --quantise, and else any candidate that reads GGUF files one for each of --gguf-type.
Each gets a warm-up, then they take turns in every cell, with the same prompts and as many threads. A run's prompt is
new, so nothing comes from the cache. Short runs are repeated until they take half a second.
Prefill is prompt tokens over the time from the first work on the prompt to the first token.
Decode is generated tokens after the first over the time that they took; of a batch, while all of it decodes.
Where a text ends early, end tokens are banned. Depth 0 is a prompt of 8 tokens.
A ratio is to the first candidate; where that has several forms, to the one whose weights have as many bits.

The machine's limits are measured before and after, with as many threads, and the best pass of both counts:
  decode   bytes read/s / bytes of weights (as held) and cache that a step must read
  prefill  peak operations/s / 2 x parameters outside the embedding; the peak is that of int8 dot products where weights
           are quantised and the CPU has them, else the best of floating-point numbers
Reading is summing 1 GiB in large pages, where the system has them.
Attention's own arithmetic and the windows of sliding attention are left out. These limits are of this CPU, so they are
for what runs on it: cpu, llama_cpp, candle, openvino. On Apple silicon, metal and mlx_lm have shares of the bandwidth
that Apple states for the chip, in decoding. A peer's memory is that of its whole process.

cuda and rocm have limits of their card, measured before a model is loaded, by kernels of ours:
  decode   bytes/s that a copy of 1 GiB within the card's memory reads and writes
  prefill  operations/s of the matrix instructions that our kernels use, on bf16 in registers; on H100, H200, GH200 and
           B200, which have faster ones, what NVIDIA states
A large product of our own (4096 x 4096 x 8192, bf16) is printed beside them. `cargo xtask card` measures all of a card.

--profile times each operation of the steps, over all runs after a first. Of its limit is the share of the time that the
limits allow: of reading the weights or the cache, or of the operations, whichever takes longer. Attention's operations
count as floating-point ones. A prompt of more than 256 tokens is several steps.

OpenVINO compresses the folder's safetensors itself, once: with 4 bits in groups of 64, or 8 bits a row. It chooses how
it holds activations, which may be bf16; the forms that end in -f32 have f32. Compare with the better of both. It is
installed to target/peers with Python's pip; candle is built there.

mlx_lm reads a folder of MLX's safetensors, or one without quantised weights, as it is (mlx_lm:stored), or quantises it
while loading in groups of 64 (mlx_lm:4bit, mlx_lm:8bit). On a Mac:
  cargo run --release -p xtask --features metal -- bench FOLDER --backends metal --peers mlx_lm:stored

All engines with 4 and with 8 bits, in turns; the folder needs the GGUF files of `cargo xtask to-gguf`, and llama.cpp has
all of the machine's instructions only if it is built so:
  RUSTFLAGS=\"-C target-cpu=native\" cargo run --release -p xtask --features llama-cpp -- \\
    bench FOLDER --grid --quantise 4,8 --gguf-type q4_0,q4_k_m,q8_0 --backends cpu,llama_cpp \\
    --peers openvino:int4,openvino:int4-f32,openvino:int8,openvino:int8-f32")]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Something else to measure.
    #[command(subcommand)]
    task: Option<Task>,
    /// Folders of models, with safetensors, GGUF files or both; or single GGUF files
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Backends, by name; default: all that can run here and read the model
    #[arg(long, value_delimiter = ',')]
    backends: Vec<String>,
    /// Engines of others from xtask/peers that run beside the backends: candle; openvino:FORM with the forms int4, int8,
    /// int4-f32 and int8-f32; mlx_lm:FORM with stored, 4bit and 8bit
    #[arg(long, value_delimiter = ',')]
    peers: Vec<peer::Name>,
    /// Types of the GGUF files in a folder, such as q8_0,q4_k_m; default: as the safetensors are
    #[arg(long, value_delimiter = ',')]
    gguf_type: Vec<String>,
    /// Prefill of 16, 128 and 512 tokens; decode at depth 0 and 2048, and in batches of 4 and 8
    #[arg(long, conflicts_with_all = ["prompt", "generate", "batch"])]
    grid: bool,
    /// Tokens of each prompt; several make a grid
    #[arg(long, value_delimiter = ',', default_value = "512", value_parser = at_least_one)]
    prompt: Vec<usize>,
    /// Tokens that are decoded, after the one that prefill gives; 0: prefill alone
    #[arg(long, value_delimiter = ',', default_value = "64")]
    generate: Vec<usize>,
    /// Prompts at once
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = at_least_one)]
    batch: Vec<usize>,
    /// Runs of each cell that are measured, unless they take too long
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    runs: usize,
    /// Seconds for a cell; of more than three runs, those that do not fit are left out
    #[arg(long, default_value_t = 50, value_parser = at_least_one)]
    seconds: usize,
    /// Threads of everything on the CPU, and of the limits; default: one per core, never more
    #[arg(long, value_parser = at_least_one)]
    threads: Option<usize>,
    /// Quantise the weights of safetensors while loading, to so many bits, such as 4,8; backends only
    #[arg(long, value_delimiter = ',')]
    quantise: Vec<u8>,
    /// How backends keep keys and values: f32, f16, bf16 or int8; default: as the weights are
    #[arg(long, value_name = "DTYPE")]
    cache_dtype: Option<CacheDtype>,
    /// Print instead where the time of a step goes on the backend cpu, operation by operation
    #[arg(long, conflicts_with_all = ["backends", "peers", "json", "plot", "seconds"])]
    profile: bool,
    /// Write one JSON object, to a file or else to stdout in place of the table
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
    /// Draw the speeds, as an SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Measure classification behind one instruction, and streams beside a long prompt
    Classify(classify::Args),
}

fn at_least_one(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a number of at least 1".to_owned()),
        Ok(n) => Ok(n),
    }
}

impl Args {
    fn cells(&self) -> Vec<Cell> {
        if self.grid {
            grid::standard()
        } else {
            grid::product(&self.prompt, &self.generate, &self.batch)
        }
    }

    /// The forms of a model that are compared, of which `dtype` is the checkpoint's.
    fn asked<'a>(&'a self, dtype: &'a str) -> Asked<'a> {
        Asked { bits: &self.quantise, gguf_types: &self.gguf_type, dtype }
    }

    fn check(&self, cores: usize) -> Result<usize> {
        let json = self.json.as_ref().and_then(Option::as_ref);
        check(json.into_iter().chain(&self.plot), self.threads, cores)
    }
}

/// Refuses at once what could only fail after minutes of measuring; gives how many threads there are to be.
fn check<'a>(
    files: impl IntoIterator<Item = &'a PathBuf>,
    threads: Option<usize>,
    cores: usize,
) -> Result<usize> {
    for file in files {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty());
        if file.is_dir() || folder.is_some_and(|f| !f.is_dir()) {
            return Err(format!("{} can't be written as a file", file.display()));
        }
    }
    match threads {
        Some(threads) if threads > cores => {
            Err(format!("{threads} threads on {cores} cores measure the scheduler"))
        }
        threads => Ok(threads.unwrap_or(cores)),
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result {
    if let Some(Task::Classify(args)) = &args.task {
        return classify::run(args);
    }
    let machine = Machine::here();
    let threads = args.check(machine.cores)?;
    let cells = args.cells();
    if args.profile {
        return args.models.iter().try_for_each(|path| profile::run(args, path, &cells, threads));
    }
    eprintln!("measuring this machine with {threads} threads");
    let before = limits::measure(threads);
    let comparisons: Vec<_> = args
        .models
        .iter()
        .map(|path| session::compare(args, path, &cells, &machine, threads))
        .collect::<Result<_>>()?;
    eprintln!("measuring this machine again");
    let after = limits::measure(threads);
    let date = jiff::Zoned::now().date().to_string();
    let report = Report::new(date, machine, before, after, &comparisons);
    if let Some(file) = &args.plot {
        write(file, &plot::svg(&report))?;
    }
    print(&args.json, || report.json(), || table::table(&report))
}

/// Prints the table, or what there is as JSON, which may go to a file.
fn print(
    to: &Option<Option<PathBuf>>,
    json: impl FnOnce() -> String,
    table: impl FnOnce() -> String,
) -> Result {
    match to {
        Some(None) => println!("{}", json()),
        Some(Some(file)) => {
            write(file, &format!("{}\n", json()))?;
            print!("{}", table());
        }
        None => print!("{}", table()),
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result {
    fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))
}

/// Reports of made-up numbers, as JSON.
#[cfg(test)]
pub(crate) mod made_up {
    /// Of a card, whose limits were measured.
    pub(crate) fn bench() -> String {
        super::report::tests::report_of(["cuda", "gpu", "candle"]).json()
    }

    pub(crate) fn classify() -> String {
        super::classify::report::tests::report().json()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> std::result::Result<Args, clap::Error> {
        Line::try_parse_from(["bench"].into_iter().chain(line.split(' '))).map(|l| l.args)
    }

    #[test]
    fn lists_and_the_grid_are_cells() {
        let cells = |line| parse(line).map(|a| a.cells()).map_err(|e| e.to_string());
        assert_eq!(cells("m"), Ok(grid::product(&[512], &[64], &[1])));
        assert_eq!(
            cells("m --prompt 16,128 --generate 0,8 --batch 1,4"),
            Ok(grid::product(&[16, 128], &[0, 8], &[1, 4]))
        );
        assert_eq!(cells("m --grid"), Ok(grid::standard()));
        for wrong in ["m --grid --prompt 16", "m --prompt 16,0", "m --batch x", "m --prompt 1,,2"] {
            assert!(cells(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn classification_is_a_task_of_its_own() {
        let task = |line| parse(line).map(|a| a.task.is_some()).map_err(|e| e.kind());
        assert_eq!(task("m"), Ok(false));
        assert_eq!(task("classify m --quantise 8 --short"), Ok(true));
        assert!(task("classify").is_err() && task("classify m --short --rounds 2").is_err());
    }

    #[test]
    fn what_would_fail_in_the_end_fails_at_once() {
        let check = |line| parse(line).unwrap().check(2);
        assert_eq!(check("m"), Ok(2));
        assert_eq!(check("m --threads 1 --json"), Ok(1));
        assert!(check("m --threads 3").is_err());
        assert!(check("m --plot no/such/folder.svg").is_err());
        assert!(check("m --json .").is_err());
    }
}
