//! Where the results go: standard output, or a file that a later run can go on with.

use super::input::Input;
use crate::{
    args::Classify,
    failure::{Failure, Result},
};
use inference::Error;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Seek, Write},
    path::{Path, PathBuf},
};

/// Takes one line for each text.
pub(super) struct Output {
    write: BufWriter<Box<dyn Write>>,
    /// `None`: standard output.
    path: Option<PathBuf>,
}

impl Output {
    /// Opens what the arguments name. Goes on with a broken run: skips those texts of the input that it has done, and
    /// says how many.
    pub(super) fn open(args: &Classify, input: &mut Input) -> Result<(Self, u64)> {
        let Some(path) = args.output.clone() else {
            let write = BufWriter::new(Box::new(io::stdout()) as Box<dyn Write>);
            return Ok((Self { write, path: None }, 0));
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match args.resume {
            true => options.create(true).truncate(false).open(&path),
            false => options.create_new(true).open(&path),
        };
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::Input(format!(
                "{} is there already: go on with it by --resume, or remove it",
                path.display()
            )),
            _ => Error::io(&path, error).into(),
        })?;
        let done = if args.resume { resume(&file, &path, args, input)? } else { 0 };
        let write = BufWriter::new(Box::new(file) as Box<dyn Write>);
        Ok((Self { write, path: Some(path) }, done))
    }

    pub(super) fn write(&mut self, line: &Value) -> Result<()> {
        writeln!(self.write, "{line}").map_err(|e| self.error(e))
    }

    /// What was written is read by others, or safe from the end of this program.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.write.flush().map_err(|e| self.error(e))
    }

    fn error(&self, error: io::Error) -> Failure {
        match &self.path {
            Some(path) => Error::io(path, error).into(),
            None => error.into(),
        }
    }
}

/// Compares what is in the file with the input, text by text, and leaves both where the work goes on. A last line that
/// was not written whole is cut off. Gives the number of texts that are done.
fn resume(file: &File, path: &Path, args: &Classify, input: &mut Input) -> Result<u64> {
    let labels: BTreeSet<&str> = args.labels.iter().map(|l| l.trim()).collect();
    let mut lines = BufReader::new(file);
    let (mut done, mut end) = (0, 0);
    loop {
        let mut line = Vec::new();
        let len = lines.read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))? as u64;
        let wrong = |reason: String| {
            let (path, done) = (path.display(), done + 1);
            Failure::Input(format!("{path}, line {done}: {reason}; --resume can't go on with it"))
        };
        if !line.ends_with(b"\n") {
            if !line.is_empty() && !line.starts_with(b"{") {
                return Err(wrong("it is not one of our results".to_owned()));
            }
            break;
        }
        let line: Value = serde_json::from_slice(&line)
            .map_err(|e| wrong(format!("it is not one of our results: {e}")))?;
        let text = line["text"].as_str();
        let text = text.ok_or_else(|| wrong("it is not one of our results".to_owned()))?;
        let there = input.path().display().to_string();
        let Some(want) = input.next()? else {
            return Err(wrong(format!("{there} has no text that goes with it")));
        };
        if want.shown != text {
            return Err(wrong(format!("it is not about the text that {there} has in its place")));
        }
        if line.get("error").is_none() {
            let has = line["labels"].as_object().into_iter().flatten();
            let has: BTreeSet<&str> = has.map(|(label, _)| label.as_str()).collect();
            if has != labels {
                return Err(wrong("it has other labels".to_owned()));
            }
        }
        done += 1;
        end += len;
    }
    let mut file = file;
    file.set_len(end)
        .and_then(|()| file.seek(io::SeekFrom::Start(end)))
        .map_err(|e| Error::io(path, e))?;
    Ok(done)
}
