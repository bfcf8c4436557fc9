//! Attention over a paged cache that is read once: keys by blocks of sixteen, transposed, so that a vector holds
//! sixteen scores; values as they are. The softmax runs along the keys in chunks (<https://arxiv.org/abs/1805.02867>),
//! whose borders are places in the sequence: what else is in the step changes no bit.

use crate::{
    math,
    pool::{Disjoint, Pool},
    simd::{Element, Kernel, Level, Simd},
};
use bytemuck::allocation::try_zeroed_slice_box;
use half::{bf16, f16};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::Attention,
    step::{Span, Step},
};
use std::ops::Range;

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
        fn pair<T: bytemuck::Zeroable>(len: usize) -> Result<(Box<[T]>, Box<[T]>)> {
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
    /// `[rows, kv_cols]`
    pub(crate) k: &'a [f32],
    /// `[rows, kv_cols]`
    pub(crate) v: &'a [f32],
    pub(crate) attention: &'a Attention,
    pub(crate) step: &'a Step,
}

impl Call<'_> {
    /// Writes keys and values into the cache of `layer`, then attends: `out` is `[rows, q_cols]`.
    pub(crate) fn run(
        &self,
        level: Level,
        pool: &Pool,
        cache: &mut Cache,
        layer: usize,
        out: &mut [f32],
    ) {
        match &mut cache.0[layer] {
            Store::F32(k, v) => self.run_on(level, pool, k, v, out),
            Store::F16(k, v) => self.run_on(level, pool, k, v, out),
            Store::Bf16(k, v) => self.run_on(level, pool, k, v, out),
        }
    }

    fn run_on<E: Element>(
        &self,
        level: Level,
        pool: &Pool,
        keys: &mut [E],
        values: &mut [E],
        out: &mut [f32],
    ) {
        for span in &self.step.spans {
            self.append(span, keys, values);
        }
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
        let (keys, values) = (&*keys, &*values);
        // The last tiles of a prompt see the most keys: they go first, so that the threads end together.
        pool.each(tiles.len() * a.kv_heads, |i| {
            let (span, rows) = &tiles[tiles.len() - 1 - i / a.kv_heads];
            let (rows, head) = (rows.clone(), i % a.kv_heads);
            level.run(Tile { call: self, span, rows, head, keys, values, out });
        });
    }

    /// Writes a span's keys and values to its blocks.
    fn append<E: Element>(&self, span: &Span, keys: &mut [E], values: &mut [E]) {
        let (cols, d) = (self.attention.kv_cols(), self.attention.head_dim);
        let first = span.context - span.rows.len();
        for (row, position) in span.rows.clone().zip(first..) {
            let (k, v) = (&self.k[row * cols..][..cols], &self.v[row * cols..][..cols]);
            let block = span.blocks[position / BLOCK] as usize * cols * BLOCK;
            let slot = position % BLOCK;
            for (h, (k, v)) in k.chunks_exact(d).zip(v.chunks_exact(d)).enumerate() {
                let at = block + h * d * BLOCK;
                for (key, x) in keys[at + slot..].iter_mut().step_by(BLOCK).zip(k) {
                    *key = E::from_f32(*x);
                }
                for (value, x) in values[at + slot * d..][..d].iter_mut().zip(v) {
                    *value = E::from_f32(*x);
                }
            }
        }
    }
}

/// Some rows of one span, for the query heads that share one key head.
struct Tile<'a, E> {
    call: &'a Call<'a>,
    span: &'a Span,
    rows: Range<usize>,
    head: usize,
    keys: &'a [E],
    values: &'a [E],
    out: Disjoint<'a, f32>,
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

/// The scores of `Q` queries with a block of keys, `[d, BLOCK]`; `out` is `[Q, CHUNK]`, of which a block is written.
///
/// # Safety
/// The machine has the features of `S`; `q` has `Q · d` numbers, `keys` `d · BLOCK`.
#[inline(always)]
unsafe fn score_block<S: Simd, E: Element, const Q: usize>(
    q: &[f32],
    keys: &[E],
    d: usize,
    out: &mut [f32],
) {
    debug_assert!(q.len() >= Q * d && keys.len() == d * BLOCK && out.len() >= (Q - 1) * CHUNK + BLOCK);
    for lane in (0..BLOCK).step_by(S::LANES) {
        // SAFETY: inside the slices, as asserted.
        unsafe {
            // Even and odd columns are summed apart, so that one product need not wait for the one before.
            let mut even = [S::splat(0.0); Q];
            let mut odd = [S::splat(0.0); Q];
            let mut c = 0;
            while c + 1 < d {
                let k0 = E::load::<S>(keys.as_ptr().add(c * BLOCK + lane));
                let k1 = E::load::<S>(keys.as_ptr().add((c + 1) * BLOCK + lane));
                for i in 0..Q {
                    even[i] = S::mul_add(S::splat(*q.as_ptr().add(i * d + c)), k0, even[i]);
                    odd[i] = S::mul_add(S::splat(*q.as_ptr().add(i * d + c + 1)), k1, odd[i]);
                }
                c += 2;
            }
            if c < d {
                let k0 = E::load::<S>(keys.as_ptr().add(c * BLOCK + lane));
                for i in 0..Q {
                    even[i] = S::mul_add(S::splat(*q.as_ptr().add(i * d + c)), k0, even[i]);
                }
            }
            for i in 0..Q {
                S::store(out.as_mut_ptr().add(i * CHUNK + lane), S::add(even[i], odd[i]));
            }
        }
    }
}

/// Adds a block's values, `[BLOCK, d]`, to `Q` accumulators, `[Q, d]`, weighted by `scores`, `[Q, CHUNK]`.
///
/// # Safety
/// The machine has the features of `S`; `acc` has `Q · d` numbers, `values` `BLOCK · d`, `slots` is inside a block.
#[inline(always)]
unsafe fn sum_block<S: Simd, E: Element, const Q: usize>(
    scores: &[f32],
    values: &[E],
    slots: Range<usize>,
    d: usize,
    acc: &mut [f32],
) {
    debug_assert!(acc.len() >= Q * d && values.len() == d * BLOCK && slots.end <= BLOCK);
    let mut c = 0;
    // SAFETY: inside the slices, as asserted.
    unsafe {
        while c + 4 * S::LANES <= d {
            sum_columns::<S, E, Q, 4>(scores, values, slots.clone(), d, c, acc);
            c += 4 * S::LANES;
        }
        while c + S::LANES <= d {
            sum_columns::<S, E, Q, 1>(scores, values, slots.clone(), d, c, acc);
            c += S::LANES;
        }
    }
    for c in c..d {
        for i in 0..Q {
            for t in slots.clone() {
                acc[i * d + c] += scores[i * CHUNK + t] * values[t * d + c].to_f32();
            }
        }
    }
}

/// `N` vectors of columns of [`sum_block`], from column `c` on.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn sum_columns<S: Simd, E: Element, const Q: usize, const N: usize>(
    scores: &[f32],
    values: &[E],
    slots: Range<usize>,
    d: usize,
    c: usize,
    acc: &mut [f32],
) {
    // SAFETY: as the caller's.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; Q];
        for i in 0..Q {
            for n in 0..N {
                sums[i][n] = S::load(acc.as_ptr().add(i * d + c + n * S::LANES));
            }
        }
        for t in slots {
            let mut vs = [S::splat(0.0); N];
            for n in 0..N {
                vs[n] = E::load::<S>(values.as_ptr().add(t * d + c + n * S::LANES));
            }
            for i in 0..Q {
                let weight = S::splat(*scores.as_ptr().add(i * CHUNK + t));
                for n in 0..N {
                    sums[i][n] = S::mul_add(weight, vs[n], sums[i][n]);
                }
            }
        }
        for i in 0..Q {
            for n in 0..N {
                S::store(acc.as_mut_ptr().add(i * d + c + n * S::LANES), sums[i][n]);
            }
        }
    }
}
