//! The cache, and attention over it.

use crate::{
    driver::Driver,
    gpu::{Gpu, Tensor, list},
    load::{Kept, Stored},
    source::Module,
    step::Started,
};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::{Attention, Layer},
    device::Heads,
    step::BlockCopy,
};
use std::ops::Range;

/// Tokens of a block: a page of one head's keys is a few KiB in one piece.
pub(crate) const BLOCK: usize = 32;

/// Columns that heads are filled up to a multiple of in the cache: what the widest load takes, and matrix instructions.
const COLUMNS: usize = 16;

/// The widest head of the kernels; the same as in `attend.cu`.
pub(crate) const WIDEST: usize = 256;

/// Keys of a split and heads that a block takes, the same as in `attend.cu`.
pub(crate) const SPLIT: usize = 256;
const GROUP: usize = 8;

/// Bytes of partial results of attention that may be there at a time.
const PARTIAL: usize = 64 << 20;

/// Columns of a head in the cache.
pub(crate) fn width(attention: &Attention) -> usize {
    attention.head_dim.next_multiple_of(COLUMNS)
}

/// Numbers of the keys of a block, and of the values.
fn numbers(attention: &Attention) -> usize {
    BLOCK * attention.kv_heads * width(attention)
}

/// Keys and values of every layer, `[blocks, kv_heads, BLOCK, width]` each.
pub struct Cache<D: Driver> {
    layers: Vec<[Kept<D>; 2]>,
    stored: Stored,
}

impl<D: Driver> Cache<D> {
    /// Where it begins.
    pub(crate) fn address(&self) -> u64 {
        self.layers.first().map_or(0, |[keys, _]| keys.address())
    }
}

/// Bytes of a block of all layers.
pub(crate) fn block_bytes(layers: &[Attention], dtype: CacheDtype) -> u64 {
    let numbers: usize = layers.iter().map(|a| 2 * numbers(a)).sum();
    (numbers * Stored::try_from(dtype).map_or(4, Stored::size)) as u64
}

impl<D: Driver> Gpu<D> {
    pub(crate) fn make_cache(
        &self,
        layers: &[Attention],
        blocks: usize,
        dtype: CacheDtype,
    ) -> Result<Cache<D>> {
        if let Some(wide) = layers.iter().find(|a| width(a) > WIDEST) {
            let reason = format!(
                "heads of {} columns; the GPU kernels have room for {WIDEST}",
                wide.head_dim
            );
            return Err(Error::Device { reason });
        }
        let stored = Stored::try_from(dtype)?;
        let layer = |a: &Attention| {
            let bytes = blocks * numbers(a) * stored.size();
            Ok([self.keep(bytes)?, self.keep(bytes)?])
        };
        let cache = Cache { layers: layers.iter().map(layer).collect::<Result<_>>()?, stored };
        // All that is known of the model's steps: room for the largest, with some activations alive at the same
        // time, and what attention of few queries keeps of long texts.
        let partial = |a: &Attention| of_row(a, splits(blocks * BLOCK, a.window));
        let partial = layers.iter().map(partial).max().unwrap_or(0).saturating_mul(self.step_rows);
        let activations = self.step_rows * self.widest.get() * 3;
        self.activations.reserve(activations + partial.min(PARTIAL))?;
        let heads = layers.iter().map(|a| a.heads).max().unwrap_or(0);
        self.count(self.step_rows * heads)?;
        Ok(cache)
    }

    /// The address of at least `n` counters, all 0.
    fn count(&self, n: usize) -> Result<u64> {
        let mut counters = self.counters.borrow_mut();
        if counters.as_ref().is_none_or(|c| c.bytes() < n * 4) {
            *counters = Some(self.zeros(n)?);
        }
        Ok(counters.as_ref().map_or(0, |c| c.address()))
    }

    pub(crate) fn copy(
        &self,
        cache: &Cache<D>,
        layers: &[Layer],
        copies: &[BlockCopy],
    ) -> Result<()> {
        let words: Vec<_> = copies.iter().flat_map(|c| [c.from, c.to, c.tokens as u32]).collect();
        let piece = self.activations.lend(words.len() * 4)?;
        piece.upload(0, bytemuck::cast_slice(&words))?;
        for (Layer { attention: a, .. }, [keys, values]) in layers.iter().zip(&cache.layers) {
            let row = width(a) * cache.stored.size() / 4;
            let args = list![
                keys.address(),
                values.address(),
                piece.address(),
                copies.len(),
                a.kv_heads,
                BLOCK * row,
                row,
            ];
            let all = copies.len() * a.kv_heads * BLOCK * row;
            self.each(Module::Elementwise, "copy_blocks", all, args)?;
        }
        Ok(())
    }

    pub(crate) fn write_heads(
        &self,
        qkv: &Tensor<D>,
        heads: &Heads<'_, Tensor<D>>,
        cache: &Cache<D>,
        layer: usize,
        step: &Started<D>,
    ) -> Result<Tensor<D>> {
        let a = heads.attention;
        let q = self.tensor(qkv.rows, a.q_cols())?;
        if qkv.rows == 0 {
            return Ok(q);
        }
        let [keys, values] = &cache.layers[layer];
        let (pairs, cos, sin) = step.rotation(heads.rope);
        let norm = |weight: Option<&Tensor<D>>| weight.map_or(0, Tensor::address);
        let waves = qkv.rows * (a.heads + 2 * a.kv_heads);
        let blocks = waves.div_ceil(128 / self.driver.target().wave as usize);
        let args = list![
            q.address(),
            keys.address(),
            values.address(),
            qkv.address(),
            norm(heads.q_norm),
            norm(heads.k_norm),
            cos,
            sin,
            step.at(step.layout.places()),
            step.at(step.layout.sequences()),
            step.at(step.layout.tables()),
            step.layout.table_len,
            qkv.rows,
            a.heads,
            a.kv_heads,
            a.head_dim,
            width(a),
            pairs,
            BLOCK,
            heads.eps,
            cache.stored as i32,
        ];
        self.kernels.run(Module::Embed, "append", [blocks, 1, 1], 128, args)?;
        Ok(q)
    }

    pub(crate) fn attend_to(
        &self,
        q: &Tensor<D>,
        cache: &Cache<D>,
        layer: usize,
        a: &Attention,
        step: &Started<D>,
    ) -> Result<Tensor<D>> {
        let y = self.tensor(q.rows, q.cols)?;
        // Matrix instructions would round what f32 was chosen for.
        if cache.stored == Stored::F32 {
            self.attend_rows(q, &y, cache, layer, a, step, 0..q.rows)?;
            return Ok(y);
        }
        self.attend_tiles(q, &y, cache, layer, a, step)?;
        for rows in &step.layout.single {
            self.attend_rows(q, &y, cache, layer, a, step, rows.clone())?;
        }
        Ok(y)
    }

    /// Attention of the sequences that have many rows in this step.
    fn attend_tiles(
        &self,
        q: &Tensor<D>,
        y: &Tensor<D>,
        cache: &Cache<D>,
        layer: usize,
        a: &Attention,
        step: &Started<D>,
    ) -> Result<()> {
        // The kernels' widths, and the waves of their blocks.
        // None for f32: such a cache is attended to row by row.
        let (names, which, waves) = match width(a) {
            0..=64 => (["flash_f32_64", "flash_f16_64", "flash_bf16_64"], 0, 4),
            65..=128 => (["flash_f32_128", "flash_f16_128", "flash_bf16_128"], 0, 4),
            _ => (["flash_f32_256", "flash_f16_256", "flash_bf16_256"], 1, 2),
        };
        let tiles = step.layout.tiles(which);
        let (count, tiles) = (tiles.len() / 2, step.at(tiles));
        if count == 0 {
            return Ok(());
        }
        let [keys, values] = &cache.layers[layer];
        let args = list![
            y.address(),
            q.address(),
            keys.address(),
            values.address(),
            tiles,
            step.at(step.layout.places()),
            step.at(step.layout.sequences()),
            step.at(step.layout.tables()),
            step.layout.table_len,
            a.heads,
            a.kv_heads,
            a.head_dim,
            width(a),
            BLOCK,
            a.scale,
            a.softcap.unwrap_or(0.0),
            a.window.unwrap_or(0),
        ];
        let name = cache.stored.of(names);
        let threads = waves * self.driver.target().wave;
        self.kernels.run(Module::Flash, name, [count, a.heads, 1], threads, args)
    }

    /// Attention of single rows.
    #[expect(
        clippy::too_many_arguments,
        reason = "those of `attend`, what to write, and which rows"
    )]
    fn attend_rows(
        &self,
        q: &Tensor<D>,
        y: &Tensor<D>,
        cache: &Cache<D>,
        layer: usize,
        a: &Attention,
        step: &Started<D>,
        rows: Range<usize>,
    ) -> Result<()> {
        let splits = splits(step.context, a.window);
        let of_row = of_row(a, splits);
        let at_once = PARTIAL.checked_div(of_row).map_or(rows.len(), |n| n.min(rows.len())).max(1);
        let partial = (of_row > 0).then(|| self.activations.lend(of_row * at_once)).transpose()?;
        let counters = self.count(q.rows * a.heads)?;
        let [keys, values] = &cache.layers[layer];
        let chunks = (a.heads / a.kv_heads).div_ceil(GROUP);
        let name = cache.stored.of(["attend_f32", "attend_f16", "attend_bf16"]);
        for row0 in rows.clone().step_by(at_once) {
            let grid = [at_once.min(rows.end - row0), a.kv_heads * chunks, splits];
            let args = list![
                y.address(),
                partial.as_ref().map_or(0, |p| p.address()),
                counters,
                q.address(),
                keys.address(),
                values.address(),
                step.at(step.layout.places()),
                step.at(step.layout.sequences()),
                step.at(step.layout.tables()),
                step.layout.table_len,
                row0,
                splits,
                a.heads,
                a.kv_heads,
                a.head_dim,
                width(a),
                BLOCK,
                a.scale,
                a.softcap.unwrap_or(0.0),
                a.window.unwrap_or(0),
            ];
            self.kernels.run(Module::Attend, name, grid, 128, args)?;
        }
        Ok(())
    }
}

/// Bytes of a token's partial results; none of a single split.
fn of_row(a: &Attention, splits: usize) -> usize {
    if splits > 1 { a.heads * splits * (width(a) + 2) * 4 } else { 0 }
}

/// How many splits the tokens of a sequence of up to `context` see something of, at most: a window lies across one border
/// more than its own length.
fn splits(context: usize, window: Option<usize>) -> usize {
    let all = context.div_ceil(SPLIT);
    window.map_or(all, |w| all.min((w + SPLIT - 2) / SPLIT + 1))
}
