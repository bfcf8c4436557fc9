//! `inference classify`: texts in, one JSON object a line out.

mod input;
mod output;
mod progress;
mod template;

use crate::{
    args::Classify,
    failure::{INTERRUPTED, Result},
    interrupt::Interrupt,
    load, report,
};
use inference::{Classification, ClassifyOptions, Error, TextModel};
use input::{Input, Text};
use output::Output;
use progress::Progress;
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use template::Template;

pub(super) fn run(args: &Classify) -> Result {
    let template = Template::new(args)?;
    let interrupt = Interrupt::install()?;
    let mut options = args.options(interrupt.guard());
    options.calibrate = args.calibrate.as_deref().map(|text| template.prompt(text));
    options.validate()?;
    interrupt.release();
    let mut input = Input::open(args)?;
    let (mut output, done) = Output::open(args, &mut input)?;
    let model = load::load(&args.model)?;
    let mut progress = Progress::new(&input, done);
    let code = loop {
        let texts = input.batch(args.batch.into())?;
        if texts.is_empty() {
            break ExitCode::SUCCESS;
        }
        // Until all of the batch is written, the first Ctrl-C does not end the program.
        let cancel = interrupt.guard();
        let options = options.clone().cancel(cancel.clone());
        let results = classify(model.as_ref(), &template, &texts, &options);
        if !results.iter().any(|r| matches!(r, Err(Error::Cancelled))) {
            for (text, result) in texts.iter().zip(&results) {
                if let Err(fatal @ (Error::Closed | Error::EngineStopped { .. })) = result {
                    return Err(fatal.clone().into());
                }
                output.write(&object(&text.shown, result))?;
            }
            output.flush()?;
            progress.advance(&input, &results);
        }
        interrupt.release();
        if cancel.is_cancelled() {
            progress.clear();
            if let Some(file) = &args.output {
                let (done, file) = (progress.done(), file.display());
                report::to_stderr(format_args!(
                    "{done} texts are done; --resume goes on with {file}"
                ));
            }
            break ExitCode::from(INTERRUPTED);
        }
    };
    progress.clear();
    if args.metrics {
        progress.report();
    }
    Ok(code)
}

/// Classifies those that can be; results in the order of the texts.
fn classify(
    model: &dyn TextModel,
    template: &Template,
    texts: &[Text],
    options: &ClassifyOptions,
) -> Vec<inference::Result<Classification>> {
    let valid = texts.iter().filter(|t| t.fault.is_none());
    let prompts: Vec<_> = valid.map(|t| template.prompt(&t.shown)).collect();
    let prompts: Vec<_> = prompts.iter().map(String::as_str).collect();
    let mut results = model.classify(&prompts, options).into_iter();
    let missing = || Error::EngineStopped { reason: "a result is missing".to_owned() };
    let result = |text: &Text| match &text.fault {
        Some(reason) => Err(Error::InvalidPrompt { reason: reason.clone() }),
        None => results.next().ok_or_else(missing)?,
    };
    texts.iter().map(result).collect()
}

/// The line of output about one text.
fn object(text: &str, result: &inference::Result<Classification>) -> Value {
    let classification = match result {
        Ok(classification) => classification,
        Err(error) => return json!({ "text": text, "error": error.to_string() }),
    };
    let mut object = Map::new();
    let mut add = |name: &str, value: Value| object.insert(name.to_owned(), value);
    add("text", text.into());
    if let Some(best) = classification.best() {
        add("label", best.label.as_str().into());
        add("probability", json!(best.probability));
        add("margin", json!(classification.margin()));
        let labels = &classification.labels;
        let labels: Map<_, _> =
            labels.iter().map(|l| (l.label.clone(), json!(l.probability))).collect();
        add("labels", labels.into());
    } else {
        let token = &classification.token;
        add("token", token.text.as_str().into());
        add("id", token.id.into());
        add("logprob", json!(token.logprob));
    }
    if !classification.token.top_logprobs.is_empty() {
        add("top_logprobs", json!(classification.token.top_logprobs));
    }
    object.into()
}
