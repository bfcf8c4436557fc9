//! `inference generate`: continues one prompt.

use super::write_json;
use crate::{
    args::Generate,
    failure::{Failure, INTERRUPTED, Result},
    interrupt::Interrupt,
    load, report,
};
use inference::{FinishReason, Message, TokenStream};
use serde_json::json;
use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

pub(super) fn run(args: &Generate) -> Result {
    let mut options = args.options.options()?;
    if args.json {
        options.logprobs.get_or_insert(0);
    }
    let prompt = prompt(&args.prompt)?;
    let interrupt = Interrupt::install()?;
    let model = load::load(&args.model)?;
    let options = options.cancel(interrupt.guard());
    let stream = if args.chat {
        let system = args.system.iter().map(Message::system);
        let messages: Vec<_> = system.chain([Message::user(prompt)]).collect();
        model.chat(&messages, &options)?
    } else {
        model.generate(&prompt, &options)?
    };
    let reason = if args.json {
        print_json(stream, args.metrics)
    } else {
        print_text(stream, args.metrics)
    }?;
    Ok(if reason == Some(FinishReason::Cancelled) {
        ExitCode::from(INTERRUPTED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The prompt itself, or standard input less one line break at its end.
fn prompt(given: &str) -> Result<String> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Failure::Input(format!("standard input: {e}")))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Prints the texts as they come, and ends the line.
fn print_text(mut stream: TokenStream, metrics: bool) -> Result<Option<FinishReason>> {
    let mut out = io::stdout().lock();
    let mut ends_line = false;
    let mut failed = None;
    for token in stream.by_ref() {
        match token {
            Ok(token) if token.text.is_empty() => {}
            Ok(token) => {
                out.write_all(token.text.as_bytes())?;
                out.flush()?;
                ends_line = token.text.ends_with('\n');
            }
            Err(error) => failed = Some(error),
        }
    }
    if !ends_line {
        writeln!(out)?;
    }
    out.flush()?;
    finish(&stream, metrics, failed)
}

/// Prints one object a token, then one about the whole.
fn print_json(mut stream: TokenStream, metrics: bool) -> Result<Option<FinishReason>> {
    let mut out = io::stdout().lock();
    let mut failed = None;
    for token in stream.by_ref() {
        match token {
            Ok(token) => write_json(&mut out, &json!(token))?,
            Err(error) => failed = Some(error),
        }
    }
    if failed.is_none() {
        let end = json!({ "finish_reason": stream.finish_reason(), "metrics": stream.metrics() });
        write_json(&mut out, &end)?;
    }
    finish(&stream, metrics, failed)
}

fn finish(
    stream: &TokenStream,
    metrics: bool,
    failed: Option<inference::Error>,
) -> Result<Option<FinishReason>> {
    if metrics {
        report::metrics(&stream.metrics(), stream.finish_reason());
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(stream.finish_reason()),
    }
}
