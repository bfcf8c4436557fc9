//! Who owns which cache block, and what they hold. Pure bookkeeping: no device, no tensors.

use crate::prefixes::{Before, Prefixes};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

/// The blocks of a cache. The lowest are handed out first, so that memory is touched only as far as it is needed.
///
/// A block may have several owners, whose sequences all begin with what is known to be in it, and in all blocks before.
/// One that nobody owns any more is kept for as long as there is room for it.
#[derive(Debug, Clone)]
pub struct BlockPool {
    block_len: usize,
    /// How many own each block.
    owners: Vec<u32>,
    /// Blocks that nobody owns and of which nothing is known.
    free: BinaryHeap<Reverse<u32>>,
    known: Prefixes,
    /// Blocks that are known and that nobody owns: first those that are unlikely to be asked for, then by when they were
    /// given up. Whoever gives up several gives up the last first, and whoever takes a block takes those before it: so
    /// the first of these is never before another.
    kept: BTreeMap<Rank, u32>,
    /// The rank that each block was given up with last.
    ranks: Vec<Rank>,
    /// Blocks that somebody has taken over as a whole, or that are likely to be.
    likely: Vec<bool>,
    clock: u64,
    /// Most blocks to keep; 0: nothing is shared.
    most_kept: usize,
}

/// Whether a block is likely to be asked for, and when it was given up.
type Rank = (bool, u64);

/// Blocks that are kept although they are unlikely to be asked for: some are, by the next sequences of their call. More
/// would only fill memory that was never touched with the ends of prompts.
const MOST_UNLIKELY: usize = 64;

/// What a new sequence takes over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Tokens, from the first on.
    pub tokens: usize,
    /// The block that the last of them are in, where its other tokens are not the sequence's: they are to be copied. It
    /// is owned until then.
    pub copy: Option<u32>,
}

/// Tokens of a common beginning that are worth taking over: fewer are met by chance.
const LEAST_SHARED: usize = 8;

impl BlockPool {
    /// A pool of `blocks` blocks of `block_len` tokens each, none of which are shared.
    pub fn new(blocks: usize, block_len: usize) -> Self {
        Self {
            block_len,
            owners: vec![0; blocks],
            free: (0..blocks as u32).map(Reverse).collect(),
            known: Prefixes::new(blocks),
            kept: BTreeMap::new(),
            ranks: vec![(false, 0); blocks],
            likely: vec![false; blocks],
            clock: 0,
            most_kept: 0,
        }
    }

    /// Shares blocks between sequences that begin alike, and keeps up to `blocks` that nobody owns; 0: shares none.
    #[must_use]
    pub fn sharing(mut self, blocks: usize) -> Self {
        self.most_kept = blocks;
        self
    }

    /// Whether sequences that begin alike share their blocks.
    pub fn shares(&self) -> bool {
        self.most_kept > 0
    }

    /// Tokens of a block.
    pub fn block_len(&self) -> usize {
        self.block_len
    }

    /// Tokens that all blocks together hold.
    pub fn capacity(&self) -> usize {
        self.owners.len() * self.block_len
    }

    /// Blocks that somebody owns.
    pub fn used(&self) -> usize {
        self.owners.len() - self.free.len() - self.kept.len()
    }

    /// Blocks that nobody owns and that are kept for what is in them.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Grows `table` until it holds `tokens`; `false` and no change if there are not enough blocks that nobody owns.
    pub fn grow(&mut self, table: &mut Vec<u32>, tokens: usize) -> bool {
        let missing = tokens.div_ceil(self.block_len).saturating_sub(table.len());
        if missing > self.free.len() + self.kept.len() {
            return false;
        }
        while self.free.len() < missing && self.drop_oldest() {}
        for _ in 0..missing {
            if let Some(Reverse(block)) = self.free.pop() {
                self.owners[block as usize] = 1;
                table.push(block);
            }
        }
        true
    }

    /// Gives up all blocks of `table`. Where it is not `likely` that others begin like this sequence, those that nobody has
    /// taken over yet are the first to leave.
    pub fn release(&mut self, table: &mut Vec<u32>, likely: bool) {
        while let Some(block) = table.pop() {
            self.likely[block as usize] |= likely;
            self.give_up(block);
        }
    }

    /// Gives up one block, such as one that has been [copied](Taken::copy).
    pub fn give_up(&mut self, block: u32) {
        let owners = &mut self.owners[block as usize];
        *owners -= 1;
        if *owners > 0 {
            return;
        }
        if self.known.knows(block) {
            self.clock += 1;
            let rank = (self.likely[block as usize], self.clock);
            self.ranks[block as usize] = rank;
            self.kept.insert(rank, block);
            if self.kept.len() > self.most_kept || self.has_too_many_unlikely() {
                self.drop_oldest();
            }
        } else {
            self.free(block);
        }
    }

    /// Fills an empty `table` with the blocks that are known for the beginning of `tokens`, in a sequence that is rotated
    /// as `turn` says.
    pub fn take(&mut self, table: &mut Vec<u32>, turn: usize, tokens: &[u32]) -> Taken {
        let mut taken = Taken::default();
        if !self.shares() {
            return taken;
        }
        let mut before = Before::Nothing(turn);
        for tokens in tokens.chunks(self.block_len) {
            let Some((block, same)) = self.known.closest(before, tokens) else { break };
            taken.tokens += same;
            if same < self.block_len {
                // No more likely than before: there may be many that begin like this one.
                self.own(block);
                taken.copy = Some(block);
                break;
            }
            self.take_over(block);
            table.push(block);
            before = Before::Block(block);
        }
        if taken.tokens < LEAST_SHARED {
            taken.copy.take().into_iter().for_each(|block| self.give_up(block));
            self.release(table, false);
            taken.tokens = 0;
        }
        taken
    }

    /// Learns what the blocks of `table` from the one at `from` on hold: all `tokens` have been computed, and those before
    /// are known. Where another block is known for the same tokens after the same others, the table gets that one.
    /// Gives how many blocks are full, and so need not be learned again.
    pub fn learn(&mut self, table: &mut [u32], from: usize, turn: usize, tokens: &[u32]) -> usize {
        if !self.shares() {
            return 0;
        }
        for (i, tokens) in tokens.chunks(self.block_len).enumerate().skip(from) {
            let before =
                i.checked_sub(1).map_or(Before::Nothing(turn), |i| Before::Block(table[i]));
            match self.known.learn(table[i], before, tokens) {
                Some(other) if tokens.len() == self.block_len => {
                    self.take_over(other);
                    self.give_up(std::mem::replace(&mut table[i], other));
                }
                Some(_) => {}
                None => self.drop_contained(table[i]),
            }
        }
        tokens.len() / self.block_len
    }

    /// Owns all of a block that was computed for another sequence.
    fn take_over(&mut self, block: u32) {
        self.own(block);
        self.likely[block as usize] = true;
    }

    fn own(&mut self, block: u32) {
        if self.owners[block as usize] == 0 {
            self.unkeep(block);
        }
        self.owners[block as usize] += 1;
    }

    fn unkeep(&mut self, block: u32) {
        self.kept.remove(&self.ranks[block as usize]);
    }

    /// Whether more blocks that are unlikely to be asked for are kept than should be.
    fn has_too_many_unlikely(&self) -> bool {
        self.kept.range(..(true, 0)).nth(MOST_UNLIKELY).is_some()
    }

    fn free(&mut self, block: u32) {
        self.known.forget(block);
        self.likely[block as usize] = false;
        self.free.push(Reverse(block));
    }

    /// Frees the block that is kept for the least reason; `false` if none is kept.
    fn drop_oldest(&mut self) -> bool {
        let Some((_, block)) = self.kept.first_key_value() else { return false };
        let block = *block;
        self.unkeep(block);
        self.free(block);
        true
    }

    /// Frees a block that is of no use any more, for `block` holds its tokens and more.
    fn drop_contained(&mut self, block: u32) {
        let Some(less) = self.known.contained(block) else { return };
        if self.owners[less as usize] == 0 {
            self.unkeep(less);
            self.free(less);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Each block is owned as often as tables and copies say, or kept, or free; and what is kept can be found.
    fn check(
        pool: &BlockPool,
        tables: &[Vec<u32>],
        copies: &[Option<u32>],
    ) -> Result<(), TestCaseError> {
        let mut owners = vec![0; pool.owners.len()];
        tables
            .iter()
            .flatten()
            .chain(copies.iter().flatten())
            .for_each(|b| owners[*b as usize] += 1);
        prop_assert_eq!(&owners, &pool.owners);
        let free: Vec<u32> = pool.free.iter().map(|Reverse(block)| *block).collect();
        let mut idle: Vec<u32> = free.iter().chain(pool.kept.values()).copied().collect();
        idle.sort_unstable();
        let unowned: Vec<u32> =
            (0..owners.len() as u32).filter(|b| owners[*b as usize] == 0).collect();
        prop_assert_eq!(idle, unowned);
        prop_assert!(free.iter().all(|b| !pool.known.knows(*b)));
        prop_assert!(pool.kept.values().all(|b| pool.known.knows(*b)));
        prop_assert!(pool.known.is_whole());
        prop_assert!(pool.kept.keys().filter(|(likely, _)| !likely).count() <= MOST_UNLIKELY);
        Ok(())
    }

    /// Sequences that nobody goes on from, behind one stem that ends within a block: few of their blocks are kept,
    /// however many of them begin alike by chance.
    #[test]
    fn what_is_copied_is_no_more_likely_to_be_asked_for() {
        let mut pool = BlockPool::new(1000, 4).sharing(1000);
        for i in 0..300u32 {
            let mut table = Vec::new();
            let text: Vec<u32> = (0..10).chain([100 + i % 9, 200 + i % 50, i]).collect();
            let taken = pool.take(&mut table, 0, &text);
            assert!(i == 0 || taken.tokens >= 10, "{i}: {taken:?}");
            let full = table.len();
            taken.copy.into_iter().for_each(|block| pool.give_up(block));
            assert!(pool.grow(&mut table, text.len()));
            pool.learn(&mut table, full, 0, &text);
            pool.release(&mut table, false);
        }
        assert_eq!(pool.kept(), 2 + MOST_UNLIKELY);
    }

    proptest! {
        #[test]
        fn no_block_is_lost_and_none_that_is_owned_is_given_out(
            (blocks, block_len, kept) in (1usize..40, 1usize..9, 0usize..30),
            calls in proptest::collection::vec((0usize..5, 0usize..60, 0u32..3, any::<bool>()), 0..80),
        ) {
            let mut pool = BlockPool::new(blocks, block_len).sharing(kept);
            let (mut tables, mut copies) = (vec![Vec::new(); 5], vec![None; 5]);
            let mut texts = vec![(0, Vec::new()); 5];
            for (owner, tokens, text, learns) in calls {
                let (table, copy) = (&mut tables[owner], &mut copies[owner]);
                let (taken, tokens_of) = &mut texts[owner];
                if table.is_empty() {
                    *tokens_of = (0..tokens as u32).map(|i| i * text % 7).collect::<Vec<u32>>();
                    let found = pool.take(table, 0, tokens_of);
                    prop_assert!(found.tokens <= tokens_of.len());
                    (*taken, *copy) = (table.len(), found.copy);
                    let before = table.clone();
                    if !pool.grow(table, tokens_of.len()) {
                        prop_assert_eq!(&before, table);
                    }
                } else {
                    copy.take().into_iter().for_each(|block| pool.give_up(block));
                    if learns {
                        let held = tokens_of.len().min(table.len() * block_len);
                        pool.learn(table, *taken, 0, &tokens_of[..held]);
                    }
                    pool.release(table, learns);
                }
                check(&pool, &tables, &copies)?;
            }
            for (table, copy) in tables.iter_mut().zip(&mut copies) {
                copy.take().into_iter().for_each(|block| pool.give_up(block));
                pool.release(table, true);
            }
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
