use super::*;
use crate::weights::Folder;
use inference_core::{CancelToken, Quantisation};
use std::{fs, path::PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models-fixtures").join(name)
}

/// A copy of a fixture, to be broken.
fn copy(name: &str, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn names(dir: &Path) -> Vec<String> {
    let name = |e: std::io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    all.sort();
    all
}

#[test]
fn a_checkpoint_in_many_files_is_the_one_in_a_single_file() {
    let dir = tempfile::tempdir().unwrap();
    let [one, many] = ["one", "many"].map(|name| dir.path().join(name));
    let options = QuantiseOptions::default().bits(3).embedding_bits(8);
    let found = quantise(&fixture("storyteller"), &one, &options).unwrap();
    assert_eq!((found.files, found.model_type.as_str()), (1, "qwen3"));
    assert_eq!(found.quantisation, Some(Quantisation { bits: 3, group_size: Some(64) }));

    let limit = 150_000;
    let found = run(&fixture("storyteller"), &many, &options, limit).unwrap();
    assert!(found.files > 5, "{} files", found.files);
    let files = names(&many);
    assert!(files.contains(&format!("model-00001-of-{:05}.safetensors", found.files)), "{files:?}");
    assert!(!files.iter().any(|name| name.ends_with("partial")), "{files:?}");
    for name in files.iter().filter(|n| n.ends_with(".safetensors")) {
        let bytes = fs::read(many.join(name)).unwrap();
        // The embedding alone has more.
        assert!(bytes.len() < 230_000, "{name} has {}", bytes.len());
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        for (tensor, info) in header.tensors() {
            let width = info.dtype.bitsize() / 8;
            assert!(info.data_offsets.0.is_multiple_of(width), "{tensor} is not aligned");
        }
    }

    let open = |dir: &Path| Folder::open(dir, &Config::open(dir).unwrap()).unwrap();
    let (one, many) = (open(&one), open(&many));
    assert_eq!((one.bytes(), one.parameters()), (many.bytes(), many.parameters()));
    for (module, bits) in [("model.embed_tokens", 8), ("model.layers.4.mlp.down_proj", 3)] {
        let matrices = [&one, &many].map(|w| w.matrix(module).unwrap());
        let [Matrix::Affine(one), Matrix::Affine(many)] = matrices else { panic!("dense") };
        assert_eq!((one.bits(), one.group(), one.q()), (bits, 64, many.q()));
    }
}

#[test]
fn small_files_are_copied_and_the_configuration_says_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    copy("qwen3", &from);
    fs::write(from.join("merges.txt"), "a b").unwrap();
    fs::write(from.join(".gitattributes"), "").unwrap();
    fs::write(from.join("pytorch_model.bin"), "old weights").unwrap();
    fs::create_dir(from.join("folder")).unwrap();
    quantise(&from, &to, &QuantiseOptions::default()).unwrap();
    assert_eq!(
        names(&to),
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "golden.json",
            "merges.txt",
            "model.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(to.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["quantization"], config["quantization_config"]);
    let said = config["quantization"].as_object().unwrap();
    assert_eq!((&said["bits"], &said["group_size"]), (&4.into(), &64.into()));
    assert_eq!(said["mode"], "affine");
    // The feed-forward part is 160 wide, which 64 does not divide.
    assert_eq!(said["model.layers.0.mlp.down_proj"], json!({ "bits": 4, "group_size": 32 }));
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["model_type"], "qwen3");
}

#[test]
fn a_run_that_is_cancelled_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let cancel = CancelToken::new();
    let token = cancel.clone();
    let options = QuantiseOptions::default().cancel(cancel.clone()).progress(move |p| {
        if p.done > p.total / 2 {
            token.cancel()
        }
    });
    let error = quantise(&fixture("storyteller"), &to, &options).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert!(!to.exists());
}

#[test]
fn progress_is_in_bytes_that_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let theirs = seen.clone();
    let options = QuantiseOptions::default().progress(move |p| theirs.lock().unwrap().push(p));
    quantise(&fixture("storyteller"), &to, &options).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.is_sorted_by_key(|p| p.done) && seen.iter().all(|p| p.total == seen[0].total));
    let last = seen.last().unwrap();
    assert_eq!((last.done, last.total), (last.total, SafeTensors::open(&to).unwrap().bytes()));
}

#[test]
fn what_can_not_be_read_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("to");
    let four = QuantiseOptions::default();
    let error = |from: &Path| {
        let error = quantise(from, &to, &four).unwrap_err();
        assert!(!to.exists(), "{error}");
        error.to_string()
    };
    // Nothing, a folder without a model, a file.
    for from in [dir.path().join("nowhere"), fixture("templates"), fixture("README.md")] {
        assert!(error(&from).contains("config.json"));
    }
    let done = dir.path().join("done");
    quantise(&fixture("qwen3"), &done, &four).unwrap();
    assert!(error(&done).contains("quantised already"));
    // One of two files, without the list that names the other.
    let half = dir.path().join("half");
    copy("llama", &half);
    fs::remove_file(half.join("model.safetensors.index.json")).unwrap();
    fs::remove_file(half.join("model-00002-of-00002.safetensors")).unwrap();
    assert!(error(&half).contains("no tensor `model.layers."));
    // Numbers that are not.
    let broken = dir.path().join("broken");
    copy("storyteller", &broken);
    let file = broken.join("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let name = "model.layers.0.mlp.down_proj.weight";
    let (size, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let at = 8 + size + header.info(name).unwrap().data_offsets.0;
    bytes[at..at + 2].copy_from_slice(&[0xff; 2]);
    fs::write(&file, bytes).unwrap();
    assert!(error(&broken).contains(name));
}
