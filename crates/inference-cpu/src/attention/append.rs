//! Queries, keys and values as they come: norms and rotates heads, and writes keys and values into the cache.

use super::{BLOCK, Cache, Store};
use crate::{
    elementwise::{norm, rotate},
    pool::{Disjoint, Pool},
    simd::{Element, Kernel, Level, Simd},
};
use inference_engine::{
    arch::Attention,
    step::{Rotation, Span, Step},
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

/// The place of a row's token in its sequence.
fn position(span: &Span, row: usize) -> usize {
    span.context - span.rows.len() + (row - span.rows.start)
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
        match &mut cache.0[layer] {
            Store::F32(k, v) => self.run_on(level, pool, k, v, q),
            Store::F16(k, v) => self.run_on(level, pool, k, v, q),
            Store::Bf16(k, v) => self.run_on(level, pool, k, v, q),
        }
    }

    fn run_on<E: Element>(
        &self,
        level: Level,
        pool: &Pool,
        keys: &mut [E],
        values: &mut [E],
        q: &mut [f32],
    ) {
        let (q, keys, values) = (Disjoint::new(q), Disjoint::new(keys), Disjoint::new(values));
        let rows = self.step.tokens.len();
        let cols = self.qkv.len() / rows.max(1);
        let grain = (GRAIN * self.pieces.len()).div_ceil((rows * cols).max(1));
        pool.ranges(self.pieces.len(), grain, |pieces| {
            for piece in &self.pieces[pieces] {
                level.run(Ready { call: self, piece, q, keys, values });
            }
        });
    }
}

/// One piece.
struct Ready<'a, E> {
    call: &'a Append<'a>,
    piece: &'a Piece,
    q: Disjoint<'a, f32>,
    keys: Disjoint<'a, E>,
    values: Disjoint<'a, E>,
}

impl<E: Element> Kernel for Ready<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a = self.call.attention;
        let (nq, nkv, d) = (a.q_cols(), a.kv_cols(), a.head_dim);
        let span = &self.call.step.spans[self.piece.span];
        let block = span.blocks[position(span, self.piece.rows.start) / BLOCK] as usize;
        let block = block * nkv * BLOCK..(block + 1) * nkv * BLOCK;
        // SAFETY: the pieces are of different rows and of different blocks.
        let (keys, values) = unsafe { (self.keys.slice(block.clone()), self.values.slice(block)) };
        let mut key = vec![0.0; d];
        for row in self.piece.rows.clone() {
            let (from_q, rest) = self.call.qkv[row * (nq + 2 * nkv)..].split_at(nq);
            let (from_k, from_v) = rest[..2 * nkv].split_at(nkv);
            // SAFETY: as above.
            let q = unsafe { self.q.slice(row * nq..(row + 1) * nq) };
            for (to, from) in q.chunks_exact_mut(d).zip(from_q.chunks_exact(d)) {
                self.call.ready(row, self.call.norms[0], from, to);
            }
            let slot = position(span, row) % BLOCK;
            for (h, (k, v)) in from_k.chunks_exact(d).zip(from_v.chunks_exact(d)).enumerate() {
                self.call.ready(row, self.call.norms[1], k, &mut key);
                let at = h * d * BLOCK;
                for (to, x) in keys[at + slot..].iter_mut().step_by(BLOCK).zip(&key) {
                    *to = E::from_f32(*x);
                }
                for (to, x) in values[at + slot * d..][..d].iter_mut().zip(v) {
                    *to = E::from_f32(*x);
                }
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
