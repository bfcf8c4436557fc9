//! Engines of others as candidates: programs in `xtask/peers`, outside the workspace, spoken to in lines of JSON.

use super::{measure::Sample, prompt::Prompt, python};
use crate::{Result, root};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    str::FromStr,
};

/// A peer as it is named: `candle`, or `openvino:int4` for a form that the peer makes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// Its folder in `xtask/peers`.
    pub(super) engine: String,
    /// What it makes of a folder of safetensors.
    pub(super) form: Option<String>,
}

impl FromStr for Name {
    type Err = Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Infallible> {
        let (engine, form) = text.split_once(':').map_or((text, None), |(e, f)| (e, Some(f)));
        Ok(Self { engine: engine.to_owned(), form: form.map(str::to_owned) })
    }
}

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
    /// Builds the peer for this CPU and has it load `model`.
    pub(super) fn start(name: &Name, model: &Path, threads: usize) -> Result<(Self, Loaded)> {
        let mut command = command(name, model)?;
        let mut child = command
            .env("RAYON_NUM_THREADS", threads.to_string())
            .env("INFERENCE_NUM_THREADS", threads.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
        let requests = child.stdin.take();
        let replies = BufReader::new(child.stdout.take().ok_or("the peer has no output")?);
        let mut peer = Self { name: name.engine.clone(), child, requests, replies };
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

/// The peer's program, made ready, with its arguments.
fn command(name: &Name, model: &Path) -> Result<Command> {
    let engine = &name.engine;
    let plain = engine.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let folder = root().join("xtask").join("peers").join(engine);
    let is_there = |file: &str| plain && folder.join(file).is_file();
    let (in_rust, in_python) = (is_there("Cargo.toml"), is_there("main.py"));
    match &name.form {
        None if in_rust => {
            let mut command = Command::new(build(engine, &folder.join("Cargo.toml"))?);
            command.arg(model);
            Ok(command)
        }
        Some(form) if in_python => python::command(&folder, model, form),
        Some(_) if in_rust => {
            Err(format!("the peer `{engine}` has no forms; it reads what is there"))
        }
        None if in_python => Err(format!("say in which form, such as `{engine}:int4`")),
        _ => Err(format!("no peer `{engine}` in xtask/peers")),
    }
}

/// Builds the program of the peer `name`.
fn build(name: &str, manifest: &Path) -> Result<PathBuf> {
    let target = root().join("target").join("peers");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(manifest)
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
        for (name, reason) in [
            ("", "no peer"),
            ("nobody", "no peer"),
            ("nobody:int4", "no peer"),
            ("../candle", "no peer"),
            ("candle/../candle", "no peer"),
            ("candle:int4", "no forms"),
            ("openvino", "openvino:int4"),
        ] {
            let name: Name = name.parse().unwrap();
            let error = command(&name, Path::new("m")).unwrap_err();
            assert!(error.contains(reason), "{name:?}: {error}");
        }
    }
}
