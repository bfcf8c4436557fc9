//! A sequence, and where its tokens are in the cache.

use super::waiting::Turn;
use crate::{blocks::BlockPool, step::Lengths};
use inference_core::Priority;
use std::ops::Range;

/// A sequence of tokens that is worked on; `T` is what the caller knows of it.
#[derive(Debug)]
pub struct Sequence<T> {
    /// Prompt, and what was generated.
    pub tokens: Vec<u32>,
    /// The length that its prompt's rotary embedding is computed for: see [`Step::push`].
    pub(super) rope_len: usize,
    /// Which logits are wanted.
    pub(super) wanted: Wanted,
    /// Who goes first.
    pub(super) priority: Priority,
    /// When its turn comes among those that wait, or came.
    pub(super) turn: Turn,
    /// How many tokens are in the cache.
    pub(super) cached: usize,
    /// Cache blocks that hold them, in order.
    pub(super) blocks: Vec<u32>,
    /// How many of these are known to be full of its tokens.
    known: usize,
    /// The block whose beginning is to be copied before it goes on: see [`Taken::copy`](crate::blocks::Taken::copy).
    pub(super) copy: Option<u32>,
    /// Its place among those that run; see [`Span::slot`](crate::step::Span::slot).
    pub(super) slot: usize,
    /// How often it had to give up its blocks and start over.
    pub(super) preemptions: usize,
    /// How many of its tokens were in the cache when it was first admitted.
    pub(super) reused: Option<usize>,
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
            turn: Turn::default(),
            cached: 0,
            blocks: Vec::new(),
            known: 0,
            copy: None,
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
    pub(super) fn left(&self) -> usize {
        self.tokens.len() - self.cached
    }

    /// Whether it decodes: of what it has generated, the last token alone is not in the cache. A prompt whose beginning was
    /// found there does not, however little of it is left.
    pub(super) fn decodes(&self) -> bool {
        self.left() == 1 && self.tokens.len() > self.rope_len
    }

    /// How many of its tokens were in the cache already when it was first admitted.
    pub fn reused(&self) -> usize {
        self.reused.unwrap_or_default()
    }

    /// How many of its tokens may come from the cache: those before the first wanted row.
    pub(super) fn reusable(&self) -> usize {
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
    pub(super) fn wanted_of(&self, positions: &Range<usize>) -> usize {
        let from = match self.wanted {
            Wanted::Last => self.tokens.len() - 1,
            Wanted::From(from) => from,
        };
        positions.end.saturating_sub(from.max(positions.start))
    }
}

/// Where a sequence's tokens are.
impl<T> Sequence<T> {
    /// Takes the blocks that hold its beginning, and new ones for the rest; `false` and nothing if there are too few.
    pub(super) fn enter(&mut self, pool: &mut BlockPool, lengths: Lengths) -> bool {
        let most = self.reusable().min(lengths.alike_up_to(self.rope_len));
        let turn = lengths.turn(self.rope_len);
        let taken = pool.take(&mut self.blocks, turn, &self.tokens[..most]);
        (self.cached, self.copy, self.known) = (taken.tokens, taken.copy, self.blocks.len());
        if pool.grow(&mut self.blocks, self.tokens.len()) {
            return true;
        }
        // The block that is to be copied may be the one that is missing.
        self.drop_copy(pool);
        let fits = pool.grow(&mut self.blocks, self.tokens.len());
        if !fits {
            self.leave(pool, lengths);
        }
        fits
    }

    /// Its newest `new` tokens have been computed, and what was to be copied before has been copied.
    pub(super) fn computed(&mut self, new: usize, pool: &mut BlockPool, lengths: Lengths) {
        if let Some(block) = self.copy.take() {
            pool.give_up(block);
        }
        // While it decodes, others learn of its blocks when they are full, as far as others can begin so.
        let alike = self.cached.min(lengths.alike_up_to(self.rope_len));
        if new > 1 || alike / pool.block_len() > self.known {
            self.learn(pool, lengths);
        }
    }

    fn learn(&mut self, pool: &mut BlockPool, lengths: Lengths) {
        let alike = self.cached.min(lengths.alike_up_to(self.rope_len));
        let (turn, tokens) = (lengths.turn(self.rope_len), &self.tokens[..alike]);
        self.known = pool.learn(&mut self.blocks, self.known, turn, tokens);
    }

    /// Computes what it would have copied.
    fn drop_copy(&mut self, pool: &mut BlockPool) {
        if let Some(block) = self.copy.take() {
            pool.give_up(block);
            self.cached -= self.cached % pool.block_len();
        }
    }

    /// Gives up its blocks; what has been computed stays there for others, and for itself if it starts over.
    pub(super) fn leave(&mut self, pool: &mut BlockPool, lengths: Lengths) {
        self.drop_copy(pool);
        self.learn(pool, lengths);
        // Others begin like a conversation and like an instruction, but seldom like the whole of a text that is scored.
        pool.release(&mut self.blocks, self.wanted == Wanted::Last);
        (self.cached, self.known) = (0, 0);
    }
}
