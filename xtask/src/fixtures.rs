//! `cargo xtask fixtures`: the small models that the tests run on.

use crate::{Result, root};
use clap::Args as ClapArgs;
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Most bytes of all fixtures together: they are in the repository.
pub(crate) const MOST_BYTES: u64 = 20 << 20;

/// Files that every fixture has, beside its weights.
const FILES: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "golden.json",
];

/// Where fixtures of quantised formats are.
const QUANTISED: &str = "quantised";

/// Those among them that are no checkpoints, but many files of weights with one file of golden values.
const SETS: [&str; 2] = ["grid", "packings"];

/// Arguments of `fixtures`.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Make all of them again with the reference implementation and compare; needs Python 3 and the network
    #[arg(long)]
    check: bool,
}

/// Lists and verifies, or makes again and compares.
pub(crate) fn run(args: &Args) -> Result {
    if args.check {
        return make_again();
    }
    let folders = folders()?;
    let mut total = 0;
    let mut faults = Vec::new();
    for folder in &folders {
        let bytes = size(folder);
        total += bytes;
        let fault = verify(folder);
        let state = fault.as_deref().unwrap_or("complete");
        println!("{:24} {:>7.1} KiB  {state}", name(folder), bytes as f64 / 1024.0);
        faults.extend(fault);
    }
    println!(
        "{:24} {:>7.1} KiB  of at most {} MiB",
        "all",
        total as f64 / 1024.0,
        MOST_BYTES >> 20
    );
    if total > MOST_BYTES {
        return Err("the fixtures are too large: make the largest smaller".to_owned());
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(format!("{} of {} fixtures are incomplete", faults.len(), folders.len()))
    }
}

fn home() -> PathBuf {
    root().join("models-fixtures")
}

/// The folders of fixtures, sorted: those with a `config.json`, golden values or weights, here and in `quantised`.
pub(crate) fn folders() -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for home in [home(), home().join(QUANTISED)] {
        let entries = fs::read_dir(&home).map_err(|e| format!("{}: {e}", home.display()))?;
        all.extend(entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| {
            p.is_dir() && FILES.iter().chain(&["model.safetensors"]).any(|f| p.join(f).exists())
        }));
    }
    all.sort();
    Ok(all)
}

/// A fixture's name: its folder's, from that of all fixtures on.
pub(crate) fn name(folder: &Path) -> String {
    let inner = folder.strip_prefix(home()).ok();
    let shown = inner.or(folder.file_name().map(Path::new)).unwrap_or(folder);
    shown.to_string_lossy().replace('\\', "/")
}

/// Bytes of the files in a folder.
pub(crate) fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|e| e.metadata().ok()).filter(|m| m.is_file()).map(|m| m.len()).sum()
}

/// What is wrong with a fixture; `None` if it is complete.
pub(crate) fn verify(folder: &Path) -> Option<String> {
    let of = |set: &&str| folder.ends_with(Path::new(QUANTISED).join(set));
    if SETS.iter().any(of) {
        return set(folder).err();
    }
    for file in FILES {
        if let Err(fault) = json(&folder.join(file)) {
            return Some(fault);
        }
    }
    weights(folder).err()
}

/// A set's golden values and all of its files of weights, which must be some, can be read.
fn set(folder: &Path) -> Result {
    json(&folder.join("golden.json"))?;
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", name(folder)))?;
    let files = entries.filter_map(|e| Some(e.ok()?.path()));
    let files: Vec<_> =
        files.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    if files.is_empty() {
        return Err("there are no weights".to_owned());
    }
    files.iter().try_for_each(|file| tensors(file).map(drop))
}

/// Every file of weights that there should be can be read, and holds what the index says.
fn weights(folder: &Path) -> Result {
    let index = folder.join("model.safetensors.index.json");
    if !index.exists() {
        return tensors(&folder.join("model.safetensors")).map(drop);
    }
    let index = json(&index)?;
    let map = index["weight_map"].as_object().ok_or("the index has no weight_map")?;
    let files: BTreeSet<_> = map.values().filter_map(Value::as_str).collect();
    for file in files {
        let there = tensors(&folder.join(file))?;
        if let Some((missing, _)) =
            map.iter().find(|(name, f)| *f == file && !there.contains(*name))
        {
            return Err(format!("{file} lacks the tensor {missing}"));
        }
    }
    Ok(())
}

fn tensors(path: &Path) -> Result<BTreeSet<String>> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", name(path)))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format!("{}: {e}", name(path)))?;
    Ok(file.names().into_iter().map(str::to_owned).collect())
}

fn json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", name(path)))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", name(path)))
}

/// Runs `make.py --check` and `written.py` in an environment of their own.
fn make_again() -> Result {
    let environment = root().join("target/fixtures-venv");
    let python = environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        let base =
            ["python3", "python"].into_iter().find(|p| works(Command::new(p).arg("--version")));
        let base =
            base.ok_or("no Python: install Python 3.10 or later, and call it python3 or python")?;
        eprintln!("making a Python environment in target/fixtures-venv");
        step(
            Command::new(base).args(["-m", "venv"]).arg(&environment),
            "the environment could not be made: Python's module venv may be missing",
        )?;
    }
    let requirements = home().join("requirements.txt");
    if !requirements.exists() {
        return Err(
            "models-fixtures/requirements.txt is missing: it names what make.py needs".to_owned()
        );
    }
    step(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&requirements),
        "the packages of models-fixtures/requirements.txt could not be installed: is there a network?",
    )?;
    step(
        Command::new(&python).arg(home().join("make.py")).arg("--check"),
        "the fixtures differ from what the reference implementation makes",
    )?;
    step(
        Command::new(&python).arg(home().join("written.py")),
        "mlx_lm does not make the same of what `inference quantise` writes",
    )
}

fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Runs a command whose output is for the person who watches; `advice` is told if it fails.
fn step(command: &mut Command, advice: &str) -> Result {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{advice} ({status})")),
        Err(error) => Err(format!("{advice} ({error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixture_is_complete_only_with_all_its_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(verify(dir.path()).unwrap().starts_with("config.json"));
        for file in FILES {
            fs::write(dir.path().join(file), "{}").unwrap();
        }
        assert!(verify(dir.path()).unwrap().starts_with("model.safetensors"));
        fs::write(dir.path().join("model.safetensors"), b"short").unwrap();
        assert!(verify(dir.path()).is_some());
        let empty = *b"\x02\0\0\0\0\0\0\0{}";
        fs::write(dir.path().join("model.safetensors"), empty).unwrap();
        assert_eq!(verify(dir.path()), None);
        let index = r#"{"weight_map": {"a": "model.safetensors"}}"#;
        fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        assert!(verify(dir.path()).unwrap().contains("lacks the tensor a"));
    }

    #[test]
    fn a_set_has_golden_values_and_weights() {
        let dir = tempfile::tempdir().unwrap();
        let set = dir.path().join("quantised/grid");
        fs::create_dir_all(&set).unwrap();
        assert!(verify(&set).unwrap().starts_with("golden.json"));
        fs::write(set.join("golden.json"), "{}").unwrap();
        assert!(verify(&set).unwrap().contains("no weights"));
        fs::write(set.join("a.safetensors"), *b"\x02\0\0\0\0\0\0\0{}").unwrap();
        assert_eq!(verify(&set), None);
        fs::write(set.join("b.safetensors"), b"short").unwrap();
        assert!(verify(&set).unwrap().starts_with("b.safetensors"));
    }
}
