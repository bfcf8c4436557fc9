//! Which sequences run in the next step. Pure: no clock, no channel, no device.

mod sequence;
mod shares;
mod waiting;

pub use sequence::{Sequence, Wanted};
use shares::shares;
use waiting::Waiting;

use crate::{
    blocks::BlockPool,
    step::{BlockCopy, Lengths, Step},
};
use std::{collections::BTreeSet, ops::Range};

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

/// Finds what a cache already holds of a sequence that is about to run; by default nothing. For an engine whose cache is
/// not made of the blocks of [`BlockPool`]; those are shared by the pool itself.
pub trait Reuse {
    /// Prepares one of the places `free`, at least one, for a sequence of `tokens`, of which at most `most` may be taken
    /// over from others that were or are in the cache. Gives the place, and how many of the first tokens it now holds.
    fn reuse(&mut self, free: &BTreeSet<usize>, _tokens: &[u32], _most: usize) -> (usize, usize) {
        (free.first().copied().unwrap_or_default(), 0)
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
    waiting: Waiting<T>,
    /// By priority, then the oldest first. Only ever the last is preempted, so the first always gets on.
    running: Vec<Sequence<T>>,
    /// For each span of the current step, its index in `running`.
    scheduled: Vec<usize>,
    pool: BlockPool,
    slots: usize,
    /// Places that nobody has; of those that nobody ever had, the lowest alone.
    free_slots: BTreeSet<usize>,
    /// That one, or the last of all.
    new_slot: usize,
    /// Places that were given back since the last step.
    left: Vec<usize>,
    lengths: Lengths,
}

impl<T> Scheduler<T> {
    /// At most `slots` sequences run at once.
    pub fn new(pool: BlockPool, slots: usize) -> Self {
        Self {
            waiting: Waiting::new(),
            running: Vec::new(),
            scheduled: Vec::new(),
            pool,
            slots,
            free_slots: BTreeSet::from([0]),
            new_slot: 0,
            left: Vec::new(),
            lengths: Lengths::default(),
        }
    }

    /// Keeps apart, and computes anew, what is rotated in different ways.
    #[must_use]
    pub fn lengths(mut self, lengths: Lengths) -> Self {
        self.lengths = lengths;
        self
    }

    /// Adds the sequences of one call, which run when their turns come: of calls of one priority that wait, each starts
    /// one sequence in turn.
    pub fn add(&mut self, call: impl IntoIterator<Item = Sequence<T>>) {
        self.waiting.add(call);
    }

    /// How many sequences decode.
    pub fn decoding(&self) -> usize {
        self.running.iter().filter(|s| s.decodes()).count()
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
        self.waiting.sweep(&mut goes_on);
        let (pool, lengths, left) = (&mut self.pool, self.lengths, &mut self.left);
        self.running.retain_mut(|s| {
            let keep = goes_on(&mut s.task) == Flow::Continue;
            if !keep {
                s.leave(pool, lengths);
                left.push(s.slot);
            }
            keep
        });
    }

    /// One token of each running sequence that decodes, and at most `room` prompt tokens, half of them for the oldest
    /// prompt and the rest for the shortest.
    /// A sequence that can't grow makes the last one give up its blocks and start over.
    pub fn next_step(&mut self, reuse: &mut impl Reuse, room: usize) -> Step {
        self.restart_those_that_crossed();
        self.grow_running();
        for slot in self.left.drain(..) {
            reuse.release(slot);
            self.free_slots.insert(slot);
        }
        self.admit(reuse);
        let mut step = Step::default();
        self.scheduled.clear();
        let (decoding, prompts): (Vec<_>, Vec<_>) =
            (0..self.running.len()).partition(|&i| self.running[i].decodes());
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
            if let Some(from) = seq.copy {
                let block_len = self.pool.block_len();
                let (block, tokens) = (seq.cached / block_len, seq.cached % block_len);
                step.copies.push(BlockCopy { from, to: seq.blocks[block], tokens });
            }
            self.scheduled.push(i);
        }
        step
    }

    /// Makes those wait that have grown beyond the length where all is computed anew.
    fn restart_those_that_crossed(&mut self) {
        let Some(length) = self.lengths.restart_above else { return };
        let crossed = |s: &Sequence<T>| s.rope_len <= length && s.tokens.len() > length;
        while let Some(i) = self.running.iter().rposition(crossed) {
            let mut seq = self.running.remove(i);
            self.left.push(seq.slot);
            seq.leave(&mut self.pool, self.lengths);
            seq.rope_len = seq.tokens.len();
            self.waiting.put_back(seq);
        }
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
            last.leave(&mut self.pool, self.lengths);
            self.left.push(last.slot);
            last.preemptions += 1;
            self.waiting.put_back(last);
        }
    }

    /// Lets those run that fit, in order; past those for whom it is better to wait.
    fn admit(&mut self, reuse: &mut impl Reuse) {
        let shares = self.pool.shares() || reuse.shares();
        let mut passed = None;
        while self.running.len() < self.slots
            && let Some(seq) = self.waiting.first(passed)
        {
            let turn = seq.turn;
            if shares && self.is_worth_waiting(seq) {
                passed = Some(turn);
                continue;
            }
            let Some(mut seq) = self.waiting.take(turn) else { return };
            if !seq.enter(&mut self.pool, self.lengths) {
                self.waiting.put_back(seq);
                return;
            }
            let most = seq.reusable();
            let (slot, held) = reuse.reuse(&self.free_slots, &seq.tokens, most);
            self.occupy(slot);
            seq.slot = slot;
            seq.cached = seq.cached.max(held.min(most));
            seq.reused.get_or_insert(seq.cached);
            let behind = self.running.partition_point(|r| r.priority >= seq.priority);
            self.running.insert(behind, seq);
        }
    }

    fn occupy(&mut self, slot: usize) {
        self.free_slots.remove(&slot);
        if slot == self.new_slot && slot + 1 < self.slots {
            self.new_slot += 1;
            self.free_slots.insert(self.new_slot);
        }
    }

    /// Whether somebody of no lower priority is computing tokens that `seq` begins with as well.
    fn is_worth_waiting(&self, seq: &Sequence<T>) -> bool {
        let turn = |s: &Sequence<T>| self.lengths.turn(s.rope_len);
        let most = seq.reusable().min(self.lengths.alike_up_to(seq.rope_len));
        let computes = |r: &Sequence<T>| {
            let soon = r.tokens.get(..r.cached + WORTH_WAITING);
            r.priority >= seq.priority
                && turn(r) == turn(seq)
                && soon.is_some_and(|soon| seq.tokens[..most].starts_with(soon))
        };
        self.running.iter().any(computes)
    }

    /// The tasks of the current step's spans.
    pub fn scheduled(&self) -> impl Iterator<Item = &T> {
        self.scheduled.iter().map(|&i| &self.running[i].task)
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
            seq.computed(span.rows.len(), &mut self.pool, self.lengths);
            let rows = row..row + span.wanted;
            row = rows.end;
            let wanted_before = match seq.wanted {
                Wanted::Last => 0,
                Wanted::From(from) => (span.context - span.wanted).saturating_sub(from),
            };
            let complete = seq.cached == seq.tokens.len();
            done[i] = advance(seq, Advance { rows, wanted_before, complete }) == Flow::Done;
        }
        self.remove(done);
    }

    /// The step was not computed: tells each of its sequences, and they leave.
    pub fn fail_step(&mut self, mut fail: impl FnMut(&mut Sequence<T>)) {
        let mut done = vec![false; self.running.len()];
        for &i in &self.scheduled {
            fail(&mut self.running[i]);
            done[i] = true;
        }
        self.remove(done);
    }

    /// Removes the running sequences that are `done`.
    fn remove(&mut self, done: Vec<bool>) {
        let mut done = done.into_iter();
        let (pool, lengths, left) = (&mut self.pool, self.lengths, &mut self.left);
        self.running.retain_mut(|seq| {
            let leaves = done.next().unwrap_or_default();
            if leaves {
                seq.leave(pool, lengths);
                left.push(seq.slot);
            }
            !leaves
        });
    }
}

#[cfg(test)]
mod tests;
