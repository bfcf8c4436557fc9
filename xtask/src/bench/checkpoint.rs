//! What a checkpoint says of itself, beyond what a loaded model tells.

use crate::Result;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Read,
    path::Path,
};

/// Most bytes of a safetensors header, as the format allows.
const MAX_HEADER: u64 = 100 << 20;

/// A checkpoint on disk.
#[derive(Debug)]
pub(super) struct Checkpoint {
    /// The folder's name.
    pub(super) name: String,
    /// As the weights are stored, such as `bf16`; `?` where nothing says so.
    pub(super) dtype: String,
    /// Whether embedding and head are one table.
    pub(super) tied: bool,
    /// Tokens that end a text.
    pub(super) end_tokens: BTreeSet<u32>,
}

impl Checkpoint {
    /// Reads the small files of the folder; of a file, those beside it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = name.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let folder = if path.is_file() { path.parent().unwrap_or(path) } else { path };
        let config = json(&folder.join("config.json"))?;
        let generation = json(&folder.join("generation_config.json"))?;
        let nested = &config["text_config"];
        let dtypes =
            [&config["torch_dtype"], &config["dtype"], &nested["torch_dtype"], &nested["dtype"]];
        let tied = [&config, nested].iter().find_map(|c| c["tie_word_embeddings"].as_bool());
        Ok(Self {
            name,
            dtype: short(dtypes.iter().find_map(|d| d.as_str()).unwrap_or("?")).to_owned(),
            tied: match tied {
                Some(tied) => tied,
                // Nothing says so: two tables have the smaller shares.
                None if path.is_file() => false,
                None => !tensor_names(folder)?.iter().any(|n| n.ends_with("lm_head.weight")),
            },
            end_tokens: [&config, nested, &generation]
                .iter()
                .flat_map(|c| ids(&c["eos_token_id"]))
                .collect(),
        })
    }
}

/// The name of a dtype as GGUF files have it.
fn short(dtype: &str) -> &str {
    match dtype {
        "bfloat16" => "bf16",
        "float16" => "f16",
        "float32" => "f32",
        other => other,
    }
}

/// One id or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    value.as_array().map_or_else(
        || one(value).into_iter().collect(),
        |all| all.iter().filter_map(one).collect(),
    )
}

/// The file's JSON; null if there is no such file.
fn json(path: &Path) -> Result<Value> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display())),
        Err(_) => Ok(Value::Null),
    }
}

fn tensor_names(folder: &Path) -> Result<Vec<String>> {
    let index = json(&folder.join("model.safetensors.index.json"))?;
    if let Some(map) = index["weight_map"].as_object() {
        return Ok(map.keys().cloned().collect());
    }
    let path = folder.join("model.safetensors");
    let header = header(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(header.as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default())
}

fn header(path: &Path) -> std::io::Result<Value> {
    let mut file = File::open(path)?;
    let mut len = [0; 8];
    file.read_exact(&mut len)?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(len).min(MAX_HEADER)).read_to_end(&mut header)?;
    Ok(serde_json::from_slice(&header)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_tokens_are_the_union_and_the_head_tells_whether_it_is_tied() {
        let dir = tempfile::tempdir().unwrap();
        let config = r#"{"eos_token_id": 3, "torch_dtype": "bfloat16", "text_config": {"eos_token_id": [4]}}"#;
        fs::write(dir.path().join("config.json"), config).unwrap();
        fs::write(dir.path().join("generation_config.json"), r#"{"eos_token_id": [5, 3]}"#)
            .unwrap();
        let header = r#"{"lm_head.weight": {}}"#;
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        fs::write(dir.path().join("model.safetensors"), file).unwrap();
        let checkpoint = Checkpoint::read(dir.path()).unwrap();
        assert_eq!(checkpoint.end_tokens, BTreeSet::from([3, 4, 5]));
        assert_eq!((checkpoint.dtype.as_str(), checkpoint.tied), ("bf16", false));
        let gguf = dir.path().join("model-q8_0.gguf");
        fs::write(&gguf, "").unwrap();
        let of_file = Checkpoint::read(&gguf).unwrap();
        assert_eq!((of_file.name.as_str(), of_file.tied), ("model-q8_0.gguf", false));
        assert_eq!(of_file.end_tokens, checkpoint.end_tokens);
    }
}
