//! Which files of a model a candidate reads, and in which forms they are compared.

use crate::Result;
use inference::Format;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A form of the model that a candidate loads.
#[derive(Debug, PartialEq)]
pub(super) struct Form {
    /// A folder of safetensors, or a GGUF file.
    pub(super) source: PathBuf,
    /// Bits that the weights are quantised to while loading.
    pub(super) quantise: Option<u8>,
}

/// The forms that are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Bits to quantise to while loading.
    pub(super) bits: &'a [u8],
    /// Types of GGUF files.
    pub(super) gguf_types: &'a [String],
    /// As the safetensors are stored.
    pub(super) dtype: &'a str,
}

impl Asked<'_> {
    /// The forms of the model at `path` for a candidate that reads some formats: its safetensors, once for each number of
    /// bits; or else its GGUF files, one for each type.
    pub(super) fn forms(self, path: &Path, reads: impl Fn(Format) -> bool) -> Result<Vec<Form>> {
        let form = |gguf_type: Option<&str>, quantise| -> Result<Form> {
            Ok(Form { source: of(path, &reads, gguf_type, self.dtype)?, quantise })
        };
        let file = !path.is_dir();
        let safetensors = reads(Format::Safetensors) && !files(path, "safetensors").is_empty();
        if !self.bits.is_empty() && (file || safetensors) {
            return self.bits.iter().map(|bits| form(None, Some(*bits))).collect();
        }
        if !self.gguf_types.is_empty() && !file && reads(Format::Gguf) {
            return self.gguf_types.iter().map(|ty| form(Some(ty), None)).collect();
        }
        Ok(vec![form(None, None)?])
    }
}

/// What `path` is for a candidate that reads some formats: a folder of both is its safetensors, or its GGUF file of a type.
///
/// `gguf_type` is asked for, or else what the safetensors have (`bf16`); a candidate that reads both takes a GGUF file
/// only if it is asked for.
fn of(
    path: &Path,
    reads: &impl Fn(Format) -> bool,
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
        "no model-{wanted}.gguf in {folder} ({there} there); `cargo xtask to-gguf {folder} {folder}/model-{wanted}.gguf --type {wanted}` writes one",
        folder = path.display()
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
            of(dir.path(), &|f| formats.contains(&f), gguf_type, "bf16")
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
        assert!(of(empty.path(), &|f| f == safetensors, None, "bf16").is_err());
        let file = dir.path().join("model-q8_0.gguf");
        assert_eq!(of(&file, &|_| true, None, "?"), Ok(file));
    }

    #[test]
    fn a_candidate_has_a_form_for_each_that_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["model.safetensors", "model-bf16.gguf", "model-q4_0.gguf", "model-q8_0.gguf"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let types = ["q4_0".to_owned(), "q8_0".to_owned()];
        let forms = |formats: &[Format], bits: &[u8], gguf_types: &[String]| -> Vec<String> {
            let asked = Asked { bits, gguf_types, dtype: "bf16" };
            let forms = asked.forms(dir.path(), |f| formats.contains(&f)).unwrap();
            let name = |f: Form| {
                let source = f.source.strip_prefix(dir.path()).unwrap();
                format!(
                    "{}{}",
                    source.display(),
                    f.quantise.map_or(String::new(), |b| b.to_string())
                )
            };
            forms.into_iter().map(name).collect()
        };
        let (safetensors, gguf) = (Format::Safetensors, Format::Gguf);
        for (formats, bits, gguf_types, want) in [
            (&[safetensors][..], &[4, 8][..], &types[..], &["4", "8"][..]),
            (&[safetensors], &[], &types, &[""]),
            (&[gguf], &[4, 8], &types, &["model-q4_0.gguf", "model-q8_0.gguf"]),
            (&[gguf], &[4, 8], &[], &["model-bf16.gguf"]),
            (&[safetensors, gguf], &[4, 8], &types, &["4", "8"]),
            (&[safetensors, gguf], &[], &types, &["model-q4_0.gguf", "model-q8_0.gguf"]),
            (&[safetensors, gguf], &[], &[], &[""]),
        ] {
            assert_eq!(
                forms(formats, bits, gguf_types),
                want,
                "{formats:?} {bits:?} {gguf_types:?}"
            );
        }
        let file = dir.path().join("model-q4_0.gguf");
        let asked = Asked { bits: &[], gguf_types: &types, dtype: "?" };
        assert_eq!(
            asked.forms(&file, |_| true),
            Ok(vec![Form { source: file.clone(), quantise: None }])
        );
    }

    #[test]
    fn a_name_tells_the_type() {
        let named = |name| gguf_type(Path::new(name));
        assert_eq!(named("a/model-q8_0.gguf").as_deref(), Some("q8_0"));
        assert_eq!(named("Qwen3-0.6B.BF16.gguf").as_deref(), Some("bf16"));
        assert_eq!(named("folder"), None);
    }
}
