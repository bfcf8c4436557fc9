//! One task: some queries against the keys that they see, a split at a time.

use super::{
    BLOCK, Call, ROW, SPLIT,
    cache::{Kept, Layer, Stored, width},
    plan::{Part, Task, seen},
    products::{Lanes, Products},
    softmax::Softmax,
};
use crate::{
    pool::Disjoint,
    simd::{Kernel, Simd},
};
use inference_engine::step::Span;
use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering::AcqRel},
};

/// A task, and where its results go.
pub(super) struct Run<'a, E> {
    pub(super) call: &'a Call<'a>,
    pub(super) task: &'a Task,
    pub(super) layer: Layer<&'a [E]>,
    /// Whether the level has AMX, and this type of cache products with it.
    pub(super) tiles: bool,
    /// [`scratch_len`] numbers, from the begin of a cache line on.
    pub(super) scratch: &'a mut [f32],
    /// `[rows, q_cols]`
    pub(super) out: Disjoint<'a, f32>,
    /// Of parts: a row of [`result_len`] numbers for each query.
    pub(super) results: Disjoint<'a, f32>,
    /// Splits that are done, by counter.
    pub(super) done: &'a [AtomicUsize],
}

/// Numbers of a query's result: its values, and its softmax.
pub(super) fn result_len(width: usize) -> usize {
    width + 16
}

/// Numbers of scratch for a task of `queries` queries, of which `at_once` share a key head: queries, weights and
/// scores, the results of two splits; and a block of a head, where it must be widened.
pub(super) fn scratch_len<E: Kept>(width: usize, queries: usize) -> usize {
    let block = if E::SCALES > 0 { width * BLOCK } else { 0 };
    queries * (width + 2 * ROW + 2 * result_len(width)) + block
}

/// What a task works with.
struct Bench<'a, X, N> {
    /// `[queries, width]`
    q: *mut X,
    /// `[queries, ROW]`
    weights: *mut X,
    /// `[queries, ROW]`
    scores: &'a mut [f32],
    /// `[queries, result_len]`
    part: &'a mut [f32],
    /// `[queries, result_len]`
    total: &'a mut [f32],
    /// A head's keys or values of a block, where they must be widened.
    room: *mut N,
}

impl<E: Kept> Kernel for Run<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the machine has the features of `S`, and AMX where `tiles` says so.
        unsafe {
            if self.tiles {
                self.attend::<S, <E::Number as Stored>::Tiles<S>>();
            } else if S::PAIRS {
                self.attend::<S, <E::Number as Stored>::Pairs<S>>();
            } else {
                self.attend::<S, Lanes>();
            }
        }
    }
}

impl<'a, E: Kept> Run<'a, E> {
    #[inline(always)]
    fn span(&self) -> &'a Span {
        &self.call.step.spans[self.task.span]
    }

    /// Heads of queries that share a key head, of those of this task.
    #[inline(always)]
    fn sharing(&self) -> usize {
        self.task.heads.len().min(self.call.group())
    }

    /// # Safety
    /// The machine has the features of `S`, and what `P` needs.
    #[inline(always)]
    unsafe fn attend<S: Simd, P: Products<S, E::Number>>(mut self) {
        let (a, task) = (self.call.attention, self.task);
        let width = width(a);
        let (at_once, heads) = (task.rows.len() * self.sharing(), task.heads.len());
        let queries = task.rows.len() * heads;
        let scratch = std::mem::take(&mut self.scratch);
        let (q, scratch) = scratch.split_at_mut(queries * width);
        let (weights, scratch) = scratch.split_at_mut(queries * ROW);
        let (scores, scratch) = scratch.split_at_mut(queries * ROW);
        let (part, scratch) = scratch.split_at_mut(queries * result_len(width));
        let (total, room) = scratch.split_at_mut(queries * result_len(width));
        let (q, weights) = (q.as_mut_ptr().cast(), weights.as_mut_ptr().cast());
        let room = room.as_mut_ptr().cast();
        let bench: Bench<'_, P::X, E::Number> = Bench { q, weights, scores, part, total, room };
        // SAFETY: as the caller's; neither an `X` nor a number is larger than an `f32`.
        unsafe {
            let products = P::new(at_once);
            self.load_queries::<S, P>(&bench);
            match &task.part {
                None => self.whole::<S, P>(&products, bench),
                Some(part) => self.part::<S, P>(&products, bench, part),
            }
        }
    }

    /// Queries, scaled: those that share a key head lie together, row by row.
    ///
    /// # Safety
    /// As [`attend`](Self::attend).
    #[inline(always)]
    unsafe fn load_queries<S: Simd, P: Products<S, E::Number>>(
        &self,
        bench: &Bench<'_, P::X, E::Number>,
    ) {
        let (a, task) = (self.call.attention, self.task);
        let (d, width, sharing) = (a.head_dim, width(a), self.sharing());
        let mut to = bench.q;
        for first in task.heads.clone().step_by(sharing) {
            for row in task.rows.clone() {
                for head in first..first + sharing {
                    let q = &self.call.q[row * a.q_cols() + head * d..][..d];
                    let (parts, rest) = q.as_chunks::<16>();
                    // SAFETY: the width is the head's columns, up to a multiple of 32.
                    unsafe {
                        let mut c = 0;
                        for part in parts {
                            let mut part = *part;
                            for x in &mut part {
                                *x *= a.scale;
                            }
                            store::<S, E::Number, P>(to.add(c), part);
                            c += 16;
                        }
                        let mut last = [0.0; 16];
                        for (to, x) in last.iter_mut().zip(rest) {
                            *to = x * a.scale;
                        }
                        while c < width {
                            store::<S, E::Number, P>(to.add(c), last);
                            last = [0.0; 16];
                            c += 16;
                        }
                        to = to.add(width);
                    }
                }
            }
        }
    }

    /// The positions from which on each query sees, and up to which; and those of all together, inside of a split.
    #[inline(always)]
    fn seen_of(&self, split: usize) -> Range<usize> {
        let (a, span, rows) = (self.call.attention, self.span(), &self.task.rows);
        let (first, last) = (seen(a, span, rows.start), seen(a, span, rows.end - 1));
        first.start.max(split * SPLIT)..last.end.min((split + 1) * SPLIT)
    }

    /// Blocks of the split that hold keys which are seen, counted from the split's begin.
    #[inline(always)]
    fn blocks_of(&self, split: usize) -> Range<usize> {
        let seen = self.seen_of(split);
        let begin = split * SPLIT;
        (seen.start - begin) / BLOCK..(seen.end - begin).div_ceil(BLOCK)
    }

    /// Weighs the scores of a split's `blocks`, query by query of one key head; gives each query's softmax to `keep`.
    ///
    /// # Safety
    /// As [`attend`](Self::attend).
    #[inline(always)]
    unsafe fn weigh<S: Simd, P: Products<S, E::Number>>(
        &self,
        split: usize,
        blocks: &Range<usize>,
        scores: &mut [f32],
        weights: *mut P::X,
        results: &mut [f32],
    ) {
        let (a, span, sharing) = (self.call.attention, self.span(), self.sharing());
        let width = width(a);
        let columns = blocks.start * BLOCK..blocks.end * BLOCK;
        let begin = split * SPLIT + columns.start;
        let rows = scores.chunks_exact_mut(ROW).zip(results.chunks_exact_mut(result_len(width)));
        for (i, (scores, result)) in rows.enumerate() {
            let seen = seen(a, span, self.task.rows.start + i / sharing);
            let scores = &mut scores[columns.clone()];
            let inside = |position: usize| position.saturating_sub(begin).min(scores.len());
            let seen = inside(seen.start)..inside(seen.end);
            // SAFETY: the weights have as many rows as the scores, and as long ones.
            let softmax = unsafe {
                let weights = weights.add(i * ROW + columns.start);
                Softmax::weigh::<S, E::Number, P>(scores, seen, a.softcap, weights)
            };
            result[width..width + 2].copy_from_slice(&softmax.to_pair());
        }
    }

    /// All splits, one after the other, of queries that share one key head.
    ///
    /// # Safety
    /// As [`attend`](Self::attend).
    #[inline(always)]
    unsafe fn whole<S: Simd, P: Products<S, E::Number>>(
        self,
        products: &P,
        bench: Bench<'_, P::X, E::Number>,
    ) {
        let (a, span, task) = (self.call.attention, self.span(), self.task);
        let (width, head) = (width(a), task.heads.start / self.call.group());
        let row_len = result_len(width);
        let Bench { q, weights, scores, part, total, room } = bench;
        total.chunks_exact_mut(row_len).for_each(|row| put(row, width, Softmax::NONE));
        let first = seen(a, span, task.rows.start).start / SPLIT;
        let end = seen(a, span, task.rows.end - 1).end;
        for split in first..end.div_ceil(SPLIT) {
            let blocks = self.blocks_of(split);
            let id = |i: usize| span.blocks[split * (SPLIT / BLOCK) + i];
            // SAFETY: as the caller's; the buffers have a row for each query.
            unsafe {
                for i in blocks.clone() {
                    let keys = E::keys::<S>(self.layer.keys(id(i), head), room);
                    let to = scores.as_mut_ptr().add(i * BLOCK);
                    products.scores(q, width, keys, std::ptr::null(), to);
                }
                self.weigh::<S, P>(split, &blocks, scores, weights, part);
                let to = part.as_mut_ptr();
                // There is room for one block alone, where blocks must be widened.
                let at_once = if E::SCALES > 0 { 1 } else { SPLIT / BLOCK };
                for first in blocks.clone().step_by(at_once) {
                    let some = first..(first + at_once).min(blocks.end);
                    let mut values = [std::ptr::null(); SPLIT / BLOCK];
                    for (to, i) in values.iter_mut().zip(some.clone()) {
                        *to = E::values::<S>(self.layer.values(id(i), head), room);
                    }
                    let (weights, fresh) = (weights.add(first * BLOCK), first == blocks.start);
                    let values = &values[..some.len()];
                    products.sums(weights, width, values, std::ptr::null(), fresh, to, row_len);
                }
            }
            for (total, part) in total.chunks_exact_mut(row_len).zip(part.chunks_exact(row_len)) {
                merge::<S>(total, part, width);
            }
        }
        for (i, row) in total.chunks_exact(row_len).enumerate() {
            let (r, h) = (i / self.sharing(), i % self.sharing());
            self.write(task.rows.start + r, task.heads.start + h, row);
        }
    }

    /// One split, of all heads: block by block, as they lie. The last to be done merges all splits.
    ///
    /// # Safety
    /// As [`attend`](Self::attend).
    #[inline(always)]
    unsafe fn part<S: Simd, P: Products<S, E::Number>>(
        self,
        products: &P,
        bench: Bench<'_, P::X, E::Number>,
        part: &Part,
    ) {
        let (a, span, task) = (self.call.attention, self.span(), self.task);
        let (width, group) = (width(a), self.call.group());
        let row_len = result_len(width);
        let at_once = task.rows.len() * group;
        let heads = task.heads.start / group..task.heads.end / group;
        let blocks = self.blocks_of(part.split);
        let Bench { q, weights, scores, total, room, .. } = bench;
        // Where a split's results of this task's heads are.
        let place = |split: usize| {
            let first = (split - part.splits.start) * a.kv_heads + heads.start;
            let first = part.results + first * at_once;
            first * row_len..(first + heads.len() * at_once) * row_len
        };
        // SAFETY: as the caller's; every task has results of its own, until all that share the counter are done.
        unsafe {
            let results = self.results.slice(place(part.split));
            let id = |i: usize| span.blocks[part.split * (SPLIT / BLOCK) + i];
            // The piece after (block, head), in the order in which they are read.
            let next = |i: usize, head: usize| match () {
                () if head + 1 < heads.end => Some((id(i), head + 1)),
                () if i + 1 < blocks.end => Some((id(i + 1), heads.start)),
                () => None,
            };
            for i in blocks.clone() {
                for (n, head) in heads.clone().enumerate() {
                    let ahead = match next(i, head) {
                        Some((block, head)) => self.layer.keys(block, head),
                        None => self.layer.values(id(blocks.start), heads.start),
                    };
                    let q = q.add(n * at_once * width);
                    let keys = E::keys::<S>(self.layer.keys(id(i), head), room);
                    let to = scores.as_mut_ptr().add(n * at_once * ROW + i * BLOCK);
                    products.scores(q, width, keys, self.ahead(ahead), to);
                }
            }
            for n in 0..heads.len() {
                let scores = &mut scores[n * at_once * ROW..][..at_once * ROW];
                let results = &mut results[n * at_once * row_len..][..at_once * row_len];
                let weights = weights.add(n * at_once * ROW);
                self.weigh::<S, P>(part.split, &blocks, scores, weights, results);
            }
            for i in blocks.clone() {
                for (n, head) in heads.clone().enumerate() {
                    let ahead = next(i, head).map_or(std::ptr::null(), |(block, head)| {
                        self.ahead(self.layer.values(block, head))
                    });
                    let values = [E::values::<S>(self.layer.values(id(i), head), room)];
                    let weights = weights.add(n * at_once * ROW + i * BLOCK);
                    let to = results.as_mut_ptr().add(n * at_once * row_len);
                    let fresh = i == blocks.start;
                    products.sums(weights, width, &values, ahead, fresh, to, row_len);
                }
            }
            if self.done[part.done].fetch_add(1, AcqRel) + 1 < part.splits.len() {
                return;
            }
            total.chunks_exact_mut(row_len).for_each(|row| put(row, width, Softmax::NONE));
            for split in part.splits.clone() {
                let results = self.results.slice(place(split));
                for (total, part) in
                    total.chunks_exact_mut(row_len).zip(results.chunks_exact(row_len))
                {
                    merge::<S>(total, part, width);
                }
            }
        }
        for (i, row) in total.chunks_exact(row_len).enumerate() {
            let (head, i) = (i / at_once, i % at_once);
            let head = task.heads.start + head * group + i % group;
            self.write(task.rows.start + i / group, head, row);
        }
    }

    /// What products may bring closer; nothing where they read what was widened.
    #[inline(always)]
    fn ahead(&self, piece: &[E]) -> *const E::Number {
        if E::SCALES > 0 { std::ptr::null() } else { piece.as_ptr().cast() }
    }

    /// Divides a result, and writes it to its place.
    #[inline(always)]
    fn write(&self, row: usize, head: usize, result: &[f32]) {
        let a = self.call.attention;
        let at = row * a.q_cols() + head * a.head_dim;
        // SAFETY: every row and head is in one task, or in tasks of which one alone writes.
        let out = unsafe { self.out.slice(at..at + a.head_dim) };
        softmax_of(result, width(a)).finish(result, out);
    }
}

/// # Safety
/// The machine has the features of `S`; there is room for 16 numbers.
#[inline(always)]
unsafe fn store<S: Simd, E, P: Products<S, E>>(to: *mut P::X, x: [f32; 16]) {
    for lane in (0..16).step_by(S::LANES) {
        // SAFETY: as the caller's.
        unsafe { P::store(to.add(lane), S::load(x.as_ptr().add(lane))) };
    }
}

#[inline(always)]
fn softmax_of(result: &[f32], width: usize) -> Softmax {
    Softmax::from_pair([result[width], result[width + 1]])
}

#[inline(always)]
fn put(result: &mut [f32], width: usize, softmax: Softmax) {
    result[width..width + 2].copy_from_slice(&softmax.to_pair());
}

/// Merges `part` into `total`.
#[inline(always)]
fn merge<S: Simd>(total: &mut [f32], part: &[f32], width: usize) {
    let mut softmax = softmax_of(total, width);
    softmax.merge::<S>(&mut total[..width], softmax_of(part, width), &part[..width]);
    put(total, width, softmax);
}
