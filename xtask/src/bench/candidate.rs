//! What takes its turns in a run: a model of a backend, or an engine of others.

use super::{
    bound::Bound,
    checkpoint::Checkpoint,
    measure::{self, Sample},
    peer::{self, Peer},
    prompt::Prompt,
    source::{self, Form},
};
use crate::Result;
use inference::{CacheDtype, GenerateOptions, LoadOptions, TextModel, registry};
use inference_gpu::Limits;
use serde::Serialize;
use std::{collections::BTreeSet, path::Path};

/// Backends and peers that run on the CPU: they get the threads, and shares of its limits.
const ON_CPU: [&str; 4] = ["cpu", "llama_cpp", "candle", "openvino"];

/// What is known of a candidate.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    /// The model's name.
    pub(super) model: String,
    /// The backend's name, or the peer's.
    pub(super) backend: String,
    /// The device, or the engine's version.
    pub(super) device: String,
    /// How the weights are held.
    pub(super) weights: String,
    /// What a reader of the figures must know; may be empty.
    pub(super) note: String,
    /// Bytes.
    pub(super) weight_bytes: u64,
    pub(super) cache_bytes_per_token: u64,
    pub(super) on_cpu: bool,
    /// What its GPU can do at best, where it has one and that is known.
    pub(super) gpu: Option<Bound>,
}

impl Facts {
    /// The candidate in few words, such as `llama_cpp q4_0`.
    pub(super) fn name(&self) -> String {
        named(&self.backend, &self.weights)
    }

    /// Bits of a weight: the first number in how they are held.
    pub(super) fn bits(&self) -> Option<u32> {
        let digits = self.weights.split(|c: char| !c.is_ascii_digit());
        digits.filter_map(|digits| digits.parse().ok()).next()
    }

    /// Whether weights have fewer bits than any floating-point number that is computed with.
    pub(super) fn is_quantised(&self) -> bool {
        self.bits().is_some_and(|bits| bits < 16)
    }
}

/// A backend and how the weights are held.
pub(super) fn named(backend: &str, weights: &str) -> String {
    format!("{backend} {weights}")
}

/// A loaded model that takes its turns.
pub(super) struct Candidate {
    pub(super) facts: Facts,
    engine: Engine,
    /// Tokens that may not be generated.
    banned: BTreeSet<u32>,
}

enum Engine {
    Model(Box<dyn TextModel>),
    Peer(Peer),
}

/// How candidates are loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loading<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    /// What this machine's processor is called, and how many cores it has.
    pub(super) chip: &'a str,
    pub(super) cores: usize,
    /// What a backend's GPU did at best, where it was measured.
    pub(super) gpu: Option<Limits>,
    pub(super) threads: usize,
    /// Most tokens of one sequence.
    pub(super) context_len: usize,
    /// Most sequences at once.
    pub(super) batch: usize,
    /// Bytes that are kept for prompts that begin alike; `None`: as many as the backend likes.
    pub(super) prefix_cache: Option<u64>,
    /// How a backend keeps keys and values.
    pub(super) cache_dtype: Option<CacheDtype>,
}

impl Candidate {
    /// Loads a form of the model with a backend of the registry.
    pub(super) fn of_backend(backend: &str, form: &Form, loading: Loading<'_>) -> Result<Self> {
        let on_cpu = ON_CPU.contains(&backend);
        let mut options = LoadOptions::default().backend(backend).context_len(loading.context_len);
        options.quantise = form.quantise;
        options.prefix_cache = loading.prefix_cache;
        options.cache_dtype = loading.cache_dtype;
        if on_cpu {
            options = options.threads(loading.threads);
        }
        if loading.batch > 1 {
            options = options.parallel_slots(loading.batch);
        }
        let path = form.source.as_path();
        let model = registry().load_model(path, &options).map_err(|e| e.to_string())?;
        let info = model.info();
        let bits = info.quantisation.map(|q| format!("{} bit", q.bits));
        let stored = || loading.checkpoint.dtype.clone();
        let facts = Facts {
            model: loading.checkpoint.name.clone(),
            backend: info.backend.clone(),
            device: info.device.clone(),
            weights: source::gguf_type(path).or(bits).unwrap_or_else(stored),
            note: String::new(),
            weight_bytes: info.weight_bytes,
            cache_bytes_per_token: info.cache_bytes_per_token,
            on_cpu,
            gpu: match loading.gpu {
                Some(limits) => Some(Bound::measured(&limits, &info.device)),
                None => Bound::stated(backend, loading.chip, loading.cores),
            },
        };
        Ok(Self { facts, engine: Engine::Model(model), banned: BTreeSet::new() })
    }

    /// Builds a peer and has it load the files at `path`.
    pub(super) fn of_peer(name: &peer::Name, path: &Path, loading: Loading<'_>) -> Result<Self> {
        let (peer, loaded) = Peer::start(name, path, loading.threads)?;
        let facts = Facts {
            model: loading.checkpoint.name.clone(),
            backend: name.engine.clone(),
            device: loaded.engine,
            weights: loaded.weights,
            note: loaded.note,
            weight_bytes: loaded.weight_bytes,
            cache_bytes_per_token: loaded.cache_bytes_per_token,
            on_cpu: ON_CPU.contains(&name.engine.as_str()),
            gpu: Bound::stated(&name.engine, loading.chip, loading.cores),
        };
        Ok(Self { facts, engine: Engine::Peer(peer), banned: BTreeSet::new() })
    }

    /// The model, if it is one of a backend.
    pub(super) fn model(&self) -> Option<&dyn TextModel> {
        match &self.engine {
            Engine::Model(model) => Some(model.as_ref()),
            Engine::Peer(_) => None,
        }
    }

    /// Whether it can run so many prompts at once.
    pub(super) fn can_batch(&self, batch: usize) -> bool {
        batch == 1 || matches!(self.engine, Engine::Model(_))
    }

    /// Bans tokens that end a text from the next run on; false if there was nothing to ban, or all was already.
    pub(super) fn ban_end_tokens(&mut self, end_tokens: &BTreeSet<u32>) -> bool {
        let before = self.banned.len();
        self.banned.extend(end_tokens);
        self.banned.len() > before
    }

    /// Runs the prompts at once.
    pub(super) fn run(&mut self, prompts: &[Prompt], generate: usize) -> Result<Sample> {
        match (&mut self.engine, prompts) {
            (Engine::Model(model), _) => {
                let bans = self.banned.iter().map(|id| (*id, f32::NEG_INFINITY));
                let options = GenerateOptions::default().max_tokens(generate + 1).logit_bias(bans);
                measure::run(model.as_ref(), prompts, &options)
            }
            (Engine::Peer(peer), [only]) => peer.run(only, generate),
            (Engine::Peer(_), _) => Err("a peer runs one prompt at a time".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::bench::report::tests::facts;

    #[test]
    fn bits_are_told_by_how_weights_are_held() {
        for (weights, want) in [
            ("4 bit", Some(4)),
            ("q4_k_m", Some(4)),
            ("q8_0", Some(8)),
            ("int4-f32", Some(4)),
            ("bf16", Some(16)),
            ("f32", Some(32)),
            ("?", None),
        ] {
            assert_eq!(facts("cpu", weights).bits(), want, "{weights}");
        }
    }
}
