//! Tasks of the repository: `cargo xtask --help`.

mod bench;
mod card;
mod check_metal;
mod fixtures;
mod kernels;
mod kl;
mod limits;
mod make_model;
mod soak;
mod tidy;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};
use xtask::{Result, gguf};

/// Tasks of the repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Measure prefill and decode, beside the machine's own limits
    Bench(Box<bench::Args>),
    /// Test and measure an NVIDIA or AMD card in every way, and write one report
    Card(card::Args),
    /// Measure how far apart the predictions of two models are
    Kl(kl::Args),
    /// Write a checkpoint of a real shape with random weights
    MakeModel(make_model::Args),
    /// Convert a checkpoint to a file for llama.cpp
    ToGguf(gguf::Args),
    /// List the fixtures and verify them
    Fixtures(fixtures::Args),
    /// Have many callers use one model for a long time, and compare what they get
    Soak(soak::Args),
    /// Compile all GPU kernels for all architectures that there are compilers for, and see that none spills
    Kernels(kernels::Args),
    /// Check and lint what is compiled on Apple silicon alone
    CheckMetal(check_metal::Args),
    /// Check the rules of the repository
    Tidy,
}

fn main() -> ExitCode {
    inference::compile_if_asked();
    let done = match Cli::parse().task {
        Task::Bench(args) => bench::run(&args),
        Task::Card(args) => card::run(&args),
        Task::Kl(args) => kl::run(&args),
        Task::MakeModel(args) => make_model::run(&args),
        Task::ToGguf(args) => gguf::run(&args),
        Task::Fixtures(args) => fixtures::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Kernels(args) => kernels::run(&args),
        Task::CheckMetal(args) => check_metal::run(&args),
        Task::Tidy => tidy::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the repository.
fn root() -> PathBuf {
    let manifest = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask is a folder of the repository").to_owned()
}
