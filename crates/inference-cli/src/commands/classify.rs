//! `inference classify`: one text a line in, one JSON object a line out.

use super::write_json;
use crate::{
    args::Classify,
    failure::{Failure, INTERRUPTED, Result},
    interrupt::Interrupt,
    load,
};
use inference::{Classification, ClassifyOptions, Error, TextModel};
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::ExitCode,
};

/// The wording that the original's users classify with.
const INSTRUCTION: &str =
    "Classify this text into exactly one category: {labels}.\n\nText: {text}\n\nCategory:";

/// Bytes of input that are held: what is at hand decides how many lines make a batch.
const BUFFER: usize = 1 << 20;

pub(super) fn run(args: &Classify) -> Result {
    let template = Template::new(args)?;
    let interrupt = Interrupt::install()?;
    let options = args.options(interrupt.guard());
    options.validate()?;
    interrupt.release();
    let mut input = open(&args.file)?;
    let model = load::load(&args.model)?;
    let mut out = io::stdout().lock();
    loop {
        let lines = batch(&mut input, args.batch.into(), &args.file)?;
        if lines.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let options = options.clone().cancel(interrupt.guard());
        let results = classify(model.as_ref(), &template, &lines, &options);
        interrupt.release();
        for (line, result) in lines.iter().zip(results) {
            match result {
                Err(Error::Cancelled) => return Ok(ExitCode::from(INTERRUPTED)),
                Err(fatal @ (Error::Closed | Error::EngineStopped { .. })) => {
                    return Err(fatal.into());
                }
                result => write_json(&mut out, &object(&line.text(), result))?,
            }
        }
        out.flush()?;
    }
}

/// The prompt around each text.
struct Template {
    before: String,
    after: String,
}

impl Template {
    fn new(args: &Classify) -> Result<Self> {
        let given = args.template.as_deref();
        let template = given.unwrap_or(if args.labels.is_empty() { "{text}" } else { INSTRUCTION });
        let labels: Vec<_> = args.labels.iter().map(|l| l.trim()).collect();
        let filled = |part: &str| part.replace("{labels}", &labels.join(", "));
        let (before, after) = template
            .split_once("{text}")
            .ok_or_else(|| Failure::Input("--template has no {text} in it".to_owned()))?;
        Ok(Self { before: filled(before), after: filled(after) })
    }

    fn prompt(&self, text: &str) -> String {
        [&self.before, text, &self.after].concat()
    }
}

/// A line of the input, as it was, without its end.
struct Line(Vec<u8>);

impl Line {
    /// For the output: what is not UTF-8 is replaced.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0).into_owned()
    }

    /// For the model.
    fn valid(&self) -> inference::Result<&str> {
        let invalid = |reason: &str| Error::InvalidPrompt { reason: reason.to_owned() };
        match std::str::from_utf8(&self.0) {
            Ok(text) if text.trim().is_empty() => Err(invalid("the line is empty")),
            Ok(text) => Ok(text),
            Err(_) => Err(invalid("the line is not UTF-8")),
        }
    }
}

fn open(path: &Path) -> Result<BufReader<Box<dyn Read>>> {
    let read: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|e| Error::io(path, e))?)
    };
    Ok(BufReader::with_capacity(BUFFER, read))
}

/// The next lines: at most `most`, and no more than are at hand, so that nobody waits for a line that is not written
/// yet. Empty at the end.
fn batch(input: &mut BufReader<Box<dyn Read>>, most: usize, path: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    while lines.len() < most && (lines.is_empty() || input.buffer().contains(&b'\n')) {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))? == 0 {
            break;
        }
        for end in *b"\n\r" {
            line.pop_if(|last| *last == end);
        }
        lines.push(Line(line));
    }
    Ok(lines)
}

/// Classifies those lines that are texts; results in the order of the lines.
fn classify(
    model: &dyn TextModel,
    template: &Template,
    lines: &[Line],
    options: &ClassifyOptions,
) -> Vec<inference::Result<Classification>> {
    let prompts: Vec<_> = lines.iter().map(|l| l.valid().map(|t| template.prompt(t))).collect();
    let valid: Vec<_> = prompts.iter().flatten().map(String::as_str).collect();
    let mut results = model.classify(&valid, options).into_iter();
    let missing = || Error::EngineStopped { reason: "a result is missing".to_owned() };
    prompts.into_iter().map(|p| p.and_then(|_| results.next().ok_or_else(missing)?)).collect()
}

/// The line of output about one line of input.
fn object(text: &str, result: inference::Result<Classification>) -> Value {
    let classification = match result {
        Ok(classification) => classification,
        Err(error) => return json!({ "text": text, "error": error.to_string() }),
    };
    let mut object = Map::new();
    object.insert("text".to_owned(), text.into());
    if let Some(best) = classification.best() {
        object.insert("label".to_owned(), best.label.as_str().into());
        object.insert("probability".to_owned(), json!(best.probability));
        let labels = &classification.labels;
        let labels: Map<_, _> =
            labels.iter().map(|l| (l.label.clone(), json!(l.probability))).collect();
        object.insert("labels".to_owned(), labels.into());
    } else {
        let token = classification.token;
        object.insert("token".to_owned(), token.text.into());
        object.insert("id".to_owned(), token.id.into());
        object.insert("logprob".to_owned(), json!(token.logprob));
        if !token.top_logprobs.is_empty() {
            object.insert("top_logprobs".to_owned(), json!(token.top_logprobs));
        }
    }
    object.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_holds_what_is_at_hand_and_keeps_the_order() {
        let bytes: &[u8] = b"one\r\n\ntwo\n\xff\nlast";
        let mut input = BufReader::new(Box::new(bytes) as Box<dyn Read>);
        let mut all = Vec::new();
        loop {
            let lines = batch(&mut input, 2, Path::new("-")).unwrap();
            if lines.is_empty() {
                break;
            }
            assert!(lines.len() <= 2);
            all.extend(lines.iter().map(|l| (l.text(), l.valid().is_ok())));
        }
        let want = [("one", true), ("", false), ("two", true), ("\u{fffd}", false), ("last", true)];
        assert_eq!(all, want.map(|(t, ok)| (t.to_owned(), ok)));
    }
}
