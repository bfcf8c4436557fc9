//! Which parts of a step's attention there are, for the threads to take.

use super::{SPLIT, TILE};
use inference_engine::{
    arch::Attention,
    step::{Span, Step},
};
use std::{ops::Range, sync::atomic::AtomicUsize};

/// Some queries of a span: those of `rows` of some heads that share keys.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// Index of the span.
    pub(super) span: usize,
    /// Rows of the step.
    pub(super) rows: Range<usize>,
    /// Heads of queries: of one key head; or, where there are `parts`, all those of some key heads.
    pub(super) heads: Range<usize>,
    /// `None`: all the keys that the queries see, one split after the other.
    pub(super) part: Option<Part>,
}

/// One split of the keys. Whoever is the last of those that share the counter merges them all.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// Its place in the sequence, in splits.
    pub(super) split: usize,
    /// The splits that the queries see.
    pub(super) splits: Range<usize>,
    /// Where the results of all splits begin, `[splits, queries of all heads]`: a row of queries.
    pub(super) results: usize,
    /// Index of the counter of splits that are done.
    pub(super) done: usize,
}

/// The tasks of a call; kept from call to call.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) tasks: Vec<Task>,
    /// Splits that are done.
    pub(super) done: Vec<AtomicUsize>,
    /// Rows of results.
    pub(super) results: usize,
}

/// The place of a row's token in its sequence.
pub(super) fn position(span: &Span, row: usize) -> usize {
    span.context - span.rows.len() + (row - span.rows.start)
}

/// The positions that a row sees.
pub(super) fn seen(a: &Attention, span: &Span, row: usize) -> Range<usize> {
    let end = position(span, row) + 1;
    a.window.map_or(0, |w| end.saturating_sub(w))..end
}

/// Tasks for each thread, so that all end at about the same time.
const TASKS: usize = 4;

impl Plan {
    /// Plans a step for `threads` threads. What is computed, and in which order it is summed, depends neither on their
    /// number nor on what else is in the step; only who computes it does.
    pub(super) fn make(&mut self, a: &Attention, step: &Step, threads: usize) {
        self.tasks.clear();
        self.results = 0;
        let group = a.heads / a.kv_heads;
        let is_few = |span: &&Span| span.rows.len() * group <= TILE;
        let splits = |span: &Span| {
            seen(a, span, span.rows.start).start / SPLIT..span.context.div_ceil(SPLIT)
        };
        for (i, span) in step.spans.iter().enumerate().filter(|(_, s)| !is_few(s)) {
            self.many(a, i, span);
        }
        // A thread reads the same place of several heads, which lies together, if there is work enough.
        let few = step.spans.iter().enumerate().filter(|(_, s)| is_few(s));
        let all: usize = few.clone().map(|(_, span)| splits(span).len()).sum();
        let shares = (TASKS * threads).div_ceil(all.max(1)).clamp(1, a.kv_heads);
        let together = a.kv_heads.div_ceil(shares);
        let mut counters = 0;
        for (i, span) in few {
            let splits = splits(span);
            for head in (0..a.kv_heads).step_by(together) {
                let heads = head * group..(head + together).min(a.kv_heads) * group;
                for split in splits.clone() {
                    let part = Part {
                        split,
                        splits: splits.clone(),
                        results: self.results,
                        done: counters,
                    };
                    let (rows, heads) = (span.rows.clone(), heads.clone());
                    self.tasks.push(Task { span: i, rows, heads, part: Some(part) });
                }
                counters += 1;
            }
            self.results += splits.len() * span.rows.len() * a.heads;
        }
        self.done.clear();
        self.done.resize_with(counters, AtomicUsize::default);
    }

    /// A span of many queries, which share the loads of keys and values: one key head after the other, and of each the
    /// last rows first, which see the most keys; so the threads end together.
    fn many(&mut self, a: &Attention, span: usize, s: &Span) {
        let group = a.heads / a.kv_heads;
        let (rows, heads) = ((TILE / group).max(1), group.min(TILE));
        for kv_head in 0..a.kv_heads {
            for first in s.rows.clone().step_by(rows).rev() {
                let rows = first..(first + rows).min(s.rows.end);
                let all = kv_head * group..(kv_head + 1) * group;
                for head in all.clone().step_by(heads) {
                    let heads = head..(head + heads).min(all.end);
                    self.tasks.push(Task { span, rows: rows.clone(), heads, part: None });
                }
            }
        }
    }
}
