//! One file a command; each takes its arguments and gives an exit code.

mod backends;
mod chat;
mod classify;
mod conversation;
mod generate;
mod info;
mod list;
mod quantise;

use crate::{args::Command, failure::Result};
use serde_json::Value;
use std::io::Write;

/// Runs a command.
pub(crate) fn run(command: Command) -> Result {
    match command {
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Classify(args) => classify::run(&args),
        Command::Quantise(args) => quantise::run(&args),
        Command::List(args) => list::run(&args),
        Command::Backends(args) => backends::run(&args),
        Command::Info(args) => info::run(&args),
    }
}

/// Writes one JSON object and a line break, and flushes, so that a reading program has it at once.
fn write_json(out: &mut impl Write, value: &Value) -> std::io::Result<()> {
    writeln!(out, "{value}")?;
    out.flush()
}
