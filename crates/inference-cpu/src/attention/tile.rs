//! Some queries against all of their keys, a chunk at a time.

use super::{
    BLOCK, CHUNK, Call,
    block::{score_block, sum_block},
};
use crate::{
    math,
    pool::Disjoint,
    simd::{Element, Kernel, Simd},
};
use inference_engine::step::Span;
use std::ops::Range;

/// Some rows of one span, for the query heads that share one key head.
pub(super) struct Tile<'a, E> {
    pub(super) call: &'a Call<'a>,
    pub(super) span: &'a Span,
    pub(super) rows: Range<usize>,
    pub(super) head: usize,
    pub(super) keys: &'a [E],
    pub(super) values: &'a [E],
    pub(super) out: Disjoint<'a, f32>,
}

/// The softmax of one query, so far.
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    sum: f32,
    /// The keys that the query sees.
    first: usize,
    end: usize,
}

impl<E: Element> Kernel for Tile<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a = self.call.attention;
        let (d, group) = (a.head_dim, a.heads / a.kv_heads);
        let queries = self.rows.len() * group;
        let mut q = vec![0.0f32; queries * d];
        let mut acc = vec![0.0f32; queries * d];
        let mut scores = vec![0.0f32; queries * CHUNK];
        let mut softmax = Vec::with_capacity(queries);
        let past = self.span.context - self.span.rows.len();
        for (i, row) in self.rows.clone().enumerate() {
            let position = past + row - self.span.rows.start;
            let first = a.window.map_or(0, |w| (position + 1).saturating_sub(w));
            let state = Softmax { max: f32::NEG_INFINITY, sum: 0.0, first, end: position + 1 };
            softmax.extend(std::iter::repeat_n(state, group));
            let from = &self.call.q[row * a.q_cols() + self.head * group * d..][..group * d];
            for (to, x) in q[i * group * d..].iter_mut().zip(from) {
                *to = x * a.scale;
            }
        }
        let begin = softmax[0].first / CHUNK * CHUNK;
        let end = softmax[queries - 1].end;
        for start in (begin..end).step_by(CHUNK) {
            let seen = start.max(softmax[0].first)..(start + CHUNK).min(end);
            // SAFETY: the machine has the features of `S`; the slices have the lengths that are asked for.
            unsafe { self.score::<S>(&q, &seen, start, &mut scores) };
            for (i, state) in softmax.iter_mut().enumerate() {
                let scores = &mut scores[i * CHUNK..][..CHUNK];
                let rescale = state.update(scores, start, a.softcap);
                if rescale != 1.0 {
                    acc[i * d..][..d].iter_mut().for_each(|x| *x *= rescale);
                }
            }
            // SAFETY: as above.
            unsafe { self.sum_values::<S>(&scores, &seen, start, &mut acc) };
        }
        for (i, state) in softmax.iter().enumerate() {
            let (row, h) = (self.rows.start + i / group, self.head * group + i % group);
            let at = row * a.q_cols() + h * d;
            // SAFETY: every row and head is in one tile.
            let out = unsafe { self.out.slice(at..at + d) };
            for (o, x) in out.iter_mut().zip(&acc[i * d..]) {
                *o = x / state.sum;
            }
        }
    }
}

impl Softmax {
    /// Turns a chunk's scores, of the keys from `start` on, into weights relative to the new maximum; those that the
    /// query does not see become 0. Gives the factor that brings what was summed before to the same maximum.
    #[inline(always)]
    fn update(&mut self, scores: &mut [f32], start: usize, softcap: Option<f32>) -> f32 {
        let first = self.first.max(start).min(start + CHUNK) - start;
        let end = self.end.max(start).min(start + CHUNK) - start;
        if first >= end {
            scores.fill(0.0);
            return 1.0;
        }
        scores[..first].fill(f32::NEG_INFINITY);
        scores[end..].fill(f32::NEG_INFINITY);
        if let Some(cap) = softcap {
            scores[first..end].iter_mut().for_each(|s| *s = cap * math::tanh(*s / cap));
        }
        // Sixteen maxima and sums beside each other, which the compiler makes vectors of.
        let mut max = [f32::NEG_INFINITY; 16];
        for part in scores.chunks_exact(16) {
            for (m, s) in max.iter_mut().zip(part) {
                *m = if *s > *m { *s } else { *m };
            }
        }
        let max = max.into_iter().fold(self.max, f32::max);
        let mut sum = [0.0f32; 16];
        for part in scores.chunks_exact_mut(16) {
            for (total, s) in sum.iter_mut().zip(part) {
                *s = math::exp(*s - max);
                *total += *s;
            }
        }
        let rescale = math::exp(self.max - max);
        self.max = max;
        self.sum = self.sum * rescale + sum.into_iter().sum::<f32>();
        rescale
    }
}

impl<E: Element> Tile<'_, E> {
    /// Where the block that holds `position` begins in keys and values, for this head.
    #[inline(always)]
    fn block(&self, position: usize) -> usize {
        let a = self.call.attention;
        let block = self.span.blocks[position / BLOCK] as usize;
        (block * a.kv_heads + self.head) * a.head_dim * BLOCK
    }

    /// `scores[i, t] = q[i]·key[start + t]`, for the blocks that hold keys of `seen`.
    ///
    /// # Safety
    /// The machine has the features of `S`; `q` is `[queries, head_dim]`, `scores` `[queries, CHUNK]`.
    #[inline(always)]
    unsafe fn score<S: Simd>(
        &self,
        q: &[f32],
        seen: &Range<usize>,
        start: usize,
        scores: &mut [f32],
    ) {
        let d = self.call.attention.head_dim;
        let queries = q.len() / d;
        for block in (seen.start / BLOCK * BLOCK..seen.end).step_by(BLOCK) {
            let keys = &self.keys[self.block(block)..][..d * BLOCK];
            let mut i = 0;
            while i < queries {
                let q = &q[i * d..];
                let out = &mut scores[i * CHUNK + block - start..];
                // SAFETY: as the caller's; there are as many queries left as the width says.
                unsafe {
                    if queries - i >= 4 {
                        score_block::<S, E, 4>(q, keys, d, out);
                        i += 4;
                    } else {
                        score_block::<S, E, 1>(q, keys, d, out);
                        i += 1;
                    }
                }
            }
        }
    }

    /// `acc[i] += Σ scores[i, t] · value[start + t]` over the keys of `seen`.
    ///
    /// # Safety
    /// The machine has the features of `S`; `scores` is `[queries, CHUNK]`, `acc` `[queries, head_dim]`.
    #[inline(always)]
    unsafe fn sum_values<S: Simd>(
        &self,
        scores: &[f32],
        seen: &Range<usize>,
        start: usize,
        acc: &mut [f32],
    ) {
        let d = self.call.attention.head_dim;
        let queries = acc.len() / d;
        for block in (seen.start / BLOCK * BLOCK..seen.end).step_by(BLOCK) {
            let values = &self.values[self.block(block)..][..d * BLOCK];
            let slots = seen.start.max(block) - block..seen.end.min(block + BLOCK) - block;
            let mut i = 0;
            while i < queries {
                let scores = &scores[i * CHUNK + block - start..];
                let acc = &mut acc[i * d..];
                // SAFETY: as the caller's; there are as many queries left as the width says.
                unsafe {
                    if queries - i >= 4 && S::WIDE {
                        sum_block::<S, E, 4>(scores, values, slots.clone(), d, acc);
                        i += 4;
                    } else if queries - i >= 2 {
                        sum_block::<S, E, 2>(scores, values, slots.clone(), d, acc);
                        i += 2;
                    } else {
                        sum_block::<S, E, 1>(scores, values, slots.clone(), d, acc);
                        i += 1;
                    }
                }
            }
        }
    }
}
