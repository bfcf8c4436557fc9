//! Queries, keys and values as they come: norms and rotates heads, and writes keys and values into the cache.

use super::{
    BLOCK, Cache,
    cache::{Kept, Layer, width},
    plan::position,
};
use crate::{
    elementwise::{norm, rotate},
    pool::{Disjoint, Pool},
    simd::{Kernel, Level, Simd},
    tensor::with_scratch,
};
use half::{bf16, f16};
use inference_core::CacheDtype;
use inference_engine::{
    arch::Attention,
    step::{Rotation, Step},
};
use std::ops::Range;

/// Rows of one span whose keys go into the same block.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// Index of the span.
    span: usize,
    /// Rows of the step.
    rows: Range<usize>,
}

/// The pieces of a step; no two write to the same block.
pub(crate) fn pieces(step: &Step) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (span, s) in step.spans.iter().enumerate() {
        let mut rows = s.rows.start..s.rows.start;
        while rows.end < s.rows.end {
            let left = BLOCK - position(s, rows.end) % BLOCK;
            rows = rows.end..(rows.end + left).min(s.rows.end);
            pieces.push(Piece { span, rows: rows.clone() });
        }
    }
    pieces
}

/// One call.
pub(crate) struct Append<'a> {
    /// `[rows, q_cols + 2 kv_cols]`
    pub(crate) qkv: &'a [f32],
    pub(crate) attention: &'a Attention,
    /// Weights of the norms of query and key heads, `[head_dim]`.
    pub(crate) norms: [Option<&'a [f32]>; 2],
    pub(crate) eps: f32,
    pub(crate) rotation: Option<&'a Rotation>,
    pub(crate) step: &'a Step,
    pub(crate) pieces: &'a [Piece],
}

/// Numbers that a thread readies in some microseconds.
const GRAIN: usize = 16 << 10;

impl Append<'_> {
    /// Writes keys and values into the cache of `layer`, and the queries into `q`, `[rows, q_cols]`.
    pub(crate) fn run(
        &self,
        level: Level,
        pool: &Pool,
        cache: &mut Cache,
        layer: usize,
        q: &mut [f32],
    ) {
        match cache.dtype() {
            CacheDtype::F32 => self.run_on::<f32>(level, pool, cache, layer, q),
            CacheDtype::F16 => self.run_on::<f16>(level, pool, cache, layer, q),
            CacheDtype::Int8 => self.run_on::<i8>(level, pool, cache, layer, q),
            _ => self.run_on::<bf16>(level, pool, cache, layer, q),
        }
    }

    fn run_on<E: Kept>(
        &self,
        level: Level,
        pool: &Pool,
        cache: &mut Cache,
        layer: usize,
        q: &mut [f32],
    ) {
        let (q, layer) = (Disjoint::new(q), cache.layer_mut::<E>(layer, self.attention));
        let rows = self.step.tokens.len();
        let cols = self.qkv.len() / rows.max(1);
        let grain = (GRAIN * self.pieces.len()).div_ceil((rows * cols).max(1));
        let key = 2 * width(self.attention);
        pool.ranges(self.pieces.len(), grain, |pieces| {
            with_scratch(key, |key| {
                for piece in &self.pieces[pieces] {
                    level.run(Ready { call: self, piece, q, layer, key });
                }
            });
        });
    }
}

/// One piece.
struct Ready<'a, E> {
    call: &'a Append<'a>,
    piece: &'a Piece,
    q: Disjoint<'a, f32>,
    layer: Layer<Disjoint<'a, E>>,
    /// `[2, width]`
    key: &'a mut [f32],
}

impl<E: Kept> Kernel for Ready<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a = self.call.attention;
        let (nq, nkv, d, width) = (a.q_cols(), a.kv_cols(), a.head_dim, width(a));
        let span = &self.call.step.spans[self.piece.span];
        let slot = position(span, self.piece.rows.start) % BLOCK;
        let block = span.blocks[position(span, self.piece.rows.start) / BLOCK];
        // SAFETY: the pieces are of different blocks.
        let (keys, values) = unsafe { self.layer.block(block) };
        if slot == 0 && self.piece.rows.len() < BLOCK {
            // What a block held before is multiplied by 0, which only numbers survive.
            keys.fill(E::zeroed());
            values.fill(E::zeroed());
        }
        let (key, room) = self.key.split_at_mut(width);
        let key = &mut key[..d];
        let piece = keys.len() / a.kv_heads;
        let rows = || self.piece.rows.clone().zip(slot..);
        let from =
            |row: usize, columns: Range<usize>| &self.call.qkv[row * (nq + 2 * nkv)..][columns];
        for (row, _) in rows() {
            // SAFETY: the pieces are of different rows.
            let q = unsafe { self.q.slice(row * nq..(row + 1) * nq) };
            for (to, from) in q.chunks_exact_mut(d).zip(from(row, 0..nq).chunks_exact(d)) {
                self.call.ready(row, self.call.norms[0], from, to);
            }
        }
        // Head by head: what the rows write to lies in the same lines of the cache.
        for (head, keys) in keys.chunks_exact_mut(piece).enumerate() {
            for (row, slot) in rows() {
                let k = from(row, nq + head * d..nq + (head + 1) * d);
                self.call.ready(row, self.call.norms[1], k, key);
                E::write_key(keys, width, slot, key, room);
            }
        }
        for (head, values) in values.chunks_exact_mut(piece).enumerate() {
            for (row, slot) in rows() {
                let v = from(row, nq + nkv + head * d..nq + nkv + (head + 1) * d);
                E::write_values(values, width, slot, v, room);
            }
        }
    }
}

impl Append<'_> {
    /// Norms and rotates one head of a row.
    #[inline(always)]
    fn ready(&self, row: usize, weight: Option<&[f32]>, from: &[f32], to: &mut [f32]) {
        match weight {
            Some(weight) => norm(from, weight, self.eps, to),
            None => to.copy_from_slice(from),
        }
        if let Some(Rotation { pairs, cos, sin }) = self.rotation {
            let at = row * pairs..(row + 1) * pairs;
            rotate(to, &cos[at.clone()], &sin[at]);
        }
    }
}
