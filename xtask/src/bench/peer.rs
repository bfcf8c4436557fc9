//! Engines of others as candidates: programs in `xtask/peers`, outside the workspace, spoken to in lines of JSON.

use super::{measure::Sample, prompt::Prompt};
use crate::{Result, root};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// A running peer; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Peer {
    name: String,
    child: Child,
    /// `None` once the peer was told to end.
    requests: Option<ChildStdin>,
    replies: BufReader<ChildStdout>,
}

/// What a peer says of itself in its first line.
#[derive(Debug, Deserialize)]
pub(super) struct Loaded {
    /// The engine and its version.
    pub(super) engine: String,
    /// How it holds the weights in memory.
    pub(super) weights: String,
    /// What a reader of its figures must know; may be empty.
    pub(super) note: String,
    /// Bytes of the weights in memory.
    pub(super) weight_bytes: u64,
    /// Bytes that keys and values of one token take.
    pub(super) cache_bytes_per_token: u64,
}

#[derive(Debug, Deserialize)]
struct Reply {
    prefill_seconds: f64,
    decode_seconds: f64,
    /// Bytes, of the whole process.
    peak_memory: Option<u64>,
}

impl Peer {
    /// Builds the peer `name` for this CPU and has it load `model`.
    pub(super) fn start(name: &str, model: &Path, threads: usize) -> Result<(Self, Loaded)> {
        let program = build(name)?;
        let mut child = Command::new(&program)
            .arg(model)
            .env("RAYON_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        let requests = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().ok_or("the peer has no output")?);
        let mut peer = Self { name: name.to_owned(), child, requests, replies };
        let loaded = peer.read()?;
        Ok((peer, loaded))
    }

    /// Runs one prompt.
    pub(super) fn run(&mut self, prompt: &Prompt, generate: usize) -> Result<Sample> {
        let request = json!({"prompt": prompt.ids, "generate": generate});
        let out = self.requests.as_mut().ok_or("the peer has ended")?;
        writeln!(out, "{request}")
            .and_then(|()| out.flush())
            .map_err(|e| format!("{}: {e}", self.name))?;
        let reply: Reply = self.read()?;
        let rate = |n: usize, seconds: f64| if n == 0 { 0.0 } else { n as f64 / seconds };
        Ok(Sample {
            prefill: rate(prompt.ids.len(), reply.prefill_seconds),
            decode: rate(generate, reply.decode_seconds),
            peak_memory: reply.peak_memory.unwrap_or_default(),
            ended_early: false,
        })
    }

    fn read<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.replies.read_line(&mut line).map_err(|e| format!("{}: {e}", self.name))?;
        if line.is_empty() {
            return Err(format!("{} ended without an answer", self.name));
        }
        answer(&line).map_err(|e| format!("{}: {e}", self.name))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input ends it; one that does not answer at all would keep the bench waiting.
        drop(self.requests.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a line, or the error that it tells.
fn answer<T: DeserializeOwned>(line: &str) -> Result<T> {
    let value: Value = serde_json::from_str(line).map_err(|e| format!("{e} in {line:?}"))?;
    match value["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => serde_json::from_value(value).map_err(|e| format!("{e} in {line:?}")),
    }
}

/// The program of the peer `name`.
fn build(name: &str) -> Result<PathBuf> {
    let folder = root().join("xtask").join("peers");
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let manifest = folder.join(name).join("Cargo.toml");
    if !plain || !manifest.is_file() {
        return Err(format!("no peer `{name}` in xtask/peers"));
    }
    let target = root().join("target").join("peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target)
        // What its own documentation recommends; a slower build would be no peer.
        .env("RUSTFLAGS", "-C target-cpu=native")
        .status()
        .map_err(|e| format!("cargo: {e}"))?;
    if !built.success() {
        return Err(format!("the peer `{name}` can't be built"));
    }
    let file = format!("bench-peer-{name}{}", std::env::consts::EXE_SUFFIX);
    Ok(target.join("release").join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_answer_or_an_error() {
        let reply: Reply =
            answer(r#"{"prefill_seconds": 0.5, "decode_seconds": 2.0, "peak_memory": null}"#)
                .unwrap();
        assert_eq!((reply.prefill_seconds, reply.peak_memory), (0.5, None));
        let error = |line| answer::<Reply>(line).unwrap_err();
        assert_eq!(error(r#"{"error": "no such tensor"}"#), "no such tensor");
        assert!(error("{}").contains("prefill_seconds") && error("x").contains("\"x\""));
    }

    #[test]
    fn a_peer_is_a_folder_of_ours() {
        for name in ["", "nobody", "../candle", "candle/../candle"] {
            assert!(build(name).is_err_and(|e| e.contains("no peer")), "{name:?}");
        }
    }
}
