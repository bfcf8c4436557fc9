//! The program with the model that the fixtures hold.
#![allow(dead_code, reason = "each file of tests is a crate of its own, and uses a part")]

use serde_json::Value;
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

/// The model.
pub(crate) const MODEL: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../models-fixtures/storyteller");

/// The program, to be started.
pub(crate) fn command(args: &[&str]) -> Command {
    assert!(Path::new(MODEL).join("config.json").exists(), "the fixture storyteller is missing");
    let mut command = Command::new(env!("CARGO_BIN_EXE_inference"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Runs it to a good end.
pub(crate) fn run(args: &[&str]) -> Output {
    let output = command(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The same with something on its standard input.
pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// What it printed.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it printed, as JSON.
pub(crate) fn objects(output: &Output) -> Vec<Value> {
    text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
