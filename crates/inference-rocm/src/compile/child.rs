//! Compiling in a second process of the same program, which may die of it.
//!
//! The parent writes a job into a folder of its own and starts its executable again with [`JOB`] naming that folder. A
//! program that takes part begins with [`compile_if_asked`], which does the job and exits.

use super::CompileError;
use crate::hip::{Hip, Places, rtc};
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Names the folder of a job; set for a child only.
const JOB: &str = "INFERENCE_ROCM_COMPILE_JOB";

/// Compiling takes seconds; more than this is a compiler that hangs, unless a program says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// Whether this program would do a job if it was started again.
static TAKES_PART: AtomicBool = AtomicBool::new(false);

/// Lets the ROCm backend compile for GPUs that its compiler may not know, in another process of this program.
///
/// Call it first in `main`, before anything is read or printed: if this process was started to compile, it does so and
/// exits, and else returns at once. A program that doesn't call it works as well, but refuses such GPUs.
pub fn compile_if_asked() {
    let Some(folder) = env::var_os(JOB) else {
        TAKES_PART.store(true, Ordering::Relaxed);
        return;
    };
    let status = match do_job(Path::new(&folder)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    std::process::exit(status);
}

pub(super) fn is_possible() -> bool {
    TAKES_PART.load(Ordering::Relaxed)
}

/// Compiles in another process, which is ended when `patience` is.
pub(super) fn compile(
    hip: &Hip,
    arch: &str,
    source: &str,
    options: &[String],
    patience: Duration,
) -> Result<Vec<u8>, CompileError> {
    let process = |error: std::io::Error| CompileError::Process(error.to_string());
    let folder = tempfile::Builder::new().prefix("inference-rocm-").tempdir().map_err(process)?;
    let file = |name| folder.path().join(name);
    let place = hip.path.parent().unwrap_or(Path::new("")).display().to_string();
    let lines: Vec<_> = options.iter().map(String::as_str).collect();
    fs::write(file("place"), place).map_err(process)?;
    fs::write(file("options"), lines.join("\n")).map_err(process)?;
    fs::write(file("source"), source).map_err(process)?;
    let words = fs::File::create(file("words")).map_err(process)?;

    let mut child = Command::new(env::current_exe().map_err(process)?)
        .env(JOB, folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(words)
        .spawn()
        .map_err(process)?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(process)? {
            break Some(status);
        }
        if started.elapsed() > patience {
            child.kill().and_then(|()| child.wait()).map_err(process)?;
            break None;
        }
        thread::sleep(Duration::from_millis(5));
    };

    let words = fs::read_to_string(file("words")).unwrap_or_default();
    match status {
        Some(status) if status.success() => fs::read(file("code")).map_err(process),
        Some(status) if status.code() == Some(1) => Err(CompileError::Process(words)),
        Some(status) => Err(died(hip, arch, format!("{status}; {}", words.trim()))),
        None => Err(died(hip, arch, format!("no result in {patience:?}"))),
    }
}

fn died(hip: &Hip, arch: &str, how: String) -> CompileError {
    CompileError::Died { arch: arch.to_owned(), version: hip.version.to_string(), how }
}

/// The child's part.
fn do_job(folder: &Path) -> Result<(), String> {
    let read = |name: &str| fs::read_to_string(folder.join(name)).map_err(|e| e.to_string());
    let (place, options, source) = (read("place")?, read("options")?, read("source")?);
    let options: Vec<String> = options.lines().map(str::to_owned).collect();
    let hip = Hip::open(&Places::only(place)).map_err(|e| e.to_string())?;
    let code = rtc::compile(hip, &source, &options).map_err(|e| e.to_string())?;
    fs::write(folder.join("code"), code).map_err(|e| e.to_string())
}
