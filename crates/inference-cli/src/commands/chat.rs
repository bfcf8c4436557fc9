//! `inference chat`: a conversation, typed or scripted.

use super::conversation::{Conversation, HELP, Input};
use crate::{
    args::Chat,
    failure::{Failure, INTERRUPTED, Result},
    interrupt::Interrupt,
    load, report,
};
use inference::{FinishReason, GenerateOptions, TextModel};
use rustyline::{DefaultEditor, error::ReadlineError};
use std::{
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
};

pub(super) fn run(args: &Chat) -> Result {
    let options = args.options.options()?;
    let interrupt = Interrupt::install()?;
    let model = load::load(&args.model)?;
    let mut chat = Session {
        model: model.as_ref(),
        options,
        interrupt,
        conversation: Conversation::new(args.system.as_deref()),
        metrics: args.metrics,
    };
    if io::stdin().is_terminal() { typed(&mut chat) } else { scripted(&mut chat) }
}

/// Whether to go on reading.
enum Next {
    Line,
    /// The last answer was cancelled; whether that ends the program is for the caller to say.
    Cancelled,
    End,
}

struct Session<'a> {
    model: &'a dyn TextModel,
    options: GenerateOptions,
    interrupt: Interrupt,
    conversation: Conversation,
    /// Print them after each answer.
    metrics: bool,
}

/// A person types; mistakes are told and the conversation goes on.
fn typed(chat: &mut Session<'_>) -> Result {
    let terminal = |e: ReadlineError| Failure::Input(format!("terminal: {e}"));
    let mut editor = DefaultEditor::new().map_err(terminal)?;
    report::to_stderr(format_args!("{}: /help lists commands", chat.model.model_type()));
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(terminal(error)),
        };
        // Without a place in the history a line can be typed again: nothing to report.
        let _ = editor.add_history_entry(line.as_str());
        match chat.take(&line) {
            Ok(Next::Line | Next::Cancelled) => {}
            Ok(Next::End) => return Ok(ExitCode::SUCCESS),
            Err(gone @ Failure::Output(_)) => return Err(gone),
            Err(failure) => {
                if let Some(text) = failure.line() {
                    report::to_stderr(format_args!("error: {text}"));
                }
            }
        }
    }
}

/// A script writes; the first mistake ends it, and so does Ctrl-C.
fn scripted(chat: &mut Session<'_>) -> Result {
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|e| Failure::Input(format!("standard input: {e}")))?;
        match chat.take(&line)? {
            Next::Line => {}
            Next::Cancelled => return Ok(ExitCode::from(INTERRUPTED)),
            Next::End => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Session<'_> {
    /// Does what a line asks for.
    fn take(&mut self, line: &str) -> Result<Next> {
        match Input::parse(line) {
            Input::Blank => {}
            Input::Say(text) => return self.answer(text),
            Input::System(text) => self.conversation.set_system(text),
            Input::Reset => self.conversation.reset(),
            Input::Help => report::to_stderr(format_args!("{HELP}")),
            Input::Exit => return Ok(Next::End),
            Input::Unknown(line) => {
                let text = format!("unknown command {line:?}: /help lists them");
                return Err(Failure::Input(text));
            }
        }
        Ok(Next::Line)
    }

    /// Answers the user's `text`; what was said stays in the conversation even if the answer ends early.
    fn answer(&mut self, text: &str) -> Result<Next> {
        let options = self.options.clone().cancel(self.interrupt.guard());
        let mut said = String::new();
        let ended = stream(
            || self.model.chat(self.conversation.say(text), &options),
            &mut said,
            self.metrics,
        );
        self.interrupt.release();
        self.conversation.answered(&said);
        Ok(if ended? == Some(FinishReason::Cancelled) { Next::Cancelled } else { Next::Line })
    }
}

/// Prints an answer as it comes, collects it in `said`, and ends the line.
fn stream(
    start: impl FnOnce() -> inference::Result<inference::TokenStream>,
    said: &mut String,
    metrics: bool,
) -> Result<Option<FinishReason>> {
    let mut stream = start()?;
    let mut out = io::stdout().lock();
    let mut failed = None;
    for token in stream.by_ref() {
        match token {
            Ok(token) => {
                out.write_all(token.text.as_bytes())?;
                out.flush()?;
                said.push_str(&token.text);
            }
            Err(error) => failed = Some(error),
        }
    }
    if !said.ends_with('\n') {
        writeln!(out)?;
    }
    out.flush()?;
    if metrics {
        report::metrics(&stream.metrics(), stream.finish_reason());
    }
    failed.map_or(Ok(stream.finish_reason()), |error| Err(error.into()))
}
