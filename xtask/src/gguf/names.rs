//! What each tensor of a checkpoint is called in a GGUF file, and how its rows change on the way.
//!
//! Names and shapes are those that `load_arch_tensors` of llama.cpp's `src/models/*.cpp` asks for.

use super::{
    checkpoint::Checkpoint,
    config::{Config, Family},
    rope::Scaling,
};
use crate::Result;
use std::collections::BTreeSet;

/// A tensor of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    /// Its name in the file.
    pub(super) name: String,
    /// Outermost first: `[out, in]`, or `[width]`.
    pub(super) shape: Vec<usize>,
    pub(super) source: Source,
}

/// Where a tensor comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// The checkpoint's tensor of that name.
    Stored { name: String, change: Change },
    /// These numbers.
    Made(Vec<f32>),
}

/// What happens to a tensor on the way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Change {
    /// The size of the heads whose rows are interleaved, if they are.
    pub(super) interleave: Option<usize>,
    /// Added to every number.
    pub(super) add: f32,
    /// What every number is then multiplied by.
    pub(super) factor: f32,
}

impl Change {
    /// None.
    pub(super) const NONE: Self = Self { interleave: None, add: 0.0, factor: 1.0 };

    /// The row of the checkpoint that becomes row `row`.
    ///
    /// The checkpoint rotates number `i` of a head with number `i + half`, and llama.cpp's `llama` number `2 i` with
    /// number `2 i + 1`.
    pub(super) fn row(self, row: usize) -> usize {
        let Some(head_dim) = self.interleave else { return row };
        let (head, at) = (row / head_dim, row % head_dim);
        head * head_dim + at / 2 + at % 2 * (head_dim / 2)
    }
}

/// A part of a layer: names in the checkpoint and in the file, shape, change, and whether a bias may come with it.
type Part = (&'static str, &'static str, Vec<usize>, Change, Bias);

#[derive(Clone, Copy, PartialEq)]
enum Bias {
    /// There is no place for one.
    Never,
    /// Taken if there is one.
    Maybe,
}

/// What may stand before a tensor's name, the longer ones first.
const PREFIXES: [&str; 5] =
    ["language_model.model.", "model.language_model.", "language_model.", "model.", ""];

/// The name of a language model's tensor without what stands before it in some checkpoints; `None` for tensors that are
/// no part of a language model, and for tables that are computed.
pub(super) fn plain(name: &str) -> Option<&str> {
    let name = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    let other = ["vision_tower.", "multi_modal_projector.", "vision_model.", "embed_vision."];
    let is_other = other.iter().any(|start| name.starts_with(start));
    (!is_other && !name.ends_with("rotary_emb.inv_freq")).then_some(name)
}

/// Every tensor of the file, in its order. Refuses a checkpoint that lacks one, or has one with no place in the file.
pub(super) fn targets(config: &Config, checkpoint: &Checkpoint) -> Result<Vec<Target>> {
    let mut found = Found { checkpoint, used: BTreeSet::new(), targets: Vec::new() };
    let vocab = found.rows("embed_tokens.weight")?;
    found.take(
        "embed_tokens.weight",
        "token_embd.weight",
        &[vocab, config.hidden],
        Change::NONE,
    )?;
    for (name, factors) in tables(&config.rope.scaling) {
        found.make(name, factors.clone());
    }
    let parts = parts(config);
    for layer in 0..config.layers {
        for (theirs, ours, shape, change, bias) in &parts {
            let (theirs, ours) =
                (format!("layers.{layer}.{theirs}"), format!("blk.{layer}.{ours}"));
            found.take(&format!("{theirs}.weight"), &format!("{ours}.weight"), shape, *change)?;
            if *bias == Bias::Maybe && found.has(&format!("{theirs}.bias")) {
                let (theirs, ours) = (format!("{theirs}.bias"), format!("{ours}.bias"));
                found.take(&theirs, &ours, &shape[..1], *change)?;
            }
        }
        if config.has_window_everywhere() {
            found.make(
                &format!("blk.{layer}.attn_sinks.weight"),
                vec![f32::NEG_INFINITY; config.heads],
            );
        }
    }
    found.take("norm.weight", "output_norm.weight", &[config.hidden], norm(config))?;
    let head = found.has("lm_head.weight");
    match config.tied {
        // The reference takes the embedding whatever else there is.
        Some(true) => found.skip("lm_head.weight"),
        None if !head => {}
        Some(false) | None if config.family == Family::Gemma2 => {
            return Err("llama.cpp always takes the embedding for the head of Gemma 2".to_owned());
        }
        Some(false) | None => {
            found.take("lm_head.weight", "output.weight", &[vocab, config.hidden], Change::NONE)?;
        }
    }
    found.all()
}

/// The divisors of frequencies, which are tensors.
fn tables(scaling: &Scaling) -> Vec<(&'static str, &Vec<f32>)> {
    match scaling {
        Scaling::Llama3(factors) => vec![("rope_freqs.weight", factors)],
        Scaling::Long { long, short, .. } => {
            vec![("rope_factors_long.weight", long), ("rope_factors_short.weight", short)]
        }
        Scaling::None | Scaling::Linear(_) | Scaling::Yarn { .. } => Vec::new(),
    }
}

/// Gemma stores `w` and means `1 + w`.
fn norm(config: &Config) -> Change {
    Change { add: if config.family.is_gemma() { 1.0 } else { 0.0 }, ..Change::NONE }
}

fn parts(config: &Config) -> Vec<Part> {
    let (hidden, ffn) = (config.hidden, config.ffn);
    let (queries, keys) = (config.queries(), config.keys());
    let norm = norm(config);
    let factor = config.query_factor() as f32;
    let (plain, row) = (Change::NONE, vec![hidden]);
    let interleave = matches!(config.family, Family::Llama | Family::Mistral);
    let heads = Change { interleave: interleave.then_some(config.head_dim), ..plain };
    // A norm after the query's matrix would undo a factor in it.
    let (q, q_norm) = match config.family {
        Family::Gemma3 => (heads, Change { factor, ..norm }),
        _ => (Change { factor, ..heads }, norm),
    };
    let (everywhere, of_queries) = match config.family {
        Family::Llama | Family::Mistral => (Bias::Maybe, Bias::Maybe),
        Family::Qwen2 | Family::Qwen3 | Family::Phi3 => (Bias::Never, Bias::Maybe),
        Family::Gemma2 | Family::Gemma3 => (Bias::Never, Bias::Never),
    };
    let mut parts = vec![("input_layernorm", "attn_norm", row.clone(), norm, Bias::Never)];
    if config.family == Family::Phi3 {
        let all = vec![queries + 2 * keys, hidden];
        parts.push(("self_attn.qkv_proj", "attn_qkv", all, plain, of_queries));
    } else {
        parts.push(("self_attn.q_proj", "attn_q", vec![queries, hidden], q, of_queries));
        parts.push(("self_attn.k_proj", "attn_k", vec![keys, hidden], heads, of_queries));
        parts.push(("self_attn.v_proj", "attn_v", vec![keys, hidden], plain, of_queries));
    }
    if matches!(config.family, Family::Qwen3 | Family::Gemma3) {
        let head = vec![config.head_dim];
        parts.push(("self_attn.q_norm", "attn_q_norm", head.clone(), q_norm, Bias::Never));
        parts.push(("self_attn.k_norm", "attn_k_norm", head, norm, Bias::Never));
    }
    parts.push(("self_attn.o_proj", "attn_output", vec![hidden, queries], plain, everywhere));
    let mut add_norm = |theirs, ours| parts.push((theirs, ours, row.clone(), norm, Bias::Never));
    if config.family.is_gemma() {
        add_norm("post_attention_layernorm", "post_attention_norm");
        add_norm("pre_feedforward_layernorm", "ffn_norm");
        add_norm("post_feedforward_layernorm", "post_ffw_norm");
    } else {
        add_norm("post_attention_layernorm", "ffn_norm");
    }
    if config.family == Family::Phi3 {
        parts.push(("mlp.gate_up_proj", "ffn_up", vec![2 * ffn, hidden], plain, Bias::Never));
    } else {
        parts.push(("mlp.gate_proj", "ffn_gate", vec![ffn, hidden], plain, everywhere));
        parts.push(("mlp.up_proj", "ffn_up", vec![ffn, hidden], plain, everywhere));
    }
    parts.push(("mlp.down_proj", "ffn_down", vec![hidden, ffn], plain, everywhere));
    parts
}

/// What was found in a checkpoint so far.
struct Found<'a> {
    checkpoint: &'a Checkpoint,
    /// Plain names.
    used: BTreeSet<String>,
    targets: Vec<Target>,
}

impl Found<'_> {
    /// The name in the checkpoint and the shape of the tensor with a plain name.
    fn find(&self, name: &str) -> Option<(&str, &[usize])> {
        let mut entries =
            PREFIXES.iter().filter_map(|prefix| self.checkpoint.entry(&format!("{prefix}{name}")));
        entries.next().map(|(full, stored)| (full, stored.shape.as_slice()))
    }

    fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn rows(&self, name: &str) -> Result<usize> {
        let (_, shape) = self.find(name).ok_or_else(|| missing(name))?;
        shape.first().copied().ok_or_else(|| format!("tensor `{name}` is a single number"))
    }

    fn take(&mut self, name: &str, to: &str, shape: &[usize], change: Change) -> Result {
        let (full, stored) = self.find(name).ok_or_else(|| missing(name))?;
        if stored != shape {
            return Err(format!("tensor `{full}` is {stored:?}, but the config says {shape:?}"));
        }
        let source = Source::Stored { name: full.to_owned(), change };
        self.targets.push(Target { name: to.to_owned(), shape: shape.to_vec(), source });
        self.skip(name);
        Ok(())
    }

    fn skip(&mut self, name: &str) {
        self.used.insert(name.to_owned());
    }

    fn make(&mut self, name: &str, numbers: Vec<f32>) {
        let shape = vec![numbers.len()];
        self.targets.push(Target { name: name.to_owned(), shape, source: Source::Made(numbers) });
    }

    fn all(self) -> Result<Vec<Target>> {
        let unused = |name: &&str| plain(name).is_some_and(|name| !self.used.contains(name));
        match self.checkpoint.iter().map(|(name, _)| name).find(unused) {
            Some(name) => Err(format!("llama.cpp has no place for the tensor `{name}`")),
            None => Ok(self.targets),
        }
    }
}

fn missing(name: &str) -> String {
    format!("no tensor `{name}`, under any of the usual prefixes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_are_interleaved() {
        let heads = Change { interleave: Some(6), ..Change::NONE };
        let rows: Vec<_> = (0..12).map(|row| heads.row(row)).collect();
        assert_eq!(rows, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert_eq!(Change::NONE.row(5), 5);
    }

    #[test]
    fn prefixes_do_not_matter_and_other_models_are_left_out() {
        for (name, is) in [
            ("model.layers.0.mlp.up_proj.weight", Some("layers.0.mlp.up_proj.weight")),
            ("language_model.model.norm.weight", Some("norm.weight")),
            ("model.language_model.norm.weight", Some("norm.weight")),
            ("language_model.lm_head.weight", Some("lm_head.weight")),
            ("lm_head.weight", Some("lm_head.weight")),
            ("vision_tower.vision_model.post_layernorm.bias", None),
            ("model.vision_tower.vision_model.post_layernorm.bias", None),
            ("model.multi_modal_projector.mm_soft_emb_norm.weight", None),
            ("model.layers.3.self_attn.rotary_emb.inv_freq", None),
        ] {
            assert_eq!(plain(name), is, "{name}");
        }
    }
}
