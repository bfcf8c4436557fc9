//! `cargo xtask card`: all that a card has to show, one step after the other, and one report of it.

mod report;
mod steps;

use crate::{Result, bench::Machine, root};
use inference::{Availability, Backend};
use report::{Done, Outcome, Report};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};
use steps::Step;

/// Backends whose cards are measured, in the order in which one is looked for.
const BACKENDS: [&str; 2] = ["cuda", "rocm"];

/// Arguments of `card`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The steps, each a process of its own, so that a card that stops working ends one step and not the report:
  self-test   every operation on the card, against a plain reference (`inference backends --self-test`)
  tests       crates/inference-cuda/tests/card.rs, or inference-rocm's: goldens of every family, type and format, batches,
              recorded steps, the limits of memory
  models      qwen3-0.6b and qwen3-8b with random weights, written to FOLDER/models unless they are there
  bench       prefill and decode of both, in bf16 and quantised to 4 and 8 bits, as shares of what the card does at best;
              what its memory can't hold is left out, and the report says so
  classify    sentences/s behind one instruction

FOLDER/card.md and FOLDER/card.json are written after every step: what they say of the machine is its processor, its card,
the driver, the compiler, and the variables that change what these do. Please look over them and open an issue with both,
whether all is well or not. A first run compiles for some minutes; the models take 18 GB on disk, with --short 5.5 GB.

  cargo xtask card target/card
  cargo xtask card target/card --backend rocm --short")]
pub(crate) struct Args {
    /// Where the models and the report go; made if it is not there
    folder: PathBuf,
    /// The backend; default: the one that can run here
    #[arg(long, value_parser = BACKENDS)]
    backend: Option<String>,
    /// Four layers of the 8B shape, no 8 bits, one prompt length, fewer sentences
    #[arg(long)]
    short: bool,
}

/// Runs all steps; an error where one failed, or where there is no card.
pub(crate) fn run(args: &Args) -> Result {
    let backend = backend(args.backend.as_deref())?;
    let folder = std::path::absolute(&args.folder).map_err(|e| in_words(&args.folder, &e))?;
    fs::create_dir_all(&folder).map_err(|e| in_words(&folder, &e))?;
    let devices = backend.devices();
    let steps = steps::all(
        backend.name(),
        &folder,
        args.short,
        devices.iter().map(|device| device.available).max().unwrap_or(0),
    );
    let mut report = Report {
        date: jiff::Zoned::now().date().to_string(),
        commit: commit(),
        backend: backend.name().to_owned(),
        short: args.short,
        devices,
        told: backend.report(),
        machine: Machine::here(),
        steps: Vec::new(),
    };
    for (at, step) in steps.iter().enumerate() {
        eprintln!("\n[{} of {}] {}", at + 1, steps.len(), step.name);
        let done = step.run();
        eprintln!("[{} of {}] {}: {}", at + 1, steps.len(), step.name, done.outcome);
        report.steps.push(done);
        write(&folder.join("card.md"), &report.markdown())?;
        write(&folder.join("card.json"), &report.json())?;
    }
    println!("\n{}", report.summary());
    println!("the report: {0}/card.md and {0}/card.json", folder.display());
    match report.failed() {
        0 => Ok(()),
        n => Err(format!("{n} of {} steps failed", steps.len())),
    }
}

/// The backend that is named, or else the first with a card.
///
/// # Errors
/// One sentence that says why there is none.
fn backend(named: Option<&str>) -> Result<Arc<dyn Backend>> {
    let mut reasons = Vec::new();
    for name in BACKENDS.into_iter().filter(|name| named.is_none_or(|named| named == *name)) {
        let backend = inference::get(name).ok_or_else(|| format!("no backend {name}"))?;
        match backend.availability() {
            Availability::Available => return Ok(backend),
            Availability::Unavailable(reason) => reasons.push(format!("{name}: {reason}")),
        }
    }
    Err(format!("there is no card that could be measured ({})", reasons.join("; ")))
}

impl Step {
    /// Runs it; what it prints is on the terminal too.
    fn run(&self) -> Done {
        let start = Instant::now();
        let (outcome, output) = match &self.left_out {
            Some(reason) => (Outcome::LeftOut(reason.clone()), String::new()),
            None => self.execute().unwrap_or_else(|error| {
                (Outcome::Failed(format!("{}: {error}", self.command[0])), String::new())
            }),
        };
        let written = self.json.as_ref().filter(|_| self.left_out.is_none());
        let json = written.and_then(|file| fs::read(file).ok());
        Done {
            name: self.name.clone(),
            command: self.command.join(" "),
            outcome,
            seconds: start.elapsed().as_secs_f64(),
            output,
            json: json.and_then(|text| serde_json::from_slice(&text).ok()),
        }
    }

    fn execute(&self) -> std::io::Result<(Outcome, String)> {
        if let Some(file) = &self.json {
            // What an earlier run left is none of this step's.
            let _ = fs::remove_file(file);
        }
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .current_dir(root())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = Mutex::new(String::new());
        let (words, errors) = (child.stdout.take(), child.stderr.take());
        thread::scope(|scope| {
            let errors = scope.spawn(|| pass_on(errors, std::io::stderr(), &output));
            let words = pass_on(words, std::io::stdout(), &output);
            // A thread that panicked has told so.
            errors.join().unwrap_or(Ok(())).and(words)
        })?;
        let status = child.wait()?;
        let outcome =
            if status.success() { Outcome::Right } else { Outcome::Failed(format!("{status}")) };
        Ok((outcome, output.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Copies lines to the terminal, and to `output`, but for those in which cargo says what it compiles.
fn pass_on(
    from: Option<impl Read>,
    mut terminal: impl Write,
    output: &Mutex<String>,
) -> std::io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    for line in BufReader::new(from).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        writeln!(terminal, "{line}")?;
        if !line.trim_start().starts_with("Compiling ") {
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            output.push_str(&line);
            output.push('\n');
        }
    }
    Ok(())
}

/// What was checked out, such as `1a2b3c4`; with `-dirty` where files are changed.
fn commit() -> String {
    let git = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(root())
        .output();
    let told = git.ok().filter(|output| output.status.success());
    told.map_or_else(
        || "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text).map_err(|e| in_words(path, &e))
}

fn in_words(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_card_says_so_in_one_sentence() {
        for named in [None, Some("cuda"), Some("rocm")] {
            let Err(error) = backend(named) else { continue };
            assert!(error.starts_with("there is no card") && !error.contains('\n'), "{error}");
            for name in BACKENDS.into_iter().filter(|n| named.is_none_or(|named| named == *n)) {
                assert!(error.contains(&format!("{name}: ")), "{error}");
            }
        }
    }

    #[test]
    fn a_step_tells_what_it_printed_and_how_it_ended() {
        let step = |command: &[&str]| Step {
            name: "a step".to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            json: None,
            left_out: None,
        };
        let cargo = env!("CARGO");
        let done = step(&[cargo, "--version"]).run();
        assert_eq!(done.outcome, Outcome::Right);
        assert!(done.output.starts_with("cargo "), "{}", done.output);
        for failing in [&[cargo, "no-such-command"][..], &["no-such-program"]] {
            let done = step(failing).run();
            let told = format!("{:?} {}", done.outcome, done.output);
            assert!(matches!(done.outcome, Outcome::Failed(_)), "{told}");
            assert!(told.contains("no-such-") || told.contains("no such command"), "{told}");
        }
        let left_out = Some("too large".to_owned());
        let done = Step { left_out, ..step(&["no-such-program"]) }.run();
        assert_eq!(done.outcome, Outcome::LeftOut("too large".to_owned()));
    }
}
