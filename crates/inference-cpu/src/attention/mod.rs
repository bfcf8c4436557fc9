//! Attention over a paged cache that is read once: keys by blocks of sixteen, transposed, so that a vector holds
//! sixteen scores; values as they are. The softmax runs along the keys in chunks (<https://arxiv.org/abs/1805.02867>),
//! whose borders are places in the sequence: what else is in the step changes no bit.

mod append;
mod block;
mod tile;

pub(crate) use append::{Append, Piece, pieces};

use crate::{
    pool::{Disjoint, Pool},
    simd::{Element, Level},
};
use bytemuck::allocation::try_zeroed_slice_box;
use half::{bf16, f16};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::Attention,
    step::{Span, Step},
};
use std::ops::Range;
use tile::Tile;

/// Tokens of a block: a multiple of every level's lanes.
pub(crate) const BLOCK: usize = 16;

/// Keys that pass between two looks at the maximum; a multiple of the block.
const CHUNK: usize = 64;

/// Queries that share the loads of a tile.
const TILE: usize = 16;

/// Keys and values of every layer.
pub struct Cache(Vec<Store>);

/// One layer's keys, `[blocks, kv_heads, head_dim, BLOCK]`, and values, `[blocks, kv_heads, BLOCK, head_dim]`.
enum Store {
    F32(Box<[f32]>, Box<[f32]>),
    F16(Box<[f16]>, Box<[f16]>),
    Bf16(Box<[bf16]>, Box<[bf16]>),
}

impl Cache {
    /// A cache of `blocks` blocks. Its memory is touched only as blocks are used.
    pub(crate) fn new(layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<Self> {
        /// Keys and values.
        type Pair<T> = (Box<[T]>, Box<[T]>);
        fn pair<T: bytemuck::Zeroable>(len: usize) -> Result<Pair<T>> {
            let full = |()| Error::OutOfMemory {
                what: "the cache of keys and values".to_owned(),
                needed: (2 * len * size_of::<T>()) as u64,
                available: 0,
                advice: "take a smaller context_len or fewer parallel_slots".to_owned(),
            };
            Ok((try_zeroed_slice_box(len).map_err(full)?, try_zeroed_slice_box(len).map_err(full)?))
        }
        let store = |a: &Attention| {
            let len = blocks * BLOCK * a.kv_cols();
            Ok(match dtype {
                CacheDtype::F32 => pair(len).map(|(k, v)| Store::F32(k, v))?,
                CacheDtype::F16 => pair(len).map(|(k, v)| Store::F16(k, v))?,
                CacheDtype::Bf16 => pair(len).map(|(k, v)| Store::Bf16(k, v))?,
                _ => return Err(Error::unsupported(format!("cache_dtype {dtype:?}"), "cpu")),
            })
        };
        Ok(Self(layers.iter().map(store).collect::<Result<_>>()?))
    }
}

/// One call of attention.
pub(crate) struct Call<'a> {
    /// `[rows, q_cols]`
    pub(crate) q: &'a [f32],
    pub(crate) attention: &'a Attention,
    pub(crate) step: &'a Step,
}

impl Call<'_> {
    /// Attends to what the cache of `layer` holds: `out` is `[rows, q_cols]`.
    pub(crate) fn run(
        &self,
        level: Level,
        pool: &Pool,
        cache: &Cache,
        layer: usize,
        out: &mut [f32],
    ) {
        match &cache.0[layer] {
            Store::F32(k, v) => self.run_on(level, pool, k, v, out),
            Store::F16(k, v) => self.run_on(level, pool, k, v, out),
            Store::Bf16(k, v) => self.run_on(level, pool, k, v, out),
        }
    }

    fn run_on<E: Element>(
        &self,
        level: Level,
        pool: &Pool,
        keys: &[E],
        values: &[E],
        out: &mut [f32],
    ) {
        let a = self.attention;
        let rows_of_tile = (TILE / (a.heads / a.kv_heads)).max(1);
        let tiles: Vec<(&Span, Range<usize>)> = self
            .step
            .spans
            .iter()
            .flat_map(|span| {
                let starts = span.rows.clone().step_by(rows_of_tile);
                starts.map(move |r| (span, r..(r + rows_of_tile).min(span.rows.end)))
            })
            .collect();
        let out = Disjoint::new(out);
        // The last tiles of a prompt see the most keys: they go first, so that the threads end together.
        pool.each(tiles.len() * a.kv_heads, |i| {
            let (span, rows) = &tiles[tiles.len() - 1 - i / a.kv_heads];
            let (rows, head) = (rows.clone(), i % a.kv_heads);
            level.run(Tile { call: self, span, rows, head, keys, values, out });
        });
    }
}
