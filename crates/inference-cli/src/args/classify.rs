//! Arguments of `classify`.

use super::ModelArgs;
use crate::parse;
use clap::{Args, ValueEnum};
use inference::{CancelToken, ClassifyOptions, LabelScoring};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Arguments of `classify`.
#[derive(Debug, Args)]
#[command(after_help = "One JSON object a line comes out, in the order of the input:
  with --labels     {\"text\", \"label\", \"probability\", \"margin\", \"labels\": {LABEL: PROBABILITY, ...}}
  without           {\"text\", \"token\", \"id\", \"logprob\"}: the most likely token after the text
  for a bad line    {\"text\", \"error\"}; the other lines are not affected
The margin is how much more probable the label is than the next one.

With --labels a text is put into this template, unless --template gives another:
  Classify this text into exactly one category: {labels}.\\n\\nText: {text}\\n\\nCategory:
Without, it stands for itself: {text}
In a template \\n is a line break, {labels} is the labels with commas between, {text} is the text.
What stands before {text} is the same for all lines and computed once.

The input is read as it is needed, so it may be of any length; a line, or a record of CSV, has at most 8 MiB.
Ctrl-C leaves an output of whole lines, which --resume goes on with: it reads what is there, and compares it with the
input. Lines with an error count as done, also those whose time was over (--timeout): --resume does not try them again.

Examples:
  inference classify MODEL --labels positive,negative reviews.txt | jq -r .label
  inference classify MODEL --labels spam,fine mails.csv --column body --calibrate -o mails.jsonl
  inference classify MODEL --labels spam,fine mails.csv --column body --calibrate -o mails.jsonl --resume")]
pub(crate) struct Classify {
    /// The model and how to load it.
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// A file of texts; `-` is standard input
    pub(crate) file: PathBuf,
    /// What the file is; default: as its name ends (.csv, .tsv, .jsonl, .ndjson), else text
    #[arg(long, value_name = "FORMAT", help_heading = "Input")]
    format: Option<Format>,
    /// Where the text is: a column of CSV by its name or its number from 1, a field of JSON lines by its name or as a
    /// JSON pointer such as /message/body
    #[arg(
        long,
        value_name = "NAME",
        default_value = "text",
        visible_alias = "field",
        help_heading = "Input"
    )]
    pub(crate) column: String,
    /// The CSV has no header: its first line is a text, and its columns are numbers
    #[arg(long, help_heading = "Input")]
    pub(crate) no_header: bool,
    /// What parts the columns of the CSV; default: a comma, in a .tsv file a tab
    #[arg(long, value_name = "CHAR", value_parser = parse::delimiter, help_heading = "Input")]
    delimiter: Option<u8>,
    /// Write to this file, which must not be there yet, instead of standard output
    #[arg(short, long, value_name = "FILE", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,
    /// Go on where a run that was broken off has left its --output
    #[arg(long, requires = "output", help_heading = "Output")]
    pub(crate) resume: bool,
    /// Print the number of texts, texts/s, and tokens to stderr at the end
    #[arg(long, help_heading = "Output")]
    pub(crate) metrics: bool,
    /// Only these compete, separated by commas
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub(crate) labels: Vec<String>,
    /// The prompt around each text
    #[arg(long, value_parser = parse::unescape)]
    pub(crate) template: Option<String>,
    /// Take from each label what it gets for an empty text, or for TEXT (such as N/A): its worth on its own then does
    /// not count
    #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "", requires = "labels")]
    pub(crate) calibrate: Option<String>,
    /// What counts of a label of several tokens: the sum of their log-probabilities, or the mean
    #[arg(long, value_name = "WAY", default_value = "sum")]
    label_scoring: Scoring,
    /// Most texts that are classified together
    #[arg(long, value_name = "N", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) batch: u16,
    /// Add the log-probabilities of the N most likely tokens, as top_logprobs
    #[arg(long, value_name = "N")]
    pub(crate) logprobs: Option<usize>,
    /// Time limit of each batch, such as 30s
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub(crate) timeout: Option<Duration>,
}

/// What a file of texts is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One text a line.
    Text,
    /// Rows of columns, as in RFC 4180.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

/// As [`LabelScoring`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scoring {
    Sum,
    Mean,
}

impl Classify {
    /// What the library is asked for, but for the prompt of an empty text.
    pub(crate) fn options(&self, cancel: CancelToken) -> ClassifyOptions {
        let mut options = ClassifyOptions::default()
            .labels(self.labels.iter().map(|l| l.trim()))
            .label_scoring(match self.label_scoring {
                Scoring::Sum => LabelScoring::Sum,
                Scoring::Mean => LabelScoring::Mean,
            })
            .cancel(cancel);
        options.logprobs = self.logprobs;
        options.timeout = self.timeout;
        options
    }

    /// What the file is.
    pub(crate) fn format(&self) -> Format {
        self.format.unwrap_or_else(|| match extension(&self.file).as_str() {
            "csv" | "tsv" => Format::Csv,
            "jsonl" | "ndjson" => Format::Jsonl,
            _ => Format::Text,
        })
    }

    /// What parts the columns of a CSV file.
    pub(crate) fn delimiter(&self) -> u8 {
        let by_name = if extension(&self.file) == "tsv" { b'\t' } else { b',' };
        self.delimiter.unwrap_or(by_name)
    }
}

fn extension(file: &Path) -> String {
    file.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase()
}
