//! Models on disk, without loading them.

use crate::{Error, Format, Quantisation, Result};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::HashSet,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

/// A model that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Discovered {
    /// The folder, or the GGUF file; absolute.
    pub path: PathBuf,
    /// `model_type` of `config.json`; empty where that is not valid JSON or does not say.
    pub model_type: String,
    /// How the weights are quantised, as far as the configuration says.
    pub quantisation: Option<Quantisation>,
    /// Files of weights.
    pub files: usize,
    /// Bytes of weights.
    pub bytes: u64,
    /// How it is stored.
    pub format: Format,
}

/// Most bytes of a `config.json` that is looked at.
const MAX_CONFIG: u64 = 16 << 20;

/// The models in `dir` itself (first) and one level below, sorted by name.
///
/// # Errors
/// [`Error::Io`] if `dir` can't be read. An unreadable folder below is passed over.
pub fn discover(dir: impl AsRef<Path>) -> Result<Vec<Discovered>> {
    walk(dir.as_ref(), 1)
}

/// The models in `dir` and all the way down, sorted by path. Follows links, once each; understands the cache of
/// Hugging Face (`models--org--name/snapshots/<hash>`).
///
/// # Errors
/// [`Error::Io`] if `dir` can't be read. An unreadable folder below is passed over.
pub fn discover_all(dir: impl AsRef<Path>) -> Result<Vec<Discovered>> {
    walk(dir.as_ref(), usize::MAX)
}

fn walk(dir: &Path, depth: usize) -> Result<Vec<Discovered>> {
    let root = fs::canonicalize(dir).map_err(|e| Error::io(dir, e))?;
    fs::read_dir(&root).map_err(|e| Error::io(dir, e))?;
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    visit(&root, depth, &mut seen, &mut found);
    Ok(found)
}

/// `seen` holds the real paths of the folders visited, so that a loop of links ends.
fn visit(dir: &Path, depth: usize, seen: &mut HashSet<PathBuf>, found: &mut Vec<Discovered>) {
    let Ok(real) = fs::canonicalize(dir) else { return };
    if !seen.insert(real) {
        return;
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    found.extend(folder(dir, &paths));
    found.extend(paths.iter().filter_map(|p| gguf(p)));
    if depth == 0 {
        return;
    }
    for path in paths.iter().filter(|p| p.is_dir()) {
        visit(path, depth - 1, seen, found);
    }
}

/// `dir` as a model: a readable `config.json` and at least one `*.safetensors`.
fn folder(dir: &Path, paths: &[PathBuf]) -> Option<Discovered> {
    let mut config = String::new();
    let file = dir.join("config.json");
    // Before it is opened: a pipe would be waited for.
    fs::metadata(&file).ok().filter(fs::Metadata::is_file)?;
    File::open(file).ok()?.take(MAX_CONFIG).read_to_string(&mut config).ok()?;
    let weights: Vec<_> = paths
        .iter()
        .filter(|p| p.extension().is_some_and(|e| e == "safetensors"))
        .filter_map(|p| fs::metadata(p).ok().filter(fs::Metadata::is_file))
        .collect();
    if weights.is_empty() {
        return None;
    }
    let config: Value = serde_json::from_str(&config).unwrap_or_default();
    Some(Discovered {
        path: dir.to_owned(),
        model_type: config["model_type"].as_str().unwrap_or_default().to_owned(),
        quantisation: quantisation(&config),
        files: weights.len(),
        bytes: weights.iter().map(fs::Metadata::len).sum(),
        format: Format::Safetensors,
    })
}

fn gguf(path: &Path) -> Option<Discovered> {
    let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    (Format::of(path) == Format::Gguf).then(|| Discovered {
        path: path.to_owned(),
        model_type: String::new(),
        quantisation: None,
        files: 1,
        bytes: metadata.len(),
        format: Format::Gguf,
    })
}

/// MLX writes `quantization`, everyone else `quantization_config`; both may be nested in a `text_config`.
fn quantisation(config: &Value) -> Option<Quantisation> {
    [config, &config["text_config"]]
        .iter()
        .flat_map(|c| [&c["quantization"], &c["quantization_config"]])
        .find_map(|q| {
            // A container of several formats says it for groups of layers; the first goes for all.
            let inner = q["config_groups"].as_object().and_then(|groups| groups.values().next());
            let stated = |field: &str, inner_field: &str| {
                q[field].as_u64().or(inner.and_then(|i| i["weights"][inner_field].as_u64()))
            };
            let bits = stated("bits", "num_bits").or_else(|| implied_bits(q))?;
            let group_size = stated("group_size", "group_size");
            Some(Quantisation {
                bits: u8::try_from(bits).ok()?,
                group_size: group_size.and_then(|g| usize::try_from(g).ok()),
            })
        })
}

/// Bits that the name of a format says, where it has no field for them.
fn implied_bits(quantised: &Value) -> Option<u64> {
    match quantised["quant_method"].as_str()? {
        "fp8" | "mxfp8" | "fbgemm_fp8" => Some(8),
        "mxfp4" | "nvfp4" => Some(4),
        "bitsandbytes" if quantised["load_in_4bit"] == true => Some(4),
        "bitsandbytes" if quantised["load_in_8bit"] == true => Some(8),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(dir: &Path, config: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join("config.json"), config).unwrap();
        fs::write(dir.join("model.safetensors"), b"12345").unwrap();
    }

    fn names(found: &[Discovered], root: &Path) -> Vec<String> {
        let root = fs::canonicalize(root).unwrap();
        found
            .iter()
            .map(|d| d.path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/"))
            .collect()
    }

    #[test]
    fn finds_the_folder_itself_first_and_one_level_below() {
        let dir = tempfile::tempdir().unwrap();
        model(dir.path(), r#"{"model_type": "llama"}"#);
        model(
            &dir.path().join("b"),
            r#"{"model_type": "qwen3", "quantization": {"bits": 4, "group_size": 64}}"#,
        );
        model(&dir.path().join("a"), "not json");
        model(&dir.path().join("a/deep"), "{}");
        fs::create_dir(dir.path().join("empty")).unwrap();
        fs::write(dir.path().join("c.gguf"), b"GGUF").unwrap();
        let found = discover(dir.path()).unwrap();
        assert_eq!(names(&found, dir.path()), ["", "c.gguf", "a", "b"]);
        assert!(found.iter().all(|d| d.path.is_absolute()));
        assert_eq!((found[0].model_type.as_str(), found[2].model_type.as_str()), ("llama", ""));
        assert_eq!(found[3].quantisation, Some(Quantisation { bits: 4, group_size: Some(64) }));
        assert_eq!((found[3].files, found[3].bytes), (1, 5));
        assert_eq!(
            names(&discover_all(dir.path()).unwrap(), dir.path()),
            ["", "c.gguf", "a", "a/deep", "b"]
        );
    }

    #[test]
    fn bits_and_groups_are_said_in_many_ways() {
        let cases = [
            (r#"{"quantization": {"bits": 6, "group_size": 32, "lm_head": false}}"#, 6, Some(32)),
            (r#"{"text_config": {"quantization": {"bits": 8, "group_size": 64}}}"#, 8, Some(64)),
            (
                r#"{"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": -1}}"#,
                4,
                None,
            ),
            (
                r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
                8,
                None,
            ),
            (
                r#"{"quantization_config": {"quant_method": "compressed-tensors", "config_groups":
                    {"group_0": {"weights": {"num_bits": 4, "group_size": 128}}}}}"#,
                4,
                Some(128),
            ),
            (
                r#"{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}"#,
                4,
                None,
            ),
        ];
        for (config, bits, group_size) in cases {
            let found = quantisation(&serde_json::from_str(config).unwrap());
            assert_eq!(found, Some(Quantisation { bits, group_size }), "{config}");
        }
        for none in ["{}", r#"{"quantization": {"bits": 300}}"#, r#"{"quantization_config": 4}"#] {
            assert_eq!(quantisation(&serde_json::from_str(none).unwrap()), None, "{none}");
        }
    }

    #[test]
    fn a_missing_folder_is_an_error_and_an_empty_one_an_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        assert!(discover(dir.path()).unwrap().is_empty());
        assert!(matches!(discover(dir.path().join("nowhere")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_config_without_weights_is_no_model() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        assert!(discover(dir.path()).unwrap().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn loops_of_links_end_and_a_hugging_face_cache_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("models--org--name/blobs");
        let snapshot = dir.path().join("models--org--name/snapshots/abc");
        fs::create_dir_all(&blobs).unwrap();
        fs::create_dir_all(&snapshot).unwrap();
        fs::write(blobs.join("1"), r#"{"model_type": "gemma3"}"#).unwrap();
        fs::write(blobs.join("2"), b"weights").unwrap();
        std::os::unix::fs::symlink("../../blobs/1", snapshot.join("config.json")).unwrap();
        std::os::unix::fs::symlink("../../blobs/2", snapshot.join("model.safetensors")).unwrap();
        std::os::unix::fs::symlink(dir.path(), snapshot.join("loop")).unwrap();
        let found = discover_all(dir.path()).unwrap();
        assert_eq!(names(&found, dir.path()), ["models--org--name/snapshots/abc"]);
        assert_eq!((found[0].model_type.as_str(), found[0].bytes), ("gemma3", 7));
    }
}
