//! Which cache blocks hold which tokens after which others. Pure bookkeeping, as [`blocks`](crate::blocks) is.

use std::collections::BTreeMap;

/// What comes before a block's tokens. A block that is known is known with all that is before it, so this stands for a
/// whole text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Before {
    /// Nothing, in sequences whose tokens are rotated in this way: see [`Lengths::turn`](crate::step::Lengths::turn).
    Nothing(usize),
    /// A block that is known, and full.
    Block(u32),
}

type Key = (Before, Box<[u32]>);

/// A tree of blocks, by their tokens. In order, what begins like a text stands beside it; so the block that has the most
/// in common with a text is found by comparing the text with two others, and nothing rests on a hash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes {
    blocks: BTreeMap<Key, u32>,
    /// The key of each block that is known.
    keys: Vec<Option<Key>>,
}

impl Prefixes {
    /// Of `blocks` blocks, none known yet.
    pub(crate) fn new(blocks: usize) -> Self {
        Self { blocks: BTreeMap::new(), keys: vec![None; blocks] }
    }

    /// Whether `block` is known.
    pub(crate) fn knows(&self, block: u32) -> bool {
        self.keys[block as usize].is_some()
    }

    /// Learns that `block` begins with `tokens`, which replace what was known of it; no block comes after it yet.
    /// If another block is known for these very tokens, gives that one, and `block` is not known.
    pub(crate) fn learn(&mut self, block: u32, before: Before, tokens: &[u32]) -> Option<u32> {
        self.forget(block);
        let key = (before, Box::from(tokens));
        if let Some(other) = self.blocks.get(&key) {
            return Some(*other);
        }
        self.keys[block as usize] = Some(key.clone());
        self.blocks.insert(key, block);
        None
    }

    /// Forgets `block`, which none that is known comes after.
    pub(crate) fn forget(&mut self, block: u32) {
        if let Some(key) = self.keys[block as usize].take() {
            self.blocks.remove(&key);
        }
    }

    /// The block whose tokens have the most in common with `tokens` at their beginning, and how many that are; at least
    /// one.
    pub(crate) fn closest(&self, before: Before, tokens: &[u32]) -> Option<(u32, usize)> {
        let key = (before, Box::from(tokens));
        let above = self.blocks.range(&key..).next();
        let below = self.blocks.range(..&key).next_back();
        let common = |((b, t), block): (&Key, &u32)| {
            let same = t.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            (*b == before && same > 0).then_some((*block, same))
        };
        [above, below].into_iter().flatten().filter_map(common).max_by_key(|(_, same)| *same)
    }

    /// The block that holds less than `block` and nothing else, if it stands right before it.
    pub(crate) fn contained(&self, block: u32) -> Option<u32> {
        let key = self.keys[block as usize].as_ref()?;
        let ((before, tokens), less) = self.blocks.range(..key).next_back()?;
        (*before == key.0 && key.1.starts_with(tokens)).then_some(*less)
    }
}

#[cfg(test)]
impl Prefixes {
    /// Whether each block that is known can be found, from the first block of its text on.
    pub(crate) fn is_whole(&self) -> bool {
        let known = |block: &u32| self.keys[*block as usize].is_some();
        self.blocks.iter().all(|((before, _), block)| {
            let found = match before {
                Before::Nothing(_) => true,
                Before::Block(before) => known(before),
            };
            found && known(block)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_is_found_by_all_that_is_before_it() {
        let mut known = Prefixes::new(4);
        assert_eq!(known.learn(0, Before::Nothing(0), &[1, 2]), None);
        assert_eq!(known.learn(1, Before::Block(0), &[3, 4]), None);
        assert_eq!(known.learn(2, Before::Block(0), &[3, 4]), Some(1));
        assert!(!known.knows(2));
        assert_eq!(known.closest(Before::Block(0), &[3, 5]), Some((1, 1)));
        assert_eq!(known.closest(Before::Nothing(0), &[3, 4]), None);
        assert_eq!(known.closest(Before::Nothing(1), &[1, 2]), None);
        known.forget(1);
        assert_eq!(known.closest(Before::Block(0), &[3, 4]), None);
    }

    #[test]
    fn a_block_that_holds_less_is_seen() {
        let mut known = Prefixes::new(3);
        known.learn(0, Before::Nothing(0), &[1, 2]);
        known.learn(1, Before::Nothing(0), &[1, 3]);
        assert_eq!(known.contained(1), None);
        known.learn(2, Before::Nothing(0), &[1, 2, 3]);
        assert_eq!(known.contained(2), Some(0));
        known.learn(0, Before::Nothing(0), &[1, 2, 3, 4]);
        assert_eq!(known.contained(0), Some(2));
    }

    proptest! {
        #[test]
        fn the_closest_has_the_most_in_common(
            texts in proptest::collection::vec(proptest::collection::vec(0u32..3, 1..6), 1..12),
            text in proptest::collection::vec(0u32..3, 0..6),
        ) {
            let mut known = Prefixes::new(texts.len());
            for (i, text) in texts.iter().enumerate() {
                known.learn(i as u32, Before::Nothing(i % 2), text);
            }
            let same = |a: &[u32]| a.iter().zip(&text).take_while(|(a, b)| a == b).count();
            let most = texts.iter().step_by(2).map(|t| same(t)).max().unwrap_or_default();
            let found = known.closest(Before::Nothing(0), &text);
            prop_assert_eq!(found.map_or(0, |(_, same)| same), most);
            if let Some((block, same_as_block)) = found {
                prop_assert_eq!(same(&texts[block as usize]), same_as_block);
            }
        }
    }
}
