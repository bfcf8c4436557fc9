//! `cargo xtask tidy`: a rule that matters is a check; a rule without one is advice.

mod code;
mod dependencies;
mod documents;
mod sources;

use crate::{Result, fixtures, root};
use std::{fmt, fs, path::PathBuf, process::Command};

/// One fault: `path:line: what, and what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    /// Relative to the repository.
    path: String,
    /// From 1; `None`: the whole file.
    line: Option<usize>,
    /// What is wrong, and what to do.
    text: String,
    /// A warning does not fail the task.
    warning: bool,
}

impl Fault {
    fn new(path: &str, line: impl Into<Option<usize>>, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: line.into(), text: text.into(), warning: false }
    }

    fn warning(self) -> Self {
        Self { warning: true, ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.warning { "warning: " } else { "" };
        match self.line {
            Some(line) => write!(f, "{}:{line}: {mark}{}", self.path, self.text),
            None => write!(f, "{}: {mark}{}", self.path, self.text),
        }
    }
}

/// A text file of the repository.
struct File {
    /// Relative to the repository, with `/`.
    path: String,
    text: String,
}

/// Runs every check and prints what it finds.
pub(crate) fn run() -> Result {
    let files = files()?;
    let mut faults = dependencies::check()?;
    faults.extend(sources::check(&files));
    faults.extend(documents::check(&files));
    faults.extend(check_fixtures()?);
    faults.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for fault in &faults {
        println!("{fault}");
    }
    match faults.iter().filter(|f| !f.warning).count() {
        0 => Ok(()),
        1 => Err("1 fault".to_owned()),
        n => Err(format!("{n} faults")),
    }
}

/// Files that git tracks, or would track: those that are new count too. Anything but text is left out.
fn files() -> Result<Vec<File>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .map_err(|e| format!("git: {e}"))?;
    if !output.status.success() {
        return Err(format!("git: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let read = |path: &str| {
        let text = fs::read_to_string(root().join(path)).ok()?;
        Some(File { path: path.to_owned(), text })
    };
    Ok(listed.split('\0').filter(|path| !path.is_empty()).filter_map(read).collect())
}

fn check_fixtures() -> Result<Vec<Fault>> {
    if !root().join("models-fixtures").exists() {
        return Ok(Vec::new());
    }
    let folders: Vec<PathBuf> = fixtures::folders()?;
    let mut faults = Vec::new();
    for folder in &folders {
        if let Some(fault) = fixtures::verify(folder) {
            let path = format!("models-fixtures/{}", fixtures::name(folder));
            faults.push(Fault::new(
                &path,
                None,
                format!("incomplete ({fault}); make it again with make.py"),
            ));
        }
    }
    let total: u64 = folders.iter().map(|f| fixtures::size(f)).sum();
    if total > fixtures::MOST_BYTES {
        let most = fixtures::MOST_BYTES >> 20;
        faults.push(Fault::new(
            "models-fixtures",
            None,
            format!("{total} bytes are too many; {most} MiB is the limit"),
        ));
    }
    Ok(faults)
}
