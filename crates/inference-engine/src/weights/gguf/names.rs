//! Which tensor of a file is which of a checkpoint, and in which order its rows are.

use crate::gguf::{self, Dialect, FACTORS, LONG_FACTORS, Part};
use inference_core::Result;
use inference_text::gguf::{Gguf, Tensor};

/// The tensors beside the layers': their names in the file and in a checkpoint, and whether a bias may come with them.
const OUTSIDE: [(&str, &str, bool); 3] = [
    ("token_embd", "model.embed_tokens", false),
    ("output_norm", "model.norm", false),
    ("output", "lm_head", true),
];

/// What a tensor of a file is.
#[derive(Debug, PartialEq)]
pub(super) enum Place {
    /// The checkpoint's tensor of that name.
    Named(String, Option<Turned>),
    /// Part of the description of the model, or computed anyway.
    Read,
    /// Something that isn't computed, and must be all −∞.
    Nothing,
    /// Something else.
    Unknown,
}

/// Rows of a matrix whose first ones belong to heads in which the two numbers of a rotated pair are neighbours, while
/// they are half a head apart in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Turned {
    head_dim: usize,
    /// Of heads that are rotated.
    pub(super) rows: usize,
}

impl Turned {
    /// `None` for heads without pairs.
    pub(super) fn new(head_dim: usize, rows: usize) -> Option<Self> {
        (head_dim > 0 && head_dim.is_multiple_of(2)).then_some(Self { head_dim, rows })
    }

    /// Where in the file the checkpoint's row `row` is.
    pub(super) fn row(self, row: usize) -> usize {
        if row >= self.rows {
            return row;
        }
        let (head, at, half) = (row / self.head_dim, row % self.head_dim, self.head_dim / 2);
        head * self.head_dim + at % half * 2 + at / half
    }
}

/// The places of a model.
#[derive(Debug)]
pub(super) struct Places {
    dialect: &'static Dialect,
    layers: usize,
    head_dim: usize,
    /// Rows of all queries, and of all keys.
    rows: [usize; 2],
}

impl Places {
    pub(super) fn new(gguf: &Gguf) -> Result<Self> {
        let shape = gguf::attention(gguf)?;
        let head_dim = shape.key_len as usize;
        let rows = [shape.heads, shape.kv_heads].map(|heads| heads as usize * head_dim);
        Ok(Self { dialect: Dialect::of(gguf)?, layers: gguf.layers()? as usize, head_dim, rows })
    }

    /// What `tensor` is.
    pub(super) fn of(&self, tensor: &Tensor) -> Place {
        let name = tensor.name.as_str();
        if name == FACTORS || LONG_FACTORS.contains(&name) {
            return Place::Read;
        }
        let Some((module, kind)) = name.rsplit_once('.') else { return Place::Unknown };
        if !matches!(kind, "weight" | "bias") {
            return Place::Unknown;
        }
        let bias = kind == "bias";
        if let Some((_, name, biased)) = OUTSIDE.iter().find(|(file, ..)| *file == module) {
            return match bias && !biased {
                true => Place::Unknown,
                false => Place::Named(format!("{name}.{kind}"), None),
            };
        }
        let layer = module.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let Some((index, part)) = layer else { return Place::Unknown };
        // Written as it would be written: `blk.+1.` is none.
        let index = index.parse().ok().filter(|i: &usize| i.to_string() == index);
        let Some(index) = index.filter(|i| *i < self.layers) else { return Place::Unknown };
        match (self.dialect.part(part), part) {
            (Some(part), _) if part.matrix || !bias => {
                let name = format!("model.layers.{index}.{}.{kind}", part.name);
                Place::Named(name, self.turned(part))
            }
            // A table that is computed.
            (None, "attn_rot_embd") => Place::Read,
            (None, "attn_sinks") => Place::Nothing,
            _ => Place::Unknown,
        }
    }

    fn turned(&self, part: Part) -> Option<Turned> {
        let [queries, keys] = self.rows;
        let rows = match part.file {
            "attn_q" => queries,
            "attn_k" => keys,
            "attn_qkv" => queries + keys,
            _ => return None,
        };
        Turned::new(self.head_dim, rows).filter(|_| self.dialect.interleaved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_put_half_a_head_apart() {
        let turned = Turned { head_dim: 6, rows: 12 };
        // Where the file has the pairs (0, 1), (2, 3), (4, 5), a checkpoint has (0, 3), (1, 4), (2, 5).
        let rows: Vec<_> = (0..14).map(|row| turned.row(row)).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11, 12, 13]);
    }
}
