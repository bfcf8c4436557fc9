//! Which tensors a quantised checkpoint has, what they are called, and in which files they are.

use crate::{
    decoder::Source,
    weights::{DType, Entry, Planned, Quantising, SafeTensors},
};
use inference_core::{Error, Result};
use std::collections::BTreeMap;

/// A tensor of the checkpoint, or a module's matrix, and what becomes of it.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// The tensor of this name stays as it is.
    Copy(String),
    /// The matrix of this module is quantised.
    Quantise(String, Planned),
}

/// All tensors of a quantised checkpoint.
#[derive(Debug)]
pub(super) struct Layout {
    /// By their new names; matrices by their modules'.
    items: BTreeMap<String, Item>,
    has_head: bool,
}

impl Layout {
    /// Of the tensors, which `source` names, some of which `weights` quantises.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if two tensors would have the same name.
    pub(super) fn new(
        tensors: &SafeTensors,
        source: &Source<'_>,
        weights: &Quantising<'_>,
    ) -> Result<Self> {
        let (body, head) = (source.body(), source.head());
        let mut items = BTreeMap::new();
        for name in tensors.names() {
            let module = name.strip_suffix(".weight");
            let planned = module.and_then(|m| Some((m, *weights.planned(m)?)));
            let (key, item) = match planned {
                Some((m, planned)) => (renamed(m, body), Item::Quantise(m.to_owned(), planned)),
                None => (renamed(name, body), Item::Copy(name.to_owned())),
            };
            if items.insert(key.clone(), item).is_some() {
                return Err(Error::file(source.path, format!("two tensors would be `{key}`")));
            }
        }
        let has_head = tensors.names().any(|n| n.strip_suffix(".weight") == Some(&head));
        Ok(Self { items, has_head })
    }

    /// Whether the head has a matrix of its own.
    pub(super) fn has_head(&self) -> bool {
        self.has_head
    }

    /// The modules that are quantised, by their new names.
    pub(super) fn quantised(&self) -> impl Iterator<Item = (&str, &Planned)> {
        self.items.iter().filter_map(|(name, item)| match item {
            Item::Quantise(_, planned) => Some((name.as_str(), planned)),
            Item::Copy(_) => None,
        })
    }

    /// What goes into which file, at most `limit` bytes each, unless a single tensor has more.
    pub(super) fn shards(&self, tensors: &SafeTensors, limit: u64) -> Vec<Vec<Shard<'_>>> {
        let mut shards: Vec<Vec<_>> = Vec::new();
        let mut size = 0;
        for (name, item) in &self.items {
            let entries = entries(name, item, tensors);
            let bytes = entries.iter().map(|e| e.bytes).sum::<u64>();
            if shards.is_empty() || size + bytes > limit {
                shards.push(Vec::new());
                size = 0;
            }
            size += bytes;
            shards.last_mut().expect("one was pushed").push(Shard { item, entries });
        }
        shards
    }
}

/// A tensor or a matrix in its file.
#[derive(Debug)]
pub(super) struct Shard<'a> {
    pub(super) item: &'a Item,
    /// What it is written as: itself; or numbers, scales and biases.
    pub(super) entries: Vec<Entry>,
}

fn entries(name: &str, item: &Item, tensors: &SafeTensors) -> Vec<Entry> {
    match item {
        Item::Copy(from) => {
            let entry = |part: crate::weights::Part<'_>| Entry {
                name: name.to_owned(),
                dtype: part.dtype().to_owned(),
                shape: part.shape().to_vec(),
                bytes: part.bytes().len() as u64,
            };
            tensors.part(from).map(entry).into_iter().collect()
        }
        Item::Quantise(_, planned) => {
            let Planned { shape: [rows, cols], dtype, bits, group } = *planned;
            let dtype_name = match dtype {
                DType::F32 => "F32",
                DType::F16 => "F16",
                DType::Bf16 => "BF16",
            };
            let entry = |end: &str, dtype: &str, cols: usize, bytes: usize| Entry {
                name: format!("{name}.{end}"),
                dtype: dtype.to_owned(),
                shape: vec![rows, cols],
                bytes: bytes as u64,
            };
            let groups =
                |end| entry(end, dtype_name, cols / group, planned.groups() * dtype.size());
            vec![
                entry("weight", "U32", cols * bits as usize / 32, planned.packed_bytes()),
                groups("scales"),
                groups("biases"),
            ]
        }
    }
}

/// What `mlx_lm` calls a tensor that has this name in a checkpoint whose body's names begin with `body`.
fn renamed(name: &str, body: &str) -> String {
    match body {
        "" if !name.starts_with("lm_head.") && name != "lm_head" => format!("model.{name}"),
        "model.language_model." => match name.strip_prefix("model.") {
            Some(rest) => match rest.strip_prefix("language_model.") {
                Some(text) => format!("language_model.model.{text}"),
                None => rest.to_owned(),
            },
            None if name == "lm_head" || name.starts_with("lm_head.") => {
                format!("language_model.{name}")
            }
            None => name.to_owned(),
        },
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_mlx() {
        let nested = "model.language_model.";
        for (body, name, want) in [
            ("model.", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
            ("model.", "lm_head", "lm_head"),
            ("", "layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"),
            ("", "lm_head.weight", "lm_head.weight"),
            (nested, "model.language_model.norm.weight", "language_model.model.norm.weight"),
            (nested, "model.vision_tower.x.weight", "vision_tower.x.weight"),
            (nested, "lm_head", "language_model.lm_head"),
            ("language_model.model.", "vision_tower.x.weight", "vision_tower.x.weight"),
        ] {
            assert_eq!(renamed(name, body), want, "{name} with {body:?}");
        }
    }
}
