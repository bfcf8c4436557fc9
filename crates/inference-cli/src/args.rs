//! The command line: flags, and the options of the library that they stand for.

use crate::parse;
use clap::{ArgAction, Args, Parser, Subcommand};
use inference::{
    CacheDtype, CancelToken, ClassifyOptions, DeviceChoice, GenerateOptions, GpuLayers,
    LoadOptions, QuantiseOptions,
};
use serde_json::Value;
use std::{path::PathBuf, time::Duration};

/// Local text generation.
#[derive(Debug, Parser)]
#[command(
    name = "inference",
    version,
    after_help = "Examples:
  inference list ~/models --all
  inference generate ~/models/qwen3-0.6b 'The capital of France is' --max-tokens 8
  inference chat ~/models/qwen3-0.6b --system 'Answer in one sentence.' --temperature 0.7
  inference classify ~/models/qwen3-0.6b --labels technical,creative,casual texts.txt
  inference quantise ~/models/qwen3-0.6b ~/models/qwen3-0.6b-4bit --bits 4

A MODEL is a folder with config.json and *.safetensors, or a GGUF file.
RUST_LOG sets what is logged to stderr, such as RUST_LOG=inference=debug."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log more to stderr; twice for still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Continue a prompt
    Generate(Box<Generate>),
    /// Talk with a model
    Chat(Box<Chat>),
    /// Name the category of each line of a file
    Classify(Box<Classify>),
    /// Write a copy of a model with fewer bits a weight
    #[command(visible_alias = "quantize")]
    Quantise(Quantise),
    /// List the models in a folder
    List(List),
    /// List the backends of this build: whether they can run here, and their devices; or test them
    Backends(Backends),
    /// Load a model and say what it is
    Info(Info),
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  inference generate MODEL 'Once upon a time' --temperature 0.8 --seed 1
  inference generate MODEL - --stop '\\n\\n' < prompt.txt
  inference generate MODEL 'Why is the sky blue?' --chat --var enable_thinking=false
  inference generate MODEL 'One, two,' --json | jq -r .text

Without --temperature the output is greedy: always the most likely token.
Ctrl-C ends the output; what there is by then is printed, and the exit code is 130.")]
pub(crate) struct Generate {
    /// The model and how to load it.
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// The text to continue; `-` reads it from standard input, less one line break at its end
    pub(crate) prompt: String,
    /// Send the prompt through the model's chat template, as a user's message
    #[arg(long)]
    pub(crate) chat: bool,
    /// With --chat: instructions that stand above the message
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,
    /// How to generate.
    #[command(flatten)]
    pub(crate) options: GenerateArgs,
    /// Print one JSON object a token (id, text, logprob), then one with finish_reason and metrics
    #[arg(long)]
    pub(crate) json: bool,
    /// Print token counts, tokens/s, the time to the first token and the peak memory to stderr
    #[arg(long)]
    pub(crate) metrics: bool,
}

/// Arguments of `chat`.
#[derive(Debug, Args)]
#[command(after_help = "In the chat:
  /system TEXT  replace the instructions; without TEXT remove them
  /reset        forget the conversation, keep the instructions
  /help         list these
  /exit         end, as do Ctrl-D, and Ctrl-C at an empty prompt

Ctrl-C during an answer stops that answer; what was said by then stays in the conversation.
If standard input is no terminal, each line is a message of the user and is answered in turn:
  printf '%s\\n' 'My name is Ada.' 'What is my name?' | inference chat MODEL")]
pub(crate) struct Chat {
    /// The model and how to load it.
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Instructions that stand above the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// How to generate.
    #[command(flatten)]
    pub(crate) options: GenerateArgs,
    /// Print token counts, tokens/s, the time to the first token and the peak memory to stderr after each answer
    #[arg(long)]
    pub(crate) metrics: bool,
}

/// Arguments of `classify`.
#[derive(Debug, Args)]
#[command(after_help = "One JSON object a line comes out, in the order of the input:
  with --labels     {\"text\", \"label\", \"probability\", \"labels\": {LABEL: PROBABILITY, ...}}
  without           {\"text\", \"token\", \"id\", \"logprob\"}: the most likely token after the text
  for a bad line    {\"text\", \"error\"}; the other lines are not affected

With --labels a text is put into this template, unless --template gives another:
  Classify this text into exactly one category: {labels}.\\n\\nText: {text}\\n\\nCategory:
Without, it stands for itself: {text}
In a template \\n is a line break, {labels} is the labels with commas between, {text} is the line.
What stands before {text} is the same for all lines and computed once.

Example:
  inference classify MODEL --labels positive,negative reviews.txt | jq -r .label")]
pub(crate) struct Classify {
    /// The model and how to load it.
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A file with one text per line; `-` is standard input
    pub(crate) file: PathBuf,
    /// Only these compete, separated by commas
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub(crate) labels: Vec<String>,
    /// The prompt around each text
    #[arg(long, value_parser = parse::unescape)]
    pub(crate) template: Option<String>,
    /// Most lines that are classified together
    #[arg(long, value_name = "LINES", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) batch: u16,
    /// Add the log-probabilities of the N most likely tokens, as top_logprobs
    #[arg(long, value_name = "N")]
    pub(crate) logprobs: Option<usize>,
    /// Time limit of each batch of lines, such as 30s
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,
}

impl Classify {
    /// What the library is asked for; the token's own log-probability always is reported.
    pub(crate) fn options(&self, cancel: CancelToken) -> ClassifyOptions {
        let mut options = ClassifyOptions::default()
            .labels(self.labels.iter().map(|l| l.trim()))
            .logprobs(self.logprobs.unwrap_or(0))
            .cancel(cancel);
        options.timeout = self.timeout;
        options
    }
}

/// Arguments of `quantise`.
#[derive(Debug, Args)]
#[command(after_help = "\
IN is a folder with config.json and *.safetensors in f32, f16 or bf16. OUT becomes one in the form of MLX, which this \
program and mlx_lm load: matrices as whole numbers of few bits, with a scale and a bias for each group of columns; \
norms and biases as they are; tokenizer, template and other small files copied.
A matrix whose columns GROUP does not divide has the largest smaller groups that do, or stays as it is.

8 bits lose next to nothing, and halve a model in 16; 4 are the usual choice, 2 seldom make sense.
To load with fewer bits and write nothing: inference generate MODEL ... --quantise 4

Examples:
  inference quantise ~/models/qwen3-0.6b ~/models/qwen3-0.6b-4bit
  inference quantise MODEL OUT --bits 3 --group 32 --embedding-bits 6

Until all is written, OUT holds *.partial files alone; Ctrl-C removes them.")]
pub(crate) struct Quantise {
    /// The model to read
    #[arg(value_name = "IN")]
    pub(crate) from: PathBuf,
    /// The folder to write; made if it is not there
    #[arg(value_name = "OUT")]
    pub(crate) to: PathBuf,
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8
    #[arg(long, default_value_t = 4)]
    bits: u8,
    /// Columns that share a scale and a bias: 32, 64 or 128. Fewer are more exact, and larger
    #[arg(long, default_value_t = 64)]
    group: usize,
    /// Bits of the embedding and the head; default: as all others
    #[arg(long, value_name = "BITS")]
    embedding_bits: Option<u8>,
    /// Replace the model that is in OUT: its *.safetensors, *.json and *.jinja files
    #[arg(long)]
    force: bool,
    /// Threads to quantise on; default: as many as the machine runs at once
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

impl Quantise {
    /// What the library is asked for, without a progress callback.
    pub(crate) fn options(&self, cancel: CancelToken) -> QuantiseOptions {
        let mut options = QuantiseOptions::default()
            .bits(self.bits)
            .group_size(self.group)
            .overwrite(self.force)
            .cancel(cancel);
        options.embedding_bits = self.embedding_bits;
        options.threads = self.threads;
        options
    }
}

/// Arguments of `list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Looks at DIR itself and one level below; with --all all the way down, links included.
The cache of Hugging Face is understood: inference list --all ~/.cache/huggingface/hub"
)]
pub(crate) struct List {
    /// The folder
    pub(crate) dir: PathBuf,
    /// Go all the way down
    #[arg(long)]
    pub(crate) all: bool,
    /// Print one JSON object a model
    #[arg(long)]
    pub(crate) json: bool,
}

/// Arguments of `backends`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  inference backends
  inference backends --self-test --backend rocm

The self-test computes what a slow reference computes too, and compares. Its report is for whoever has a device that we
have not: paste it into an issue. The exit code is 1 if anything is wrong.")]
pub(crate) struct Backends {
    /// Print one JSON object a backend
    #[arg(long)]
    pub(crate) json: bool,
    /// Compute on the device of each backend, compare with the reference, and print a report
    #[arg(long, conflicts_with = "json")]
    pub(crate) self_test: bool,
    /// Test this backend alone
    #[arg(long, value_name = "NAME", requires = "self_test")]
    pub(crate) backend: Option<String>,
    /// The device to test, by its place in `inference backends` (from 0) or by its id
    #[arg(long, value_name = "DEVICE", value_parser = parse::device, requires = "backend")]
    pub(crate) device: Option<DeviceChoice>,
}

/// Arguments of `info`.
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The model and how to load it.
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// The model and how to load it: every field of [`LoadOptions`] but the length of the queue, since a program that makes
/// one call at a time has none.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A folder with config.json and *.safetensors, or a GGUF file
    pub(crate) model: PathBuf,
    /// The backend, by name; default: the first that can run here and reads the model
    #[arg(long, value_name = "NAME", help_heading = "Loading")]
    backend: Option<String>,
    /// Most tokens of one sequence, prompt and output together; default: the model's own, as far as memory goes
    #[arg(long, value_name = "TOKENS", help_heading = "Loading")]
    context_len: Option<usize>,
    /// Layers to keep on the GPU: all, none or a number
    #[arg(long, value_name = "LAYERS", default_value = "all", value_parser = parse::gpu_layers,
          help_heading = "Loading")]
    gpu_layers: GpuLayers,
    /// How many sequences may run at once
    #[arg(long, value_name = "N", help_heading = "Loading")]
    parallel_slots: Option<usize>,
    /// The device, by its place in `inference backends` (from 0) or by its id
    #[arg(long, value_name = "DEVICE", value_parser = parse::device, help_heading = "Loading")]
    device: Option<DeviceChoice>,
    /// Quantise the weights while loading, to 2, 3, 4, 5, 6 or 8 bits
    #[arg(long, value_name = "BITS", visible_alias = "quantize", help_heading = "Loading")]
    quantise: Option<u8>,
    /// Multiply activations as they are, not rounded to 8 bits (quantised weights) or to bf16: slower
    #[arg(long, help_heading = "Loading")]
    exact_activations: bool,
    /// How keys and values are stored: f32, f16 or bf16
    #[arg(long, value_name = "DTYPE", value_parser = parse::cache_dtype, help_heading = "Loading")]
    cache_dtype: Option<CacheDtype>,
    /// Most memory for weights and cache together, such as 8GiB
    #[arg(long, value_name = "SIZE", value_parser = parse::bytes, help_heading = "Loading")]
    memory_limit: Option<u64>,
    /// Threads of a CPU backend; default: one per physical core
    #[arg(long, value_name = "N", help_heading = "Loading")]
    threads: Option<usize>,
}

impl ModelArgs {
    /// The options, without a progress callback.
    pub(crate) fn options(&self) -> LoadOptions {
        let mut options = LoadOptions::default().gpu_layers(self.gpu_layers);
        options.backend = self.backend.clone();
        options.context_len = self.context_len;
        options.parallel_slots = self.parallel_slots;
        options.device = self.device.clone();
        options.quantise = self.quantise;
        options.exact_activations = self.exact_activations;
        options.cache_dtype = self.cache_dtype;
        options.memory_limit = self.memory_limit;
        options.threads = self.threads;
        options
    }
}

/// How to generate: every field of [`GenerateOptions`] that can be written on a command line, but for
/// those about other callers.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Generation")]
    max_tokens: usize,
    /// Divides the logits before sampling; 0 is greedy, whatever else is set
    #[arg(
        long,
        value_name = "T",
        default_value_t = 0.0,
        allow_negative_numbers = true,
        help_heading = "Generation"
    )]
    temperature: f32,
    /// Sample among the K most likely tokens
    #[arg(long, value_name = "K", help_heading = "Generation")]
    top_k: Option<usize>,
    /// Sample among the fewest tokens whose probabilities sum to P
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = "Generation")]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the most likely one's probability
    #[arg(long, value_name = "P", allow_negative_numbers = true, help_heading = "Generation")]
    min_p: Option<f32>,
    /// Makes tokens of prompt and output less likely; 1 is no penalty
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Generation")]
    repeat_penalty: Option<f32>,
    /// Subtracted from the logit of every token that the output holds
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Generation")]
    presence_penalty: Option<f32>,
    /// Subtracted from a token's logit for each time that the output holds it
    #[arg(long, value_name = "X", allow_negative_numbers = true, help_heading = "Generation")]
    frequency_penalty: Option<f32>,
    /// Added to a token's logit, such as 42=-1.5; 42=-inf bans it. May be repeated
    #[arg(long, value_name = "ID=BIAS", value_parser = parse::logit_bias,
          help_heading = "Generation")]
    logit_bias: Vec<(u32, f32)>,
    /// Makes sampling repeatable
    #[arg(long, help_heading = "Generation")]
    seed: Option<u64>,
    /// A text that ends the output right before it; \n is a line break. May be repeated
    #[arg(long, value_name = "TEXT", value_parser = parse::unescape, allow_hyphen_values = true,
          help_heading = "Generation")]
    stop: Vec<String>,
    /// A token that ends the output. May be repeated
    #[arg(long, value_name = "ID", help_heading = "Generation")]
    stop_token: Vec<u32>,
    /// Report each token's log-probability and those of the N most likely ones (see --json)
    #[arg(long, value_name = "N", help_heading = "Generation")]
    logprobs: Option<usize>,
    /// Time limit, such as 30s; what there is by then is printed
    #[arg(long, value_name = "TIME", value_parser = parse::duration, help_heading = "Generation")]
    timeout: Option<Duration>,
    /// A variable of the chat template, such as enable_thinking=false. May be repeated
    #[arg(long, value_name = "NAME=JSON", value_parser = parse::variable,
          help_heading = "Generation")]
    var: Vec<(String, Value)>,
}

impl GenerateArgs {
    /// The options, checked, so that a mistake shows before a model is loaded.
    ///
    /// # Errors
    /// An option whose value means nothing.
    pub(crate) fn options(&self) -> inference::Result<GenerateOptions> {
        let mut options = GenerateOptions::default()
            .max_tokens(self.max_tokens)
            .temperature(self.temperature)
            .logit_bias(self.logit_bias.iter().copied())
            .stop_tokens(self.stop_token.iter().copied())
            .stop(self.stop.iter().map(String::as_str));
        options.top_k = self.top_k;
        options.top_p = self.top_p;
        options.min_p = self.min_p;
        options.repeat_penalty = self.repeat_penalty;
        options.presence_penalty = self.presence_penalty;
        options.frequency_penalty = self.frequency_penalty;
        options.seed = self.seed;
        options.logprobs = self.logprobs;
        options.timeout = self.timeout;
        options.render.variables.extend(self.var.iter().cloned());
        options.validate()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_reaches_its_option() {
        let line = "inference generate m p --max-tokens 3 --temperature 0.5 --top-k 4 --top-p 0.9 --min-p 0.1 \
                    --repeat-penalty 1.1 --presence-penalty -0.5 --frequency-penalty 0.25 --logit-bias 5=-inf \
                    --logit-bias 6=1 --seed 9 --stop a --stop \\n --stop-token 7 --logprobs 2 --timeout 30s \
                    --var thinking=false --backend cpu --context-len 100 --gpu-layers none --parallel-slots 2 \
                    --device 1 --quantise 4 --cache-dtype bf16 --memory-limit 8GiB --threads 2";
        let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
        let Command::Generate(args) = cli.command else { panic!("not generate") };
        let o = args.options.options().unwrap();
        assert_eq!((o.max_tokens, o.temperature, o.top_k), (3, 0.5, Some(4)));
        assert_eq!((o.top_p, o.min_p, o.repeat_penalty), (Some(0.9), Some(0.1), Some(1.1)));
        assert_eq!((o.presence_penalty, o.frequency_penalty), (Some(-0.5), Some(0.25)));
        assert_eq!(
            o.logit_bias.into_iter().collect::<Vec<_>>(),
            [(5, f32::NEG_INFINITY), (6, 1.0)]
        );
        assert_eq!((o.seed, o.stop_tokens.as_slice(), o.logprobs), (Some(9), &[7][..], Some(2)));
        assert_eq!(
            (o.stop, o.timeout),
            (vec!["a".into(), "\n".into()], Some(Duration::from_secs(30)))
        );
        assert_eq!(o.render.variables["thinking"], Value::Bool(false));
        let l = args.model.options();
        assert_eq!((l.backend.as_deref(), l.context_len), (Some("cpu"), Some(100)));
        assert_eq!((l.gpu_layers, l.parallel_slots), (GpuLayers::None, Some(2)));
        assert_eq!((l.device, l.quantise), (Some(DeviceChoice::Index(1)), Some(4)));
        assert_eq!((l.cache_dtype, l.memory_limit), (Some(CacheDtype::Bf16), Some(8 << 30)));
        assert_eq!(l.threads, Some(2));
    }
}
