//! `cargo xtask to-gguf`: a folder of the Hugging Face Hub as a file for llama.cpp.
//!
//! What a file holds is said in `names` (tensors), `metadata` (the model) and `tokenizer`; what llama.cpp computes
//! otherwise than the checkpoint means is refused by name.

mod checkpoint;
mod config;
mod k_quants;
mod metadata;
mod mixture;
mod names;
mod pretokenizer;
mod quantise;
mod rope;
mod templates;
#[cfg(test)]
mod tests;
mod tokenizer;
mod weights;

use crate::Result;
use config::{Config, Family};
use indicatif::{ProgressBar, ProgressStyle};
use inference_text::gguf::{GgmlType, Writer};
use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

/// Arguments of `to-gguf`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Families: llama, mistral, qwen2, qwen3, gemma2, gemma3 (the language model only) and phi3.
The folder needs config.json, tokenizer.json and *.safetensors in bf16, f16 or f32; templates and special tokens \
are taken from tokenizer_config.json, chat_template.jinja and generation_config.json.

Example:
  cargo xtask to-gguf models-fixtures/storyteller storyteller.gguf --type q8_0")]
pub struct Args {
    /// The folder, as on the Hugging Face Hub
    model_dir: PathBuf,
    /// The file to write; replaced if it is there
    out: PathBuf,
    /// How matrices are stored; norms and biases are always f32
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    ty: Type,
}

/// How matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Type {
    /// The upper half of a 32-bit number: exact for checkpoints in bf16
    Bf16,
    /// 16-bit IEEE
    F16,
    /// 32-bit IEEE
    F32,
    /// 8 bits and a scale for 32 of them (8.5 bits a weight)
    #[value(name = "q8_0")]
    Q8,
    /// 4 bits and a scale for 32 of them (4.5 bits a weight)
    #[value(name = "q4_0")]
    Q4,
    /// llama.cpp's mixture: 4 bits in blocks of 256 (4.5 bits a weight), and 6 where fewer hurt most
    #[value(name = "q4_k_m")]
    Q4KM,
}

impl Type {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8 => "q8_0",
            Self::Q4 => "q4_0",
            Self::Q4KM => "q4_k_m",
        }
    }

    /// What llama.cpp calls the type of most matrices.
    pub fn ggml(self) -> GgmlType {
        match self {
            Self::Bf16 => GgmlType::BF16,
            Self::F16 => GgmlType::F16,
            Self::F32 => GgmlType::F32,
            Self::Q8 => GgmlType::Q8_0,
            Self::Q4 => GgmlType::Q4_0,
            Self::Q4KM => GgmlType::Q4_K,
        }
    }
}

/// What a file holds, and what to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// `general.architecture`.
    pub architecture: String,
    /// How many tensors it has.
    pub tensors: usize,
    /// Where llama.cpp's meaning is narrower than the checkpoint's.
    pub notes: Vec<String>,
}

/// Writes the file, and says what it did.
///
/// # Errors
/// As [`convert`].
pub fn run(args: &Args) -> Result {
    convert_aloud(&args.model_dir, &args.out, args.ty)
}

/// Converts with a progress bar and says what was done.
///
/// # Errors
/// As [`convert`].
pub fn convert_aloud(folder: &Path, out: &Path, ty: Type) -> Result {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {wide_msg}") {
        bar.set_style(style);
    }
    let converted = convert_with(folder, out, ty.ggml(), &bar);
    bar.finish_and_clear();
    let Converted { architecture, tensors, notes } = converted?;
    for note in notes {
        eprintln!("note: {note}");
    }
    eprintln!("wrote {} ({architecture}, {tensors} tensors, {})", out.display(), ty.name());
    Ok(())
}

/// Writes the checkpoint in `folder` to the file `out`, with matrices stored as `ty`: one of `BF16`, `F16`, `F32`, `Q8_0`,
/// `Q4_0`, and `Q4_K` for the mixture `Q4_K_M`. Matrices whose rows are no multiple of a block of it are stored as `Q8_0`,
/// or as `F16`.
///
/// Holds one tensor at a time. Nothing is left at `out` if it fails.
///
/// # Errors
/// A line that names the file and what is wrong in it, or what llama.cpp has no counterpart for.
pub fn convert(folder: &Path, out: &Path, ty: GgmlType) -> Result<Converted> {
    convert_with(folder, out, ty, &ProgressBar::hidden())
}

fn convert_with(folder: &Path, out: &Path, ty: GgmlType, bar: &ProgressBar) -> Result<Converted> {
    let config = Config::read(folder)?;
    let checkpoint = checkpoint::Checkpoint::open(folder, |name| names::plain(name).is_some())?;
    let at = |e: String| format!("{}: {e}", folder.display());
    let targets = names::targets(&config, &checkpoint).map_err(at)?;
    let vocab = targets[0].shape[0];
    let mut writer = Writer::new();
    metadata::set(&mut writer, &config, &name(folder, &config)?, vocab, ty);
    tokenizer::set(&mut writer, folder, &config, vocab)?;
    let part = out.with_extension("gguf.part");
    let written =
        File::create(&part).map_err(|e| format!("{}: {e}", part.display())).and_then(|file| {
            let mut file = BufWriter::new(file);
            weights::write(&mut writer, &checkpoint, &targets, ty, &mut file, bar).map_err(at)
        });
    let written = written
        .and_then(|()| fs::rename(&part, out).map_err(|e| format!("{}: {e}", out.display())));
    if let Err(e) = written {
        // It may not be there, and the first error is the one to tell.
        let _ = fs::remove_file(&part);
        return Err(e);
    }
    let architecture = config.architecture().to_owned();
    Ok(Converted { architecture, tensors: targets.len(), notes: notes(&config) })
}

/// `general.name`: the folder's.
fn name(folder: &Path, config: &Config) -> Result<String> {
    let path = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let lower = name.to_lowercase();
    // A file has no place for tokens that swallow white space: llama.cpp knows those of Phi 3 by the model's name.
    let unclear =
        config.family == Family::Phi3 && !["phi3", "phi-3"].iter().any(|n| lower.contains(n));
    Ok(if unclear && tokenizer::swallows_space(folder)? { format!("{name} (phi3)") } else { name })
}

fn notes(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if config.usable_context() < config.context {
        notes.push(format!(
            "llama.cpp ignores this model's window, so the context is cut to its {} tokens",
            config.usable_context()
        ));
    }
    if config.has_window_everywhere() {
        notes.push(
            "llama.cpp's graph `llama` has no window; this file takes `granite_swa`, which has"
                .to_owned(),
        );
    }
    if matches!(config.rope.scaling, rope::Scaling::Long { .. }) {
        notes.push("llama.cpp chooses long or short RoPE factors by the context's length, not by the text's".to_owned());
    }
    notes
}
