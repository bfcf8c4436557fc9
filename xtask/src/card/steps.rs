//! The steps, as commands that a user could give by hand.

use crate::make_model::Shape;
use std::path::{Path, PathBuf};

/// Layers of the 8B shape in a short run.
const FEW_LAYERS: usize = 4;

/// Bytes that a model needs beside its weights: its cache, activations, what the backend leaves to others.
const BESIDE: u64 = 5 << 29;

/// A command, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// In few words.
    pub(super) name: String,
    /// The program and its arguments.
    pub(super) command: Vec<String>,
    /// What it writes its measurements to.
    pub(super) json: Option<PathBuf>,
    /// Why it is not run.
    pub(super) left_out: Option<String>,
}

/// A model that is measured.
struct Model {
    shape: Shape,
    layers: Option<usize>,
    folder: PathBuf,
}

impl Model {
    fn new(shape: Shape, layers: Option<usize>, folder: &Path) -> Self {
        let name = match layers {
            // What has other layers has another name, in every table.
            Some(n) => format!("{}-{n}-layers", shape.name()),
            None => shape.name().to_owned(),
        };
        Self { shape, layers, folder: folder.join("models").join(name) }
    }

    fn name(&self) -> String {
        self.folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Why the card can't hold it with weights of so many bits.
    fn too_large(&self, bits: u64, memory: u64) -> Option<String> {
        // Quantised weights have a scale and a bias of 16 bits for each 64.
        let bits = if bits < 16 { bits as f64 + 0.5 } else { bits as f64 };
        let needed = (self.shape.parameters(self.layers) as f64 * bits / 8.0) as u64 + BESIDE;
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        (needed > memory).then(|| {
            format!(
                "it needs about {:.1} GiB of the card's memory, of which {:.1} GiB are free",
                gib(needed),
                gib(memory)
            )
        })
    }
}

/// All steps for `backend`, whose card has `memory` bytes free, in a folder that is there.
pub(super) fn all(backend: &str, folder: &Path, short: bool, memory: u64) -> Vec<Step> {
    let (cargo, features) = (cargo(), backend);
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let step =
        |name: &str, command| Step { name: name.to_owned(), command, json: None, left_out: None };
    let with = |program: &str, rest: Vec<String>| [vec![program.to_owned()], rest].concat();
    let mut steps = vec![
        step(
            "self-test",
            with(
                &cargo,
                words(format!(
                    "run --release --package inference-cli --features {features} -- backends --self-test --backend {backend}"
                )),
            ),
        ),
        step(
            "tests on the card",
            with(
                &cargo,
                words(format!(
                    "test --release --package inference-{backend} --test card -- --nocapture --test-threads 1"
                )),
            ),
        ),
    ];
    let small = Model::new(Shape::Qwen3, None, folder);
    let large = Model::new(Shape::Qwen3Large, short.then_some(FEW_LAYERS), folder);
    for model in [&small, &large] {
        steps.push(making(model));
        let forms: &[u64] = if short { &[16, 4] } else { &[16, 8, 4] };
        steps.extend(forms.iter().map(|bits| {
            let mut rest = words(format!("bench --backends {backend}"));
            rest.push(model.folder.display().to_string());
            rest.extend(words(
                if short { "--prompt 512 --generate 64 --runs 3" } else { "--grid" }.to_owned(),
            ));
            if *bits < 16 {
                rest.extend(words(format!("--quantise {bits}")));
            }
            let json = folder.join(format!("{}-{bits}.json", model.name()));
            rest.extend(["--json".to_owned(), json.display().to_string()]);
            Step {
                name: format!("bench of {}, {bits} bits", model.name()),
                command: with(&this(), rest),
                json: Some(json),
                left_out: model.too_large(*bits, memory),
            }
        }));
    }
    steps.push(classifying(backend, &small, folder, short, memory));
    steps
}

/// Writes a model, unless it is there.
fn making(model: &Model) -> Step {
    let mut command = vec![this(), "make-model".to_owned(), model.shape.name().to_owned()];
    command.push(model.folder.display().to_string());
    command.extend(model.layers.iter().flat_map(|n| ["--layers".to_owned(), n.to_string()]));
    let file = model.folder.join("model.safetensors");
    // One that was cut off is made again.
    let is_whole =
        file.metadata().is_ok_and(|m| m.len() > 2 * model.shape.parameters(model.layers));
    Step {
        name: format!("make {}", model.name()),
        command,
        json: None,
        left_out: is_whole.then(|| "it is there".to_owned()),
    }
}

/// Classifies sentences.
fn classifying(backend: &str, model: &Model, folder: &Path, short: bool, memory: u64) -> Step {
    let json = folder.join("classify.json");
    let mut command = vec![this(), "bench".to_owned(), "classify".to_owned()];
    command.push(model.folder.display().to_string());
    command.extend(["--backends".to_owned(), backend.to_owned()]);
    command.extend(short.then(|| "--short".to_owned()));
    command.extend(["--json".to_owned(), json.display().to_string()]);
    Step {
        name: format!("classification by {}", model.name()),
        command,
        json: Some(json),
        left_out: model.too_large(16, memory),
    }
}

/// This program.
fn this() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "xtask".into());
    program.to_string_lossy().into_owned()
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cli;
    use clap::Parser;

    const GIB: u64 = 1 << 30;

    /// All that this program is asked to do are words that it knows.
    #[test]
    fn every_step_is_a_command_that_is_understood() {
        let dir = tempfile::tempdir().expect("a folder");
        for (backend, short) in [("cuda", false), ("cuda", true), ("rocm", false), ("rocm", true)] {
            let steps = all(backend, dir.path(), short, 80 * GIB);
            assert_eq!(steps.len(), if short { 9 } else { 11 });
            assert!(steps.iter().all(|step| step.left_out.is_none()));
            for step in steps.iter().filter(|step| step.command[0] == this()) {
                let parsed = Cli::try_parse_from(&step.command);
                assert!(parsed.is_ok(), "{:?}: {:?}", step.command, parsed.err());
            }
            let own: Vec<_> = steps.iter().filter(|step| step.command[0] != this()).collect();
            assert_eq!(own.len(), 2);
            assert!(own[1].command.contains(&format!("inference-{backend}")));
        }
    }

    #[test]
    fn what_a_card_can_not_hold_is_left_out_and_the_report_says_why() {
        let dir = tempfile::tempdir().expect("a folder");
        let left_out = |memory| -> Vec<String> {
            let steps = all("rocm", dir.path(), false, memory);
            steps.into_iter().filter(|s| s.left_out.is_some()).map(|s| s.name).collect()
        };
        assert_eq!(left_out(24 * GIB), [""; 0]);
        assert_eq!(left_out(16 * GIB), ["bench of qwen3-8b, 16 bits"]);
        let names = ["bench of qwen3-8b, 16 bits", "bench of qwen3-8b, 8 bits"];
        assert_eq!(left_out(8 * GIB), names);
        let few = all("cuda", dir.path(), true, 8 * GIB);
        assert!(few.iter().all(|step| step.left_out.is_none()));
        assert!(few.iter().any(|step| step.name == "bench of qwen3-8b-4-layers, 4 bits"));
    }

    #[test]
    fn a_model_is_made_once_unless_it_was_cut_off() {
        let dir = tempfile::tempdir().expect("a folder");
        let model = Model { shape: Shape::Tiny, layers: Some(1), folder: dir.path().to_owned() };
        assert_eq!(making(&model).left_out, None);
        let file = dir.path().join("model.safetensors");
        std::fs::write(&file, vec![0; 100]).expect("is written");
        assert_eq!(making(&model).left_out, None);
        let whole = 2 * model.shape.parameters(model.layers) as usize + 1000;
        std::fs::write(&file, vec![0; whole]).expect("is written");
        assert_eq!(making(&model).left_out.as_deref(), Some("it is there"));
    }
}
