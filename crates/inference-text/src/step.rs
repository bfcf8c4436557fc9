//! One forward pass over a ragged batch.

use std::ops::Range;

/// The tokens of all scheduled sequences, back to back: row `i` of every activation belongs to `tokens[i]`.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Ids.
    pub tokens: Vec<u32>,
    /// Each token's place in its sequence, from 0.
    pub positions: Vec<u32>,
    /// Each token's sequence length as its rotary embedding sees it, where that depends on the length.
    pub lengths: Vec<u32>,
    /// The sequences.
    pub spans: Vec<Span>,
    /// What is copied in the cache before anything is written to it.
    pub copies: Vec<BlockCopy>,
}

/// The beginning of a cache block, which a sequence takes over in a block of its own: keys and values of every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockCopy {
    /// The block that has it.
    pub from: u32,
    /// The block that gets it; its other tokens mean nothing afterwards. No copy's `from` is another one's `to`.
    pub to: u32,
    /// How many tokens, fewer than a block has.
    pub tokens: usize,
}

/// The rows of one sequence in a [`Step`].
#[derive(Debug, Clone)]
pub struct Span {
    /// Which rows.
    pub rows: Range<usize>,
    /// Its place among the sequences that run, from 0; nobody else has it while it runs.
    pub slot: usize,
    /// Tokens of this sequence in the cache once the step has run.
    pub context: usize,
    /// Cache blocks that hold them, in order.
    pub blocks: Vec<u32>,
    /// How many of its last rows reach the head; 0 in the middle of a prompt.
    pub wanted: usize,
}

/// How the rotary embedding of a sequence's tokens depends on its length (decision 0005).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lengths {
    /// A sequence that grows longer than this is computed anew, for its embedding is another one from there on.
    pub restart_above: Option<usize>,
    /// Beyond this, every length has an embedding of its own, and a token keeps the one that it was computed with.
    pub each_above: Option<usize>,
}

impl Lengths {
    /// The same number for all lengths that have the same embedding.
    pub fn turn(&self, length: usize) -> usize {
        match self.each_above {
            Some(border) if length > border => length + 1,
            _ => usize::from(self.restart_above.is_some_and(|border| length > border)),
        }
    }

    /// How many tokens at most are turned as the first one is, in a sequence whose prompt has `rope_len`.
    pub fn alike_up_to(&self, rope_len: usize) -> usize {
        let within =
            |border: Option<usize>| border.filter(|b| rope_len <= *b).unwrap_or(usize::MAX);
        let own = self.each_above.map_or(usize::MAX, |border| border.max(rope_len));
        own.min(within(self.restart_above))
    }
}

impl Step {
    /// Adds a sequence's next `tokens`, which come after `past` tokens in the cache. Those before `rope_len` are rotated
    /// as in a sequence of that length, later ones as in one that ends with them; so the chunks of a prompt make no
    /// difference. The last `wanted` rows reach the head.
    pub fn push(
        &mut self,
        tokens: &[u32],
        past: usize,
        rope_len: usize,
        blocks: &[u32],
        wanted: usize,
    ) {
        debug_assert!(!tokens.is_empty() && wanted <= tokens.len());
        let start = self.tokens.len();
        let positions = past..past + tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend(positions.clone().map(|p| p as u32));
        self.lengths.extend(positions.clone().map(|p| rope_len.max(p + 1) as u32));
        let rows = start..self.tokens.len();
        let blocks = blocks.to_vec();
        self.spans.push(Span { rows, slot: 0, context: positions.end, blocks, wanted });
    }

    /// The rows that reach the head, in order.
    pub fn wanted_rows(&self) -> impl Iterator<Item = usize> + '_ {
        self.spans.iter().flat_map(|s| s.rows.end - s.wanted..s.rows.end)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_alike_up_to_the_length_where_their_embedding_changes() {
        for (restart_above, each_above) in
            [(None, None), (Some(5), None), (None, Some(7)), (Some(4), Some(9))]
        {
            let lengths = Lengths { restart_above, each_above };
            for rope_len in 1..15 {
                let turn = |position: usize| lengths.turn(rope_len.max(position + 1));
                let alike = (0..30).take_while(|p| turn(*p) == turn(0)).count();
                let said = lengths.alike_up_to(rope_len);
                assert!(
                    said == alike || said == usize::MAX && alike == 30,
                    "{lengths:?} {rope_len}"
                );
            }
        }
    }
}
