//! The `inference` program: local text generation on the command line.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod failure;
mod interrupt;
mod load;
mod parse;
mod report;

use clap::Parser;
use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    inference::compile_if_asked();
    let cli = args::Cli::parse();
    log_to_stderr(cli.verbose);
    match commands::run(cli.command) {
        Ok(code) => code,
        Err(failure) => {
            if let Some(line) = failure.line() {
                report::to_stderr(format_args!("error: {line}"));
            }
            failure.code()
        }
    }
}

/// `RUST_LOG` decides where it is set; else warnings, and with each `-v` more.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi)
        .with_writer(std::io::stderr)
        .finish();
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        // Only possible if one was set before: its output is as good.
        let _ = std::io::stderr().flush();
    }
}
