//! Peers in Python: their environment, and what is kept of the models that they convert.

use crate::{Result, root};
use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};
use xtask::gguf;

/// Peers that read a GGUF file of f16; others read the folder.
const READS_GGUF: [&str; 1] = ["openvino"];

/// The program of the peer in `folder`, with the arguments for a form of `model`: a file or its folder, a folder to keep things
/// in, the form.
pub(super) fn command(folder: &Path, model: &Path, form: &str) -> Result<Command> {
    let name = folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    if !model.is_dir() {
        return Err(format!("{} is no folder, which the peer `{name}` needs", model.display()));
    }
    let python = environment(&name, &folder.join("requirements.txt"))?;
    let cache = cache(&name, model)?;
    let source = if READS_GGUF.contains(&name.as_str()) {
        in_half_precision(model, &cache)?
    } else {
        model.to_owned()
    };
    let mut command = Command::new(python);
    command.arg(folder.join("main.py")).arg(source).arg(cache).arg(form);
    Ok(command)
}

/// The interpreter of the peer's environment, which is made if it is not there with just these requirements.
fn environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    let folder = target().join(format!("{name}-venv"));
    let bin = if cfg!(windows) { "Scripts" } else { "bin" };
    let python = folder.join(bin).join("python").with_extension(std::env::consts::EXE_EXTENSION);
    let (installed, wanted) = (folder.join("requirements.txt"), read(requirements)?);
    if fs::read_to_string(&installed).is_ok_and(|there| there == wanted) {
        return Ok(python);
    }
    eprintln!("installing the peer `{name}` to {}", folder.display());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements))?;
    fs::write(&installed, wanted).map_err(|e| format!("{}: {e}", installed.display()))?;
    Ok(python)
}

/// Where a peer keeps what it makes of a model: another folder once the model's files are others.
fn cache(name: &str, model: &Path) -> Result<PathBuf> {
    let at = |e: std::io::Error| format!("{}: {e}", model.display());
    let path = fs::canonicalize(model).map_err(at)?;
    let mut files = Vec::new();
    for entry in fs::read_dir(&path).map_err(at)? {
        let entry = entry.map_err(at)?;
        let about = entry.metadata().map_err(at)?;
        let name = entry.file_name();
        if Path::new(&name).extension().is_some_and(|e| e == "safetensors" || e == "json") {
            files.push((name, about.len(), about.modified().map_err(at)?));
        }
    }
    files.sort();
    let mut hasher = DefaultHasher::new();
    (&path, files).hash(&mut hasher);
    let model = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = target().join(name).join(format!("{model}-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// The model as a file of f16, which is made if it is not there.
fn in_half_precision(model: &Path, cache: &Path) -> Result<PathBuf> {
    let file = cache.join("model-f16.gguf");
    if !file.is_file() {
        gguf::convert_aloud(model, &file, gguf::Type::F16)?;
    }
    Ok(file)
}

fn target() -> PathBuf {
    root().join("target").join("peers")
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))
}

/// Runs to the end; what it prints goes to stderr.
fn run(command: &mut Command) -> Result {
    let program = command.get_program().display().to_string();
    let status =
        command.stdout(std::io::stderr()).status().map_err(|e| format!("{program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} failed")) }
}
