//! What a quantised checkpoint has beside its weights: its configuration, and the small files as they are.

use super::{Target, layout::Layout};
use crate::weights::Planned;
use inference_core::{Error, QuantiseOptions, Result};
use serde_json::{Map, Value, json};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

/// How the names of files end that hold weights, of all kinds of checkpoints, or lists of such files.
const WEIGHTS: [&str; 13] = [
    ".safetensors",
    ".index.json",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".gguf",
    ".onnx",
    ".h5",
    ".msgpack",
    ".npz",
    ".ot",
    ".partial",
];

/// Most bytes of a file that is copied: tokenizers have 40 MB at most.
const MOST: u64 = 256 << 20;

/// `config.json` with what MLX writes about quantised weights: what most have, and by module what others have.
pub(super) fn config(
    mut root: Map<String, Value>,
    layout: &Layout,
    options: &QuantiseOptions,
) -> Result<String, serde_json::Error> {
    let form = |bits: u32, group: usize| json!({ "group_size": group, "bits": bits });
    let usual = (u32::from(options.bits), options.group_size);
    let mut quantization = form(usual.0, usual.1);
    quantization["mode"] = "affine".into();
    for (module, &Planned { bits, group, .. }) in layout.quantised() {
        if (bits, group) != usual {
            quantization[module] = form(bits, group);
        }
    }
    root.insert("quantization".to_owned(), quantization.clone());
    root.insert("quantization_config".to_owned(), quantization);
    if layout.has_head() {
        // We take a head that is stored; `mlx_lm` only where the configuration does not tie it.
        let text = root.get_mut("text_config").and_then(Value::as_object_mut);
        let tied = "tie_word_embeddings".to_owned();
        match text {
            Some(text) => text.insert(tied, false.into()),
            None => root.insert(tied, false.into()),
        };
    }
    serde_json::to_string_pretty(&root).map(|text| text + "\n")
}

/// Copies the small files that lie in `from`: tokenizer, templates, whatever is there.
///
/// # Errors
/// [`Error::Io`].
pub(super) fn copy(from: &Path, target: &mut Target) -> Result<()> {
    for path in files(from)? {
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        let to = target.begin(name);
        // Not `fs::copy`: a file that can't be written would make one that can't be replaced.
        let copied = fs::read(&path).map_err(|e| Error::io(&path, e));
        fs::write(&to, copied?).map_err(|e| Error::io(to, e))?;
    }
    Ok(())
}

/// The regular files in `from` that are neither weights nor its configuration, sorted.
fn files(from: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(from, e);
    let mut all = Vec::new();
    for entry in fs::read_dir(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let small = || {
            // Through links: in the cache of Hugging Face every file is one.
            fs::metadata(entry.path()).is_ok_and(|m| m.is_file() && m.len() <= MOST)
        };
        let passed = name.starts_with('.') || name == "config.json";
        if !passed && !WEIGHTS.iter().any(|end| name.ends_with(end)) && small() {
            all.push(entry.path());
        }
    }
    all.sort();
    Ok(all)
}
