//! Who owns which cache block. Pure bookkeeping: no device, no tensors.

use std::{cmp::Reverse, collections::BinaryHeap};

/// The free blocks of a cache. The lowest are handed out first, so that memory is touched only as far as it is needed.
#[derive(Debug, Clone)]
pub struct BlockPool {
    block_len: usize,
    blocks: usize,
    free: BinaryHeap<Reverse<u32>>,
}

impl BlockPool {
    /// A pool of `blocks` blocks of `block_len` tokens each.
    pub fn new(blocks: usize, block_len: usize) -> Self {
        Self { block_len, blocks, free: (0..blocks as u32).map(Reverse).collect() }
    }

    /// Tokens that all blocks together hold.
    pub fn capacity(&self) -> usize {
        self.blocks * self.block_len
    }

    /// Blocks that somebody owns.
    pub fn used(&self) -> usize {
        self.blocks - self.free.len()
    }

    /// Grows `table` until it holds `tokens`; `false` and no change if there are not enough free blocks.
    pub fn grow(&mut self, table: &mut Vec<u32>, tokens: usize) -> bool {
        let missing = tokens.div_ceil(self.block_len).saturating_sub(table.len());
        if missing > self.free.len() {
            return false;
        }
        table.extend((0..missing).filter_map(|_| self.free.pop()).map(|Reverse(block)| block));
        true
    }

    /// Takes all blocks of `table` back.
    pub fn release(&mut self, table: &mut Vec<u32>) {
        self.free.extend(table.drain(..).map(Reverse));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_block_has_two_owners_and_none_is_lost(
            blocks in 1usize..40,
            block_len in 1usize..9,
            calls in proptest::collection::vec((0usize..5, 0usize..60), 0..80),
        ) {
            let mut pool = BlockPool::new(blocks, block_len);
            let mut tables = vec![Vec::new(); 5];
            for (owner, tokens) in calls {
                let before = tables[owner].clone();
                if tokens == 0 {
                    pool.release(&mut tables[owner]);
                } else if pool.grow(&mut tables[owner], tokens) {
                    prop_assert!(tables[owner].len() * block_len >= tokens);
                } else {
                    prop_assert_eq!(&before, &tables[owner]);
                }
                let mut owned: Vec<u32> = tables.concat();
                owned.sort_unstable();
                let len = owned.len();
                owned.dedup();
                prop_assert_eq!(owned.len(), len);
                prop_assert_eq!(pool.used(), len);
            }
            tables.iter_mut().for_each(|t| pool.release(t));
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
