//! Checks and lints what is compiled on Apple silicon alone, on any machine: Metal, and what backends of other systems say
//! there.

use crate::{Result, root};
use std::{path::Path, process::Command};

/// What Rust calls Apple silicon with macOS.
const TARGET: &str = "aarch64-apple-darwin";

/// Crates, and what of them: the backend with its tests; the facade and the program with it, and with those of other systems,
/// which there can only say why they don't run; and what measures and tests them.
const CHECKS: [&[&str]; 3] = [
    &["--package", "inference-metal", "--all-targets"],
    &[
        "--package",
        "inference",
        "--package",
        "inference-cli",
        "--package",
        "inference-rocm",
        "--package",
        "inference-cuda",
        "--features",
        "inference-cli/metal,inference-cli/rocm,inference-cli/cuda,inference/metal,inference/rocm,inference/cuda",
    ],
    &[
        "--package",
        "xtask",
        "--package",
        "inference-tests",
        "--features",
        "xtask/metal",
        "--all-targets",
    ],
];

/// Arguments of `check-metal`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Say so and do nothing where Rust's standard library for the target can't be had
    #[arg(long)]
    if_possible: bool,
}

/// Runs clippy for Apple silicon; nothing is linked, so neither a Mac nor Apple's SDK is needed.
pub(crate) fn run(args: &Args) -> Result {
    let library = match library() {
        Err(reason) if args.if_possible => {
            println!("not checked: {reason}");
            return Ok(());
        }
        library => library?,
    };
    for packages in CHECKS {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(root()).args(["clippy", "--target", TARGET]).args(packages);
        if matches!(library, Library::Source) {
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=std,panic_unwind,test");
        }
        command.args(["--", "-D", "warnings"]);
        let status = command.status().map_err(|e| format!("cargo: {e}"))?;
        if !status.success() {
            return Err(format!("{command:?} failed"));
        }
    }
    println!("all that is for {TARGET} compiles, without a warning");
    Ok(())
}

/// Where the target's standard library comes from.
enum Library {
    /// It is there.
    Compiled,
    /// It is compiled from the compiler's own sources.
    Source,
}

/// Finds the standard library for the target, and asks rustup for it where it is missing.
fn library() -> Result<Library> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let output = output.map_err(|e| format!("rustc: {e}"))?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let folder = Path::new(&sysroot).join("lib").join("rustlib");
    let is_there = || folder.join(TARGET).join("lib").is_dir();
    if is_there() {
        return Ok(Library::Compiled);
    }
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    if added.is_ok_and(|status| status.success()) && is_there() {
        return Ok(Library::Compiled);
    }
    if folder.join("src/rust/library/Cargo.lock").is_file() {
        return Ok(Library::Source);
    }
    Err(format!(
        "Rust's standard library for {TARGET} is missing, and rustup can't bring it; install it with \
         `rustup target add {TARGET}`, or the compiler's sources with `rustup component add rust-src` (Debian: the \
         package rust-src)"
    ))
}
