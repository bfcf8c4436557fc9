//! The cache, and attention over it.

use crate::{
    Candle,
    device::{fault, shape},
    operations::{Append, Attend, Layer, Operations, Part},
    step::Started,
};
use candle_core::{DType, Tensor};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::{Architecture, Attention},
    device::Heads,
    step::BlockCopy,
};

/// Tokens of a block: a page of one head's keys is a few KiB in one piece.
pub(crate) const BLOCK: usize = 32;

/// Columns that heads are filled up to a multiple of in the cache, so that the widest load needs no tail.
const COLUMNS: usize = 16;

/// The widest head of the kernels.
const WIDEST: usize = 256;

/// Keys of a split of single rows' attention, as the kernels have it.
const SPLIT: usize = 256;

/// Bytes of partial results of attention that may be there at a time.
const PARTIAL: usize = 64 << 20;

/// Columns of a head in the cache.
fn width(attention: &Attention) -> usize {
    attention.head_dim.next_multiple_of(COLUMNS)
}

/// Numbers of the keys of a block, and of the values.
fn numbers(attention: &Attention) -> usize {
    BLOCK * attention.kv_heads * width(attention)
}

fn stored(dtype: CacheDtype) -> Result<DType> {
    match dtype {
        CacheDtype::F32 => Ok(DType::F32),
        CacheDtype::F16 => Ok(DType::F16),
        CacheDtype::Bf16 => Ok(DType::BF16),
        other => Err(Error::unsupported(format!("a cache of type {other:?}"), crate::NAME)),
    }
}

/// Bytes of a block of all layers.
pub(crate) fn block_bytes(layers: &[Attention], dtype: CacheDtype) -> u64 {
    let numbers: usize = layers.iter().map(|a| 2 * numbers(a)).sum();
    (numbers * stored(dtype).map_or(4, |d| d.size_in_bytes())) as u64
}

fn too_wide(attention: &Attention) -> Option<String> {
    let dim = attention.head_dim;
    (width(attention) > WIDEST).then(|| format!("heads of {dim} columns (at most {WIDEST})"))
}

/// What of an architecture the kernels have no room for, in words.
pub(crate) fn unsupported(architecture: &Architecture) -> Option<String> {
    architecture.layers.iter().find_map(|layer| too_wide(&layer.attention))
}

/// How many splits of the keys a token at `position` sees something of.
fn splits(position: u32, window: Option<usize>) -> usize {
    let position = position as usize;
    let oldest = window.map_or(0, |w| (position + 1).saturating_sub(w));
    position / SPLIT - oldest / SPLIT + 1
}

impl<O: Operations> Candle<O> {
    pub(crate) fn make_cache(
        &self,
        layers: &[Attention],
        blocks: usize,
        dtype: CacheDtype,
    ) -> Result<Vec<Layer>> {
        if let Some(reason) = layers.iter().find_map(too_wide) {
            return Err(Error::Device { reason });
        }
        let dtype = stored(dtype)?;
        let layer = |a: &Attention| {
            let room = || self.operations.cache(blocks * numbers(a), dtype).map_err(fault);
            let (kv_heads, width) = (a.kv_heads, width(a));
            let layer = Layer { keys: room()?, values: room()?, kv_heads, width };
            self.operations.prepare(Part::Layer(&layer)).map_err(fault)?;
            Ok(layer)
        };
        layers.iter().map(layer).collect()
    }

    pub(crate) fn copy(&self, cache: &[Layer], copies: &[BlockCopy]) -> Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let words: Vec<_> = copies.iter().flat_map(|c| [c.from, c.to, c.tokens as u32]).collect();
        let bytes = bytemuck::cast_slice(&words);
        let words = self.operations.place(bytes, DType::U32, &[words.len()]).map_err(fault)?;
        cache.iter().try_for_each(|layer| self.operations.copy_blocks(layer, &words)).map_err(fault)
    }

    pub(crate) fn write_heads(
        &self,
        qkv: &Tensor,
        heads: &Heads<'_, Tensor>,
        layer: &Layer,
        step: &Started,
    ) -> Result<Tensor> {
        let Heads { attention, q_norm, k_norm, eps, rope } = *heads;
        let (rows, _) = shape(qkv)?;
        let q = &self.room(rows, attention.q_cols())?;
        if rows > 0 {
            let append = Append { q, layer, qkv, q_norm, k_norm, eps, rope, attention, step };
            self.operations.append(&append).map_err(fault)?;
        }
        Ok(q.clone())
    }

    /// The choice between the two ways is by the sequence's own rows, so that no result depends on who else is in the step.
    pub(crate) fn attend_to(
        &self,
        q: &Tensor,
        layer: &Layer,
        attention: &Attention,
        step: &Started,
    ) -> Result<Tensor> {
        let (rows, cols) = shape(q)?;
        let y = &self.room(rows, cols)?;
        let attend = Attend { y, q, layer, attention, step };
        let tiles = step.at(step.layout.tiles(usize::from(layer.width > 128))).map_err(fault)?;
        if tiles.elem_count() > 0 {
            let count = tiles.elem_count() / 2;
            self.operations.flash(&attend, &tiles, count).map_err(fault)?;
        }
        for rows in &step.layout.single {
            let places = &step.positions[rows.clone()];
            let splits = places.iter().map(|p| splits(*p, attention.window)).max().unwrap_or(0);
            let of_row = attention.heads * splits * (layer.width + 2) * 4;
            let at_once = if splits > 1 { (PARTIAL / of_row).max(1) } else { rows.len() };
            for row in rows.clone().step_by(at_once) {
                let some = row..rows.end.min(row + at_once);
                self.operations.attend(&attend, some, splits).map_err(fault)?;
            }
        }
        Ok(y.clone())
    }
}
