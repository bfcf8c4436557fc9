//! Which files of a model a candidate reads.

use crate::Result;
use inference::Format;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What `path` is for a candidate that reads some formats: a folder of both is its safetensors, or its GGUF file of a type.
///
/// `gguf_type` is asked for, or else what the safetensors have (`bf16`); a candidate that reads both takes a GGUF file
/// only if it is asked for.
pub(super) fn of(
    path: &Path,
    reads: impl Fn(Format) -> bool,
    gguf_type: Option<&str>,
    dtype: &str,
) -> Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let safetensors = reads(Format::Safetensors) && !files(path, "safetensors").is_empty();
    if safetensors && (gguf_type.is_none() || !reads(Format::Gguf)) {
        return Ok(path.to_owned());
    }
    if !reads(Format::Gguf) {
        return Err(format!("no *.safetensors in {}", path.display()));
    }
    let wanted = gguf_type.unwrap_or(dtype);
    let file = path.join(format!("model-{wanted}.gguf"));
    if file.is_file() {
        return Ok(file);
    }
    let there = match files(path, "gguf") {
        names if names.is_empty() => "no GGUF file".to_owned(),
        names => names.join(", "),
    };
    Err(format!(
        "no model-{wanted}.gguf in {} ({there} there); `cargo xtask make-model SHAPE DIR --gguf {wanted}` writes one",
        path.display()
    ))
}

/// The type that a GGUF file's name ends with, such as `q8_0`.
pub(super) fn gguf_type(file: &Path) -> Option<String> {
    let stem = file.file_stem()?.to_str()?;
    let is_gguf = Format::of(file) == Format::Gguf;
    is_gguf.then(|| stem.rsplit(['-', '.']).next().unwrap_or(stem).to_lowercase())
}

/// Names of the files in `folder` that end so, sorted.
fn files(folder: &Path, extension: &str) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|e| e == extension));
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_candidate_finds_its_files_in_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["model.safetensors", "model-bf16.gguf", "model-q8_0.gguf"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let find = |formats: &[Format], gguf_type| {
            of(dir.path(), |f| formats.contains(&f), gguf_type, "bf16")
                .map(|path| path.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned())
        };
        let (safetensors, gguf) = (Format::Safetensors, Format::Gguf);
        for (formats, gguf_type, want) in [
            (&[safetensors][..], None, ""),
            (&[safetensors], Some("q8_0"), ""),
            (&[gguf], None, "model-bf16.gguf"),
            (&[gguf], Some("q8_0"), "model-q8_0.gguf"),
            (&[safetensors, gguf], None, ""),
            (&[safetensors, gguf], Some("q8_0"), "model-q8_0.gguf"),
        ] {
            assert_eq!(find(formats, gguf_type), Ok(want.to_owned()), "{formats:?} {gguf_type:?}");
        }
        let error = find(&[gguf], Some("q4_0")).unwrap_err();
        assert!(error.contains("model-q4_0.gguf") && error.contains("model-q8_0.gguf"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        assert!(of(empty.path(), |f| f == safetensors, None, "bf16").is_err());
        let file = dir.path().join("model-q8_0.gguf");
        assert_eq!(of(&file, |_| true, None, "?"), Ok(file));
    }

    #[test]
    fn a_name_tells_the_type() {
        let named = |name| gguf_type(Path::new(name));
        assert_eq!(named("a/model-q8_0.gguf").as_deref(), Some("q8_0"));
        assert_eq!(named("Qwen3-0.6B.BF16.gguf").as_deref(), Some("bf16"));
        assert_eq!(named("folder"), None);
    }
}
