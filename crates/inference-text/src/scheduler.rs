//! Which sequences run in the next step. Pure: no clock, no channel, no device.

use crate::{blocks::BlockPool, step::Step};
use inference_core::Priority;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    ops::Range,
};

/// A sequence of tokens that is worked on; `T` is what the caller knows of it.
#[derive(Debug)]
pub struct Sequence<T> {
    /// Prompt, and what was generated.
    pub tokens: Vec<u32>,
    /// The length that its prompt's rotary embedding is computed for: see [`Step::push`].
    rope_len: usize,
    /// Which logits are wanted.
    wanted: Wanted,
    /// Who goes first.
    priority: Priority,
    /// How many tokens are in the cache.
    cached: usize,
    /// Cache blocks that hold them, in order.
    blocks: Vec<u32>,
    /// Its place among those that run; see [`Span::slot`](crate::step::Span::slot).
    slot: usize,
    /// How often it had to give up its blocks and start over.
    preemptions: usize,
    /// How many of its tokens were in the cache when it was first admitted.
    reused: Option<usize>,
    /// The caller's part.
    pub task: T,
}

/// Which positions' logits a sequence wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The newest token's.
    Last,
    /// Those from this position on.
    From(usize),
}

impl<T> Sequence<T> {
    /// A sequence that starts with the prompt `tokens`, at least one.
    pub fn new(tokens: Vec<u32>, wanted: Wanted, task: T) -> Self {
        debug_assert!(!tokens.is_empty());
        Self {
            rope_len: tokens.len(),
            tokens,
            wanted,
            priority: Priority::default(),
            cached: 0,
            blocks: Vec::new(),
            slot: 0,
            preemptions: 0,
            reused: None,
            task,
        }
    }

    /// The same with another priority.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Tokens that are not in the cache yet.
    fn left(&self) -> usize {
        self.tokens.len() - self.cached
    }

    /// How many of its tokens were in the cache already when it was first admitted.
    pub fn reused(&self) -> usize {
        self.reused.unwrap_or_default()
    }

    /// How many of its tokens may come from the cache: those before the first wanted row.
    fn reusable(&self) -> usize {
        match self.wanted {
            Wanted::Last => self.tokens.len() - 1,
            Wanted::From(from) => from.min(self.tokens.len() - 1),
        }
    }

    /// How often it had to give up its place and start over.
    pub fn preemptions(&self) -> usize {
        self.preemptions
    }

    /// How many of the rows at these positions are wanted; they are the last ones.
    fn wanted_of(&self, positions: &Range<usize>) -> usize {
        let from = match self.wanted {
            Wanted::Last => self.tokens.len() - 1,
            Wanted::From(from) => from,
        };
        positions.end.saturating_sub(from.max(positions.start))
    }
}

/// What became of a sequence in a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advance {
    /// The wanted rows in the step's logits; empty in the middle of a prompt.
    pub rows: Range<usize>,
    /// How many of the sequence's wanted rows came before, in earlier steps.
    pub wanted_before: usize,
    /// All tokens are in the cache: it needs a new one, or is done.
    pub complete: bool,
}

/// Whether a sequence goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// It has a new token, or prompt left.
    Continue,
    /// It gives its blocks back.
    Done,
}

/// Finds what a cache already holds of a sequence that is about to run; by default nothing.
pub trait Reuse {
    /// Prepares place `slot` for a sequence of `tokens` of which at most `most` may be taken over from others that were
    /// or are in the cache. Gives how many, from the first on, the place now holds.
    fn reuse(&mut self, _slot: usize, _tokens: &[u32], _most: usize) -> usize {
        0
    }

    /// The sequence in place `slot` does not run any more; others may still take over what it has left there.
    fn release(&mut self, _slot: usize) {}

    /// Whether waiting for a running sequence's prompt can save computing it again.
    fn shares(&self) -> bool {
        false
    }
}

/// A cache in which no sequence finds anything.
#[derive(Debug, Clone, Copy)]
pub struct NoReuse;

impl Reuse for NoReuse {}

/// Tokens of a common beginning that are worth waiting for.
const WORTH_WAITING: usize = 16;

/// The sequences that wait and run.
#[derive(Debug)]
pub struct Scheduler<T> {
    /// The next first: by priority, then in the order of their coming.
    waiting: VecDeque<Sequence<T>>,
    /// By priority, then the oldest first. Only ever the last is preempted, so the first always gets on.
    running: Vec<Sequence<T>>,
    /// For each span of the current step, its index in `running`.
    scheduled: Vec<usize>,
    pool: BlockPool,
    slots: usize,
    /// Places that nobody has any more; the lowest are given out first.
    free_slots: BinaryHeap<Reverse<usize>>,
    /// Places that were ever given out.
    used_slots: usize,
    /// Places that were given back since the last step.
    left: Vec<usize>,
    /// A sequence that grows longer than this is computed anew, for its rotary embedding has changed.
    restart_above: Option<usize>,
}

impl<T> Scheduler<T> {
    /// At most `slots` sequences run at once.
    pub fn new(pool: BlockPool, slots: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            scheduled: Vec::new(),
            pool,
            slots,
            free_slots: BinaryHeap::new(),
            used_slots: 0,
            left: Vec::new(),
            restart_above: None,
        }
    }

    /// Computes a sequence anew once it is longer than `length`, for its rotary embedding is another one from there on.
    #[must_use]
    pub fn restart_above(mut self, length: Option<usize>) -> Self {
        self.restart_above = length;
        self
    }

    /// Adds a sequence; it runs when its turn comes.
    pub fn add(&mut self, sequence: Sequence<T>) {
        let behind = self.waiting.partition_point(|s| s.priority >= sequence.priority);
        self.waiting.insert(behind, sequence);
    }

    /// How many sequences decode: all but one of their tokens are in the cache.
    pub fn decoding(&self) -> usize {
        self.running.iter().filter(|s| s.left() == 1).count()
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Cache blocks in use.
    pub fn blocks_used(&self) -> usize {
        self.pool.used()
    }

    /// Drops every sequence, waiting or running, that `goes_on` says `Done` of, and frees its blocks.
    pub fn sweep(&mut self, mut goes_on: impl FnMut(&mut T) -> Flow) {
        self.waiting.retain_mut(|s| goes_on(&mut s.task) == Flow::Continue);
        let (pool, left) = (&mut self.pool, &mut self.left);
        self.running.retain_mut(|s| {
            let keep = goes_on(&mut s.task) == Flow::Continue;
            if !keep {
                pool.release(&mut s.blocks);
                left.push(s.slot);
            }
            keep
        });
    }

    /// One token of each running sequence that decodes, and at most `room` prompt tokens: see [`shares`].
    /// A sequence that can't grow makes the last one give up its blocks and start over.
    pub fn next_step(&mut self, reuse: &mut impl Reuse, room: usize) -> Step {
        self.grow_running();
        for slot in self.left.drain(..) {
            reuse.release(slot);
            self.free_slots.push(Reverse(slot));
        }
        self.admit(reuse);
        if let Some(length) = self.restart_above {
            let crossed = |s: &&mut Sequence<T>| s.rope_len <= length && s.tokens.len() > length;
            for seq in self.running.iter_mut().filter(crossed) {
                seq.rope_len = seq.tokens.len();
                seq.cached = 0;
            }
        }
        let mut step = Step::default();
        self.scheduled.clear();
        let (decoding, prompts): (Vec<_>, Vec<_>) =
            (0..self.running.len()).partition(|&i| self.running[i].left() == 1);
        let lengths: Vec<_> =
            prompts.iter().map(|&i| (self.running[i].priority, self.running[i].left())).collect();
        let decoding = decoding.into_iter().map(|i| (i, 1));
        for (i, new) in decoding.chain(prompts.into_iter().zip(shares(&lengths, room))) {
            if new == 0 {
                continue;
            }
            let seq = &self.running[i];
            let positions = seq.cached..seq.cached + new;
            let wanted = seq.wanted_of(&positions);
            let tokens = &seq.tokens[positions];
            step.push(tokens, seq.cached, seq.rope_len, &seq.blocks, wanted);
            if let Some(span) = step.spans.last_mut() {
                span.slot = seq.slot;
            }
            self.scheduled.push(i);
        }
        step
    }

    /// Gives every running sequence the blocks for its tokens, preempting the last where there are too few.
    fn grow_running(&mut self) {
        let mut i = 0;
        while i < self.running.len() {
            let seq = &mut self.running[i];
            if self.pool.grow(&mut seq.blocks, seq.tokens.len()) {
                i += 1;
                continue;
            }
            // If it is the last itself that can't grow, it waits until another one ends.
            let mut last = self.running.pop().expect("i < running.len()");
            self.pool.release(&mut last.blocks);
            self.left.push(last.slot);
            last.cached = 0;
            last.preemptions += 1;
            let before = self.waiting.partition_point(|s| s.priority > last.priority);
            self.waiting.insert(before, last);
        }
    }

    fn admit(&mut self, reuse: &mut impl Reuse) {
        while self.running.len() < self.slots
            && let Some(seq) = self.waiting.front()
            && !(reuse.shares() && self.is_worth_waiting(seq))
            && let Some(seq) = self.waiting.front_mut()
            && self.pool.grow(&mut seq.blocks, seq.tokens.len())
            && let Some(mut seq) = self.waiting.pop_front()
        {
            seq.slot = self.free_slots.pop().map_or(self.used_slots, |Reverse(slot)| slot);
            self.used_slots = self.used_slots.max(seq.slot + 1);
            let most = seq.reusable();
            seq.cached = reuse.reuse(seq.slot, &seq.tokens, most).min(most);
            seq.reused.get_or_insert(seq.cached);
            let behind = self.running.partition_point(|r| r.priority >= seq.priority);
            self.running.insert(behind, seq);
        }
    }

    /// Whether somebody is computing tokens that `seq` begins with as well.
    fn is_worth_waiting(&self, seq: &Sequence<T>) -> bool {
        self.running.iter().any(|r| {
            let same = r.tokens.iter().zip(&seq.tokens).take_while(|(a, b)| a == b).count();
            same.min(seq.reusable()) >= r.cached + WORTH_WAITING
        })
    }

    /// Tells each sequence of the step how it got on; those that are `Done` leave and free their blocks.
    pub fn finish_step(
        &mut self,
        step: &Step,
        mut advance: impl FnMut(&mut Sequence<T>, Advance) -> Flow,
    ) {
        let mut done = vec![false; self.running.len()];
        let mut row = 0;
        for (span, &i) in step.spans.iter().zip(&self.scheduled) {
            let seq = &mut self.running[i];
            seq.cached = span.context;
            let rows = row..row + span.wanted;
            row = rows.end;
            let wanted_before = match seq.wanted {
                Wanted::Last => 0,
                Wanted::From(from) => (span.context - span.wanted).saturating_sub(from),
            };
            let complete = seq.cached == seq.tokens.len();
            done[i] = advance(seq, Advance { rows, wanted_before, complete }) == Flow::Done;
        }
        let mut done = done.into_iter();
        let (pool, left) = (&mut self.pool, &mut self.left);
        self.running.retain_mut(|seq| {
            let leaves = done.next().unwrap_or_default();
            if leaves {
                pool.release(&mut seq.blocks);
                left.push(seq.slot);
            }
            !leaves
        });
    }
}

/// Shares out `room` tokens among prompts of these priorities, which do not rise, and lengths: what each gets.
///
/// A higher priority takes what it needs. Among equals the first, which is the oldest, gets half at least, so that it
/// gets on whoever else comes; the rest goes to the shortest first, which are soon done, so that they need not wait for
/// a long one that came before.
fn shares(prompts: &[(Priority, usize)], mut room: usize) -> Vec<usize> {
    let mut all = vec![0; prompts.len()];
    let mut give = |to: usize, most: usize, room: &mut usize| {
        let more = (prompts[to].1 - all[to]).min(most).min(*room);
        all[to] += more;
        *room -= more;
    };
    let mut from = 0;
    for equals in prompts.chunk_by(|a, b| a.0 == b.0) {
        give(from, room.div_ceil(2), &mut room);
        let mut order: Vec<_> = (from..from + equals.len()).collect();
        order.sort_by_key(|&i| prompts[i].1);
        order.into_iter().for_each(|i| give(i, usize::MAX, &mut room));
        from += equals.len();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Runs `prompts` (length, tokens to generate) to the end, in place of a model that counts; returns what each one
    /// generated, and how often one was preempted.
    fn run(
        prompts: &[(usize, usize)],
        pool: BlockPool,
        slots: usize,
        step_tokens: usize,
    ) -> (BTreeMap<usize, Vec<u32>>, usize) {
        let mut scheduler = Scheduler::new(pool, slots);
        for (id, &(len, _)) in prompts.iter().enumerate() {
            let tokens = (0..len as u32).collect();
            let priority = [Priority::Normal, Priority::High, Priority::Low][id % 3];
            let task = (id, Vec::new());
            scheduler.add(Sequence::new(tokens, Wanted::Last, task).priority(priority));
        }
        let mut finished = BTreeMap::new();
        let mut preemptions = 0;
        for _ in 0..100_000 {
            if scheduler.is_idle() {
                assert_eq!(scheduler.blocks_used(), 0);
                return (finished, preemptions);
            }
            let step = scheduler.next_step(&mut NoReuse, step_tokens);
            assert!(!step.is_empty(), "a step that does nothing never ends");
            assert!(step.spans.len() <= slots);
            scheduler.finish_step(&step, |seq, advance| {
                if !advance.complete {
                    assert!(advance.rows.is_empty());
                    return Flow::Continue;
                }
                assert_eq!(advance.rows.len(), 1);
                let token = seq.tokens.len() as u32;
                seq.tokens.push(token);
                let (id, out) = &mut seq.task;
                out.push(token);
                if out.len() == prompts[*id].1 {
                    finished.insert(*id, std::mem::take(out));
                    preemptions += seq.preemptions;
                    return Flow::Done;
                }
                Flow::Continue
            });
        }
        panic!("it does not end");
    }

    proptest! {
        #[test]
        fn everyone_ends_with_the_same_tokens_whatever_the_pool(
            prompts in proptest::collection::vec((1usize..30, 1usize..12), 1..8),
            block_len in 1usize..9,
            spare in 0usize..10,
            slots in 1usize..5,
            step_tokens in 1usize..40,
        ) {
            let longest = prompts.iter().map(|(p, g)| p + g).max().unwrap_or(1);
            let pool = BlockPool::new(longest.div_ceil(block_len) + spare, block_len);
            let (finished, _) = run(&prompts, pool, slots, step_tokens);
            for (id, (len, generate)) in prompts.iter().enumerate() {
                let want: Vec<u32> = (*len as u32..(len + generate) as u32).collect();
                prop_assert_eq!(&finished[&id], &want);
            }
        }
    }

    proptest! {
        #[test]
        fn room_is_given_away_as_far_as_it_is_needed_and_the_first_gets_half(
            mut prompts in proptest::collection::vec((0usize..3, 1usize..50), 1..9),
            room in 0usize..100,
        ) {
            prompts.sort_by_key(|(priority, _)| Reverse(*priority));
            let priorities = [Priority::Low, Priority::Normal, Priority::High];
            let prompts: Vec<_> = prompts.into_iter().map(|(p, len)| (priorities[p], len)).collect();
            let all = shares(&prompts, room);
            let needed: usize = prompts.iter().map(|(_, len)| len).sum();
            prop_assert_eq!(all.iter().sum::<usize>(), needed.min(room));
            prop_assert!(all.iter().zip(&prompts).all(|(share, (_, len))| share <= len));
            prop_assert!(all[0] >= prompts[0].1.min(room.div_ceil(2)));
            for (i, (priority, len)) in prompts.iter().enumerate() {
                let lower = prompts.iter().zip(&all).filter(|((p, _), _)| p < priority);
                prop_assert!(all[i] == *len || lower.map(|(_, share)| share).sum::<usize>() == 0);
            }
        }
    }

    #[test]
    fn short_prompts_do_not_wait_for_all_of_a_long_one() {
        let normal = |len| (Priority::Normal, len);
        assert_eq!(
            shares(&[normal(8000), normal(20), normal(4000), normal(30)], 256),
            [128, 20, 78, 30]
        );
        assert_eq!(shares(&[normal(8000), normal(900)], 256), [128, 128]);
        assert_eq!(shares(&[normal(300), normal(300)], 256), [256, 0]);
        let (high, low) = ((Priority::High, 200), (Priority::Low, 8000));
        assert_eq!(shares(&[high, normal(40), low], 256), [200, 40, 16]);
    }

    /// What runs, in the order of their ends: prompts of `len` tokens that each generate one.
    fn ends(scheduler: &mut Scheduler<usize>, room: usize) -> Vec<usize> {
        let mut ends = Vec::new();
        while !scheduler.is_idle() {
            let step = scheduler.next_step(&mut NoReuse, room);
            scheduler.finish_step(&step, |seq, advance| {
                if !advance.complete {
                    return Flow::Continue;
                }
                ends.push(seq.task);
                Flow::Done
            });
        }
        ends
    }

    #[test]
    fn a_higher_priority_starts_first_and_equals_in_their_order() {
        let mut scheduler = Scheduler::new(BlockPool::new(100, 4), 1);
        for (id, priority) in [Priority::Low, Priority::Normal, Priority::High, Priority::Normal]
            .into_iter()
            .enumerate()
        {
            let sequence = Sequence::new(vec![0; 8], Wanted::Last, id);
            scheduler.add(sequence.priority(priority));
        }
        assert_eq!(ends(&mut scheduler, 64), [2, 1, 3, 0]);
    }

    #[test]
    fn short_prompts_end_before_a_long_one_that_came_first() {
        let mut scheduler = Scheduler::new(BlockPool::new(100, 16), 8);
        for (id, len) in [800, 10, 20, 400].into_iter().enumerate() {
            scheduler.add(Sequence::new(vec![0; len], Wanted::Last, id));
        }
        assert_eq!(ends(&mut scheduler, 64), [1, 2, 3, 0]);
    }

    #[test]
    fn a_small_pool_preempts() {
        let (_, preemptions) = run(&[(4, 8), (4, 8)], BlockPool::new(4, 4), 2, 64);
        assert!(preemptions > 0);
    }

    #[test]
    fn a_sequence_that_crosses_the_length_starts_over_once() {
        let pool = BlockPool::new(8, 4);
        let mut scheduler = Scheduler::new(pool, 1).restart_above(Some(6));
        scheduler.add(Sequence::new((0..5).collect(), Wanted::Last, ()));
        let mut rows = Vec::new();
        while !scheduler.is_idle() {
            let step = scheduler.next_step(&mut NoReuse, 64);
            rows.push((step.tokens.len(), step.lengths[0]));
            scheduler.finish_step(&step, |seq, _| {
                seq.tokens.push(0);
                if seq.tokens.len() > 9 { Flow::Done } else { Flow::Continue }
            });
        }
        assert_eq!(rows, [(5, 5), (1, 6), (7, 7), (1, 8), (1, 9)]);
    }

    #[test]
    fn wanted_rows_are_found_across_chunks() {
        let mut scheduler = Scheduler::new(BlockPool::new(8, 4), 1);
        scheduler.add(Sequence::new((0..8).collect(), Wanted::From(4), ()));
        let mut seen = Vec::new();
        while !scheduler.is_idle() {
            let step = scheduler.next_step(&mut NoReuse, 3);
            scheduler.finish_step(&step, |_, advance| {
                seen.extend(advance.rows.map(|row| (advance.wanted_before, row)));
                if advance.complete { Flow::Done } else { Flow::Continue }
            });
        }
        assert_eq!(seen, [(0, 0), (0, 1), (2, 0), (2, 1)]);
    }
}
