//! Attention over a paged cache that is read once.
//!
//! The keys of a sequence are cut into splits, whose borders are places in the sequence. Of each split a query has a
//! softmax of its own, and values that it weighs; splits are merged in order. So no bit depends on who computes which
//! split, nor on what else is in the step: many queries of a prompt take all splits one after the other, few queries
//! with a long past are shared out among the threads.

mod append;
mod bytes;
mod cache;
mod pairs;
mod plan;
mod products;
mod softmax;
mod task;
mod tiles;

pub(crate) use append::{Append, Piece, pieces};
pub(crate) use cache::BLOCK;
pub(crate) use cache::Cache;

use crate::{
    pool::{Disjoint, Pool},
    simd::Level,
    tensor::with_scratch,
};
use cache::{Kept, Stored, width};
use half::{bf16, f16};
use inference_core::CacheDtype;
use inference_engine::{arch::Attention, step::Step};
use plan::Plan;
use task::{Run, result_len, scratch_len};

/// Keys whose weights are relative to the same maximum; a multiple of the block.
const SPLIT: usize = 256;

/// From one query's scores to the next one's: a split, and something that keeps rows of a tile from falling on the same
/// lines of a cache.
const ROW: usize = SPLIT + 32;

/// Queries that share the loads of keys and values.
const TILE: usize = 32;

/// Bytes of keys and values that a thread reads in some microseconds: less is not worth waking another.
const LITTLE: usize = 64 << 10;

/// What is kept from call to call.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    plan: Plan,
    results: Vec<f32>,
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
        scratch: &mut Scratch,
        cache: &Cache,
        layer: usize,
        out: &mut [f32],
    ) {
        match cache.dtype() {
            CacheDtype::F32 => self.run_on::<f32>(level, pool, scratch, cache, layer, out),
            CacheDtype::F16 => self.run_on::<f16>(level, pool, scratch, cache, layer, out),
            CacheDtype::Int8 => self.run_on::<i8>(level, pool, scratch, cache, layer, out),
            _ => self.run_on::<bf16>(level, pool, scratch, cache, layer, out),
        }
    }

    fn run_on<E: Kept>(
        &self,
        level: Level,
        pool: &Pool,
        scratch: &mut Scratch,
        cache: &Cache,
        layer: usize,
        out: &mut [f32],
    ) {
        let Scratch { plan, results } = scratch;
        let a = self.attention;
        let tokens: usize = self.step.spans.iter().map(|s| s.context).sum();
        let little = tokens * 2 * a.kv_cols() * size_of::<E>() <= LITTLE;
        plan.make(a, self.step, if little { 0 } else { pool.threads() });
        let width = width(a);
        results.resize(results.len().max(plan.results * result_len(width)), 0.0);
        let (results, out) = (Disjoint::new(results), Disjoint::new(out));
        let layer = cache.layer::<E>(layer, a);
        let tiles = level == Level::Avx512Amx && E::Number::PAIR == 2;
        let task = |i: usize| {
            let task = &plan.tasks[i];
            let len = scratch_len::<E>(width, task.rows.len() * task.heads.len());
            with_scratch(len, |scratch| {
                let done = &plan.done;
                level.run(Run { call: self, task, layer, tiles, scratch, out, results, done });
            });
        };
        if little {
            (0..plan.tasks.len()).for_each(task);
        } else {
            pool.each(plan.tasks.len(), task);
        }
    }

    /// Heads of queries that share a key head.
    fn group(&self) -> usize {
        self.attention.heads / self.attention.kv_heads
    }
}
