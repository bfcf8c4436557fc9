//! Load options and paths.

use crate::support::{Checkpoint, Expected, answer, check, within_limits};
use inference::{CacheDtype, DeviceChoice, GpuLayers, LoadOptions, Result, load_model};
use serde_json::json;
use std::path::Path;

/// Loads on a thread of its own; gives nothing of the model.
fn load(name: &str, path: impl AsRef<Path>, options: LoadOptions) -> Result<()> {
    let path = path.as_ref().to_owned();
    within_limits(name, move || load_model(path, &options).map(drop))
}

#[test]
fn a_load_option_that_can_not_be_honoured_is_an_error() {
    let new = LoadOptions::default;
    let id = |id: &str| DeviceChoice::Id(id.to_owned());
    let cases: Vec<(&str, LoadOptions, Expected<'_>)> = vec![
        ("context_len 0", new().context_len(0), ("InvalidOption", &["context_len", "at least 1"])),
        (
            "context_len beyond the model's",
            new().context_len(4097),
            ("InvalidOption", &["context_len", "4097", "4096"]),
        ),
        (
            "context_len without end",
            new().context_len(usize::MAX),
            ("InvalidOption", &["context_len", "4096"]),
        ),
        ("parallel_slots 0", new().parallel_slots(0), ("InvalidOption", &["parallel_slots"])),
        ("threads 0", new().threads(0), ("InvalidOption", &["threads"])),
        (
            "threads without end",
            new().threads(usize::MAX),
            ("InvalidOption", &["threads", "at most"]),
        ),
        ("quantise 0", new().quantise(0), ("InvalidOption", &["quantise", "0 bits"])),
        (
            "quantise 9",
            new().quantise(9),
            ("InvalidOption", &["quantise", "9 bits", "2, 3, 4, 5, 6 or 8"]),
        ),
        ("quantise 7", new().quantise(7), ("InvalidOption", &["quantise", "7 bits"])),
        (
            "gpu_layers 3",
            new().gpu_layers(GpuLayers::Count(3)),
            ("Unsupported", &["gpu_layers", "\"cpu\""]),
        ),
        (
            "device by number",
            new().device(DeviceChoice::Index(7)),
            ("InvalidOption", &["device", "7", "cpu"]),
        ),
        (
            "device by id",
            new().device(id("0000:03:00.0")),
            ("InvalidOption", &["device", "0000:03:00.0", "cpu"]),
        ),
        (
            "memory_limit 0",
            new().memory_limit(0),
            ("OutOfMemory", &["0 are available", "memory_limit", "context_len"]),
        ),
        (
            "memory_limit too small",
            new().memory_limit(400_000),
            ("OutOfMemory", &["400000 are available", "memory_limit"]),
        ),
        (
            "memory_limit too small for context_len",
            new().memory_limit(2 << 20).context_len(4096).cache_dtype(CacheDtype::F32),
            ("OutOfMemory", &["4096 tokens", "context_len", "memory_limit"]),
        ),
        (
            "unknown backend",
            new().backend("abacus"),
            ("BackendNotRegistered", &["backend \"abacus\" not registered", "cpu"]),
        ),
        ("nameless backend", new().backend(""), ("BackendNotRegistered", &["cpu"])),
    ];
    let checkpoint = Checkpoint::of("qwen3");
    for (name, options, expected) in cases {
        check(name, load(name, checkpoint.path(), options), expected);
    }
    assert!(load("none", checkpoint.path(), new()).is_ok());
}

#[test]
fn an_extreme_load_option_gives_a_model_or_too_little_memory() {
    let new = LoadOptions::default;
    let cases = [
        ("slots without end", new().parallel_slots(usize::MAX)),
        ("memory without end", new().memory_limit(u64::MAX)),
        ("memory and slots without end", new().memory_limit(u64::MAX).parallel_slots(usize::MAX)),
        ("one token", new().context_len(1)),
    ];
    let checkpoint = Checkpoint::of("llama-linear");
    checkpoint.config(json!({"max_position_embeddings": 1u64 << 31}));
    for (name, options) in cases {
        let path = checkpoint.path().to_owned();
        let result = within_limits(name, move || {
            let model = load_model(path, &options)?;
            if model.info().context_len > 8 {
                assert!(!answer(&*model).is_empty());
            }
            Ok(())
        });
        if result.is_err() {
            check(name, result, ("OutOfMemory", &["cache", "context_len"]));
        }
    }
}

#[test]
fn a_path_without_a_model_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let empty = folder.path().to_owned();
    let checkpoint = Checkpoint::of("qwen3");
    let gone = empty.join("gone");
    let weights = checkpoint.path().join("model.safetensors");
    let gguf = empty.join("model.gguf");
    std::fs::write(&gguf, "GGUF").expect("is writable");
    let shown = |path: &Path| path.display().to_string();
    let cases: [(&Path, &str, &[&str]); 6] = [
        (&empty, "NotAModel", &[&shown(&empty), "config.json"]),
        (&gone, "NotAModel", &[&shown(&gone), "config.json"]),
        (&weights, "NotAModel", &[&shown(&weights), "config.json"]),
        (Path::new(""), "NotAModel", &["config.json"]),
        (&gguf, "InvalidFile", &[&shown(&gguf), "4 bytes"]),
        (
            Path::new("https://example.org/v1"),
            "NoBackendReads",
            &["a URL", "https://example.org/v1", "cpu"],
        ),
    ];
    for (path, variant, says) in cases {
        let name = shown(path);
        check(&name, load(&name, path, LoadOptions::default()), (variant, says));
        if variant == "NoBackendReads" {
            let named = load(&name, path, LoadOptions::default().backend("cpu"));
            check(&name, named, (variant, &["does not read this format"]));
        }
    }
}
